"""A file is written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from arawn_llm.errors import ConfigError, Problem

if TYPE_CHECKING:
    from filelock import FileLock

_EDIT_LIMIT = 10.0  # seconds to wait for another's edit


def make_lock(path: Path, limit: float) -> FileLock:
    """Make a lock of all threads and processes, not held yet; the system frees a dead holder's.

    Acquiring it raises TimeoutError after `limit` seconds, and OSError where it cannot be had.
    """
    from filelock import FileLock

    return FileLock(path, timeout=limit, poll_interval=0.02, mode=0o600)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Keep other processes from editing meanwhile, where a lock can be had at that path."""
    lock = make_lock(path, _EDIT_LIMIT)
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write(path: Path, text: str, *, mode: int | None = None) -> None:
    """Put a text in a file's place, line ends as they are, and make its folder where there is none.

    Args:
        path: The file; its permissions are kept.
        text: What it shall hold.
        mode: The permissions of a new file; those of a temporary file (0600) without it.

    Raises:
        ConfigError: It is a link, or cannot be written; what was there is still there.
    """
    if path.exists() and path.stat().st_nlink > 1 and not path.is_symlink():
        words = "has another name too (a hard link), which would keep the old text: change it by hand"
        raise ConfigError(Problem(words, path))
    if path.is_symlink():
        target = os.path.realpath(path)
        raise ConfigError(Problem(f"is a link; to change what it leads to, name that file: {target}", path))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        permissions = path.stat().st_mode & 0o7777 if path.exists() else mode
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                file.write(text.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
                if permissions is not None:
                    os.chmod(file.name, permissions)
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as exc:
        raise ConfigError(Problem(f"cannot be written: {exc.strerror or exc}", path)) from exc
