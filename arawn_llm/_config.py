"""The configuration: where its files are found, how they are layered, and all that is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from arawn_llm import _schema, _secrets, _toml, _trust
from arawn_llm._layers import KeyPath, Layer, find_files, find_user_file, merge_layers, read_layer, trust_store
from arawn_llm._providers import PROVIDERS
from arawn_llm._schema import Agent, Embedding, MemoryProfile, OAuth, Profile
from arawn_llm.errors import ConfigError, Problem

DEFAULT = "default"
_MOST_LOCATED = 50  # problems that are given a line; beyond that nobody reads on

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True)
class Config:
    """Hold everything that the files say, valid and merged.

    Attributes:
        profiles: The profiles by name; the keys of `[llm]` itself are the profile "default".
        tables: The table in which each profile stands.
        agents: The agents by name.
        embedding: The `[embedding]` table.
        oauth: The `[oauth.…]` tables by name.
        layers: The files, the strongest last.
        trusted: What the person has allowed, by a file's real path.
    """

    profiles: Mapping[str, Profile] = field(default_factory=dict)
    tables: Mapping[str, KeyPath] = field(default_factory=dict)
    agents: Mapping[str, Agent] = field(default_factory=dict)
    embedding: Embedding = field(default_factory=Embedding)
    oauth: Mapping[str, OAuth] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    trusted: Mapping[str, frozenset[str]] = field(default_factory=dict, repr=False)

    def problem(self, key: KeyPath, message: str) -> Problem:
        """Name the place of a key, in the strongest file that says it, with what is wrong there."""
        return _place(self.layers, [(key, message)])[0]

    def untrusted(self, table: KeyPath) -> list[Problem]:
        """List what a merely found file asks for in a table that the person has not allowed."""
        found = [layer for layer in self.layers if layer.found]
        return [
            problem
            for layer in found
            for problem in _place([layer], [(d.key, d.words) for d in self._refused(layer, table)])
        ]

    def _refused(self, layer: Layer, table: KeyPath) -> Iterator[_trust.Demand]:
        own = [_trust.find_demands(other.values) for other in self.layers if not other.found]
        allowed = {demand.subject for demands in own for demand in demands}
        allowed |= self.trusted.get(os.path.realpath(layer.path), frozenset())
        for demand in self.demands(layer):
            if _belongs(demand.key, table) and demand.subject not in allowed:
                yield demand

    def demands(self, layer: Layer) -> list[_trust.Demand]:
        """List all in a found file that could send a key elsewhere."""
        return [*_trust.find_demands(layer.values), *self._moved_keys(layer)]

    def _moved_keys(self, layer: Layer) -> Iterator[_trust.Demand]:
        """Find a found file that gives a profile another backend while its key is from elsewhere."""
        for table in self.tables.values():
            backend, api_key, headers = ((*table, name) for name in ("backend", "api_key", "headers"))
            if layer.holds(backend) and not layer.holds(api_key):
                for other in self.layers:
                    holds = other is not layer and (other.holds(api_key) or other.holds(headers))
                    if holds and _get(other.values, backend) != _get(layer.values, backend):
                        subject = ".".join(backend) + f"={_get(layer.values, backend)}"
                        yield _trust.Demand(backend, subject, "sends your profile's key to another backend")


def _belongs(key: KeyPath, table: KeyPath) -> bool:
    """Tell whether a key is one of the table's own, not one of a profile below it."""
    rest = key[len(table) :]
    return key[: len(table)] == table and (len(rest) <= 1 or rest[0] in {"headers", "params"})


def _get(values: Any, key: KeyPath) -> Any:
    for part in key:
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def load_config(path: str | os.PathLike[str] | None = None) -> Config:
    """Read the configuration anew.

    Args:
        path: One file to read and trust. Without it `$ARAWN_CONFIG` names one; else the user's file and
            the project's file are searched for, and the project's overrides the user's key by key.

    Raises:
        ConfigError: A file cannot be used; holds every problem found, with file and line.
    """
    return _build([read_layer(file, found=found) for file, found in find_named_files(path)])


def find_named_files(path: str | os.PathLike[str] | None = None) -> list[tuple[Path, bool]]:
    """Find the files that `load_config` reads, each with whether it was merely found in a project."""
    named = path or os.environ.get("ARAWN_CONFIG")
    return [(Path(named).expanduser(), False)] if named else find_files()


def check(path: Path, text: str, *, named: bool = False) -> None:
    """See whether a file may hold a text, with the other files that take part or, if named, by itself.

    Raises:
        ConfigError: It may not; holds every problem found.
    """
    layer = Layer(path, text, _toml.parse(text, path))
    others = [] if named else [(each, found) for each, found in find_files() if each != path]
    _build([*(read_layer(each, found=found) for each, found in others), layer])


@cache
def found_config() -> Config:
    """Give the configuration found from the working directory, read once in a process."""
    return load_config()


def reload() -> None:
    """Forget the configuration and the keys read so far; the next use reads them again."""
    found_config.cache_clear()
    _secrets.KEYRING.forget()


