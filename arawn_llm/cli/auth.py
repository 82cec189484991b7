"""`arawn auth`: log in once, look, log out."""

from __future__ import annotations

from typing import Any

import click

from arawn_llm.cli import load_given
from arawn_llm.errors import LoginRequiredError

_FILE = click.option("-c", "--config", metavar="FILE", help="Read this file and no other.")


class _LoginByDefault(click.Group):
    """Take `arawn auth --no-browser` for `arawn auth login --no-browser`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["login", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_LoginByDefault, epilog="Without a command: arawn auth login, with its options.")
def auth() -> None:
    """Log in with OAuth where a backend wants a login instead of a key."""


@auth.command()
@click.option("--client-id", metavar="ID", help="The registration to log in with.")
@click.option("--no-browser", is_flag=True, help="Print the address, and read what the browser showed.")
@click.option(
    "--timeout",
    type=click.IntRange(1, 86_400),
    default=300,
    metavar="SECONDS",
    show_default=True,
    help="How long to wait for the browser; what is pasted has no limit.",
)
@_FILE
@click.pass_context
def login(ctx: click.Context, /, client_id: str | None, no_browser: bool, timeout: float, **given: Any) -> None:
    """Open the browser for consent, and keep the tokens."""
    from arawn_llm import auth

    browser = False if no_browser else None
    found = auth.login(config=load_given(ctx, given), client_id=client_id, browser=browser, timeout=timeout)
    click.echo(f"Logged in at {found.issuer}. The tokens are kept in {found.place}.")


@auth.command()
@_FILE
@click.pass_context
def status(ctx: click.Context, /, **given: Any) -> None:
    """Say whether there is a login, where it is kept, and when it ends."""
    from arawn_llm import auth

    found = auth.status(config=load_given(ctx, given))
    if found.place and not found.logged_in:
        click.echo(f"Not logged in at {found.issuer}.")
        click.echo(f"A token from {found.place} stands in for a login, and is not renewed.")
        return
    if not found.logged_in:
        raise LoginRequiredError(f"not logged in at {found.issuer}", hints=("log in: arawn auth",))
    ends = f"{found.expires_at:%Y-%m-%d %H:%M %Z}" if found.expires_at else "unknown"
    click.echo(f"Logged in at {found.issuer}.")
    click.echo(f"Kept in: {found.place}")
    click.echo(f"Token ends: {ends}, {'and is renewed by itself' if found.renewable else 'for good'}")
    if found.scope:
        click.echo(f"Scope: {found.scope}")


@auth.command()
@_FILE
@click.pass_context
def logout(ctx: click.Context, /, **given: Any) -> None:
    """Revoke the tokens where the issuer can, and remove every copy."""
    from arawn_llm import auth

    done = auth.logout(config=load_given(ctx, given))
    click.echo(f"At the issuer: {done.revocation}.")
    for place in done.removed:
        click.echo(f"Removed from: {place}")
    if not done.removed:
        click.echo("There was no login to remove.")
