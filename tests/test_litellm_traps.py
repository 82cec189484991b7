"""What LiteLLM 1.106.2 does to its users, and what it does not do to ours. An upgrade reads this file first.

The traps of addresses, credentials, tools, streams and exceptions stand in the wire tests; these are the rest.
"""

import asyncio
import contextlib
import inspect
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Make
from ways import PROMPT, Ask, each_backend, each_stream, each_way

import arawn_llm
from arawn_llm import _litellm, errors
from arawn_llm.testing import Fault, Reply, Simulator

Serve = Callable[..., Simulator]

CHILD = """
import asyncio, json, os, socket, sys
names, real = [], socket.getaddrinfo
def guarded(host, *args, **kwargs):
    names.append(host)
    if host not in {{"127.0.0.1", "localhost", None}}:
        raise socket.gaierror(socket.EAI_NONAME, "no network in tests")
    return real(host, *args, **kwargs)
socket.getaddrinfo = guarded
before = dict(os.environ)
import arawn_llm
backend = arawn_llm.get_backend(config=arawn_llm.load_config({path!r}))
backend.complete("Hello")
with backend.stream("Hello") as answer:
    list(answer)
async def ask():
    await backend.acomplete("Hello")
    async with backend.astream("Hello") as answer:
        async for _ in answer:
            pass
asyncio.run(ask())
changed = {{k for k in before.keys() | os.environ.keys() if before.get(k) != os.environ.get(k)}}
beyond = set(map(str, names)) - {{"127.0.0.1", "localhost", "None"}}
print(json.dumps([sorted(beyond), sorted(changed - {{"TIKTOKEN_CACHE_DIR"}})]), file=sys.stderr)
"""


@each_backend
def test_a_process_asks_only_its_server_prints_nothing_and_keeps_its_environment(
    serve: Serve, write: Callable[[str, str], Path], name: str
) -> None:
    write("work/.env", "OPENAI_API_KEY=from-a-dotenv\nARAWN_TRAP=1\n")
    server = serve(name)
    table = f'[llm]\nbackend = "{name}"\nmodel = "llama-3-70b"\nbase_url = "{server.base_url}"\n'
    path = write("a.toml", f'{table}api_key = "{server.key}"\n')
    code = CHILD.format(path=str(path))
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    *said, facts = done.stderr.strip().splitlines()
    # But for TIKTOKEN_CACHE_DIR: LiteLLM points tiktoken at the tokenizer that it packages.
    assert json.loads(facts) == [[], []]
    assert [line for line in said if "stands in a file" not in line] == []
    assert len(server.requests) == 4


@each_stream
def test_a_stream_without_usage_downloads_no_tokenizer(serve: Serve, make: Make, ask: Ask) -> None:
    server = serve("custom")
    backend = make("custom", server, "params = { stream_options = { include_usage = false } }", "llama-3-70b")
    reply = ask(backend)
    assert reply.text and server.requests[0].body["stream_options"] == {"include_usage": False}
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (0, 0)


@each_way
def test_the_environment_of_other_tools_changes_nothing(
    serve: Serve, make: Make, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "HOSTED_VLLM_API_BASE", "OLLAMA_API_BASE"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("ANTHROPIC_API_BASE", "http://127.0.0.1:1")
    monkeypatch.setenv("OPENAI_ORGANIZATION", "org-leak")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-leak")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-leak")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer another\nX-Leak: leak")
    monkeypatch.setenv("LITELLM_LOG", "")
    monkeypatch.setenv("USE_LITELLM_PROXY", "True")
    for name in ("openai", "groq", "anthropic", "ollama", "custom"):
        server = serve(name)
        assert ask(make(name, server)).text
        assert "leak" not in str(server.requests[0].headers)
        assert server.requests[0].body["model"] == "some-model"


