"""`arawn config`: the configuration's files."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def config() -> None:
    """Look after the configuration."""


@config.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def trust(file: Path) -> None:
    """Allow a project's FILE what it asks for today: addresses, headers, parameters."""
    from arawn_llm._config import trust_file

    demands = trust_file(file)
    for demand in demands:
        click.echo(f"allowed: {'.'.join(demand.key)} {demand.words}")
    if not demands:
        click.echo(f"{file} asks for nothing that needs to be allowed")
