"""Who gives a target its key or token."""

from __future__ import annotations

from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Thread
from typing import Protocol

from arawn_llm._layers import data_folder
from arawn_llm._oauth.login import Login
from arawn_llm._oauth.tokens import Store
from arawn_llm._providers import NO_KEY, Issuer
from arawn_llm._resolve import Target
from arawn_llm._secrets import KEYRING, FoundKey, find_key
from arawn_llm.errors import LoginRequiredError, MissingCredentialError


class TokenProvider(Protocol):
    """Give the key or token for each call; bring your own for a cloud identity or a company's SSO."""

    def token(self) -> str:
        """Give the token for the next call."""
        ...

    async def atoken(self) -> str:
        """Give the token for the next call."""
        ...

    def invalidate(self) -> bool:
        """Drop a refused token; tell whether another may be had by asking again."""
        ...


def choose_provider(target: Target) -> TokenProvider:
    """Choose who gives a target's key or token."""
    return LoginProvider(target, target.issuer) if target.issuer else KeyProvider(target)


@dataclass
class KeyProvider:
    """Find a target's key once and give it for every call."""

    target: Target
    _found: FoundKey | None = field(default=None, repr=False)

    def token(self) -> str:
        """Give the key.

        Raises:
            MissingCredentialError: None was found; says where it was looked for.
            LoginRequiredError: The backend wants a login's token.
            CredentialError: The key found cannot be sent.
        """
        if self._found is None:
            provider = self.target.provider
            self._found = find_key(
                provider.keyring_name, provider.env_var, self.target.name, self.target.file_key
            )
        if self._found is not None:
            return self._found.value.get_secret_value()
        if self.target.provider.key_required:
            raise self._missing()
        return NO_KEY

    async def atoken(self) -> str:
        """Give the key; the loop goes on while the keyring is asked."""
        if self._found is not None:
            return self._found.value.get_secret_value()
        import asyncio

        return await asyncio.to_thread(self.token)

    def invalidate(self) -> bool:
        """Look the key up again next time; a refused key is not worth a second try."""
        self._found = None
        return False

    @property
    def source(self) -> str:
        """Say where the key was found."""
        return self._found.source if self._found else "nowhere (none was sent)"

    def _missing(self) -> MissingCredentialError | LoginRequiredError:
        provider, target = self.target.provider, self.target
        keyring = f" ({KEYRING.failure})" if KEYRING.failure else ""
        if provider.login:
            return LoginRequiredError(
                f'no login for backend "{provider.key}": looked in the keyring{keyring}, '
                f"in {data_folder()}, and in {provider.env_var}",
                hints=target.hints(LoginRequiredError),
            )
        return MissingCredentialError(
            f'no API key for backend "{provider.key}": looked in the keyring{keyring}, '
            f"in {provider.env_var}, and in {target.place}",
            hints=_without_keyring(target) if keyring else target.hints(MissingCredentialError),
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.target,)


def _without_keyring(target: Target) -> list[str]:
    """List the ways to give a key where there is no keyring."""
    first, *others = [hint for hint in target.hints(MissingCredentialError) if "keyring" not in hint]
    return [first.removeprefix("or "), *others]


# What this thread or task was given last: another may have refreshed before it learns of a refusal.
_given: ContextVar[str | None] = ContextVar("_given", default=None)


@dataclass
class LoginProvider:
    """Give the access token of a login, fresh for every call; else what stands in for one."""

    target: Target
    issuer: Issuer
    source: str = field(default="an unknown place", init=False, compare=False)
    _login: Login = field(init=False, repr=False, compare=False)
    _instead: KeyProvider = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._login = Login(self.issuer, Store(self.issuer.name, data_folder()))
        self._instead = KeyProvider(self.target)

    def token(self) -> str:
        """Give the token, refreshed if it is about to end.

        Raises:
            LoginRequiredError: Nobody is logged in, or the login has ended.
            CredentialError: The token cannot be refreshed now.
        """
        return self._give(self._find())

    def token_within(self, seconds: float) -> str:
        """Give the token, waiting no longer for a refresh; that goes on and is kept all the same.

        Raises:
            TimeoutError: It did not end in time.
        """
        held = self._login.held()
        return self._give(held if held is not None else self._start().result(seconds))

    async def atoken(self) -> str:
        """Give the token, refreshed if it is about to end; the loop goes on meanwhile."""
        import asyncio

        held = self._login.held()
        return self._give(held if held is not None else await asyncio.wrap_future(self._start()))

    def _start(self) -> Future[str]:
        """Find the token in a thread, which the interpreter waits for at its end."""
        future: Future[str] = Future()
        future.set_running_or_notify_cancel()  # whoever stops waiting does not stop it

        def find() -> None:
            try:
                token = self._find()
            except BaseException as exc:  # noqa: BLE001 - whoever waits raises it
                future.set_exception(exc)
            else:
                future.set_result(token)

        Thread(target=find, name="arawn-token").start()
        return future

    def invalidate(self) -> bool:
        """Have the token that this thread or task was given refreshed before the next call."""
        return self._login.refuse(_given.get()) or self._instead.invalidate()

    def _find(self) -> str:
        found, ended = None, None
        try:
            found = self._login.access_token()
        except LoginRequiredError as exc:
            ended = exc
        if found is None:
            try:
                stand_in = self._instead.token()
                self.source = self._instead.source
                return stand_in
            except LoginRequiredError as exc:
                if ended:
                    raise ended from None
                found = self._login.access_token(fresh=True)  # somebody may have logged in meanwhile
                if found is None:
                    raise exc from None
        self.source = self._login.source
        return found

    def _give(self, token: str) -> str:
        _given.set(token)
        return token

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.target, self.issuer)
