"""What `arawn doctor`, `models` and `secrets` say: the true cause of each broken set-up, and never a key."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import keyring
import pytest
import trustme
from keyring.backend import KeyringBackend
from pydantic import SecretStr

import arawn_llm
from arawn_llm import errors
from arawn_llm.doctor import Finding, examine, examine_faulty
from arawn_llm.keys import delete_key, list_keys, resolve_name, store_key
from arawn_llm.testing import Simulator

Serve = Callable[..., Simulator]
Write = Callable[[str, str], Path]
KEY = "sk-a-long-simulated-key-9876"
LINE = f'api_key = "{KEY}"'


class Memory(KeyringBackend):
    """A keyring in memory that may hold two items of one name, as the Secret Service does."""

    priority = 1.0  # type: ignore[assignment]

    def __init__(self) -> None:
        self.items: list[tuple[str, str]] = []

    def get_password(self, service: str, username: str) -> str | None:
        return next((value for name, value in self.items if name == username), None)

    def set_password(self, service: str, username: str, password: str) -> None:
        self.items.insert(0, (username, password))

    def delete_password(self, service: str, username: str) -> None:
        self.items.remove(next(item for item in self.items if item[0] == username))


@pytest.fixture
def ring() -> Iterator[Memory]:
    before, memory = keyring.get_keyring(), Memory()
    keyring.set_keyring(memory)
    arawn_llm.reload()
    yield memory
    keyring.set_keyring(before)
    arawn_llm.reload()


def wrong(write: Write, text: str, *, offline: bool = False) -> list[Finding]:
    config = arawn_llm.load_config(write("a.toml", text))
    found = examine(config, offline=offline, limit=2)
    assert KEY not in str(found)
    return [finding for finding in found if finding.state == "wrong"]


def profile(server: Simulator, backend: str, model: str = "m", lines: str = "") -> str:
    return f'[llm]\nbackend = "{backend}"\nmodel = "{model}"\nbase_url = "{server.base_url}"\n{lines}\n'


@pytest.mark.parametrize("backend", ["anthropic", "openai", "groq", "ollama", "custom"])
def test_a_set_up_that_works_has_nothing_wrong(
    serve: Serve, write: Write, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    for name in ("ANTHROPIC", "OPENAI", "GROQ", "OLLAMA", "LLM"):
        monkeypatch.setenv(f"{name}_API_KEY", KEY)
    server = serve(backend, key=KEY, models=["m", "n"])
    lines = "max_context_tokens = 4096\n[agent.a]\nllm = 'default'"
    assert wrong(write, profile(server, backend, lines=lines)) == []


@pytest.mark.parametrize(
    ("lines", "model", "check", "words"),
    [
        pytest.param("", "m", "key", "no API key", id="no-key"),
        pytest.param(f'api_key = "{KEY}x"', "m", "address", "Authentication failed", id="bad-key"),
        pytest.param(LINE, "gone", "model", '"gone" is not there; there are: m, n', id="no-model"),
        pytest.param(LINE, "claude-x", "model", "one of Anthropic's", id="another-backends-model"),
        pytest.param(
            f'api_key = "{KEY}"\n[agent.a]\nllm = "x"', "m", "profile", "not defined", id="dangling-agent"
        ),
    ],
)
def test_the_cause_is_named(serve: Serve, write: Write, lines: str, model: str, check: str, words: str) -> None:
    server = serve("openai", key=KEY, models=["m", "n"])
    found = wrong(write, profile(server, "openai", model, lines))
    assert any(each.check == check and words in each.words for each in found), found
    assert all(each.hints for each in found if each.check != "profile")


def test_nobody_there_and_nothing_like_an_api_are_told_apart(serve: Serve, write: Write) -> None:
    server = serve("anthropic", key=KEY)
    table = '[llm]\nbackend = "ollama"\nbase_url = "{}"\n'
    assert "Cannot connect" in wrong(write, table.format("http://127.0.0.1:9"))[0].words
    assert wrong(write, table.format(server.base_url))[0].check == "address"


@pytest.fixture
def answer() -> Iterator[Callable[..., str]]:
    """Have a server give one answer to everything: `answer(429, {"error": …}, Date="…")` gives its address."""
    servers: list[ThreadingHTTPServer] = []

    def answer(status: int, body: object, **headers: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response_only(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None: ...

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/v1"

    yield answer
    for server in servers:
        server.shutdown()
        server.server_close()


def at(url: str, lines: str = LINE) -> str:
    return f'[llm]\nbackend = "openai"\nmodel = "m"\nbase_url = "{url}"\n{lines}\n'


@pytest.mark.parametrize(
    ("status", "body", "headers", "words"),
    [
        (429, {"error": {"message": "You exceeded your quota"}}, {}, "You exceeded your quota"),
        (403, {"error": {"message": "Country not supported"}}, {}, "OpenAI said: Country not supported"),
        (500, {"error": {"message": "overheated"}}, {}, "failed to answer (500): overheated"),
        (401, {"error": {"message": f"bad key {KEY}"}}, {}, "Authentication failed"),
        (401, {}, {"Date": "Tue, 15 Nov 1994 08:12:31 GMT"}, "the clock here is"),
        (404, {}, {}, "end where the API begins, as https://api.openai.com/v1 does?"),
        (302, "", {"Location": "http://127.0.0.1:9/"}, "sends elsewhere (302)"),
        (200, "<html>", {}, "lead to OpenAI's API and not to a web page?"),
        (200, {"data": []}, {}, "lists no model at all"),
    ],
)
def test_what_a_server_says_is_passed_on(
    answer: Callable[..., str], write: Write, status: int, body: object, headers: dict[str, str], words: str
) -> None:
    found = wrong(write, at(answer(status, body, **headers)))
    assert any(words in text for each in found for text in (each.words, *each.hints)), found


def test_what_keeps_a_connection_from_being_made_is_named(
    serve: Serve, write: Write, monkeypatch: pytest.MonkeyPatch, looked_up: list[object]
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    plain, secret = serve("openai", key=KEY), serve("openai", key=KEY, tls=tls)
    for url, words in (
        ("http://127.0.0.1:9/v1", "nothing listens there"),
        ("https://no-such-host.invalid/v1", "no host of that name is known"),
        (secret.base_url, "the certificate was refused"),
        (secret.base_url.replace("https", "http"), "hung up: https where http is asked"),
        (plain.base_url.replace("http", "https"), "speaks http, not https"),
    ):
        assert words in wrong(write, at(url))[0].hints[0]
    looked_up.clear()
    monkeypatch.setenv("HTTP_PROXY", "http://user:a-password@127.0.0.1:9")
    hints = wrong(write, at(plain.base_url))[0].hints
    assert "went through the proxy at 127.0.0.1:9" in hints[1] and "a-password" not in str(hints)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.delenv("HTTP_PROXY")
    assert "names a SOCKS proxy" in wrong(write, at(plain.base_url))[0].hints[0]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (f"'{KEY}'", "quotation marks"),
        (f"Bearer {KEY}", '"Bearer" before it'),
        ("sk-ant-" + KEY, "a key of Anthropic's"),
        ("your-key-here", "a placeholder"),
        ("$OPENAI_API_KEY", "a placeholder"),
        (KEY, "from the configuration file"),
    ],
)
def test_a_key_that_looks_wrong_is_described_and_not_shown(write: Write, key: str, words: str) -> None:
    config = arawn_llm.load_config(write("a.toml", f'[llm]\nbackend = "openai"\napi_key = "{key}"\n'))
    found = next(each for each in examine(config, offline=True) if each.check == "key")
    assert found.words.endswith(words) or words in found.words
    assert key[1:-1] not in str(found)


def test_a_profile_that_no_agent_names_breaks_nothing(write: Write) -> None:
    text = '[llm]\nbackend = "ollama"\n[llm.spare]\nbackend = "groq"\n'
    assert [each.subject for each in wrong(write, text, offline=True)] == ["llm.spare"]
    assert wrong(write, text + '[agent.a]\nllm = "default"\n', offline=True) == []
    assert wrong(write, text + '[agent.a]\nllm = "spare"\n', offline=True)[0].subject == "llm.spare"


def test_without_a_profile_nothing_can_be_asked(write: Write) -> None:
    assert "no profile" in wrong(write, "[server]\nport = 1\n", offline=True)[0].words


def test_files_that_cannot_be_used_are_findings_too(write: Write) -> None:
    path = write("a.toml", '[llm]\nbackend = "opnai"\nmodell = "m"\n')
    with pytest.raises(errors.ConfigError) as caught:
        arawn_llm.load_config(path)
    found = [each for each in examine_faulty(caught.value) if each.state == "wrong"]
    assert [each.place for each in found] == [f"{path}:2", f"{path}:3"]


def test_a_context_longer_than_the_models_is_found(serve: Serve, write: Write) -> None:
    server = serve("ollama", models=["m:latest"])
    found = wrong(write, profile(server, "ollama", lines="max_context_tokens = 100000"))
    assert [(each.check, each.hints) for each in found] == [("context", ("max_context_tokens = 8192",))]


def test_a_file_with_a_key_that_others_can_read_is_found(serve: Serve, write: Write) -> None:
    text = f'[llm]\nbackend = "openai"\napi_key = "{KEY}"\n'
    write("a.toml", "").chmod(0o644)
    assert "read by others" in wrong(write, text, offline=True)[0].words
    write("a.toml", text).chmod(0o600)
    assert wrong(write, text, offline=True) == []


def test_offline_asks_no_server(serve: Serve, write: Write) -> None:
    server = serve("ollama")
    assert wrong(write, profile(server, "ollama"), offline=True) == [] and server.requests == []


def test_models_are_listed_with_what_is_known_of_them(serve: Serve, write: Write) -> None:
    server = serve("openai", key=KEY, models=["gpt-4o-mini", "unheard-of"])
    path = write("a.toml", profile(server, "openai", lines=f'api_key = "{KEY}"'))
    known, unknown = arawn_llm.get_backend(config=arawn_llm.load_config(path)).list_models()
    assert known.context_window == 128000 and known.input_price == pytest.approx(0.15)
    assert (unknown.name, unknown.context_window, unknown.input_price) == ("unheard-of", None, None)


def test_a_key_is_stored_found_listed_and_deleted_with_every_copy(ring: Memory, write: Write) -> None:
    config = arawn_llm.load_config(write("a.toml", '[llm.fast]\nbackend = "groq"\n'))
    assert store_key(config, "groq", SecretStr(f"  {KEY}\n")) == "groq_api_key"
    assert store_key(config, "fast", SecretStr(KEY + "-own")) == "groq_api_key:fast"
    listed = list(list_keys(config))
    assert [(each.name, each.tail) for each in listed] == [
        ("groq_api_key", "9876"),
        ("groq_api_key:fast", "-own"),
    ]
    assert KEY not in str(listed)
    ring.set_password("arawn", "groq_api_key", "an older copy")
    assert delete_key(config, "groq") == ("groq_api_key", 2)
    assert delete_key(config, "groq") == ("groq_api_key", 0)


def test_what_is_no_name_and_no_key_is_refused(ring: Memory, write: Write) -> None:
    config = arawn_llm.load_config(write("a.toml", '[llm.fast]\nbackend = "groq"\n'))
    with pytest.raises(errors.CredentialError, match='did you mean "groq"'):
        resolve_name(config, "grog")
    with pytest.raises(errors.CredentialError, match="cannot be a key"):
        store_key(config, "groq", SecretStr("a\nb"))
    assert ring.items == []


def test_without_a_keyring_the_environment_is_named(write: Write) -> None:
    config = arawn_llm.load_config(write("a.toml", '[llm.fast]\nbackend = "groq"\n'))
    with pytest.raises(errors.CredentialError) as caught:
        store_key(config, "groq", SecretStr(KEY))
    assert "GROQ_API_KEY" in caught.value.hints[0] and KEY not in json.dumps(caught.value.hints)


def test_what_embeds_is_checked_too(serve: Serve, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = serve("openai", key=KEY, models=["text-embedding-3-small"])
    head = '[embedding]\nprovider = "openai"\n[embedding.openai]\n'
    table = f'{head}base_url = "{server.base_url}"\nmodel = "{{}}"\n'
    assert wrong(write, table.format("text-embedding-3-small")) == []
    assert [each.check for each in wrong(write, table.format("gone"))] == ["model"]
    assert "not known" in wrong(write, '[embedding]\nprovider = "opnai"\n')[0].words
    assert "one for chats" in wrong(write, table.format("gpt-4o-mini"), offline=True)[0].words
    local = '[embedding.local]\nmodel_path = "/nowhere/model"\n'
    assert "names nothing" in wrong(write, local, offline=True)[0].words