def find_demands(path: Path) -> list[_trust.Demand]:
    """List all that a project's file asks for that could send a key elsewhere."""
    user, layer = find_user_file(), read_layer(path, found=True)
    return _build([*([read_layer(user)] if user else []), layer]).demands(layer)


def trust_file(path: Path, demands: Sequence[_trust.Demand]) -> None:
    """Allow a project's file these demands, and no others."""
    _trust.save_trust(trust_store(), path, [demand.subject for demand in demands])


def _build(layers: list[Layer]) -> Config:
    reader = _Reader(merge_layers(layers))
    profiles, tables = reader.read_profiles()
    config = Config(
        profiles=profiles,
        tables=tables,
        agents={name: agent for name, _, agent in reader.read_tables(("agent",), Agent)},
        embedding=reader.read(("embedding",), Embedding) or Embedding(),
        oauth={name: table for name, _, table in reader.read_tables(("oauth",), OAuth)},
        layers=tuple(layers),
        trusted=_trust.load_trust(trust_store()) if any(layer.found for layer in layers) else {},
    )
    reader.check_names(("oauth",), [row.login.name for row in PROVIDERS.values() if row.login])
    if reader.problems:
        raise ConfigError(_place(layers, reader.problems))
    return config


class _Reader:
    """Read the merged values into models, collecting every problem with the key where it stands."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.problems: list[tuple[KeyPath, str]] = []

    def read_profiles(self) -> tuple[dict[str, Profile], dict[str, KeyPath]]:
        """Read `[llm]`, the tables below it, and `[memory.…]` tables with a backend of their own."""
        llm = self._table(("llm",))
        own = {k: v for k, v in llm.items() if not isinstance(v, dict) or k in {"headers", "params"}}
        found: list[tuple[str, KeyPath, Profile | None]] = []
        if own:
            found.append((DEFAULT, ("llm",), self._validate(("llm",), own, Profile)))
        for name in llm.keys() - own.keys():
            found.append((name, ("llm", name), self._validate(("llm", name), llm[name], Profile)))
        for name, table in self._table(("memory",)).items():
            backend = table.get("backend") if isinstance(table, dict) else None
            if isinstance(backend, str) and (backend in PROVIDERS or _schema.nearest(backend, PROVIDERS)):
                key = ("memory", name)
                found.append((".".join(key), key, self._validate(key, table, MemoryProfile)))
        order = {name: i for i, name in enumerate([DEFAULT, *llm])}
        found.sort(key=lambda item: order.get(item[0], len(order)))
        kept = [(name, key, profile) for name, key, profile in found if profile is not None]
        return {name: profile for name, _, profile in kept}, {name: key for name, key, _ in kept}

    def read_tables(self, key: KeyPath, model: type[T]) -> Iterator[tuple[str, KeyPath, T]]:
        """Read every table below a key."""
        for name in self._table(key):
            found = self.read((*key, name), model)
            if found is not None:
                yield name, (*key, name), found

    def check_names(self, key: KeyPath, names: list[str]) -> None:
        """Find tables below a key that have none of the names."""
        for name in self._table(key).keys() - names:
            words = f"[{'.'.join((*key, name))}] is not a known table{_schema.nearest(name, names)}"
            self.problems.append(((*key, name), words))

    def read(self, key: KeyPath, model: type[T]) -> T | None:
        """Read one table."""
        return self._validate(key, self._table(key), model)

    def _table(self, key: KeyPath) -> dict[str, Any]:
        value = _get(self.values, key)
        if value is None or isinstance(value, dict):
            return value or {}
        self.problems.append((key, f"[{'.'.join(key)}] must be a table"))
        return {}

    def _validate(self, key: KeyPath, table: dict[str, Any], model: type[T]) -> T | None:
        try:
            return model.model_validate(table)
        except ValidationError as error:
            for path, words in _schema.explain(model, error):
                self.problems.append(((*key, *path), f"[{'.'.join(key)}] {words}"))
            return None


def _place(layers: list[Layer] | tuple[Layer, ...], problems: list[tuple[KeyPath, str]]) -> list[Problem]:
    """Give each problem the strongest file that says its key, and the line there."""
    homes = [_home(layers, key) for key, _ in problems]
    lines = {
        layer.path: _toml.locate(layer.text, [key for at, key in homes[:_MOST_LOCATED] if at == layer])
        for layer in layers
    }
    placed = [
        Problem(words, at.path if at else None, lines[at.path].get(key) if at else None)
        for (at, key), (_, words) in zip(homes, problems, strict=True)
    ]
    return sorted(placed, key=lambda problem: (str(problem.path), problem.line or 0))


def _home(layers: list[Layer] | tuple[Layer, ...], key: KeyPath) -> tuple[Layer | None, KeyPath]:
    """Find the strongest layer that says a key, or else the nearest table around it."""
    for end in range(len(key), 0, -1):
        for layer in reversed(layers):
            if layer.holds(key[:end]):
                return layer, key[:end]
    return None, key
