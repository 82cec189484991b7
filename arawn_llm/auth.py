"""Log in, look at a login, and log out: what `arawn auth` does, for Python."""

from __future__ import annotations

import getpass
import sys
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

from pydantic import SecretStr

from arawn_llm._config import Config, found_config
from arawn_llm._layers import can_open_browser, client_id_variable, data_folder
from arawn_llm._oauth import client
from arawn_llm._oauth.listener import Listener
from arawn_llm._oauth.tokens import Store, Tokens
from arawn_llm._providers import PROVIDERS, Issuer, Provider
from arawn_llm._resolve import resolve_issuer
from arawn_llm._secrets import find_key
from arawn_llm.errors import CredentialError, LoginRequiredError

__all__ = ["LoginStatus", "LogoutReport", "login", "logout", "status"]


@dataclass(frozen=True)
class LoginStatus:
    """Say how a login stands; holds no token.

    Attributes:
        logged_in: Whether there are tokens.
        issuer: The host that gave them, or would.
        place: Where they are kept; without a login, where a token was found that stands in for one.
        expires_at: When the access token ends; None where the issuer did not say.
        renewable: Whether it is refreshed by itself.
        scope: What it allows, in the issuer's words.
    """

    logged_in: bool
    issuer: str
    place: str = ""
    expires_at: datetime | None = None
    renewable: bool = False
    scope: str = ""


@dataclass(frozen=True)
class LogoutReport:
    """Say from which places a logout removed tokens, and what the issuer made of it."""

    removed: tuple[str, ...]
    revocation: str


# Three lines, and two ways on.
_NO_CLIENT_ID = """no client id to log in with: Anthropic registers no other programs, and none is borrowed
  1. with an API key: backend = "anthropic", and arawn secrets set anthropic
  2. registered with a gateway or identity provider: [oauth.claude] client_id, authorize_url, token_url"""


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")


def _ask(question: str) -> str:
    if sys.stdin.isatty():
        return getpass.getpass(f"{question} (it is not shown): ")
    _tell(f"{question}:")
    return sys.stdin.readline()


def login(
    *,
    config: Config | None = None,
    client_id: str | None = None,
    browser: bool | None = None,
    timeout: float = 300.0,
    tell: Callable[[str], object] = _tell,
    ask: Callable[[str], str] = _ask,
) -> LoginStatus:
    """Let the person consent, and keep the tokens.

    Args:
        config: What `load_config` gave; the files found from the working directory without it.
        client_id: The registration to log in with; ARAWN_OAUTH_CLIENT_ID and the file without it.
        browser: Whether to open one and listen for it; guessed without it. Otherwise what the browser
            showed has to be pasted.
        timeout: Seconds to wait for the browser to come back.
        tell: Says something to the person; standard error without it.
        ask: Asks the person for what the browser showed.

    Raises:
        LoginRequiredError: There is no client id to log in with.
        CredentialError: Consent was denied or did not come, the issuer refused, or there is nowhere to keep
            tokens. Nothing was saved.
    """
    issuer, store = _issuer(config)
    issuer = replace(issuer, client_id=client_id or client_id_variable() or issuer.client_id)
    if not issuer.client_id:
        raise LoginRequiredError(_NO_CLIENT_ID)
    with store.lock():
        failure = store.try_out()
    if failure:
        tell(f"The keyring cannot be used ({failure}): the tokens will stand in {store.file}, mode 0600.")
    if can_open_browser() if browser is None else browser:
        return _by_browser(issuer, store, timeout, tell)
    attempt = client.begin(issuer, issuer.redirect_uri)
    tell(f"Open this address in a browser anywhere:\n{attempt.url()}")
    answer = SecretStr(ask("Paste the code that the page shows, or the whole address it ended at"))
    return _finish(store, attempt, answer)


def status(*, config: Config | None = None) -> LoginStatus:
    """Say how the login stands; asks nobody but the keyring."""
    issuer, store = _issuer(config)
    found = store.read(fresh=True)
    if found:
        return _status(*found)
    row = _backend()[0]
    instead = find_key(row.keyring_name, row.env_var, row.key, None)
    return LoginStatus(False, urlsplit(issuer.token_url).netloc, instead.source if instead else "")


def logout(*, config: Config | None = None) -> LogoutReport:
    """Revoke the tokens where the issuer can, and remove every copy.

    Raises:
        CredentialError: A copy may be left; says where.
    """
    issuer, store = _issuer(config)
    with store.lock():
        try:
            found = store.read(fresh=True)
        except CredentialError as exc:
            return LogoutReport(tuple(store.remove()), f"not revoked: {exc}")
        if found is None:
            revocation = "there was nothing to revoke"
        elif issuer.revoke_url is None or found[0].token_url != issuer.token_url:
            revocation = "not revoked: no revoke_url is known; the tokens end by themselves"
        else:
            revocation = client.revoke(issuer.revoke_url, found[0])
        return LogoutReport(tuple(store.remove()), revocation)


def _backend() -> tuple[Provider, Issuer]:
    return next((row, row.login) for row in PROVIDERS.values() if row.login)


def _issuer(config: Config | None) -> tuple[Issuer, Store]:
    issuer = resolve_issuer(config or found_config(), _backend()[1])
    return issuer, Store(issuer.name, data_folder())


def _status(tokens: Tokens, place: str) -> LoginStatus:
    ends = None
    if tokens.lifetime is not None:
        ends = datetime.fromtimestamp(tokens.issued_at + tokens.lifetime, UTC).astimezone()
    host = urlsplit(tokens.token_url).netloc
    return LoginStatus(True, host, place, ends, bool(tokens.refresh), tokens.scope)


def _by_browser(issuer: Issuer, store: Store, timeout: float, tell: Callable[[str], object]) -> LoginStatus:
    listener = Listener(tell)
    page = ("Not logged in", "The login was broken off.", 503)
    try:
        attempt = client.begin(issuer, listener.redirect_uri)
        listener.state = attempt.state
        tell(f"Opening the browser. If none appears, go to:\n{attempt.url()}")
        # Some browsers keep their caller until they are closed.
        threading.Thread(target=_open, args=(attempt.url(), tell), name="arawn-browser", daemon=True).start()
        answer = listener.wait(timeout)
        if answer is None:
            words = f"the browser did not come back within {timeout:g} s: nothing was saved"
            raise CredentialError(words, hints=("without a browser here: arawn auth --no-browser",))
        found = _finish(store, attempt, answer)
        page = ("Logged in", "You can close this page.", 200)
        return found
    except CredentialError as exc:
        page = ("Not logged in", f"{exc}.", 400)
        raise
    finally:
        listener.close(*page)


def _open(url: str, tell: Callable[[str], object]) -> None:
    with suppress(webbrowser.Error):
        if webbrowser.open(url):
            return
    tell("No browser could be opened here: open the address by hand.")


def _finish(store: Store, attempt: client.Attempt, answer: SecretStr) -> LoginStatus:
    tokens = attempt.finish(answer)
    with store.lock():
        return _status(tokens, store.write(tokens))
