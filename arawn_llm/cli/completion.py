"""`arawn completion`: the script that completes commands, profiles, agents and models."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_SHELLS = {
    "bash": 'add to ~/.bashrc: eval "$(arawn completion bash)"',
    "zsh": 'add to ~/.zshrc: eval "$(arawn completion zsh)"',
    "fish": "arawn completion fish > ~/.config/fish/completions/arawn.fish",
}


@click.command(epilog="; ".join(_SHELLS.values()))
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(ctx: click.Context, /, shell: str) -> None:
    """Print the completion script of SHELL."""
    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(script(ctx.find_root().command, {}, "arawn", "_ARAWN_COMPLETE").source())
