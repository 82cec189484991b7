"""Every exception that arawn_llm raises.

ArawnError
├─ ConfigError                     path, line, and every problem found
│  ├─ ProfileNotFoundError         what there is, and the nearest name
│  └─ UntrustedFileError           the file, the host, and the command that allows it
├─ CredentialError
│  ├─ MissingCredentialError       the places looked in, and the command that mends it
│  └─ LoginRequiredError           run `arawn auth`
├─ MissingExtraError               the pip command that mends it
├─ EmbedderMismatchError           vectors of another embedder
└─ BackendError                    backend, profile, model, status_code, retry_after, request_id, hints
   ├─ AuthenticationError
   ├─ ModelNotAvailableError
   ├─ BackendConnectionError
   ├─ BackendTimeoutError          an answer not complete within its deadline
   ├─ RateLimitError
   ├─ ContextWindowError
   ├─ InvalidRequestError
   ├─ ResponseFormatError          the text is kept
   ├─ StreamInterruptedError       the partial text is kept
   │  └─ StreamTimeoutError        a StreamInterruptedError and a BackendTimeoutError
   └─ BackendServerError
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

__all__ = [
    "ArawnError",
    "AuthenticationError",
    "BackendConnectionError",
    "BackendError",
    "BackendServerError",
    "BackendTimeoutError",
    "ConfigError",
    "ContextWindowError",
    "CredentialError",
    "EmbedderMismatchError",
    "InvalidRequestError",
    "LoginRequiredError",
    "MissingCredentialError",
    "MissingExtraError",
    "ModelNotAvailableError",
    "Problem",
    "ProfileNotFoundError",
    "RateLimitError",
    "ResponseFormatError",
    "StreamInterruptedError",
    "StreamTimeoutError",
    "UntrustedFileError",
]


def printable(text: str) -> str:
    """Write out what would move a terminal's cursor or change its colours; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


class ArawnError(Exception):
    """Base of every error that this library raises.

    Attributes:
        hints: What the person can check or do, most likely first.
    """

    hints: tuple[str, ...] = ()

    def __init__(self, message: str, *, hints: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.hints = tuple(hints)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a configuration, and where it stands."""

    message: str
    path: Path | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.path and self.line else str(self.path or "")
        return f"{place}: {self.message}" if place else self.message


class ConfigError(ArawnError):
    """A configuration file cannot be used as it stands; `problems` holds every fault found."""

    def __init__(self, problems: str | Problem | Sequence[Problem], *, hints: Sequence[str] = ()) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(map(str, self.problems)), hints=hints)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problems,), self.__dict__

    @property
    def path(self) -> Path | None:
        """Name the file of the first problem."""
        return self.problems[0].path

    @property
    def line(self) -> int | None:
        """Give the line of the first problem, counted from 1."""
        return self.problems[0].line


class ProfileNotFoundError(ConfigError):
    """No profile has the name asked for."""


class UntrustedFileError(ConfigError):
    """A file that was merely found in a project wants to send a key elsewhere."""


class CredentialError(ArawnError):
    """A key or token is missing or cannot be used."""


class MissingCredentialError(CredentialError):
    """No key was found in any of the places looked in."""


class LoginRequiredError(CredentialError):
    """There is no valid login for this backend."""


class MissingExtraError(ArawnError):
    """A package that this feature needs is not installed."""


class EmbedderMismatchError(ArawnError):
    """Vectors were made by another embedder, so that they cannot be compared with this one's."""


class BackendError(ArawnError):
    """A call to a backend failed; the original exception is the `__cause__`.

    Attributes:
        backend: The backend key, such as "anthropic".
        profile: The profile's name, such as "fast".
        model: The model asked for.
        status_code: The HTTP status, where the backend gave one.
        retry_after: Seconds the backend asks to wait, where it says so.
        request_id: The backend's name for the request, for its support.
        vectors: What a call for embeddings had got before it failed: vectors by the positions of their texts.
    """

    backend: str | None = None
    profile: str | None = None
    model: str | None = None
    status_code: int | None = None
    retry_after: float | None = None
    request_id: str | None = None
    vectors: Mapping[int, Any] = MappingProxyType({})


class AuthenticationError(BackendError):
    """The backend refused the credential (401, 403)."""


class ModelNotAvailableError(BackendError):
    """The backend does not serve this model to this account."""


class BackendConnectionError(BackendError):
    """No connection could be made, or it broke before an answer began."""


class BackendTimeoutError(BackendError):
    """The answer was not complete within the call's deadline."""


class RateLimitError(BackendError):
    """The backend limits requests or tokens (429)."""


class ContextWindowError(BackendError):
    """The prompt does not fit the model's context window."""


class InvalidRequestError(BackendError):
    """The request cannot be sent, or the backend refused it as malformed."""


class ResponseFormatError(BackendError):
    """The answer does not fit `response_model`; `text` holds what came."""

    text: str = ""


class StreamInterruptedError(BackendError):
    """A stream ended without its provider's proper end; `partial` holds the text that came."""

    partial: str = ""


class StreamTimeoutError(StreamInterruptedError, BackendTimeoutError):
    """A stream passed its deadline; `partial` holds the text that came."""


class BackendServerError(BackendError):
    """The backend failed (5xx), or answered with something that is no answer."""
