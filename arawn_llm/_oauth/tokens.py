"""A login's tokens, and where they are kept: the system keyring, else a private file."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import SecretStr, TypeAdapter, ValidationError

from arawn_llm._atomic import make_lock
from arawn_llm._secrets import KEYRING, SERVICE
from arawn_llm.errors import CredentialError

EARLY = 300.0  # seconds before expiry at which a token is refreshed, or a tenth of a shorter life
_SKEW = 60.0  # seconds; a token from further in the future was dated by a clock that has been set back
LOCK_LIMIT = 90.0  # seconds to wait for another's refresh where there is no good token

_TRIAL_SIZE = 800  # times five characters: as long as tokens may be

_log = logging.getLogger("arawn_llm")


@dataclass(frozen=True)
class Tokens:
    """Hold what an issuer gave, and whom to ask for more: tokens go back to no other issuer.

    Attributes:
        issued_at: When they were asked for, by this machine's clock.
        lifetime: The access token's life in seconds; None where the issuer did not say.
    """

    client_id: str
    token_url: str
    token_request: Literal["json", "form"]
    scope: str = ""
    access: str = field(default="", repr=False)
    refresh: str | None = field(default=None, repr=False)
    issued_at: float = 0.0
    lifetime: float | None = None

    def is_due(self, now: float) -> bool:
        """Tell whether to refresh before the next call."""
        if not self.lifetime:
            return False
        early = min(EARLY, self.lifetime / 10)
        return now < self.issued_at - _SKEW or self.is_expired(now + early)

    def is_expired(self, now: float) -> bool:
        """Tell whether the access token is of no more use."""
        return self.lifetime is not None and now >= self.issued_at + self.lifetime


class LockedError(CredentialError):
    """Another process holds the lock and does not let go."""


Records = dict[str, Tokens]
_RECORDS = TypeAdapter(Records)


@dataclass(frozen=True)
class Store:
    """Keep the tokens of one issuer.

    Attributes:
        name: The issuer's name.
        folder: Where the lock is, and the file for want of a keyring.
    """

    name: str
    folder: Path

    @property
    def file(self) -> Path:
        """Name the file that holds what no keyring can."""
        return self.folder / "oauth-tokens.json"

    @property
    def _user(self) -> str:
        return f"oauth_{self.name}"

    @property
    def _ring(self) -> str:
        return f"the keyring ({SERVICE}, {self._user})"

    @contextmanager
    def lock(self, is_done: Callable[[], bool] | None = None, limit: float = LOCK_LIMIT) -> Iterator[bool]:
        """Keep every other thread and process from refreshing meanwhile; the system frees a dead holder's lock.

        Args:
            is_done: Tells that there is no more to wait for; then False is given, without the lock.
            limit: Seconds to wait.

        Raises:
            LockedError: The lock was not free in time.
            CredentialError: It cannot be had.
        """
        path = self.file.with_suffix(".lock")
        lock = make_lock(path, limit)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock.acquire(cancel_check=is_done)
            self._finish()
        except TimeoutError:
            if not (is_done and is_done()):
                words = f"{path} has been held for {limit:g} s by whoever else refreshes the login"
                raise LockedError(words, hints=("try again in a minute", "or end that process")) from None
        except OSError as exc:
            raise self._unusable(exc) from exc
        try:
            yield lock.is_locked
        finally:
            lock.release()

    def read(self, *, fresh: bool = False) -> tuple[Tokens, str] | None:
        """Give the newest tokens kept, and where they are; `fresh` asks the keyring itself once more.

        Raises:
            CredentialError: They cannot be read, or the folder of their file is open to others.
        """
        kept = KEYRING.get(self._user, fresh=fresh)
        places = [
            (self._parse(kept.get_secret_value() if kept else "{}", self._ring), self._ring),
            (self._records(), str(self.file)),
        ]
        found = [(records[self.name], place) for records, place in places if self.name in records]
        return max(found, key=lambda each: each[0].issued_at, default=None)

    def write(self, tokens: Tokens, before: str = "") -> str:
        """Keep tokens in place of all that were kept before; say where, and aloud if not where they were.

        Raises:
            CredentialError: Neither the keyring nor the file can keep them.
        """
        records = self._records(strict=False)
        failure = KEYRING.put(self._user, SecretStr(_RECORDS.dump_json({self.name: tokens}).decode()))
        if failure:
            self._write(records | {self.name: tokens})
            if before == self._ring:
                _log.warning("the login's tokens now stand in %s: the keyring failed: %s", self.file, failure)
        elif records.pop(self.name, None):
            self._write(records)
        return str(self.file) if failure else self._ring

    def try_out(self) -> str:
        """Try to keep something; give why the keyring cannot, or nothing.

        Raises:
            CredentialError: Neither the keyring nor the file could keep tokens.
        """
        failure = KEYRING.put(f"{self._user}:trial", SecretStr("trial" * _TRIAL_SIZE))
        if failure:
            self._write(self._records(strict=False))
        else:
            KEYRING.delete(f"{self._user}:trial")
        return failure

    def rehearse(self, place: str) -> None:
        """Try to write where the tokens are, before the issuer is asked for others.

        Raises:
            CredentialError: The file cannot be written.
        """
        if place == str(self.file):
            self._write(self._records())

    def remove(self) -> list[str]:
        """Remove every copy, readable or not, and list the places where there was one."""
        places = []
        if self.file.is_symlink() or self.file.exists():
            records = self._records(strict=False)
            if records.pop(self.name, None) or not records:
                self._write(records, strict=False)
                places.append(str(self.file))
        if KEYRING.delete(self._user):
            places.append(self._ring)
        return places

    def _records(self, *, strict: bool = True) -> Records:
        """Read the file; what is no record counts as none unless strict."""
        try:
            text = SecretStr(self.file.read_text("utf-8", "replace"))
        except FileNotFoundError:
            return {}
        except OSError as exc:
            raise self._unusable(exc) from exc
        try:
            self._refuse_open_folder()
            self._close_file()
            return self._parse(text.get_secret_value(), str(self.file))
        except CredentialError:
            if strict:
                raise
            return {}

    def _close_file(self) -> None:
        """Take the file from others, who may have read it; a link would leave a copy elsewhere."""
        if self.file.is_symlink():
            words = f"{self.file} is a link, and a login's tokens are kept in no other place"
            raise CredentialError(words, hints=("delete the link, and log in again: arawn auth",))
        if os.name == "posix" and (mode := self.file.stat().st_mode) & 0o077:
            self.file.chmod(0o600)
            words = "%s could be read by others (mode %o) and is closed now: if that worries you, log in again"
            _log.warning(words, self.file, mode & 0o777)

    def _parse(self, text: str, place: str) -> Records:
        with suppress(ValidationError):  # it would show what it read
            return _RECORDS.validate_json(text)
        del text
        raise CredentialError(
            f"{place} does not hold a login's tokens", hints=("delete it, and log in again: arawn auth",)
        )

    def _write(self, records: Records, *, strict: bool = True) -> None:
        """Write the file whole or not at all; without records there is none."""
        new = self.file.with_suffix(".new")
        try:
            if strict:
                self._refuse_open_folder()
            new.unlink(missing_ok=True)
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(_RECORDS.dump_json(records))
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self.file)
            if not records:
                self.file.unlink()
        except OSError as exc:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise self._unusable(exc) from exc

    def _finish(self) -> None:
        """Put in place what a process wrote whole before it was killed."""
        new = self.file.with_suffix(".new")
        with suppress(FileNotFoundError):
            try:
                self._parse(new.read_text("utf-8", "replace"), str(new))
                os.replace(new, self.file)
            except CredentialError:
                new.unlink()

    def _refuse_open_folder(self) -> None:
        if os.name == "posix" and (mode := self.folder.stat().st_mode) & 0o077:
            raise CredentialError(
                f"{self.folder} is open to others (mode {mode & 0o777:o}): no tokens are kept in it",
                hints=(f"close it: chmod 700 {self.folder}", "or name another folder: ARAWN_DATA_DIR"),
            )

    def _unusable(self, exc: OSError) -> CredentialError:
        return CredentialError(
            f"{exc.filename or self.folder} cannot be used to keep a login's tokens: {exc.strerror or exc}",
            hints=("name a folder of your own: ARAWN_DATA_DIR",),
        )
