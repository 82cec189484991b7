"""Who gives a target its key or token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from arawn_llm._providers import NO_KEY
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

    @property
    def source(self) -> str:
        """Say where the token comes from, without showing it."""
        ...


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
        """Give the key; the keyring is asked once in a process, and briefly."""
        return self.token()

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
        if provider.login:
            return LoginRequiredError(
                f'no login for backend "{provider.key}"', hints=target.hints(LoginRequiredError)
            )
        keyring = f" ({KEYRING.failure})" if KEYRING.failure else ""
        return MissingCredentialError(
            f'no API key for backend "{provider.key}": looked in the keyring{keyring}, '
            f"in {provider.env_var}, and in {target.place}",
            hints=target.hints(MissingCredentialError),
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.target,)
