"""The JSON API against hostile clients, within other applications, and as a command."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import CHAT, STREAM, Start, profile, read_events
from starlette.applications import Starlette
from starlette.routing import Mount

import arawn_llm
from arawn_llm.server import create_app
from arawn_llm.testing import FakeBackend, Simulator, use_backend

Serve = Callable[..., Simulator]
TOKEN = "a-token-that-nobody-guesses"
ARAWN = [sys.executable, "-c", "from arawn_llm.cli import main; main()"]
JSON = {"content-type": "application/json"}


@pytest.fixture
def provider(serve: Serve) -> Simulator:
    return serve("custom")


BODIES = [
    (b"{", 400),
    (b"\xff", 400),
    (b"[" * 100_000, 400),
    (b'{"message": "x", "temperature": NaN}', 400),
    (b'{"message": "\\ud800"}', 400),
    (b"[]", 422),
    (b"{}", 422),
    (b'{"message": "  "}', 422),
    (b'{"message": "x", "api_key": "k"}', 422),
    (b'{"message": "x", "base_url": "http://x"}', 422),
    (b'{"message": "x", "temperature": "1"}', 422),
    (b'{"message": "x", "messages": [{"role": "user", "content": "x"}]}', 422),
    (b'{"message": "x", "images": ["/etc/passwd"]}', 422),
    (b'{"message": "x", "images": ["file:///etc/passwd"]}', 422),
    (b'{"message": "x", "images": ["http://169.254.169.254/"]}', 422),
    (b'{"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "x"}}]}]}', 422),
    (b'{"tool_results": [{"tool_call_id": "x", "content": "y"}]}', 422),
    (b'{"message": "x", "session_id": "guessed"}', 404),
    (b" " * 300_000, 413),
]


def test_a_hostile_body_is_refused_and_nothing_is_sent(start: Start, provider: Simulator) -> None:
    client = start(profile(provider), max_body=200_000)
    for body, status in BODIES:
        answer = client.post(CHAT, content=body, headers=JSON)
        assert (answer.status_code, provider.requests) == (status, []), body[:60]
        assert answer.json()["request_id"]
    chunked = client.post(CHAT, content=iter([b" " * 100_000] * 3), headers=JSON)
    assert (chunked.status_code, chunked.json()["code"]) == (413, "content_too_large")


def test_a_form_of_another_page_is_no_json(start: Start, provider: Simulator) -> None:
    client = start(profile(provider))
    assert (
        client.post(CHAT, content=b'{"message": "x"}', headers={"content-type": "text/plain"}).status_code
        == 415
    )
    answer = client.get(CHAT)
    assert (answer.status_code, answer.json()["code"], answer.headers["allow"]) == (
        405,
        "method_not_allowed",
        "POST",
    )
    assert client.get("/nothing").json()["code"] == "not_found"


HEADS = [
    ({"host": "evil.example"}, 403),
    ({"host": "127.0.0.1.evil.example"}, 403),
    ({"host": "evil.example@127.0.0.1"}, 403),
    ({"host": "localhost:8000"}, 200),
    ({"origin": "https://evil.example"}, 403),
    ({"origin": "null"}, 403),
    ({"origin": "http://127.0.0.1"}, 403),
    ({"origin": "http://localhost:8000", "host": "localhost:8000"}, 200),
    ({"origin": "https://chat.example.org"}, 200),
]


def test_only_our_names_and_our_pages_may_ask(start: Start, provider: Simulator) -> None:
    client = start(profile(provider), origins=["https://chat.example.org"])
    for headers, status in HEADS:
        answer = client.post(CHAT, json={"message": "Hello"}, headers=headers)
        assert answer.status_code == status, headers
        allowed = answer.headers.get("access-control-allow-origin")
        assert allowed == ("https://chat.example.org" if "chat" in str(headers) else None)
    assert len(provider.requests) == [status for _, status in HEADS].count(200)


def test_a_token_is_asked_for(start: Start, provider: Simulator) -> None:
    client = start(profile(provider), token=TOKEN)
    for given in (
        {},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": TOKEN},
        {"authorization": "Bearer"},
    ):
        answer = client.get("/api/v1/profiles", headers=given)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (
            401,
            "Bearer",
        ) and TOKEN not in answer.text
    assert client.get("/api/v1/profiles", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert client.get("/health").json()["status"] == "ok"


def test_a_client_that_asks_too_often_is_told_when_to_come_back(start: Start, provider: Simulator) -> None:
    client = start(profile(provider), rate=2)
    answers = [client.get("/api/v1/profiles") for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429] and 1 <= int(
        answers[2].headers["retry-after"]
    ) <= 30
    assert client.get("/health").status_code == 200


def test_it_is_part_of_another_application() -> None:
    async def ask() -> httpx.Response:
        app = Starlette(routes=[Mount("/llm", create_app(arawn_llm.Config(), token=TOKEN))])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
            assert (await http.get("/llm/docs")).status_code == 200
            assert (await http.get("/llm/api/v1/profiles")).status_code == 401
            headers = {"authorization": f"Bearer {TOKEN}"}
            return await http.post(f"/llm{CHAT}", json={"message": "Hello"}, headers=headers)

    with use_backend(FakeBackend(["Hello there"])):
        assert asyncio.run(ask()).json()["response"] == "Hello there"


def test_without_starlette_the_command_that_mends_it_is_named() -> None:
    code = "import sys; sys.modules['starlette'] = None\nimport arawn_llm.server as s\ns.create_app()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtraError: the server needs starlette" in done.stderr


@pytest.fixture
def command(write: Callable[[str, str], Path], provider: Simulator) -> Iterator["subprocess.Popen[str]"]:
    words = ["serve", "--port", "0", "-c", str(write("a.toml", profile(provider)))]
    with subprocess.Popen(
        [*ARAWN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def find_url(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return re.findall(r"http://127\.0\.0\.1:\d+", process.stdout.readline())[0]


def test_a_stream_ends_before_the_server_does(command: "subprocess.Popen[str]", provider: Simulator) -> None:
    story = " ".join(map(str, range(1000)))
    provider.script(story)
    with httpx.stream("POST", find_url(command) + STREAM, json={"message": "Hello"}, timeout=30) as answer:
        pieces = answer.iter_text()
        text = next(pieces)
        command.send_signal(signal.SIGTERM)
        text += "".join(pieces)
    assert read_events(text)[-1][1]["response"] == story
    assert command.wait(20) == 0


def test_a_second_server_says_that_the_port_is_taken(command: "subprocess.Popen[str]", write: Any) -> None:
    port = find_url(command).rpartition(":")[2]
    done = run_serve(write, "--port", port)
    assert done.returncode == 1 and f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr


def test_another_address_needs_a_token(write: Any) -> None:
    done = run_serve(write, "--host", "0.0.0.0")
    assert done.returncode == 4 and "export ARAWN_AUTH_TOKEN" in done.stderr


def run_serve(write: Callable[[str, str], Path], *words: str) -> "subprocess.CompletedProcess[str]":
    config = str(write("b.toml", profile("http://127.0.0.1:9")))
    words = (*ARAWN, "serve", "-c", config, *words)
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=os.environ)
