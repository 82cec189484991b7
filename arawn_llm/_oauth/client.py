"""The one door to authlib: authorization URL, code to tokens, refresh, revocation."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import SecretStr

from arawn_llm._oauth.tokens import Tokens
from arawn_llm._providers import Issuer
from arawn_llm._schema import is_header_value
from arawn_llm.errors import CredentialError, LoginRequiredError

TRIES = 4
_BACKOFF = 0.25  # seconds before the second try; each further wait doubles
_LIMIT = (10.0, 60.0)  # seconds to connect, and between two pieces of an answer
_LONGEST_WAIT = 20.0  # seconds; an issuer that wants more time is left alone
_LONGEST_LIFE = 10 * 365 * 86400  # seconds; what an issuer says beyond is no lifetime
_ERROR_CODE = re.compile(r"[a-z0-9_.-]{1,64}")
_FINAL = frozenset({"invalid_grant", "invalid_client", "unauthorized_client"})  # RFC 6749, section 5.2
_AGAIN = ("log in again: arawn auth",)


@dataclass(frozen=True)
class Attempt:
    """Hold what one login keeps to itself until the code comes back."""

    issuer: Issuer
    redirect_uri: str
    state: str = field(repr=False)
    verifier: str = field(repr=False)

    def url(self) -> str:
        """Give the address at which the person consents."""
        with _session(self.issuer.client_id or "", "form") as session:
            return str(
                session.create_authorization_url(
                    self.issuer.authorize_url,
                    state=self.state,
                    code_verifier=self.verifier,
                    redirect_uri=self.redirect_uri,
                    scope=self.issuer.scope,
                )[0]
            )

    def finish(self, answer: SecretStr) -> Tokens:
        """Turn what came back into tokens: a redirect's URL, `code#state`, or a bare code.

        Raises:
            CredentialError: It holds no code, it answers another login, consent was denied, or the issuer
                gave no tokens.
        """
        code, failure = _read_code(answer.get_secret_value().strip(), self.state)
        if code is None:
            raise CredentialError(f"{failure}: nothing was saved", hints=("start again: arawn auth",))
        issuer = self.issuer
        body = urlencode({"state": self.state}) if issuer.token_request == "json" else ""
        before = Tokens(issuer.client_id or "", issuer.token_url, issuer.token_request, issuer.scope)

        def exchange(session: Any) -> Mapping[str, Any]:
            return session.fetch_token(  # type: ignore[no-any-return]
                issuer.token_url,
                body,
                code=code.get_secret_value(),
                code_verifier=self.verifier,
                redirect_uri=self.redirect_uri,
                allow_redirects=False,
            )

        try:
            return _ask(exchange, before, TRIES)
        except CredentialError as exc:
            raise type(exc)(f"{exc}: nothing was saved", hints=exc.hints) from None


def begin(issuer: Issuer, redirect_uri: str) -> Attempt:
    """Draw a fresh state and a fresh verifier (RFC 7636, section 4.1)."""
    from authlib.common.security import generate_token

    return Attempt(issuer, redirect_uri, generate_token(32), generate_token(64))


def refresh(tokens: Tokens, tries: int, keep: Callable[[Tokens], object]) -> Tokens:
    """Trade the refresh token for new tokens, at the issuer it came from (RFC 6749, section 6).

    Args:
        tokens: The old ones.
        tries: How often to ask an issuer that gives no answer.
        keep: Called with the new ones as soon as they are there, whatever interrupts the caller.

    Raises:
        LoginRequiredError: The issuer said no.
        CredentialError: It gave no answer in all tries.
    """
    return _ask(
        lambda session: session.refresh_token(tokens.token_url, tokens.refresh, allow_redirects=False),
        tokens,
        tries,
        keep,
    )


def revoke(url: str, tokens: Tokens) -> str:
    """Tell the issuer to forget the tokens (RFC 7009); say what came of it."""
    from requests import RequestException

    host = urlsplit(url).netloc
    with _session(tokens.client_id, "form") as session:
        for kind in ("refresh", "access"):
            try:
                token, hint = getattr(tokens, kind), f"{kind}_token"
                if token and not session.revoke_token(url, token, hint, allow_redirects=False).ok:
                    return f"not revoked: {host} refused"
            except RequestException as exc:
                return f"not revoked: {host}: {type(exc).__name__}"
    return f"revoked at {host}"


def _read_code(text: str, expected: str) -> tuple[SecretStr | None, str]:
    from authlib.oauth2 import OAuth2Error
    from authlib.oauth2.rfc6749.parameters import parse_authorization_code_response

    if "code=" in text or "error=" in text:
        text = "?" + text.rpartition("?")[2]
    else:
        code, mark, state = text.partition("#")
        text = "?" + urlencode({"code": code, "state": state if mark else expected})
    error = dict(parse_qsl(urlsplit(text).query)).get("error")
    if error:
        denied = error == "access_denied"
        return None, "consent was denied" if denied else f"the issuer answered {_error_code(error)}"
    try:
        return SecretStr(parse_authorization_code_response(text, state=expected)["code"]), ""
    except OAuth2Error as exc:
        other = exc.error == "mismatching_state"
        return None, f"what came back {'belongs to another login' if other else 'holds no code'}"


def _session(client_id: str, token_request: str) -> Any:
    from authlib.integrations.requests_client import OAuth2Session

    session = OAuth2Session(
        client_id,
        token_endpoint_auth_method="none" if token_request == "form" else token_request,
        code_challenge_method="S256",
        default_timeout=_LIMIT,
    )
    session.register_client_auth_method(("json", _to_json))
    for step in ("access_token_response", "refresh_token_response"):
        session.register_compliance_hook(step, _check)
    return session


def _to_json(client: Any, method: str, uri: str, headers: dict[str, str], body: str) -> tuple[Any, ...]:
    """Send a token request as JSON, for an issuer that reads no form."""
    headers["Content-Type"] = "application/json"
    return uri, headers, json.dumps(dict(parse_qsl(body)) | {"client_id": client.client_id})


def _check(response: Any) -> Any:
    """Let only an answer pass, without what would keep authlib from reading one."""
    from requests import HTTPError

    if response.status_code == 429 or response.is_redirect or response.status_code >= 500:
        raise HTTPError(response=response)
    answer = None
    with suppress(ValueError):
        answer = response.json()
    if isinstance(answer, dict) and "access_token" in answer:
        # The issuer's own clock says nothing here, and an odd lifetime must not cost the new refresh token.
        answer.pop("expires_at", None)
        answer["expires_in"] = _lifetime(answer.get("expires_in"))
        response.json = lambda: answer
    return response


def _ask(
    send: Callable[[Any], Mapping[str, Any]],
    before: Tokens,
    tries: int,
    keep: Callable[[Tokens], object] = lambda tokens: None,
) -> Tokens:
    """Send until there is an answer; the errors hold no other, whose frames would show tokens."""
    from authlib.integrations.base_client import OAuthError
    from requests import RequestException

    def once(asked: float) -> Tokens | None:
        with _session(before.client_id, before.token_request) as session:
            tokens = _read_tokens(send(session), before, asked)
        if tokens:
            keep(tokens)
        return tokens

    failure, host, wait = "", urlsplit(before.token_url).netloc, 0.0
    for attempt in range(tries):
        time.sleep(wait)
        wait = _BACKOFF * 2**attempt * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        try:
            # In a thread of its own, so that Ctrl-C falls after an answer is kept, not before.
            with ThreadPoolExecutor(1, "arawn-login") as pool:
                tokens = pool.submit(once, time.time()).result()
            if tokens is not None:
                return tokens
            failure = "an answer without a bearer token"
            break
        except OAuthError as exc:
            failure = _error_code(exc.error)
            if failure in _FINAL:
                break
        except (RequestException, ValueError) as exc:
            failure, wait = _failure(exc), max(wait, _retry_after(exc))
            # Sent again, a refresh token that was taken would end the login.
            if _may_have_arrived(exc) or wait > _LONGEST_WAIT:
                break
    if failure in _FINAL:
        raise LoginRequiredError(f"{host} gives no tokens for this login: {failure}", hints=_AGAIN)
    raise CredentialError(
        f"{host} gave no tokens: {failure}",
        hints=("try again in a minute", "is this machine online, and does a proxy stand between?"),
    )


def _may_have_arrived(exc: Exception) -> bool:
    """Tell whether a request that got no answer may have reached the issuer all the same."""
    from requests import ConnectionError, ConnectTimeout, ReadTimeout
    from requests.exceptions import ProxyError, SSLError

    if isinstance(exc, ConnectTimeout | ProxyError | SSLError) or not isinstance(
        exc, ConnectionError | ReadTimeout
    ):
        return False
    reason = getattr(exc.args[0], "reason", None) if exc.args else None
    return type(reason).__name__ not in {"NewConnectionError", "NameResolutionError"}


def _failure(exc: Exception) -> str:
    status = getattr(getattr(exc, "response", None), "status_code", None)
    if status:
        return f"HTTP {status}"
    return "no JSON object" if isinstance(exc, ValueError) else type(exc).__name__


def _retry_after(exc: Exception) -> float:
    """Give the seconds that an issuer asks for (RFC 9110, section 10.2.3); a date counts as none."""
    said = getattr(getattr(exc, "response", None), "headers", {}).get("Retry-After", "")
    return float(said) if said.isascii() and said.isdigit() else 0.0


def _error_code(error: object) -> str:
    """Give an error's code if it looks like one: it came from outside and goes into a message."""
    word = error.get("type") if isinstance(error, dict) else error
    return word if isinstance(word, str) and _ERROR_CODE.fullmatch(word) else "an unknown error"


def _lifetime(value: Any) -> int | None:
    try:
        return min(max(0, int(float(value))), _LONGEST_LIFE) or None
    except (TypeError, ValueError, OverflowError):
        return None


def _read_tokens(answer: Mapping[str, Any], before: Tokens, asked: float) -> Tokens | None:
    """Read an answer, keeping what it leaves out: RFC 6749 lets it omit refresh token, lifetime and scope."""
    access, new, kind = (answer.get(key) for key in ("access_token", "refresh_token", "token_type"))
    if not isinstance(access, str) or not is_header_value(access) or str(kind or "bearer").lower() != "bearer":
        return None
    return replace(
        before,
        access=access,
        refresh=new if isinstance(new, str) and new else before.refresh,
        issued_at=asked,
        lifetime=answer.get("expires_in"),
        scope=str(answer.get("scope") or before.scope),
    )
