"""Changes to a configuration file: checked before they are written; every other byte stays as it was."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arawn_llm import _atomic, _config, _layers, _schema, _toml
from arawn_llm._config import Config
from arawn_llm._layers import KeyPath
from arawn_llm.errors import ConfigError

_BOM = "\ufeff"
MASK = "••••"
_log = logging.getLogger("arawn_llm")


@dataclass(frozen=True)
class Setting:
    """One value of the merged configuration, and the file and line that say it; a secret is masked."""

    key: str
    value: str
    path: Path | None
    line: int | None


def parse_key(text: str) -> KeyPath:
    """Read a dotted key, with quotes around a part that holds a dot.

    Raises:
        ConfigError: It is no key.
    """
    parts: list[str] = []
    try:
        value: Any = tomllib.loads(f"{text.strip()} = 0")
        while isinstance(value, dict):
            ((part, value),) = value.items()
            parts.append(part)
    except (tomllib.TOMLDecodeError, ValueError):
        parts = text.split(".")
        if not all(parts) or re.search(r"[\s\"']", text):
            raise ConfigError(f'"{text}" is not a key: write it like llm.fast.model') from None
    return tuple(parts)


def set_value(path: Path, key: KeyPath, value: str, *, named: bool = False) -> None:
    """Set a key in a file, which is made where there is none.

    Args:
        path: The file.
        key: The key's path, such as ("llm", "fast", "model").
        value: The value as TOML, or a bare text.
        named: Check the file by itself, as `--config` reads it, and not with the others.

    Raises:
        ConfigError: The result would not be valid, or the file cannot be written; nothing is changed.
    """
    with _atomic.exclusive(_layers.user_folder() / "edit.lock"):
        mark, text = _read(path) if path.exists() else ("", "")
        failures = []
        for candidate in _readings(value):
            edited = _toml.set_value(text, key, candidate, path)
            try:
                _check(path, text, edited, named=named)
            except ConfigError as error:
                failures.append(error)
                continue
            _atomic.write(path, mark + edited)
            if _schema.is_secret(key) and os.name == "posix" and path.stat().st_mode & 0o044:
                _log.warning("%s holds a key and can be read by others: chmod 600 %s", path, path)
            return
        raise failures[0]


def unset_value(path: Path, key: KeyPath, *, named: bool = False) -> None:
    """Remove a key, or a whole table, from a file.

    Raises:
        ConfigError: The file does not hold it, the result would not be valid, or it cannot be written.
    """
    with _atomic.exclusive(_layers.user_folder() / "edit.lock"):
        mark, text = _read(path)
        edited = _toml.remove_value(text, key, path)
        _check(path, text, edited, named=named)
        _atomic.write(path, mark + edited)


def replace_text(path: Path, text: str, *, named: bool = False) -> None:
    """Put a whole text in a file's place.

    Raises:
        ConfigError: It would not be valid, or the file cannot be written; nothing is changed.
    """
    mark = _read(path)[0] if path.exists() else ""
    _config.check(path, text, named=named)
    _atomic.write(path, mark + text)


def read_text(path: Path) -> str:
    """Give a file's text, without a byte-order mark; nothing where there is no file.

    Raises:
        ConfigError: It cannot be read, or is not UTF-8.
    """
    return _read(path)[1] if path.exists() else ""


def _check(path: Path, before: str, after: str, *, named: bool) -> None:
    """Refuse a change that makes a new problem; a file with two is mended one after the other."""
    try:
        _config.check(path, after, named=named)
    except ConfigError as error:
        try:
            _config.check(path, before, named=named)
            old = set()
        except ConfigError as earlier:
            old = {problem.message for problem in earlier.problems}
        if not old > {problem.message for problem in error.problems}:
            raise


def home_of(key: KeyPath) -> Path:
    """Choose the file in which a key is changed: the strongest that says it, else the strongest there is."""
    files = [path for path, _ in reversed(_config.find_named_files())]
    holding = [path for path in files if _holds(path, key)]
    return next(iter([*holding, *files]), _layers.user_folder() / "config.toml")


def _holds(path: Path, key: KeyPath) -> bool:
    try:
        return _layers.read_layer(path).holds(key)
    except ConfigError:  # it may be the very file that is to be mended
        return False


def list_settings(config: Config) -> Iterator[Setting]:
    """Yield each value of our tables, where it comes from, with secrets masked."""
    for key, value in _leaves(_layers.merge_layers(config.layers), ()):
        problem = config.problem(key, "")
        name = ".".join(part if re.fullmatch(r"[\w-]+", part) else json.dumps(part) for part in key)
        shown = MASK if _schema.is_secret(key) else json.dumps(value, ensure_ascii=False, default=str)
        yield Setting(name, shown, problem.path, problem.line)


def get_value(config: Config, key: KeyPath) -> Any:
    """Give one value or table of the merged configuration.

    Raises:
        ConfigError: Nothing says that key.
    """
    value: Any = _layers.merge_layers(config.layers)
    for part in key:
        if not isinstance(value, Mapping) or part not in value:
            raise ConfigError(f"{'.'.join(key)} is not set")
        value = value[part]
    return _masked(key, value)


def _read(path: Path) -> tuple[str, str]:
    text = _toml.read(path)
    marked = path.read_bytes().startswith(_BOM.encode())
    return _BOM if marked else "", text


def _readings(value: str) -> Iterator[Any]:
    """Yield what a value may mean: TOML, and then a text."""
    with contextlib.suppress(tomllib.TOMLDecodeError, KeyError):
        yield tomllib.loads(f"value = {value}")["value"]
    yield value


def _leaves(values: Mapping[str, Any], at: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    for name, value in values.items():
        key = (*at, name)
        if key[0] not in _schema.OUR_TABLES:
            continue
        if isinstance(value, Mapping) and value and not _schema.is_secret(key):
            yield from _leaves(value, key)
        else:
            yield key, value


def _masked(key: KeyPath, value: Any) -> Any:
    if _schema.is_secret(key):
        return MASK
    if isinstance(value, Mapping):
        return {name: _masked((*key, name), each) for name, each in value.items()}
    return value
