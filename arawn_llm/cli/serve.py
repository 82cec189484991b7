"""`arawn serve`: the JSON API."""

from __future__ import annotations

import os
import signal
import socket
import sys
from ipaddress import ip_address
from typing import Any

import click

from arawn_llm.cli import load_given
from arawn_llm.errors import ArawnError, MissingCredentialError

_ANY = {"0.0.0.0", "::"}  # noqa: S104 - told apart here; bound only where the person says so, and with a token


@click.command(epilog="Examples: arawn serve; arawn serve --host 0.0.0.0 --allow-host box.example.org")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="A name that clients call this server by.")
@click.option("--allow-origin", multiple=True, metavar="ORIGIN", help="A web page's origin that may call.")
@click.option("--rate", default=600, show_default=True, help="Requests a minute for each client; 0: no limit.")
@click.option("--max-body", default=16 * 1024 * 1024, show_default=True, help="Bytes of a request's body.")
@click.option("--grace", default=30, show_default=True, help="Seconds for streams to end when told to stop.")
@click.option("-c", "--config", metavar="FILE", help="Read this file and no other.")
@click.pass_context
def serve(ctx: click.Context, /, host: str, port: int, **given: Any) -> None:
    """Serve every profile over HTTP, to this machine only unless told otherwise."""
    from arawn_llm.server import LOOPBACK, create_app, missing_extra

    try:
        import uvicorn
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    config = load_given(ctx, given)
    app = create_app(
        config,
        token=_find_token(host),
        hosts={*LOOPBACK, *given["allow_host"], *({_bracket(host)} - _ANY)},
        origins=given["allow_origin"],
        rate=given["rate"],
        max_body=given["max_body"],
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # a client could name itself anything
            server_header=False,
            timeout_graceful_shutdown=given["grace"],
        )
    )
    with _listen(host, port) as listener:
        url = f"http://{_bracket(host)}:{listener.getsockname()[1]}"
        click.echo(f"Listening on {url}; what it answers is at {url}/docs; Ctrl-C stops it.")
        sys.stdout.flush()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # once uvicorn has let the streams end
        server.run(sockets=[listener])


def _find_token(host: str) -> str | None:
    from arawn_llm._secrets import SERVICE, find_key

    found = find_key("auth_token", "ARAWN_AUTH_TOKEN", "serve", None)
    if found is None and not _is_loopback(host):
        raise MissingCredentialError(
            f"{host} can be reached from other machines, and there is no token that clients have to send",
            hints=(
                f"keyring set {SERVICE} auth_token",
                "or: export ARAWN_AUTH_TOKEN=…",
                "or leave --host out",
            ),
        )
    return found.value.get_secret_value() if found else None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as exc:
        words = f"cannot listen on {_bracket(host)}:{port}: {os.strerror(exc.errno or 0)}"
        raise ArawnError(words, hints=("is another server there? take another port: --port 8001",)) from exc
    # asyncio does this only for sockets that know their protocol; without it an answer waits 40 ms for an ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
