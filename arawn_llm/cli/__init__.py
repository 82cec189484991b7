"""The `arawn` command: argument, library call, print. Errors become messages and exit codes only here."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from arawn_llm import __version__
from arawn_llm.errors import ArawnError, ConfigError, CredentialError

EXIT_CODES = "Exit codes: 0 done, 1 the backend failed, 2 usage, 3 configuration, 4 credentials, 130 Ctrl-C."
_COMMANDS = {"ask": "arawn_llm.cli.ask", "config": "arawn_llm.cli.config"}


class _Lazy(click.Group):
    """Import a command's module only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        home = _COMMANDS.get(cmd_name)
        return getattr(import_module(home), cmd_name) if home else None


@click.command(cls=_Lazy, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="arawn")
@click.option("-b", "--backend", metavar="NAME", help="A profile, or a backend key such as ollama.")
@click.option("-m", "--model", metavar="NAME", help="Another model than the profile's.")
@click.option("-c", "--config", metavar="FILE", help="Read this file and no other.")
@click.pass_context
def arawn(ctx: click.Context, backend: str | None, model: str | None, config: str | None) -> None:
    """Talk to the language models that arawn.toml names.

    \b
    arawn ask "Hello"
    arawn --backend ollama ask "Hello"
    git diff | arawn ask "Write a commit message"
    """
    ctx.obj = {"backend": backend, "model": model, "config": config}


def main() -> None:
    """Run the command line and exit with a documented code."""
    try:
        arawn.main(standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our pipe has gone; Python would complain once more while flushing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except ArawnError as exc:
        sys.exit(_report(exc))


def _report(exc: ArawnError) -> int:
    click.echo(click.style("Error: ", fg="red") + str(exc), err=True)
    if exc.hints:
        click.echo("What to check:", err=True)
    for number, hint in enumerate(exc.hints, 1):
        click.echo(f"  {number}. {hint}", err=True)
    kinds = ((ConfigError, 3), (CredentialError, 4))
    return next((code for kind, code in kinds if isinstance(exc, kind)), 1)
