"""The HTTP clients that LiteLLM calls through: no redirects, deadlines, one credential, whole events."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from arawn_llm import _deadline, _events
from arawn_llm._providers import NO_KEY

HTTPError = httpx.HTTPError

# For each event loop and kind of credential: LiteLLM's handler, and the generator that closes it.
_open: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[bool, tuple[Any, AsyncGenerator[None]]]]
_open = WeakKeyDictionary()
_lent: ContextVar[Any] = ContextVar("arawn_llm_client", default=None)
_lending = threading.Lock()


@cache
def get_handler(handler_class: Any, bearer: bool) -> Any:
    """Give the process's sync handler.

    Args:
        handler_class: LiteLLM's `HTTPHandler`.
        bearer: Whether a key goes out as bearer token.
    """
    handler = handler_class(follow_redirects=False)
    for transport in [handler.client._transport, *handler.client._mounts.values()]:
        if transport is not None:
            transport._pool._network_backend = _deadline.DeadlineNetwork(transport._pool._network_backend)
    handler.client.event_hooks = {
        "request": [_prepare_bearer if bearer else _prepare],
        "response": [_events.check_events],
    }
    return handler


async def aget_handler(handler_class: Any, bearer: bool) -> Any:
    """Give this event loop's async handler.

    Args:
        handler_class: LiteLLM's `AsyncHTTPHandler`.
        bearer: Whether a key goes out as bearer token.
    """
    handlers = _open.setdefault(asyncio.get_running_loop(), {})
    if bearer not in handlers:
        hooks = {"request": [_aprepare_bearer if bearer else _aprepare], "response": [_acheck_events]}
        handler = handler_class(follow_redirects=False, event_hooks=hooks)
        keeper = _keep(handler, handlers, bearer)
        handlers[bearer] = handler, keeper
        await anext(keeper)
    return handlers[bearer][0]


async def _keep(handler: Any, handlers: dict[bool, Any], bearer: bool) -> AsyncGenerator[None]:
    """Close a handler when its event loop shuts down its asynchronous generators, as asyncio.run does."""
    try:
        yield
    finally:
        handlers.pop(bearer, None)
        await handler.close()


def ask_json(
    url: str, headers: Mapping[str, str], timeout: float, body: Mapping[str, Any] | None = None
) -> tuple[Any, Mapping[str, str]]:
    """Get a JSON document, or post one and get another; no redirect is followed.

    Raises:
        HTTPError: There was no answer, or one with an error's status.
        ValueError: It is no JSON.
    """
    method = "GET" if body is None else "POST"
    response = httpx.request(
        method, url, headers=dict(headers), json=body, timeout=timeout, follow_redirects=False
    )
    response.raise_for_status()
    return response.json(), response.headers


async def aclose() -> None:
    """Close this event loop's connections."""
    for _, keeper in [*_open.get(asyncio.get_running_loop(), {}).values()]:
        await keeper.aclose()


def forget() -> None:
    """Leave the parent's connections to the parent after a fork."""
    get_handler.cache_clear()
    _open.clear()


def _prepare(request: Any) -> None:
    """Send no placeholder, and say that the body is JSON where LiteLLM does not."""
    if request.headers.get("authorization") == f"Bearer {NO_KEY}":
        del request.headers["authorization"]
    if "content-type" not in request.headers:
        request.headers["content-type"] = "application/json"


def _prepare_bearer(request: Any) -> None:
    """Turn the key header into a bearer token; LiteLLM does so for tokens of one shape only."""
    token = request.headers.pop("x-api-key", None)
    if token is not None:
        request.headers["authorization"] = f"Bearer {token}"


async def _aprepare(request: Any) -> None:
    _prepare(request)


async def _aprepare_bearer(request: Any) -> None:
    _prepare_bearer(request)


async def _acheck_events(response: Any) -> None:
    _events.check_events(response)


class _Lent:
    """Stand for LiteLLM's own client, which some routes take whatever they are given; be ours in our calls."""

    def __init__(self, original: Any) -> None:
        self._original = original

    def __getattr__(self, name: str) -> Any:
        return getattr(_lent.get() or self._original, name)


@contextmanager
def lend(litellm: Any, name: str, client: Any) -> Iterator[None]:
    """Let a client of LiteLLM's own be ours in this context; others see it as before."""
    with _lending:
        if not isinstance(getattr(litellm, name), _Lent):
            setattr(litellm, name, _Lent(getattr(litellm, name)))
    mark = _lent.set(client)
    try:
        yield
    finally:
        _lent.reset(mark)


class NoRetries(int):
    """Be 0 and yet true: LiteLLM reads a false `max_retries` as none given, and lets the SDK retry twice."""

    def __bool__(self) -> bool:
        return True
