"""A private home, no keyring, no keys in the environment, sockets to this machine only."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import arawn_llm
from arawn_llm import Backend
from arawn_llm.testing import Simulator

KEYS = ("ANTHROPIC", "OPENAI", "GROQ", "OLLAMA", "LLM", "ARAWN", "LITELLM", "HTTP", "http", "ALL_PROXY")
OURS = {"127.0.0.1", "localhost", "::1", None}
Make = Callable[..., Backend]


@pytest.fixture(autouse=True)
def private_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    for name in [name for name in os.environ if name.startswith(KEYS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    monkeypatch.chdir(home / "work")
    arawn_llm.reload()
    yield home
    arawn_llm.reload()


@pytest.fixture(autouse=True)
def looked_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Refuse every look-up of a name that is not this machine's; a test that wants one empties the list."""
    original, names = socket.getaddrinfo, []

    def guarded(host: object, *args: object, **kwargs: object) -> object:
        if host not in OURS:
            names.append(host)
            raise socket.gaierror(socket.EAI_NONAME, "no network in tests")
        return original(host, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", guarded)
    yield names
    assert names == [], "looked up a name beyond this machine"


@pytest.fixture
def write(private_home: Path) -> Callable[[str, str], Path]:
    """Write a file below the private home: `write("work/arawn.toml", text)`."""

    def write(name: str, text: str) -> Path:
        path = private_home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
        return path

    return write


@pytest.fixture
def serve() -> Iterator[Callable[..., Simulator]]:
    """Start a simulator: `serve("groq", models=["a"])`."""
    started: list[Simulator] = []

    def serve(backend: str, **options: object) -> Simulator:
        started.append(Simulator(backend, **options))  # type: ignore[arg-type]
        return started[-1]

    yield serve
    for server in started:
        server.close()


@pytest.fixture
def make(write: Callable[[str, str], Path]) -> Make:
    """Make a backend for a simulator or an address: `make("groq", server, "retry_max = 0")`."""

    def make(backend: str, server: Simulator | str, lines: str = "", model: str = "some-model") -> Backend:
        url, key = (server, "a-key-1234") if isinstance(server, str) else (server.base_url, server.key)
        head = f'[llm]\nbackend = "{backend}"\nmodel = "{model}"\nbase_url = "{url}"\napi_key = "{key}"\n'
        path = write(f"{backend}.toml", f"{head}retry_backoff_ms = 1\n{lines}\n")
        return arawn_llm.get_backend(config=arawn_llm.load_config(path))

    return make
