"""A first configuration file: what a person chose, with the rest as comments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from arawn_llm import _atomic, _config
from arawn_llm._providers import PROVIDERS
from arawn_llm._schema import describe_file
from arawn_llm.errors import ConfigError, Problem

SCHEMA_NAME = "arawn.schema.json"


@dataclass(frozen=True)
class Choice:
    """One profile to begin with: a backend, and what its row does not already say."""

    backend: str
    model: str | None = None
    base_url: str | None = None


def write_draft(path: Path, choices: Sequence[Choice]) -> list[Path]:
    """Write a commented file and, beside it, the schema that editors check it by; nothing is overwritten.

    Args:
        path: The file.
        choices: The profiles, the default first.

    Returns:
        What was written.

    Raises:
        ConfigError: There is a file already, the choices are not valid, or it cannot be written.
    """
    refuse_existing(path)
    text = draft(choices)
    _config.check(path, text, named=True)
    schema = path.with_name(SCHEMA_NAME)
    written = [path]
    if not schema.exists():
        _atomic.write(schema, json.dumps(describe_file(), indent=2) + "\n", mode=0o644)
        written.append(schema)
    _atomic.write(path, text, mode=0o644)
    return written


def refuse_existing(path: Path) -> None:
    """Raise ConfigError where there is something at a path already."""
    if path.exists() or path.is_symlink():
        hint = "look at it: arawn config show; change it: arawn config set KEY VALUE"
        raise ConfigError(Problem("is there already and stays as it is", path), hints=(hint,))


def draft(choices: Sequence[Choice]) -> str:
    """Give the text of a first file."""
    tables = [_table(choice, default=number == 0) for number, choice in enumerate(choices)]
    other = choices[-1].backend if len(choices) > 1 else "default"
    head = f"#:schema ./{SCHEMA_NAME}\n# The language models of this application: each table is a profile.\n"
    agents = (
        "# An agent asks with a profile, and may have a system prompt of its own.\n"
        f'# [agent.summarizer]\n# llm = "{other}"\n# system_prompt = "Summarise in three lines."\n'
    )
    return "\n".join([head, *tables, agents])


def _table(choice: Choice, *, default: bool) -> str:
    row = PROVIDERS[choice.backend]
    lines = ["[llm]" if default else f"[llm.{choice.backend}]", f'backend = "{choice.backend}"']
    lines.append(f"model = {json.dumps(choice.model or row.model or '')}")
    if choice.base_url or row.base_url is None or not row.key_required:
        lines.append(f"base_url = {json.dumps(choice.base_url or row.base_url or '')}")
    if row.login:
        lines.append("# log in once: arawn auth")
    elif row.key_required or row.base_url is None:
        lines.append(f"# its key: arawn secrets set {row.key}, or {row.env_var} in the environment")
    lines += ["# max_context_tokens = 32768", "# temperature = 0.7", "# timeout = 600"]
    return "\n".join(lines) + "\n"
