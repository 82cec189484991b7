"""A TOML file's text: its values, the line of each key, and edits that leave all other bytes as they are."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from arawn_llm.errors import ConfigError, Problem

MAX_BYTES = 16 * 1024 * 1024
_LONGEST_STATEMENT = 64  # lines walked back to a place where the text parses

KeyPath = tuple[str, ...]


def read(path: Path) -> str:
    """Read a configuration file as UTF-8 text, without a byte-order mark.

    Raises:
        ConfigError: It is a folder, unreadable, larger than 16 MiB, or not UTF-8; names it.
    """
    try:
        if not path.is_file() and path.exists():
            raise ConfigError(Problem("is not a file: name the TOML file itself", path))
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise ConfigError(Problem(f"cannot be read: {exc.strerror or exc}", path)) from exc
    if len(content) > MAX_BYTES:
        raise ConfigError(Problem("is larger than 16 MiB: is it the right file?", path))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise ConfigError(Problem("is not UTF-8 text: save it as UTF-8", path, line)) from None


def parse(text: str, path: Path) -> dict[str, Any]:
    """Parse TOML text into plain values.

    Raises:
        ConfigError: It is not TOML; gives the line.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(Problem("is nested too deeply", path)) from None
    except tomllib.TOMLDecodeError as exc:
        reason, _, place = str(exc).partition(" (at ")
        digits = "".join(c for c in place.partition(",")[0] if c.isdigit())
        line = int(digits) if digits else text.count("\n") + 1
        raise ConfigError(Problem(f"is not TOML: {reason}", path, line)) from None


def locate(text: str, paths: Collection[KeyPath]) -> dict[KeyPath, int]:
    """Find the line, counted from 1, on which each key's statement begins.

    A key stands on the line after the longest prefix of the file that parses without it; halving the
    file finds that line without a second parser. What cannot be found is left out.
    """
    lines = [line + "\n" for line in text.split("\n")]  # splitlines would also split at U+2028
    values = tomllib.loads(text)
    found: dict[KeyPath, int] = {}
    _halve(lines, 0, len(lines), {path for path in paths if _holds(values, path)}, found)
    return found


def _halve(lines: list[str], low: int, high: int, paths: set[KeyPath], found: dict[KeyPath, int]) -> None:
    """Search keys that the first `high` lines hold and the first `low` lines do not."""
    if not paths:
        return
    middle, values = _parsed_prefix(lines, low, high)
    if values is None:
        found.update(dict.fromkeys(paths, low + 1))
        return
    before = {path for path in paths if _holds(values, path)}
    _halve(lines, low, middle, before, found)
    _halve(lines, middle, high, paths - before, found)


def _parsed_prefix(lines: list[str], low: int, high: int) -> tuple[int, dict[str, Any] | None]:
    """Parse the file up to the end of a statement strictly between low and high, near the middle."""
    middle = (low + high) // 2
    ends = [*range(middle, low, -1)][:_LONGEST_STATEMENT] + [*range(middle + 1, high)][:_LONGEST_STATEMENT]
    for end in ends:
        try:
            return end, tomllib.loads("".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue
    return low, None


def _holds(values: Any, path: KeyPath) -> bool:
    for part in path:
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def set_value(text: str, key: KeyPath, value: Any, path: Path) -> str:
    """Set one key in a file's text.

    Args:
        text: The file's text, line ends as they are.
        key: The key's path; tables that are not there are made.
        value: A string, number, boolean, list or dict.
        path: The file, for messages.

    Raises:
        ConfigError: A part of the path is no table, or the file cannot be edited without other changes.
    """
    import tomlkit

    document = tomlkit.parse(text)
    table: Any = document
    for depth, part in enumerate(key[:-1], 1):
        if part not in table:
            table[part] = tomlkit.table(is_super_table=depth < len(key) - 1)
        table = table[part]
        if not isinstance(table, dict):
            raise ConfigError(Problem(f"{'.'.join(key[:depth])} is not a table", path))
    table[key[-1]] = value
    return _proven(text, tomlkit.dumps(document), key, value, path)


def remove_value(text: str, key: KeyPath, path: Path) -> str:
    """Remove one key, or a whole table, from a file's text.

    Raises:
        ConfigError: The file does not hold the key, or cannot be edited without other changes.
    """
    import tomlkit

    if not _holds(tomllib.loads(text), key):
        raise ConfigError(Problem(f"does not hold {'.'.join(key)}", path))
    document = tomlkit.parse(text)
    table: Any = document
    for part in key[:-1]:
        table = table[part]
    del table[key[-1]]
    return _proven(text, tomlkit.dumps(document), key, None, path)


def _proven(before: str, after: str, key: KeyPath, value: Any, path: Path) -> str:
    """Give the edited text if it says what was asked and nothing else."""
    if "\r\n" in before and not re.search(r"(?<!\r)\n", before):
        after = re.sub(r"(?<!\r)\n", "\r\n", after)
    wanted = copy.deepcopy(tomllib.loads(before))
    table = wanted
    for part in key[:-1]:
        table = table.setdefault(part, {})
    if value is None:
        del table[key[-1]]
    else:
        table[key[-1]] = value
    try:
        right = tomllib.loads(after) == wanted
    except tomllib.TOMLDecodeError:
        right = False
    if not right:
        raise ConfigError(Problem(f"cannot be edited safely at {'.'.join(key)}: change it by hand", path))
    return after
