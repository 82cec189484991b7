"""Write docs/reference/cli.md from what each command says of itself: python docs/cli_reference.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from arawn_llm.cli import arawn

PAGE = Path(__file__).parent / "reference" / "cli.md"
_HEAD = "# The command line\n\nWhat `--help` prints, for every command.\n"


def render() -> str:
    """Give the whole page."""
    return "\n".join([_HEAD, *_sections(arawn, click.Context(arawn, info_name="arawn"))])


def _sections(command: click.Command, context: click.Context) -> Iterator[str]:
    context.terminal_width = context.max_content_width = 100
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from _sections(inner, click.Context(inner, info_name=name, parent=context))


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
