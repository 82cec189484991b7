"""The JSON API: every profile over HTTP, as an ASGI application of its own or inside another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any

from arawn_llm.errors import MissingExtraError

if TYPE_CHECKING:
    from arawn_llm import Config

__all__ = ["LOOPBACK", "create_app"]

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def create_app(
    config: Config | None = None,
    *,
    token: str | None = None,
    hosts: Collection[str] = LOOPBACK,
    origins: Collection[str] = (),
    rate: int = 600,
    max_body: int = 16 * 1024 * 1024,
) -> ASGIApp:
    """Make the ASGI application that `arawn serve` runs.

    Args:
        config: What `load_config` gave; the files found from the working directory without it.
        token: What clients have to send as `Authorization: Bearer …`; without it nothing is asked for.
        hosts: The names that a request's Host header may say, without a port.
        origins: Web pages, such as "https://chat.example.org", that may call from a browser.
        rate: Requests that one address may make in a minute; 0 for no limit.
        max_body: Bytes that a request may have.

    Raises:
        MissingExtraError: Starlette is not installed.
    """
    try:
        from arawn_llm.server._app import build_app
    except ModuleNotFoundError as exc:
        raise missing_extra(exc) from exc
    from arawn_llm.server._guard import Guard

    guard = Guard(token, frozenset(hosts), frozenset(origins), rate)
    return build_app(config, guard, max_body)


def missing_extra(exc: ModuleNotFoundError) -> MissingExtraError:
    """Say which command installs what the server needs."""
    package = (exc.name or str(exc)).partition(".")[0]
    words = f"the server needs {package}, which is not installed"
    return MissingExtraError(words, hints=("install it: pip install 'arawn-llm[server]'",))
