"""A file is written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from arawn_llm.errors import ConfigError, Problem


def write(path: Path, text: str, *, mode: int | None = None) -> None:
    """Put a text in a file's place, line ends as they are, and make its folder where there is none.

    Args:
        path: The file; its permissions are kept.
        text: What it shall hold.
        mode: The permissions of a new file; those of a temporary file (0600) without it.

    Raises:
        ConfigError: It is a link, or cannot be written; what was there is still there.
    """
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
