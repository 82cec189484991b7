"""A TOML file's text: its values, the line of each key, and edits that leave all other bytes as they are."""

from __future__ import annotations

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
    for edit in (_set_in_document, _set_in_statement, _add_lines):
        edited = _with_line_ends_of(text, edit(text, key, value, path))
        if edited and _says(edited, text, key, value) and _leaves_lines(text, edited, key):
            return edited
    raise ConfigError(Problem(f"cannot be edited safely at {'.'.join(key)}: change it by hand", path))


def _set_in_document(text: str, key: KeyPath, value: Any, path: Path) -> str:
    import tomlkit
    from tomlkit.items import InlineTable

    document = tomlkit.parse(text)
    table: Any = document
    try:
        for depth, part in enumerate(key[:-1], 1):
            if part not in table:
                inline = isinstance(table, InlineTable)
                table[part] = (
                    tomlkit.inline_table() if inline else tomlkit.table(is_super_table=depth < len(key) - 1)
                )
            table = table[part]
            if not isinstance(table, dict):
                raise ConfigError(Problem(f"{'.'.join(key[:depth])} is not a table", path))
        table[key[-1]] = value
        return tomlkit.dumps(document)
    except ValueError:  # tomlkit cannot, in this place
        return ""


def _set_in_statement(text: str, key: KeyPath, value: Any, path: Path) -> str:
    """Change one statement by itself, for a document whose parts tomlkit would move."""
    import tomlkit

    if not (lines := _statement(text, key)):
        return ""
    all_lines = _split(text)
    statement = tomlkit.parse("".join(all_lines[lines.start : lines.stop]))
    inner = next((key[i:] for i in range(len(key)) if _holds(statement.unwrap(), key[i:])), None)
    if inner is None:
        return ""
    table: Any = statement
    for part in inner[:-1]:
        table = table[part]
    table[inner[-1]] = value
    return "".join([*all_lines[: lines.start], tomlkit.dumps(statement), *all_lines[lines.stop :]])


def _add_lines(text: str, key: KeyPath, value: Any, path: Path) -> str:
    """Add a line below its table's others, or a table at the end, where tomlkit would move parts."""
    import tomlkit

    if isinstance(value, dict):
        return ""
    lines, parent = _split(text), key[:-1]
    added = tomlkit.dumps({key[-1]: value})
    found = locate(text, [parent]) if parent else {}
    if not found:
        header = f"\n[{tomlkit.key(list(parent)).as_string()}]\n" if parent else ""
        return text + ("" if text.endswith("\n") else "\n") + header + added
    start = found[parent]
    stop = next((i for i in range(start, len(lines)) if _is_header(lines[i])), len(lines))
    while stop > start and (not lines[stop - 1].strip() or lines[stop - 1].lstrip().startswith("#")):
        stop -= 1
    above = "".join(lines[:stop])
    return above + ("" if above.endswith("\n") else "\n") + added + "".join(lines[stop:])


def remove_value(text: str, key: KeyPath, path: Path) -> str:
    """Remove one key, or a whole table, from a file's text.

    Raises:
        ConfigError: The file does not hold the key, or cannot be edited without other changes.
    """
    if not _holds(tomllib.loads(text), key):
        raise ConfigError(Problem(f"does not hold {'.'.join(key)}", path))
    for edit in (_remove_table, _remove_from_document, _remove_statement):
        edited = _with_line_ends_of(text, edit(text, key))
        if edited is not None and _says(edited, text, key, None) and _leaves_lines(text, edited, key):
            return edited
    raise ConfigError(Problem(f"cannot be edited safely at {'.'.join(key)}: change it by hand", path))


def _remove_from_document(text: str, key: KeyPath) -> str:
    import tomlkit

    document = tomlkit.parse(text)
    table: Any = document
    for part in key[:-1]:
        table = table[part]
    del table[key[-1]]
    return tomlkit.dumps(document)


def _remove_table(text: str, key: KeyPath) -> str | None:
    """Remove a table's lines with the comment above it; the comment above the next table stays with that."""
    lines, name = _split(text), ".".join(key)
    start = locate(text, [key])[key] - 1
    if not re.match(r"\s*\[[^\[]", lines[start]):
        return None
    stop = start + 1
    while stop < len(lines) and not _is_header(lines[stop], besides=name):
        stop += 1
    if stop < len(lines):
        while lines[stop - 1].lstrip().startswith("#"):
            stop -= 1
    while start and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return "".join(lines[:start] + lines[stop:])


def _remove_statement(text: str, key: KeyPath) -> str:
    lines, statement = _split(text), _statement(text, key)
    return "".join(lines[: statement.start] + lines[statement.stop :])


def _is_header(line: str, besides: str = "") -> bool:
    """Tell whether a line begins a table, but for those below one of that name."""
    below = besides and re.match(rf"\s*\[+\s*{re.escape(besides)}\s*\.", line)
    return bool(re.match(r"\s*\[", line)) and not below


def _statement(text: str, key: KeyPath) -> range:
    """Give the lines of a key's statement, counted from 0; none where the key is not there."""
    found = locate(text, [key])
    if key not in found:
        return range(0)
    lines, start = _split(text), found[key] - 1
    for stop in range(start + 1, min(len(lines), start + _LONGEST_STATEMENT) + 1):
        try:
            tomllib.loads("".join(lines[start:stop]))
        except tomllib.TOMLDecodeError:
            continue
        return range(start, stop)
    return range(0)


def _split(text: str) -> list[str]:
    return re.split(r"(?<=\n)", text)  # splitlines would also split at U+2028


def _with_line_ends_of(before: str, after: str | None) -> str | None:
    if after and "\r\n" in before and not re.search(r"(?<!\r)\n", before):
        return re.sub(r"(?<!\r)\n", "\r\n", after)
    return after


def _leaves_lines(before: str, after: str, key: KeyPath) -> bool:
    """Tell whether an edit only adds lines, only removes some, or changes those of one statement."""
    old, new = _split(before), _split(after)
    if old[-1] and old[-1] != new[-1] and len(new) > len(old):
        old[-1] += "\r\n" if new[len(old) - 1].endswith("\r\n") else "\n"  # the last line had no end
    first = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    most = min(len(old), len(new)) - first
    last = next((i for i in range(most) if old[-1 - i] != new[-1 - i]), most)
    removed, added = range(first, len(old) - last), range(first, len(new) - last)
    if not removed or not added:
        return True
    around = (_statement(before, key[:length]) for length in range(len(key), 0, -1))
    statement = next(filter(None, around), range(0))
    return statement.start <= removed.start and removed.stop <= statement.stop


def _says(after: str, before: str, key: KeyPath, value: Any) -> bool:
    """Tell whether an edited text says what was asked and nothing else."""
    wanted = tomllib.loads(before)
    table = wanted
    for part in key[:-1]:
        table = table.setdefault(part, {})
    if value is None:
        del table[key[-1]]
    else:
        table[key[-1]] = value
    try:
        return tomllib.loads(after) == wanted
    except tomllib.TOMLDecodeError:
        return False
