"""Write the pages of docs/reference that the code itself says: python docs/generate.py."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click

import arawn_llm
from arawn_llm.cli import arawn

_FOLDER = Path(__file__).parent / "reference"
_CLI = "# The command line\n\nWhat `--help` prints, for every command.\n"
_API = "# The Python API\n\nEvery public name of `arawn_llm`, with what it says of itself.\n"


def render_cli() -> str:
    """Give the page of the command line."""
    return "\n".join([_CLI, *_commands(arawn, click.Context(arawn, info_name="arawn"))])


def render_api() -> str:
    """Give the page of the Python API."""
    return "\n".join([_API, *(section for name in arawn_llm.__all__ for section in _name(name))])


def _commands(command: click.Command, context: click.Context) -> Iterator[str]:
    context.terminal_width = context.max_content_width = 100
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from _commands(inner, click.Context(inner, info_name=name, parent=context))


def _name(name: str) -> Iterator[str]:
    value = getattr(arawn_llm, name)
    if inspect.ismodule(value):
        yield from _module(name, value)
        return
    yield f"## {name}\n\n{_described(value)}\n"
    if inspect.isclass(value) and not issubclass(value, BaseException):
        for member, found in vars(value).items():
            if not member.startswith("_") and (inspect.isfunction(found) or isinstance(found, property)):
                yield f"### {name}.{member}\n\n{_described(found)}\n"


def _module(name: str, module: ModuleType) -> Iterator[str]:
    if name == "errors":
        yield "## errors\n\nSee [errors](errors.md).\n"
        return
    yield f"## {name}\n\n{inspect.getdoc(module)}\n"
    for member, found in vars(module).items():
        own = getattr(found, "__module__", "") == module.__name__
        if own and not member.startswith("_") and (inspect.isfunction(found) or inspect.isclass(found)):
            yield f"### {name}.{member}\n\n{_described(found)}\n"


def _described(value: object) -> str:
    text = f"```text\n{inspect.getdoc(value) or ''}\n```"
    if inspect.isfunction(value):
        signature = re.sub(r" = <function \w+ at 0x[0-9a-f]+>", " = …", str(inspect.signature(value)))
        return f"`{value.__name__}{signature}`\n\n{text}"
    return text


if __name__ == "__main__":
    (_FOLDER / "cli.md").write_text(render_cli(), encoding="utf-8")
    (_FOLDER / "api.md").write_text(render_api(), encoding="utf-8")
