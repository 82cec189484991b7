"""`arawn config`: look at the configuration's files and change them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from arawn_llm.cli import report
from arawn_llm.errors import ConfigError

if TYPE_CHECKING:
    from arawn_llm import Config

_KEY_HELP = "KEY is dotted, such as llm.fast.model; a part that holds a dot stands in quotes."


@click.group()
@click.option("-c", "--config", "file", type=click.Path(path_type=Path), help="This file and no other.")
@click.pass_context
def config(ctx: click.Context, /, file: Path | None) -> None:
    """Look after the configuration."""
    named = file or ctx.obj.get("config")
    ctx.obj = Path(named) if named else None


@config.command()
@click.pass_obj
def path(file: Path | None) -> None:
    """Print the files that take part, the strongest last."""
    from arawn_llm._config import find_named_files

    found = [path for path, _ in find_named_files(file)]
    click.echo("\n".join(map(str, found)) if found else "no file was found")


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array and nothing else.")
@click.pass_obj
def show(file: Path | None, as_json: bool) -> None:
    """Print every setting with the file and line that says it; secrets are masked."""
    from dataclasses import asdict

    from arawn_llm.settings import list_settings

    settings = list(list_settings(_load(file)))
    if as_json:
        click.echo(json.dumps([asdict(each) for each in settings], default=str, ensure_ascii=False, indent=2))
        return
    for each in settings:
        place = f"{each.path}:{each.line}" if each.line else str(each.path or "")
        click.echo(f"{each.key} = {each.value}  {click.style('# ' + place, dim=True)}")


@config.command()
@click.pass_obj
def check(file: Path | None) -> None:
    """Check the files; every problem is printed with its file and line."""
    found = _load(file)
    click.echo(f"{len(found.layers)} files, {len(found.profiles)} profiles, no problem")


@config.command(epilog=_KEY_HELP)
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="Print the value as JSON.")
@click.pass_obj
def get(file: Path | None, key: str, as_json: bool) -> None:
    """Print the value of KEY."""
    from arawn_llm.settings import get_value, parse_key

    value = get_value(_load(file), parse_key(key))
    bare = isinstance(value, str) and not as_json
    click.echo(value if bare else json.dumps(value, ensure_ascii=False, default=str, indent=2))


@config.command("set", epilog=_KEY_HELP, context_settings={"ignore_unknown_options": True})
@click.argument("key")
@click.argument("value")
@click.pass_obj
def set_(file: Path | None, key: str, value: str) -> None:
    """Set KEY to VALUE, and leave every other byte of the file as it is."""
    from arawn_llm.settings import home_of, parse_key, set_value

    parts = parse_key(key)
    home = file or home_of(parts)
    set_value(home, parts, value, named=file is not None)
    click.echo(f"wrote {home}")


@config.command(epilog=_KEY_HELP)
@click.argument("key")
@click.pass_obj
def unset(file: Path | None, key: str) -> None:
    """Remove KEY, or the whole table of that name."""
    from arawn_llm.settings import home_of, parse_key, unset_value

    parts = parse_key(key)
    home = file or home_of(parts)
    unset_value(home, parts, named=file is not None)
    click.echo(f"wrote {home}")


@config.command()
def schema() -> None:
    """Print the JSON Schema of the file, for editors."""
    from arawn_llm._schema import describe_file

    click.echo(json.dumps(describe_file(), indent=2))


@config.command()
@click.pass_obj
def edit(file: Path | None) -> None:
    """Open the file in $EDITOR; it is checked before it is kept."""
    from arawn_llm.settings import home_of, read_text, replace_text

    home = file or home_of(())
    before = read_text(home)
    after: str | None = before
    while True:
        after = click.edit(after, extension=".toml")
        if after is None or after == before:
            click.echo("nothing was changed")
            return
        try:
            replace_text(home, after, named=file is not None)
        except ConfigError as error:
            if not sys.stdin.isatty():
                raise
            report(error)
            if not click.confirm("Edit it again?", default=True, err=True):
                raise
        else:
            click.echo(f"wrote {home}")
            return


@config.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def trust(file: Path) -> None:
    """Allow a project's FILE what it asks for today: addresses, headers, parameters."""
    allow(file)


def allow(file: Path, *, ask: bool = False) -> bool:
    """Show all that a file asks for and allow just that; tell whether it is, where the person was asked."""
    from arawn_llm._config import find_demands, trust_file
    from arawn_llm.errors import printable

    demands = find_demands(file)
    for demand in demands:
        click.echo(f"{file}: {printable('.'.join(demand.key))} {printable(demand.words)}", err=ask)
    if not demands:
        click.echo(f"{file} asks for nothing that needs to be allowed")
        return True
    if ask and not click.confirm("Allow this file all of that?", err=True):
        return False
    trust_file(file, demands)
    click.echo(f"allowed; if {file} asks for more one day, you are asked again", err=ask)
    return True


def _load(file: Path | None) -> Config:
    import arawn_llm

    options: dict[str, Any] = {"path": file} if file else {}
    return arawn_llm.load_config(**options)
