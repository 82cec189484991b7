"""Where Arawn's files are, and what they say when they are laid over each other; nothing is checked here."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from arawn_llm import _toml
from arawn_llm._providers import PROVIDERS
from arawn_llm.errors import ConfigError

KeyPath = tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """One file that takes part, and whether it was merely found in a project."""

    path: Path
    text: str = field(repr=False)
    values: Mapping[str, Any] = field(repr=False)
    found: bool = False

    def holds(self, key: KeyPath) -> bool:
        """Tell whether the file itself says this key."""
        value: Any = self.values
        for part in key:
            if not isinstance(value, Mapping) or part not in value:
                return False
            value = value[part]
        return True


def find_files() -> list[tuple[Path, bool]]:
    """Find the files that take part, the strongest last, each with whether it was merely found in a project."""
    try:
        here = Path.cwd()
    except FileNotFoundError:  # the working directory was deleted
        here = None
    user, project = find_user_file(), _project_file(here) if here else None
    files = [(user, False)] if user else []
    if project and not (user and project.resolve() == user.resolve()):
        files.append((project, True))
    return files


def list_names(kind: str) -> list[str]:
    """List the "profiles" (with backend keys), "agents" or "models" that the files name, unchecked."""
    try:
        values = merge_layers([read_layer(path) for path, _ in find_files()])
    except ConfigError:
        return []
    llm = values.get("llm", {})
    tables = [llm, *(table for name, table in llm.items() if isinstance(table, dict))]
    names = {
        "profiles": [*(name for name, table in llm.items() if isinstance(table, dict)), *PROVIDERS],
        "agents": list(values.get("agent", {})),
        "models": [table["model"] for table in tables if isinstance(table.get("model"), str)],
    }
    return list(dict.fromkeys(names[kind]))


def merge_layers(layers: Sequence[Layer]) -> dict[str, Any]:
    """Lay the files' values over each other, the strongest last."""
    values: dict[str, Any] = {}
    for layer in layers:
        values = _merge(values, layer.values)
    return values


def user_folder() -> Path:
    """Name the folder of the user's own file and of what Arawn remembers for the user."""
    folder = os.environ.get("ARAWN_CONFIG_DIR")
    return Path(folder).expanduser() if folder else platformdirs.user_config_path("arawn")


def data_folder() -> Path:
    """Name the folder of what Arawn keeps for the user, such as tokens where no keyring can."""
    folder = os.environ.get("ARAWN_DATA_DIR")
    return Path(folder).expanduser() if folder else platformdirs.user_data_path("arawn")


def client_id_variable() -> str | None:
    """Give the client id that the environment names for a login."""
    return os.environ.get("ARAWN_OAUTH_CLIENT_ID", "").strip() or None


def can_open_browser() -> bool:
    """Guess whether a browser opened here would be in front of the person."""
    if "BROWSER" in os.environ:
        return True
    remote = {"SSH_CONNECTION", "SSH_TTY", "SSH_CLIENT"} & os.environ.keys()
    shown = sys.platform in {"win32", "darwin"} or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    return bool(shown) and not remote


def trust_store() -> Path:
    """Name the file that remembers which found files the person trusts with what."""
    return user_folder() / "trusted.json"


def find_user_file() -> Path | None:
    """Find the user's own file."""
    candidates = [user_folder() / "config.toml"]
    if "ARAWN_CONFIG_DIR" not in os.environ:
        candidates.append(_home_file())
    return next((path for path in candidates if path.exists()), None)


def _home_file() -> Path:
    return Path.home() / ".arawn" / "arawn.toml"


def _project_file(start: Path) -> Path | None:
    for folder in (start, *start.parents):
        for path in (folder / "arawn.toml", folder / ".arawn" / "arawn.toml"):
            if path.exists() and path != _home_file():
                return path
    return None


def read_layer(path: Path, *, found: bool = False) -> Layer:
    """Read one file; raises ConfigError where it cannot be read or is no TOML."""
    text = _toml.read(path)
    return Layer(path, text, _toml.parse(text, path), found)


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
