"""What each error is over HTTP: its status, its code and its body."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from arawn_llm import errors
from arawn_llm.errors import ArawnError


class SessionNotFoundError(ArawnError):
    """No session has this id, or it has expired."""


class Refusal(ArawnError):
    """The server itself refuses a request, before any backend is asked."""

    def __init__(self, status: int, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})


# 4xx is what the client can mend; 5xx is between this server and its backends. A key that a backend refuses is
# ours, so it is no 401: that would tell the client that its own token is wrong.
STATUSES: Mapping[type[ArawnError], tuple[int, str]] = MappingProxyType(
    {
        errors.ProfileNotFoundError: (404, "profile_not_found"),
        errors.ModelNotAvailableError: (404, "model_not_available"),
        SessionNotFoundError: (404, "session_not_found"),
        errors.InvalidRequestError: (400, "invalid_request"),
        errors.ContextWindowError: (413, "context_window"),
        errors.EmbedderMismatchError: (409, "embedder_mismatch"),
        errors.RateLimitError: (429, "backend_rate_limit"),
        errors.AuthenticationError: (502, "backend_authentication"),
        errors.BackendServerError: (502, "backend_failed"),
        errors.ResponseFormatError: (502, "backend_answer"),
        errors.StreamInterruptedError: (502, "stream_interrupted"),
        errors.BackendError: (502, "backend_failed"),
        errors.BackendConnectionError: (503, "backend_unreachable"),
        errors.CredentialError: (503, "credential_missing"),
        errors.ConfigError: (503, "configuration"),
        errors.MissingExtraError: (503, "not_installed"),
        errors.BackendTimeoutError: (504, "backend_timeout"),
        errors.StreamTimeoutError: (504, "backend_timeout"),
    }
)
REFUSALS: Mapping[int, str] = MappingProxyType(
    {
        400: "malformed",
        401: "unauthorized",
        403: "forbidden",
        404: "not_found",
        405: "method_not_allowed",
        408: "request_timeout",
        413: "content_too_large",
        415: "unsupported_media_type",
        422: "invalid_body",
        429: "too_many_requests",
        500: "internal_error",
    }
)
CODES = sorted({*REFUSALS.values(), *(code for _, code in STATUSES.values())})


def describe(exc: ArawnError, request_id: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Give status, headers and body of an error."""
    headers: dict[str, str] = {}
    if isinstance(exc, Refusal):
        status, code, headers = exc.status, REFUSALS[exc.status], dict(exc.headers)
    else:
        kinds = (kind for kind in type(exc).__mro__ if kind in STATUSES)
        status, code = STATUSES[kind] if (kind := next(kinds, None)) else (500, REFUSALS[500])
    wait = getattr(exc, "retry_after", None)
    if not isinstance(exc, Refusal) and (wait is not None or status == 429):
        headers["retry-after"] = str(math.ceil(wait or 1))
    body = {"code": code, "message": str(exc), "hints": list(exc.hints), "request_id": request_id}
    return status, headers, body
