"""What an exception from below means. Sorted by class and status; by words only where a row gives them."""

from __future__ import annotations

import ast
import json
import re
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from arawn_llm import errors
from arawn_llm.errors import BackendError

# Class names from httpx, httpcore, aiohttp, ssl, socket and json: no class of theirs has to be imported.
_CONNECT = {
    "ConnectError",
    "ConnectTimeout",
    "ClientConnectorError",
    "gaierror",
    "SSLError",
    "SSLZeroReturnError",
}
_CONNECT |= {"ConnectionRefusedError", "SSLCertVerificationError", "ClientConnectorCertificateError"}
_BROKEN = {
    "ReadError",
    "WriteError",
    "RemoteProtocolError",
    "ServerDisconnectedError",
    "ConnectionResetError",
}
_BROKEN |= {"BrokenPipeError", "ClientOSError"}
_TIMEOUT = {"ReadTimeout", "WriteTimeout", "PoolTimeout", "TimeoutError", "Timeout", "APITimeoutError"}
_CLIENTS = ("litellm.llms", "openai")
_LIBRARIES = {"httpx", "openai"}  # their exceptions hold the response that came
_LONGEST_ARG = 2000  # characters kept of what an exception from below says
_NO_ANSWER = {"JSONDecodeError", "APIResponseValidationError", "ClientPayloadError"}
_NO_ANSWER |= {"MalformedEventError"}
_WITHOUT_WORDS = _CONNECT | _TIMEOUT | _BROKEN | _NO_ANSWER

