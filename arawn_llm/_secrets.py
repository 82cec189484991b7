"""Where a key comes from: the system keyring, else the environment, else the file."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from pydantic import SecretStr

from arawn_llm._schema import is_header_value
from arawn_llm.errors import CredentialError

SERVICE = "arawn"
KEYRING_LIMIT = 3.0  # seconds; a frozen keyring daemon never answers
_MOST_COPIES = 20  # items of one name, each uncovered by deleting the one before
_PLAINTEXT = "keyrings.alt"  # its backends keep passwords in files that anyone with the file can read

T = TypeVar("T")

_FILE = "the configuration file"
_log = logging.getLogger("arawn_llm")


@dataclass(frozen=True)
class FoundKey:
    """Hold a key behind a mask, and say where it was found."""

    value: SecretStr
    source: str


@dataclass
class Keyring:
    """Ask the system keyring, each name once in a process, and no more once it has failed.

    Attributes:
        limit: Seconds to wait for one answer.
        failure: Why the keyring cannot be used; empty while it can.
    """

    limit: float = KEYRING_LIMIT
    failure: str = ""
    _answers: dict[str, SecretStr | None] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def get(self, name: str, *, fresh: bool = False) -> SecretStr | None:
        """Give the password of a user name under the service "arawn", or None.

        Args:
            name: The user name.
            fresh: Ask the keyring itself again, even if it answered or failed before.
        """
        with self._lock:
            if fresh or (name not in self._answers and not self.failure):
                self._answers[name], self.failure = self._limited(lambda ring: _get(ring, name))
                if self.failure:
                    _log.info("the system keyring is not used: %s", self.failure)
            return self._answers.get(name)

    def put(self, name: str, secret: SecretStr, *, plaintext: bool = False) -> str:
        """Store a password, so that it is the one of its name that is read.

        Args:
            name: The user name under the service "arawn".
            secret: The password.
            plaintext: Store it even where the backend does not encrypt.

        Returns:
            Why it could not be stored; empty if it was.
        """
        with self._lock:
            why, failure = self._limited(lambda ring: _put(ring, name, secret, plaintext))
            if not (why or failure):
                self._answers[name] = secret
            return why or failure

    def delete(self, name: str) -> int:
        """Delete every copy of a password, and give their number.

        Raises:
            CredentialError: The keyring failed, and a copy may be left.
        """
        with self._lock:
            self._answers.pop(name, None)
            count, failure = self._limited(lambda ring: _delete(ring, name))
        if failure and failure not in _NO_KEYRING:
            raise CredentialError(
                f"the keyring ({SERVICE}, {name}) could not be emptied: {failure}",
                hints=("unlock the keyring and try again",),
            )
        return count or 0

    def forget(self) -> None:
        """Drop every answer and failure, so that the keyring is asked again."""
        with self._lock:
            self._answers.clear()
            self.failure = ""

    def _limited(self, work: Callable[[Any], T]) -> tuple[T | None, str]:
        """Let work be done with the keyring; give what it gave, and why it failed."""
        answer: list[T] = []
        failure: list[str] = []

        def ask() -> None:
            # Backends come from other packages and fail in their own ways; each way leads to the next place.
            try:
                import keyring

                answer.append(work(keyring))
            except Exception as exc:  # noqa: BLE001 - kept as `failure`, which `arawn` shows
                failure.append(type(exc).__name__)

        thread = threading.Thread(target=ask, name="arawn-keyring", daemon=True)
        thread.start()
        thread.join(self.limit)
        if answer:
            return answer[0], ""
        return None, failure[0] if failure else f"no answer within {self.limit:g} s"


KEYRING = Keyring()
_NO_KEYRING = frozenset({"NoKeyringError", "InitError"})


def _get(ring: Any, name: str) -> SecretStr | None:
    found = ring.get_password(SERVICE, name)
    return SecretStr(found) if found else None


def _put(ring: Any, name: str, secret: SecretStr, plaintext: bool) -> str:
    backend = ring.get_keyring()
    first = next(iter(getattr(backend, "backends", ())), backend)
    if type(first).__module__.startswith(_PLAINTEXT) and not plaintext:
        return f"{type(first).__module__} does not encrypt"
    ring.set_password(SERVICE, name, secret.get_secret_value())
    if _get(ring, name) == secret:
        return ""
    _delete(ring, name)  # an older item of the same name lay over it
    ring.set_password(SERVICE, name, secret.get_secret_value())
    return "" if _get(ring, name) == secret else f"{type(first).__module__} keeps nothing"


def _delete(ring: Any, name: str) -> int:
    for count in range(_MOST_COPIES):
        if ring.get_password(SERVICE, name) is None:
            return count
        ring.delete_password(SERVICE, name)
    raise RuntimeError("what was deleted comes back")


def find_key(keyring_name: str, env_var: str, profile: str, file_key: SecretStr | None) -> FoundKey | None:
    """Look for a key: the profile's own in the keyring, the backend's there, the environment, the file.

    Args:
        keyring_name: The backend's user name in the keyring, such as "groq_api_key"; a profile's own key
            has the user name "groq_api_key:fast".
        env_var: The backend's environment variable.
        profile: The profile's name.
        file_key: What the file says.

    Raises:
        CredentialError: The first key found cannot be sent in an HTTP header.
    """
    own = f"{keyring_name}:{profile}"
    found = (
        _found(KEYRING.get(own), f"the keyring ({SERVICE}, {own})")
        or _found(KEYRING.get(keyring_name), f"the keyring ({SERVICE}, {keyring_name})")
        or _found(SecretStr(os.environ.get(env_var, "")), f"the environment ({env_var})")
        or _found(file_key, _FILE)
    )
    _log.info("the key of profile %s comes from %s", profile, found.source if found else "nowhere")
    if found and found.source == _FILE:
        _warn_of_file_key(profile)
    return found


@cache
def _warn_of_file_key(profile: str) -> None:
    """Say it once in a process."""
    words = 'the key of profile "%s" stands in a file; the keyring is safer: arawn secrets set %s'
    _log.warning(words, profile, profile)


def _found(secret: SecretStr | None, source: str) -> FoundKey | None:
    stripped = SecretStr(secret.get_secret_value().strip()) if secret else None
    if not stripped:
        return None
    if not is_header_value(stripped.get_secret_value()):
        raise CredentialError(
            f"the key from {source} cannot be sent: it holds a control character, or one beyond ASCII",
            hints=("copy it again from the provider's page",),
        )
    return FoundKey(stripped, source)
