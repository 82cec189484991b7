"""A total deadline for sync calls: every connect, read and write waits no longer than is left of it.

httpx limits each read, so a server that sends one byte a minute outlives any timeout. httpcore lets the
network be replaced (its documentation, "Network backends"), and that is where time can be measured.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpcore

_end: ContextVar[float | None] = ContextVar("arawn_llm_deadline", default=None)


@contextmanager
def deadline(end: float) -> Iterator[None]:
    """Let nothing in this context wait for the network beyond `time.monotonic() == end`."""
    token = _end.set(end)
    try:
        yield
    finally:
        _end.reset(token)


def is_ours() -> bool:
    """Tell whether a call of ours is under way in this context."""
    return _end.get() is not None


def _left(timeout: float | None, error: type[Exception], fallback: float | None = None) -> float | None:
    end = _end.get() or fallback
    if end is None:
        return timeout
    left = end - time.monotonic()
    if left <= 0:
        raise error("the deadline has passed")
    return left if timeout is None else min(left, timeout)


class DeadlineStream(httpcore.NetworkStream):
    """Wrap a connection so that each operation ends with the deadline."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._end: float | None = (
            None  # of the call that wrote last; LiteLLM reads some bodies in another thread
        )

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read some bytes."""
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout, self._end))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all bytes."""
        self._end = _end.get()
        self._stream.write(buffer, _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """Begin TLS."""
        left = _left(timeout, httpcore.ConnectTimeout)
        return DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        """Ask the connection about itself."""
        return self._stream.get_extra_info(info)


class DeadlineNetwork(httpcore.NetworkBackend):
    """Open connections whose operations end with the deadline."""

    def __init__(self, network: httpcore.NetworkBackend) -> None:
        self._network = network

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Open a TCP connection."""
        left = _left(timeout, httpcore.ConnectTimeout)
        return DeadlineStream(self._network.connect_tcp(host, port, left, local_address, socket_options))

    def sleep(self, seconds: float) -> None:
        """Wait between two tries to connect."""
        self._network.sleep(seconds)
