"""A server for tests: the application on uvicorn, in a thread, and a client of it."""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from arawn_llm import Config
from arawn_llm.server import create_app
from arawn_llm.testing import KEY, Simulator

Start = Callable[..., httpx.Client]
CHAT, STREAM = "/api/v1/chat", "/api/v1/chat/stream"


@contextmanager
def serving(config: Config, **options: Any) -> Iterator[httpx.Client]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = uvicorn.Server(uvicorn.Config(create_app(config, **options), log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def profile(server: Simulator | str, name: str = "", backend: str = "custom") -> str:
    url, key = (server, KEY) if isinstance(server, str) else (server.base_url, server.key)
    head = f"[llm.{name}]" if name else "[llm]"
    return f'{head}\nbackend = "{backend}"\nmodel = "m"\nbase_url = "{url}"\napi_key = "{key}"\nretry_max = 0\n'


def read_events(text: str) -> list[tuple[str, Any]]:
    """Read server-sent events as a browser does."""
    found = re.findall(r"event: (\w+)\ndata: (.*)\n\n", text)
    assert "".join(f"event: {name}\ndata: {data}\n\n" for name, data in found) == text
    return [(name, json.loads(data)) for name, data in found]
