"""A private home, no keyring, no keys in the environment, sockets to this machine only."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import arawn_llm

KEYS = ("ANTHROPIC", "OPENAI", "GROQ", "OLLAMA", "LLM", "ARAWN", "LITELLM", "HTTP", "http", "ALL_PROXY")


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


@pytest.fixture(autouse=True, scope="session")
def only_loopback() -> Iterator[None]:
    """Refuse every look-up of a name that is not this machine's."""
    original = socket.getaddrinfo

    def guarded(host: object, *args: object, **kwargs: object) -> object:
        if host not in {"127.0.0.1", "localhost", "::1", None}:
            raise socket.gaierror(socket.EAI_NONAME, "no network in tests")
        return original(host, *args, **kwargs)  # type: ignore[arg-type]

    socket.getaddrinfo = guarded  # type: ignore[assignment]
    yield
    socket.getaddrinfo = original


@pytest.fixture
def write(private_home: Path) -> Callable[[str, str], Path]:
    """Write a file below the private home: `write("work/arawn.toml", text)`."""

    def write(name: str, text: str) -> Path:
        path = private_home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
        return path

    return write
