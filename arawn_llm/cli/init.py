"""`arawn init`: from nothing to a first file and its keys."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from arawn_llm.errors import ArawnError

if TYPE_CHECKING:
    from arawn_llm.draft import Choice


@click.command(epilog="Example, without a question: arawn init -b anthropic -b ollama --project --no-keys")
@click.option(
    "-b", "--backend", "backends", multiple=True, metavar="NAME", help="A backend; the first is the default."
)
@click.option("-m", "--model", metavar="NAME", help="The model of the first backend.")
@click.option("--base-url", metavar="URL", help="The address of the first backend.")
@click.option("--project", "place", flag_value="project", help="Write ./arawn.toml.")
@click.option("--user", "place", flag_value="user", help="Write the user's own file.")
@click.option("--no-keys", is_flag=True, help="Ask for no key and check nothing.")
def init(backends: tuple[str, ...], place: str | None, no_keys: bool, **first: str | None) -> None:
    """Write a first arawn.toml, store its keys, and check them; nothing is overwritten."""
    from arawn_llm._config import find_demands, trust_file
    from arawn_llm._layers import user_folder
    from arawn_llm.draft import refuse_existing, write_draft

    asking = sys.stdin.isatty()
    if not backends and not asking:
        raise click.UsageError("say which backend: arawn init -b anthropic")
    if place is None and asking:
        place = click.prompt("Where", type=click.Choice(["project", "user"]), default="user", err=True)
    path = Path("arawn.toml") if place == "project" else user_folder() / "config.toml"
    choices = _choose(backends, first) if backends else []
    refuse_existing(path)
    choices = choices or _ask_choices()
    for written in write_draft(path, choices):
        click.echo(f"wrote {written}")
    if place == "project" and (demands := find_demands(path)):
        trust_file(path, demands)  # the person has just typed them
    if not no_keys and asking:
        for choice in choices:
            _store_and_check(path, choice)
    click.echo('Next: arawn ask "Hello"; if it fails: arawn doctor')


def _choose(backends: tuple[str, ...], first: dict[str, str | None]) -> list[Choice]:
    from arawn_llm.draft import Choice

    head, *rest = dict.fromkeys(backends)
    return [Choice(_known(head), first["model"], first["base_url"]), *(Choice(_known(name)) for name in rest)]


def _known(name: str) -> str:
    from arawn_llm._providers import PROVIDERS
    from arawn_llm._schema import nearest

    if name not in PROVIDERS:
        raise click.UsageError(
            f'"{name}" is not a backend{nearest(name, PROVIDERS)}; there are: {", ".join(PROVIDERS)}'
        )
    return name


def _ask_choices() -> list[Choice]:
    from arawn_llm._providers import PROVIDERS
    from arawn_llm.draft import Choice

    click.echo(
        "Backends: " + ", ".join(f"{row.key} ({row.display_name})" for row in PROVIDERS.values()), err=True
    )
    words = "Which, the default first (with spaces between)"
    names = click.prompt(words, default="anthropic", err=True, value_proc=_read_names)
    choices = []
    for name in names:
        row = PROVIDERS[_known(name)]
        model = click.prompt(f"Model for {name}", default=row.model, err=True)
        url = None
        if row.base_url is None or not row.key_required:
            url = click.prompt(
                f"Address of {row.display_name}", default=row.base_url, err=True, value_proc=_read_url
            )
        choices.append(Choice(name, model, url))
    return choices


def _read_names(text: str) -> list[str]:
    names = list(dict.fromkeys(text.replace(",", " ").split()))
    if not names:
        raise click.UsageError("name one, such as anthropic")
    return [_known(name) for name in names]


def _read_url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise click.UsageError("an address begins with http:// or https://")
    return text


def _store_and_check(path: Path, choice: Choice) -> None:
    import arawn_llm
    from arawn_llm._models import Listing
    from arawn_llm._providers import PROVIDERS
    from arawn_llm.keys import store_key

    row, config = PROVIDERS[choice.backend], arawn_llm.load_config(path)
    try:
        if row.key_required and not row.login:
            words = f"Key for {choice.backend} (not shown; empty to skip)"
            key: Any = click.prompt(words, default="", show_default=False, hide_input=True, err=True)
            if key:
                from pydantic import SecretStr

                click.echo(f"stored in the keyring as {store_key(config, choice.backend, SecretStr(key))}")
        backend = arawn_llm.get_backend(choice.backend, config=config)
        found = Listing(tuple(model.name for model in backend.list_models()))
        click.echo(f"{choice.backend} answers and lists {len(found.names)} models")
        if not found.holds(backend.model):
            there = ", ".join(found.names[:8])
            click.echo(f"  {backend.model} is not among them; there are: {there}", err=True)
    except ArawnError as error:
        click.echo(f"{choice.backend}: {error}", err=True)
        for hint in error.hints:
            click.echo(f"  {hint}", err=True)