def test_eight_threads_open_the_door_at_once() -> None:
    code = """
import threading
from arawn_llm import _litellm
found, ready = [], threading.Barrier(8)
def load():
    ready.wait()
    found.append(_litellm.load())
threads = [threading.Thread(target=load) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(len(found), len(set(map(id, found))))
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["8", "1"]


def test_every_exception_of_litellms_becomes_one_of_ours(serve: Serve, make: Make) -> None:
    """An exception that LiteLLM adds tomorrow has no row anywhere and still arrives as a BackendError."""
    from arawn_llm import _faults

    class BrandNewError(Exception):
        status_code = 500

    kinds = [kind for _, kind in inspect.getmembers(_litellm.load().exceptions, inspect.isclass)]
    for kind in [*(each for each in kinds if issubclass(each, Exception)), BrandNewError]:
        exc = kind.__new__(kind)
        assert issubclass(_faults.diagnose(exc, (), None).kind, errors.BackendError)


def test_groq_answers_without_a_service_tier(serve: Serve, make: Make) -> None:
    server = serve("groq")
    reply = server.dialect.whole(type("R", (), {"model": "m"}), Reply("Hello"))
    del reply["service_tier"]
    server.script(Fault("body", body=json.dumps(reply).encode(), headers={"content-type": "application/json"}))
    assert make("groq", server).complete(PROMPT).text == "Hello"


@each_backend
def test_streams_that_nobody_closes_do_not_hang_the_process(serve: Serve, make: Make, name: str) -> None:
    server = serve(name)
    server.script(*[Fault("error"), Fault("stall")] * 4)
    backend = make(name, server)

    def leave() -> None:
        for _ in range(8):
            with contextlib.suppress(errors.BackendError):
                next(iter(backend.stream(PROMPT)))

    thread = threading.Thread(target=leave, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


def test_the_calls_of_other_users_of_litellm_keep_their_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_LITELLM_PROXY", "True")
    assert _litellm.load().LiteLLMProxyChatConfig.should_use_litellm_proxy_by_default({}) is True


def test_async_clients_of_two_loops_at_once_stay_apart(serve: Serve, make: Make) -> None:
    backend = make("custom", serve("custom"))
    texts: list[str] = []

    async def ask() -> None:
        try:
            for _ in range(10):
                texts.append((await backend.acomplete(PROMPT)).text)
        finally:
            await arawn_llm.aclose()

    threads = [threading.Thread(target=asyncio.run, args=(ask(),)) for _ in range(2)]
    _: Any = [thread.start() for thread in threads], [thread.join(60) for thread in threads]
    assert texts == ["This reply is simulated."] * 20


@each_backend
def test_loops_that_come_and_go_leave_no_connection(serve: Serve, make: Make, name: str) -> None:
    backend = make(name, serve(name))
    for count in (1, 8):
        for _ in range(count):
            asyncio.run(backend.acomplete(PROMPT))  # type: ignore[arg-type]
        if count == 1:
            before = len(os.listdir("/proc/self/fd"))
    assert len(os.listdir("/proc/self/fd")) <= before


@each_way
@pytest.mark.parametrize("model", ["m", "some/odd:7b", "llama3"])
def test_ollama_is_asked_at_its_own_address_and_nowhere_else(
    serve: Serve, make: Make, ask: Ask, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, other = serve("ollama"), serve("ollama")
    monkeypatch.setenv("OLLAMA_API_BASE", other.base_url)
    ask(make("ollama", server, model=model))
    assert [request.path for request in server.requests] == ["/api/chat"] and other.requests == []


@each_way
@pytest.mark.parametrize(("name", "model"), [("openai", "o1-pro"), ("custom", "responses/x")])
def test_a_model_of_another_api_is_refused_before_sending(
    serve: Serve, make: Make, ask: Ask, name: str, model: str
) -> None:
    server = serve(name)
    with pytest.raises(errors.InvalidRequestError, match="Responses API"):
        ask(make(name, server, model=model))
    assert server.requests == []


@each_backend
@each_stream
def test_an_answer_may_repeat_itself(serve: Serve, make: Make, name: str, ask: Ask) -> None:
    server = serve(name)
    server.script(Reply("word " * 300))
    assert ask(make(name, server)).text == "word " * 300
