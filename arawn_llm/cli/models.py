"""`arawn models`: what a provider serves."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from arawn_llm.cli import choose_backend, complete_from_file, shared_options


@click.command(epilog="Examples: arawn models; arawn models fast; arawn models ollama --json")
@click.argument(
    "name", required=False, metavar="[PROFILE|BACKEND]", shell_complete=complete_from_file("profiles")
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array and nothing else.")
@shared_options
@click.pass_context
def models(ctx: click.Context, /, name: str | None, as_json: bool, **given: Any) -> None:
    """List what the provider serves, with context window and price (US dollars for a million tokens)."""
    backend = choose_backend(ctx, given | {"backend": name or given["backend"]})
    found = backend.list_models()
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], ensure_ascii=False, indent=2))
        return
    if not found:
        click.echo(f"{backend.backend} lists no model", err=True)
    width = max((len(each.name) for each in found), default=0)
    for each in found:
        window = f"{each.context_window:>10,} tokens" if each.context_window else ""
        price = "" if each.input_price is None else f"  ${each.input_price:.2f} in"
        price += "" if each.output_price is None else f"  ${each.output_price:.2f} out"
        click.echo(f"{each.name:{width}}  {window}{price}".rstrip())
