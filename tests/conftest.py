"""A private home, no keyring, no keys in the environment, sockets to this machine only."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError

import arawn_llm
from arawn_llm import Backend
from arawn_llm.testing import Simulator

if TYPE_CHECKING:
    from issuer import Issuer
    from served import Start

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
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
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


class Items(KeyringBackend):
    """A keyring that may hold several items of one name: the first is read, the last is set and deleted."""

    priority = 1.0  # type: ignore[assignment]

    def __init__(self) -> None:
        self.items: list[tuple[str, str]] = []
        self.failure: Exception | None = None

    def set_password(self, service: str, username: str, password: str) -> None:
        self.get_password(service, username)
        self.items = [each for each in self.items if each[0] != f"own {username}"]
        self.items.append((f"own {username}", password))

    def get_password(self, service: str, username: str) -> str | None:
        if self.failure:
            raise self.failure
        return next((value for name, value in self.items if name.endswith(username)), None)

    def delete_password(self, service: str, username: str) -> None:
        mine = [each for each in self.items if each[0].endswith(username)]
        if not mine:
            raise PasswordDeleteError("no such item")
        self.items.remove(mine[-1])


@pytest.fixture
def ring(private_home: Path) -> Iterator[Items]:
    """A working keyring, in place of none."""
    before = keyring.get_keyring()
    items = Items()
    keyring.set_keyring(items)
    arawn_llm.reload()
    yield items
    keyring.set_keyring(before)
    arawn_llm.reload()


@pytest.fixture
def issuer(write: Callable[[str, str], Path]) -> Iterator["Issuer"]:
    """An issuer that the user's own file names."""
    import requests
    from issuer import CLIENT, PERSON, Issuer

    server = Issuer()
    write(
        "xdg/arawn/config.toml",
        f'[oauth.claude]\nclient_id = "{CLIENT}"\nauthorize_url = "{server.url}/authorize"\n'
        f'token_url = "{server.url}/token"\nrevoke_url = "{server.url}/revoke"\n'
        f'redirect_uri = "{server.url}/shown"\nscope = "talk"\n',
    )
    PERSON.visit = requests.get
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def tokens_file(private_home: Path) -> Path:
    return private_home / "data/arawn/oauth-tokens.json"


@pytest.fixture
def expired(issuer: "Issuer", tokens_file: Path) -> "Issuer":
    """An issuer at which somebody logged in an hour and more ago."""
    from issuer import log_in, rewrite

    log_in()
    rewrite(tokens_file, issued_at=time.time() - 4000)
    issuer.asked.clear()
    return issuer


@pytest.fixture
def start(write: Callable[[str, str], Path]) -> Iterator["Start"]:
    """Start the JSON API for a configuration, and give a client: `start(text, token="…")`."""
    from served import serving

    with ExitStack() as stack:
        yield lambda text, **options: stack.enter_context(
            serving(arawn_llm.load_config(write("server.toml", text)), **options)
        )
