"""The `arawn` command: argument, library call, print. Errors become messages and exit codes only here."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from arawn_llm import __version__
from arawn_llm.errors import ArawnError, ConfigError, CredentialError, UntrustedFileError, printable

if TYPE_CHECKING:
    from arawn_llm import Backend, Config

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
EXIT_CODES = "Exit codes: 0 done, 1 the backend failed, 2 usage, 3 configuration, 4 credentials, 130 Ctrl-C."
# Each command's module, and what the list of commands says of it without importing that.
_COMMANDS = {
    "ask": "Ask once and print the answer.",
    "auth": "Log in where a backend wants a login instead of a key.",
    "chat": "Talk with a model.",
    "config": "Look after the configuration.",
    "init": "Write a first arawn.toml, and store its keys.",
    "doctor": "Check every profile, key, address and model.",
    "models": "List what a provider serves.",
    "completion": "Print the completion script of a shell.",
    "serve": "Serve every profile over HTTP: the JSON API.",
    "secrets": "Store, list, test and delete keys.",
    "demo": "Show every backend at work, simulated: no key, no network.",
    "embed": "Turn texts into vectors.",
}


def complete_from_file(kind: str) -> Callable[..., list[str]]:
    """Complete "profiles", "agents" or "models" from the files, without checking those."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        from arawn_llm._layers import list_names

        return [name for name in list_names(kind) if name.startswith(incomplete)]

    return complete


_SHARED = (
    click.option(
        "-b",
        "--backend",
        metavar="NAME",
        shell_complete=complete_from_file("profiles"),
        help="A profile, or a backend key such as ollama.",
    ),
    click.option(
        "-m",
        "--model",
        metavar="NAME",
        shell_complete=complete_from_file("models"),
        help="Another model than the profile's.",
    ),
    click.option("-c", "--config", metavar="FILE", help="Read this file and no other."),
)


def shared_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let --backend, --model and --config stand before or behind a command's name."""
    for option in reversed(_SHARED):
        command = option(command)
    return command


def choose_backend(ctx: click.Context, given: dict[str, Any], agent: str | None = None) -> Backend:
    """Choose the backend that the shared options name, the command's own before the group's."""
    import arawn_llm

    wanted = {name: given[name] or ctx.obj[name] for name in ("backend", "model", "config")}
    config = arawn_llm.load_config(wanted["config"]) if wanted["config"] else None
    return arawn_llm.get_backend(wanted["backend"], agent=agent, model=wanted["model"], config=config)


def load_given(ctx: click.Context, given: dict[str, Any]) -> Config:
    """Read the file that --config names, before or behind the command's name, or else what is found."""
    import arawn_llm

    return arawn_llm.load_config(given["config"] or ctx.obj["config"])


class _Lazy(click.Group):
    """Import a command's module only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"arawn_llm.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))


@click.command(cls=_Lazy, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="arawn")
@click.option("-v", "--verbose", count=True, help="Say what is decided and why; -vv says more.")
@shared_options
@click.pass_context
def arawn(ctx: click.Context, /, verbose: int, **shared: str | None) -> None:
    """Talk to the language models that arawn.toml names.

    \b
    arawn init
    arawn demo
    arawn ask "Hello"
    arawn --backend ollama ask "Hello"
    git diff | arawn ask "Write a commit message"
    """
    ctx.obj = shared
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    if verbose:
        _log_to_stderr(verbose)


def _log_to_stderr(verbose: int) -> None:
    import logging

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("arawn_llm")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose > 1 else logging.INFO)


def main() -> None:
    """Run the command line and exit with a documented code."""
    _prepare_streams()
    code = 1
    try:
        code = _run_reported()
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_streams()  # the reader of our pipe has gone
    except OSError as exc:
        lost = "the working directory" if isinstance(exc, FileNotFoundError) else "standard output"
        with suppress(OSError):
            click.echo(f"Error: {exc.filename or lost}: {exc.strerror or exc}", err=True)
        _leave_streams()
    sys.exit(code)


def _prepare_streams() -> None:
    """Have three streams, whichever were closed, and no byte that cannot pass through them."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name) or open(os.devnull, mode)  # noqa: SIM115 - for the process's life
        setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if name == "stdin" else "backslashreplace")


def _leave_streams() -> None:
    """Write to nowhere what Python would write once more at its end."""
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _run_reported() -> int:
    try:
        _run()
        return 0
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C while threads end changes no code
        return 130
    except ArawnError as exc:
        return report(exc)


def plain(text: str) -> str:
    """Take from a text what would move a terminal's cursor, clear it, or change its title."""
    return _CONTROLS.sub("\ufffd", text.replace("\r\n", "\n"))


def _run() -> None:
    try:
        arawn.main(standalone_mode=False, prog_name="arawn", complete_var="_ARAWN_COMPLETE")
    except UntrustedFileError as exc:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        click.echo("A file that was found in this project asks for what needs your consent:", err=True)
        if not import_module("arawn_llm.cli.config").allow(exc.path, ask=True):
            raise
        import_module("arawn_llm").reload()
        arawn.main(standalone_mode=False, prog_name="arawn", complete_var="_ARAWN_COMPLETE")


def report(exc: ArawnError) -> int:
    """Print an error with what to check, and give its exit code."""
    click.echo(click.style("Error: ", fg="red") + printable(str(exc)), err=True)
    if exc.hints:
        click.echo("What to check:", err=True)
    for number, hint in enumerate(exc.hints, 1):
        click.echo(f"  {number}. {printable(hint)}", err=True)
    kinds = ((ConfigError, 3), (CredentialError, 4))
    return next((code for kind, code in kinds if isinstance(exc, kind)), 1)
