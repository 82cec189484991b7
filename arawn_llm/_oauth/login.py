"""One login's access token, refreshed once for every thread, task and process."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from arawn_llm._oauth import client
from arawn_llm._oauth.tokens import LOCK_LIMIT, LockedError, Store, Tokens
from arawn_llm._providers import Issuer
from arawn_llm._secrets import KEYRING
from arawn_llm.errors import CredentialError, LoginRequiredError

_PAUSE = 30.0  # seconds before a refresh that failed early is tried again
_SHARED = 5.0  # seconds for which a failure speaks for those who waited meanwhile
_SHORT = 2.0  # seconds to wait for another's refresh while the old token is still good

_log = logging.getLogger("arawn_llm")


@dataclass
class Login:
    """Give the access token of a login, fresh, while there is one.

    Attributes:
        source: Where the tokens are kept.
    """

    issuer: Issuer
    store: Store
    source: str = "the login of arawn auth"
    _held: Tokens | None = field(default=None, repr=False)
    _refused: str = field(default="", repr=False)
    _spent: str = field(default="", repr=False)
    _not_before: float = field(default=0.0, repr=False)
    _unkept: bool = field(default=False, repr=False)
    _failure: tuple[float, str, CredentialError] | None = field(default=None, repr=False)

    def held(self) -> str | None:
        """Give the token in memory if it needs no refresh; reads and asks nothing."""
        held = self._held
        return held.access if held and not self._unkept and not self._is_stale(held) else None

    def access_token(self, *, fresh: bool = False) -> str | None:
        """Give the access token, refreshed where needed; None if nobody is logged in.

        Args:
            fresh: Look again where the tokens are kept.

        Raises:
            LoginRequiredError: The login is of no more use.
            CredentialError: The tokens cannot be read or refreshed now; they are kept.
        """
        if self._unkept and self._held:
            self._keep(self._held)
        held = self._held or self._look(fresh=fresh)
        if held and self._is_stale(held):
            limit = _SHORT if self._is_usable(held) else LOCK_LIMIT
            try:
                with self.store.lock(lambda: self.held() is not None, limit) as is_mine:
                    if not is_mine:
                        return self.held()
                    held = self._newest(held)
                    self._held = held = self._refresh(held) if held and self._is_stale(held) else held
            except LockedError:
                if held is None or not self._is_usable(held):
                    raise
                self._not_before = time.time() + _PAUSE
        self._held = held
        return held.access if held else None

    def _newest(self, held: Tokens) -> Tokens | None:
        """Look what is kept, for another process may have refreshed or logged out, beside what is not kept."""
        kept = self._look(fresh=True)
        if self._unkept or (kept is None and KEYRING.failure):
            return max((held, kept or held), key=lambda tokens: tokens.issued_at)
        return kept

    def _is_usable(self, tokens: Tokens) -> bool:
        return tokens.access != self._refused and not tokens.is_expired(time.time())

    def refuse(self, token: str | None) -> bool:
        """Note that a token was refused; tell whether another may be had.

        Args:
            token: What was refused; None for what is in memory.
        """
        held = self._held
        if held is not None and token in {None, held.access}:
            self._refused, self._not_before = held.access, 0.0
        return held is not None

    def _is_stale(self, tokens: Tokens) -> bool:
        now = time.time()
        return tokens.access == self._refused or (tokens.is_due(now) and now >= self._not_before)

    def _look(self, *, fresh: bool) -> Tokens | None:
        found = self.store.read(fresh=fresh)
        if found is None:
            return None
        tokens, self.source = found
        if tokens.token_url != self.issuer.token_url:
            there, here = urlsplit(tokens.token_url).netloc, urlsplit(self.issuer.token_url).netloc
            raise _lost(f"the login was made at {there}, and the configuration now says {here}")
        return tokens

    def _refresh(self, held: Tokens) -> Tokens:
        usable = self._is_usable(held)
        if not held.refresh or held.refresh == self._spent:
            if usable:
                return held
            raise _lost("the login has ended, and there is nothing to renew it with")
        if self._failure and self._failure[1] == held.refresh and time.time() < self._failure[0] + _SHARED:
            raise CredentialError(str(self._failure[2]), hints=self._failure[2].hints)
        try:
            self.store.rehearse(self.source)
            return client.refresh(held, 1 if usable else client.TRIES, self._keep)
        except LoginRequiredError:
            self._spent = held.refresh
            raise
        except CredentialError as exc:
            if not usable:
                self._failure = time.time(), held.refresh, exc
                raise
            self._not_before = time.time() + _PAUSE
            _log.warning("the login could not be refreshed early and goes on for now: %s", exc)
            return held

    def _keep(self, renewed: Tokens) -> None:
        try:
            self.source, self._unkept = self.store.write(renewed, self.source), False
        except CredentialError as exc:
            self._unkept = True
            _log.error("the login was refreshed and could not be kept yet: %s", exc)


def _lost(words: str) -> LoginRequiredError:
    return LoginRequiredError(words, hints=("log in again: arawn auth",))
