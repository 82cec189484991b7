"""`arawn secrets`: keys in the system keyring."""

from __future__ import annotations

import sys
from typing import Any

import click

from arawn_llm.cli import choose_backend, load_given, shared_options

_NAMES = "NAME is a backend key, such as groq, or a profile for a key of its own."


@click.group()
def secrets() -> None:
    """Store, list, test and delete keys; the keys themselves are never shown."""


@secrets.command("set", epilog=f"{_NAMES} The key is asked for, or read from standard input.")
@click.argument("name")
@click.option("--plaintext", is_flag=True, help="Store it even where the keyring does not encrypt.")
@shared_options
@click.pass_context
def set_(ctx: click.Context, /, name: str, plaintext: bool, **given: Any) -> None:
    """Store the key of NAME."""
    from pydantic import SecretStr

    from arawn_llm.keys import resolve_name, store_key

    config = load_given(ctx, given)
    resolve_name(config, name)
    if sys.stdin.isatty():
        key = SecretStr(click.prompt(f"Key for {name} (it is not shown)", hide_input=True, err=True))
    else:
        key = SecretStr(sys.stdin.read())
    user = store_key(config, name, key, plaintext=plaintext)
    click.echo(f"stored in the keyring as {user}; try it: arawn secrets test {name}")


@secrets.command("list")
@shared_options
@click.pass_context
def list_(ctx: click.Context, /, **given: Any) -> None:
    """List where each key is, with its last four characters at most."""
    from arawn_llm._secrets import KEYRING
    from arawn_llm.keys import list_keys

    found = list(list_keys(load_given(ctx, given)))
    width = max((len(each.name) for each in found), default=0)
    for each in found:
        click.echo(f"{each.name:{width}}  …{each.tail:4}  {each.place}")
    if not found:
        click.echo("no key was found")
    if KEYRING.failure:
        click.echo(f"the keyring is not used: {KEYRING.failure}", err=True)


@secrets.command(epilog=_NAMES)
@click.argument("name")
@shared_options
@click.pass_context
def delete(ctx: click.Context, /, name: str, **given: Any) -> None:
    """Delete every copy of the key of NAME from the keyring."""
    from arawn_llm.keys import delete_key

    user, count = delete_key(load_given(ctx, given), name)
    click.echo(f"deleted {count} of {user}" if count else f"there was no {user} in the keyring")


@secrets.command(epilog=_NAMES)
@click.argument("name")
@shared_options
@click.pass_context
def test(ctx: click.Context, /, name: str, **given: Any) -> None:
    """Ask the provider of NAME whether it takes the key, with one cheap request."""
    backend = choose_backend(ctx, given | {"backend": name})
    count = len(backend.list_models())
    click.echo(f"{backend.base_url} takes the key and lists {count} models")