# What a failed connection says of its cause, in the words of each system and library; the first that fits.
_CAUSES = (
    (
        r"gaierror|getaddrinfo|Name or service|nodename nor|name resolution",
        "no host of that name is known here",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|CertificateError",
        "the certificate was refused: SSL_CERT_FILE names your own authority",
    ),
    (r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE", "what answers there speaks http, not https"),
    (
        r"RemoteProtocolError|ServerDisconnected",
        "whoever is there hung up: https where http is asked, or a proxy?",
    ),
    (r"socksio|python-socks", 'ALL_PROXY names a SOCKS proxy: pip install "httpx[socks]", or unset it'),
    (r"FileNotFoundError", "SSL_CERT_FILE or SSL_CERT_DIR names nothing that is there"),
    (r"ConnectionRefusedError|Connection refused|actively refused", "nothing listens there"),
)

_BY_STATUS: dict[int, type[BackendError]] = {
    401: errors.AuthenticationError,
    403: errors.AuthenticationError,
    404: errors.ModelNotAvailableError,
    408: errors.BackendTimeoutError,
    429: errors.RateLimitError,
}


@dataclass(frozen=True)
class Fault:
    """Say what went wrong, in our terms.

    Attributes:
        detail: What the backend itself said.
        cause: What kept a connection from being made.
    """

    kind: type[BackendError]
    status_code: int | None = None
    retry_after: float | None = None
    request_id: str | None = None
    detail: str = ""
    cause: str = ""


def diagnose(exc: BaseException, overflow_texts: Sequence[str], outer: BaseException | None) -> Fault:
    """Find the true cause of an exception and what the backend said.

    Args:
        exc: What LiteLLM raised.
        overflow_texts: What this backend says of a prompt that is too long.
        outer: What the caller was handling already, which explains nothing here.
    """
    chain = list(walk(exc, outer))
    names = {base.__name__ for each in chain for base in type(each).__mro__}
    status, detail, headers = _status(chain), _detail(chain), _headers(chain)
    kind = _kind(names, status, detail.lower(), overflow_texts)
    cause = _cause(chain) if status is None else ""
    if cause and kind is errors.BackendServerError:
        kind = errors.BackendConnectionError
    return Fault(
        kind=kind,
        status_code=status,
        retry_after=_seconds(headers.get("retry-after")),
        request_id=headers.get("x-request-id") or headers.get("request-id"),
        detail="" if cause or (status is None and names & _WITHOUT_WORDS) else detail,
        cause=cause,
    )


def _cause(chain: Sequence[BaseException]) -> str:
    """Name what kept a connection from being made, where that is known."""
    below = [each for each in chain if not type(each).__module__.startswith(("litellm", "openai"))]
    said = "\n".join(f"{type(each).__name__}: {each.args}" for each in below)  # and no word of a server's
    return next((words for pattern, words in _CAUSES if re.search(pattern, said)), "")


def name_proxy(base_url: str) -> str:
    """Name the proxy that requests to an address go through, without its password; nothing for none."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(base_url)
    proxies = getproxies()
    proxy = urlsplit(proxies.get(parts.scheme) or proxies.get("all") or "")
    if not proxy.hostname or proxy_bypass(parts.netloc):
        return ""
    return f"{proxy.hostname}:{proxy.port}" if proxy.port else proxy.hostname


def _status(chain: list[BaseException]) -> int | None:
    """Give the status that came over the wire; LiteLLM invents one for much that had none."""
    libraries = [each for each in chain if type(each).__module__.partition(".")[0] in _LIBRARIES]
    sent = [getattr(getattr(each, "response", None), "status_code", None) for each in libraries]
    return next((code for code in sent if isinstance(code, int) and code >= 300), None)


def _kind(names: set[str], status: int | None, said: str, overflow_texts: Sequence[str]) -> type[BackendError]:
    """Choose the class: by the status where one came, else by what broke."""
    too_long = "ContextWindowExceededError" in names or any(text in said for text in overflow_texts)
    if status is not None:
        if too_long and status in {400, 413, 422, 500}:
            return errors.ContextWindowError
        fallback = errors.InvalidRequestError if status < 500 else errors.BackendServerError
        return _BY_STATUS.get(status, fallback)
    order: tuple[tuple[object, type[BackendError]], ...] = (
        (names & _CONNECT, errors.BackendConnectionError),
        (names & _TIMEOUT, errors.BackendTimeoutError),
        (names & _BROKEN, errors.BackendConnectionError),
        (names & _NO_ANSWER, errors.BackendServerError),
        (names & {"UnsupportedParamsError", "UnsupportedModelError"}, errors.InvalidRequestError),
    )
    return next((kind for holds, kind in order if holds), errors.BackendServerError)


def walk(exc: BaseException | None, outer: BaseException | None = None) -> Iterator[BaseException]:
    """Yield an exception and all that led to it, each once."""
    seen: set[int] = set()
    pending = [exc]
    while pending:
        each = pending.pop(0)
        if each is None or each is outer or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        pending += [getattr(each, "original_exception", None), each.__cause__, each.__context__]


def clean(exc: BaseException, outer: BaseException | None, hidden: Sequence[str]) -> None:
    """Take prompt and key out of what an exception carries: words, debug text, headers, frames' locals."""
    for each in walk(exc, outer):
        traceback.clear_frames(each.__traceback__)
        each.args = tuple(_redact_words(arg, hidden) for arg in each.args)
        for holder, names in (
            (each, ("message", "text", "body")),
            (getattr(each, "response", None), ("_content",)),
        ):
            _redact_fields(holder, names, hidden)
        if getattr(each, "litellm_debug_info", None):
            each.litellm_debug_info = None  # type: ignore[attr-defined]
        for holder in (each, getattr(each, "response", None)):  # httpx's request has the key and the prompt
            fields = getattr(holder, "__dict__", {})
            for name in {"_request", "request"} & fields.keys():
                request = fields[name]
                fields[name] = request and type(request)(request.method, request.url)


def _redact_fields(holder: Any, names: Sequence[str], hidden: Sequence[str]) -> None:
    fields = getattr(holder, "__dict__", {})
    fields.pop("_text", None)  # httpx keeps the decoded body beside the bytes
    for name in names:
        value = fields.get(name)
        if isinstance(value, str | bytes):
            text = _redact_words(value, hidden)
            fields[name] = text.encode() if isinstance(value, bytes) else text
        elif name == "body" and value is not None:
            fields[name] = None


def _redact_words(words: Any, hidden: Sequence[str]) -> Any:
    text = words.decode("utf-8", "replace") if isinstance(words, bytes) else words
    return redact(text, hidden, _LONGEST_ARG) if isinstance(text, str) else text


def _headers(chain: list[BaseException]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in chain:
        for source in (
            getattr(each, "litellm_response_headers", None),
            getattr(getattr(each, "response", None), "headers", None),
            getattr(each, "headers", None),
        ):
            if source is not None and hasattr(source, "items"):
                found = {str(k).lower(): str(v) for k, v in source.items()} | found
    return found


def _seconds(value: str | None) -> float | None:
    """Read Retry-After: seconds, or a date (RFC 9110, section 10.2.3)."""
    if value and re.fullmatch(r"\d{1,6}(\.\d+)?", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value or "").timestamp() - time.time())
    except ValueError:
        return None


def _detail(chain: list[BaseException]) -> str:
    """Dig the provider's own sentence out of the JSON that LiteLLM keeps in its message."""
    texts = [str(getattr(each, "message", "") or "") for each in reversed(chain)]
    for text in [*texts, *filter(None, map(_response_text, chain))]:
        said = _body(text)
        error = said.get("error", said) if isinstance(said, dict) else said
        words = error.get("message") if isinstance(error, dict) else error
        if isinstance(words, str):
            return words
    # LiteLLM keeps the plain words of an error in a stream in the exception of the provider's client.
    clients = [each for each in reversed(chain) if type(each).__module__.startswith(_CLIENTS)]
    if type(chain[0]).__module__.startswith("arawn_llm"):
        return str(chain[0])
    plain = next((str(getattr(each, "message", "") or "") for each in clients), "") or texts[-1]
    words = plain.partition(". Handle with `")[0].rpartition("Exception - ")[2]
    return "" if words.startswith(("b'", "{", "Error code: ")) else words


def _response_text(exc: BaseException) -> str:
    """Give the body of the answer that an exception of httpx holds, where it was read."""
    content = getattr(getattr(exc, "response", None), "_content", None)
    return content.decode("utf-8", "replace") if isinstance(content, bytes) else ""


def _body(text: str) -> object:
    """Read the JSON object, or the Python one that LiteLLM made of it, within a message."""
    body = text[text.find("{") :] if "{" in text else ""
    try:
        return json.JSONDecoder().raw_decode(body)[0]
    except ValueError:
        pass
    try:
        return ast.literal_eval(body.rstrip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def redact(text: str, hidden: Sequence[str], width: int = 300) -> str:
    """Cut a provider's sentence to `width` and blank what it repeats of the hidden texts."""
    text = " ".join(text.split())[:width]
    for secret in hidden:
        if len(secret) >= 4:
            text = text.replace(secret, "…")
    marks = [any(text[i : i + 12] in secret for secret in hidden) for i in range(len(text) - 11)]
    kept = ["" if any(marks[max(0, i - 11) : i + 1]) else character for i, character in enumerate(text)]
    return "".join(kept)
