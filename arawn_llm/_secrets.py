"""Where a key comes from: the system keyring, else the environment, else the file."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass, field
from functools import cache

from pydantic import SecretStr

from arawn_llm._schema import is_header_value
from arawn_llm.errors import CredentialError

SERVICE = "arawn"
KEYRING_LIMIT = 3.0  # seconds; a frozen keyring daemon never answers

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

    def get(self, name: str) -> SecretStr | None:
        """Give the password of a user name under the service "arawn", or None."""
        with self._lock:
            if name not in self._answers and not self.failure:
                self._answers[name] = self._ask(name)
            return self._answers.get(name)

    def forget(self) -> None:
        """Drop every answer and failure, so that the keyring is asked again."""
        with self._lock:
            self._answers.clear()
            self.failure = ""

    def _ask(self, name: str) -> SecretStr | None:
        answer: list[SecretStr | None] = []
        failure: list[str] = []

        def ask() -> None:
            # Backends come from other packages and fail in their own ways; each way leads to the next place.
            try:
                import keyring

                found = keyring.get_password(SERVICE, name)
                answer.append(SecretStr(found) if found else None)
            except Exception as exc:  # noqa: BLE001 - kept as `failure`, which `arawn` shows
                failure.append(type(exc).__name__)

        thread = threading.Thread(target=ask, name="arawn-keyring", daemon=True)
        thread.start()
        thread.join(self.limit)
        if not answer:
            self.failure = failure[0] if failure else f"no answer within {self.limit:g} s"
            _log.info("the system keyring is not used: %s", self.failure)
        return answer[0] if answer else None


KEYRING = Keyring()


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
    if found and found.source == _FILE:
        _warn_of_file_key(profile, keyring_name)
    return found


@cache
def _warn_of_file_key(profile: str, keyring_name: str) -> None:
    """Say it once in a process."""
    words = 'the key of profile "%s" stands in a file; the keyring is safer: keyring set %s %s'
    _log.warning(words, profile, SERVICE, keyring_name)


def _found(secret: SecretStr | None, source: str) -> FoundKey | None:
    stripped = SecretStr(secret.get_secret_value().strip()) if secret else None
    if not stripped:
        return None
    if not is_header_value(stripped.get_secret_value()):
        raise CredentialError(
            f"the key from {source} cannot be sent: it holds a line break or a character outside ASCII",
            hints=("copy it again from the provider's page",),
        )
    return FoundKey(stripped, source)
