"""What leaves on the wire and what comes back, for each backend, sync, async and streamed."""

import asyncio
import os
import pickle
import socket
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from wire import KEY, Wire

import arawn_llm
from arawn_llm import Backend, errors
from arawn_llm._providers import PROVIDERS, Provider

BASES = {"anthropic": "", "openai": "/v1", "groq": "/openai/v1", "ollama": "", "custom": "/v1"}
PATHS = {"anthropic": "/v1/messages", "ollama": "/api/chat", "groq": "/openai/v1/chat/completions"}
NAMES = {"anthropic": "Anthropic", "openai": "OpenAI", "groq": "Groq", "ollama": "Ollama"}
PROMPT = "a prompt that no message repeats"


@pytest.fixture
def wire() -> Iterator[Wire]:
    server = Wire()
    yield server
    server.stop()


@pytest.fixture
def make(wire: Wire, tmp_path: Path) -> Callable[..., Backend]:
    def make(backend: str, lines: str = "", url: str | None = None) -> Backend:
        address = url or wire.origin + BASES[backend]
        path = tmp_path / f"{backend}.toml"
        path.write_text(
            f'[llm]\nbackend = "{backend}"\nmodel = "some-model"\nbase_url = "{address}"\n'
            f'api_key = "{KEY}"\nretry_backoff_ms = 1\n{lines}\n'
        )
        return arawn_llm.get_backend(config=arawn_llm.load_config(path))

    return make


def complete(backend: Backend, **options: Any) -> str:
    return backend.complete(PROMPT, **options).text


def acomplete(backend: Backend, **options: Any) -> str:
    async def ask() -> str:
        try:
            return (await backend.acomplete(PROMPT, **options)).text
        finally:
            await arawn_llm.aclose()

    return asyncio.run(ask())


def stream(backend: Backend, **options: Any) -> str:
    with backend.stream(PROMPT, **options) as answer:
        text = "".join(answer)
    assert answer.completion.text == text
    return text


def astream(backend: Backend, **options: Any) -> str:
    async def ask() -> str:
        try:
            async with backend.astream(PROMPT, **options) as answer:
                text = "".join([piece async for piece in answer])
        finally:
            await arawn_llm.aclose()
        assert answer.completion.text == text
        return text

    return asyncio.run(ask())


each_backend = pytest.mark.parametrize("name", list(BASES))
each_way = pytest.mark.parametrize("ask", [complete, acomplete, stream, astream])
each_stream = pytest.mark.parametrize("ask", [stream, astream])


@each_backend
@each_way
def test_an_answer_comes_back(make: Any, wire: Wire, name: str, ask: Any) -> None:
    assert ask(make(name)) == "Hello there"
    path, headers, body = wire.seen[0]
    assert path == PATHS.get(name, "/v1/chat/completions")
    assert body["model"] == "some-model" and len(wire.seen) == 1
    sent = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
    assert sent == KEY and not ("x-api-key" in headers and "authorization" in headers)


@each_backend
def test_usage_and_names_are_kept(make: Any, name: str) -> None:
    reply = make(name).complete("Hello")
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (3, 2)
    assert (reply.backend, reply.profile, reply.finish_reason) == (name, "default", "stop")


@each_backend
def test_defaults_of_the_profile_apply_and_are_overridden(make: Any, wire: Wire, name: str) -> None:
    backend = make(name, 'system_prompt = "Be brief."\ntemperature = 0.25\nheaders = { X-Team = "a" }')
    backend.complete("Hello")
    backend.complete("Hello", temperature=0.75)
    first, second = wire.seen[0][2], wire.seen[1][2]
    assert "Be brief." in str(first) and wire.seen[0][1]["x-team"] == "a"
    assert [body.get("options", body)["temperature"] for body in (first, second)] == [0.25, 0.75]


STATUSES = [
    pytest.param(401, "bad key", errors.AuthenticationError, id="401"),
    pytest.param(403, "not allowed", errors.AuthenticationError, id="403"),
    pytest.param(404, "model not found", errors.ModelNotAvailableError, id="404"),
    pytest.param(400, "no such field", errors.InvalidRequestError, id="400"),
    pytest.param(413, "too large", errors.InvalidRequestError, id="413"),
    pytest.param(429, "slow down", errors.RateLimitError, id="429"),
    pytest.param(500, "oops", errors.BackendServerError, id="500"),
    pytest.param(502, "oops", errors.BackendServerError, id="502"),
    pytest.param(503, "oops", errors.BackendServerError, id="503"),
    pytest.param(529, "overloaded", errors.BackendServerError, id="529"),
]


@each_backend
@each_way
@pytest.mark.parametrize(("code", "words", "kind"), STATUSES)
def test_a_status_becomes_its_error(
    make: Any, wire: Wire, name: str, ask: Any, code: int, words: str, kind: Any
) -> None:
    wire.steps += [("status", (code, f"{words}: {PROMPT} {KEY}", {}))]
    with pytest.raises(errors.BackendError) as caught:
        ask(make(name, "retry_max = 0"))
    error = caught.value
    assert type(error) is kind and error.status_code == code and error.hints
    assert (error.backend, error.model, error.profile) == (name, "some-model", "default")
    shown = str(error) + repr(error) + str(error.hints) + repr(vars(error))
    assert KEY not in shown and PROMPT not in shown
    assert KEY.encode() not in pickle.dumps(error)
    assert type(pickle.loads(pickle.dumps(error))) is kind


@pytest.mark.parametrize("ask", [complete, stream])
def test_no_frame_of_a_traceback_holds_the_key(make: Any, wire: Wire, ask: Any) -> None:
    wire.steps += [("status", (401, "bad key", {}))]
    with pytest.raises(errors.AuthenticationError) as caught:
        ask(make("anthropic"))
    text = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert KEY not in text


@each_backend
@each_way
def test_a_passing_failure_is_tried_again(make: Any, wire: Wire, name: str, ask: Any) -> None:
    wire.steps += [("status", (503, "oops", {})), ("status", (429, "slow", {"retry-after": "0"}))]
    assert ask(make(name)) == "Hello there"
    assert len(wire.seen) == 3


def test_a_long_retry_after_is_left_to_the_caller(make: Any, wire: Wire) -> None:
    wire.steps += [("status", (429, "slow", {"retry-after": "3600"}))]
    with pytest.raises(errors.RateLimitError) as caught:
        make("openai").complete("Hello")
    assert (caught.value.retry_after, caught.value.request_id, len(wire.seen)) == (3600.0, "req-1", 1)


@each_backend
@each_way
def test_a_refused_connection_names_the_address(make: Any, name: str, ask: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}{BASES[name]}"
        with pytest.raises(errors.BackendConnectionError) as caught:
            ask(make(name, "retry_max = 0", url=url))
    assert str(caught.value) == f"Cannot connect to {NAMES.get(name, 'the custom server')} at {url}"


@each_backend
@each_way
def test_a_silent_server_is_left_at_the_deadline(make: Any, wire: Wire, name: str, ask: Any) -> None:
    wire.steps += [("hang", None)]
    with pytest.raises(errors.BackendTimeoutError):
        ask(make(name), timeout=0.5)


@each_backend
@each_way
@pytest.mark.parametrize("body", ["<html>hi</html>", '{"choices": ['], ids=["html", "malformed"])
def test_a_body_that_is_no_answer_is_never_one(make: Any, wire: Wire, name: str, ask: Any, body: str) -> None:
    wire.steps += [("raw", body)]
    with pytest.raises((errors.BackendServerError, errors.StreamInterruptedError)):
        ask(make(name))


@each_backend
@each_stream
def test_a_cut_stream_keeps_its_text(make: Any, wire: Wire, name: str, ask: Any) -> None:
    wire.steps += [("cut", None)]
    with pytest.raises(errors.StreamInterruptedError) as caught:
        ask(make(name))
    assert caught.value.partial.startswith("Hello")


@each_backend
@each_stream
def test_a_stalled_stream_ends_at_the_deadline(make: Any, wire: Wire, name: str, ask: Any) -> None:
    wire.steps += [("stall", None)]
    with pytest.raises(errors.StreamTimeoutError) as caught:
        ask(make(name), timeout=0.7)
    assert caught.value.partial.startswith("Hello")


@each_backend
def test_a_stream_may_be_left_early(make: Any, name: str) -> None:
    with make(name).stream("Hello") as answer:
        for _ in answer:
            break
    assert answer.text == "Hello"
    with pytest.raises(errors.StreamInterruptedError):
        _ = answer.completion


class City(BaseModel):
    name: str


@pytest.mark.parametrize("name", ["openai", "groq", "ollama", "custom"])
def test_a_response_model_is_parsed(make: Any, wire: Wire, name: str) -> None:
    wire.steps += [("text", '{"name": "Oslo"}'), ("text", "no JSON")]
    assert make(name).complete("Which?", response_model=City).parsed == City(name="Oslo")
    assert "name" in str(wire.seen[0][2])
    with pytest.raises(errors.ResponseFormatError) as caught:
        make(name).complete("Which?", response_model=City)
    assert caught.value.text == "no JSON"


def test_a_function_becomes_a_tool(make: Any, wire: Wire) -> None:
    def get_weather(city: str, days: int = 1) -> str:
        """Tell the weather."""
        return city * days

    make("openai").complete("Weather?", tools=[get_weather])
    function = wire.seen[0][2]["tools"][0]["function"]
    assert (function["name"], function["description"]) == ("get_weather", "Tell the weather.")
    assert function["parameters"]["required"] == ["city"]


def test_a_prompt_that_cannot_fit_is_not_sent(make: Any, wire: Wire) -> None:
    with pytest.raises(errors.ContextWindowError):
        make("openai", "max_context_tokens = 20").complete("word " * 100)
    assert wire.seen == []


def test_ollama_is_told_its_context_window(make: Any, wire: Wire) -> None:
    make("ollama", "max_context_tokens = 4096").complete("Hello")
    assert wire.seen[0][2]["options"]["num_ctx"] == 4096


@each_way
def test_the_environment_of_other_tools_changes_nothing(
    make: Any, wire: Wire, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("OPENAI_ORGANIZATION", "org-leak")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-leak")
    monkeypatch.setenv("USE_LITELLM_PROXY", "True")
    assert ask(make("openai")) == "Hello there"
    assert "leak" not in str(wire.seen[0][1]) and wire.seen[0][2]["model"] == "some-model"


@each_backend
def test_threads_share_a_backend(make: Any, wire: Wire, name: str) -> None:
    backend = make(name)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: complete(backend), range(16))) == {"Hello there"}
    assert len(wire.seen) == 16


@each_backend
def test_event_loops_one_after_another_share_a_backend(make: Any, name: str) -> None:
    backend = make(name)
    assert [acomplete(backend) for _ in range(3)] == ["Hello there"] * 3


@each_backend
def test_a_backend_works_after_a_fork(make: Any, name: str) -> None:
    backend = make(name)
    complete(backend)
    child = os.fork()
    if child == 0:
        os._exit(0 if complete(backend) == "Hello there" else 1)
    assert os.waitpid(child, 0)[1] == 0 and complete(backend) == "Hello there"


def test_a_seventh_provider_is_one_row(make: Any, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Provider(
        "acme", "Acme", "hosted_vllm/", "ACME_API_KEY", "acme_api_key", "https://acme.invalid/v1", "a-1"
    )
    monkeypatch.setitem(PROVIDERS, "acme", row)
    assert make("acme", url=wire.origin + "/v1").complete("Hello").text == "Hello there"


@each_way
def test_bytes_that_drip_do_not_outlive_the_deadline(make: Any, wire: Wire, ask: Any) -> None:
    wire.steps += [("drip", None)]
    with pytest.raises(errors.BackendTimeoutError):
        ask(make("custom"), timeout=1.0)


@pytest.mark.parametrize(
    ("image", "sent"),
    [
        pytest.param(b"\x89PNG\r\n\x1a\n", "data:image/png;base64,iVBORw0KGgo=", id="bytes"),
        pytest.param("data:image/png;base64,AA==", "data:image/png;base64,AA==", id="data-uri"),
        pytest.param("https://a.invalid/x.png", "https://a.invalid/x.png", id="url"),
    ],
)
def test_an_image_is_sent_with_the_prompt(make: Any, wire: Wire, image: Any, sent: str) -> None:
    make("openai").complete("What?", images=[image])
    assert wire.seen[0][2]["messages"][0]["content"][1]["image_url"]["url"] == sent


def test_what_is_no_image_is_refused_before_sending(make: Any, wire: Wire) -> None:
    with pytest.raises(errors.InvalidRequestError):
        make("openai").complete("What?", images=[b"not an image"])
    assert wire.seen == []


def test_an_image_url_that_the_backend_cannot_read_is_refused_before_sending(make: Any, wire: Wire) -> None:
    with pytest.raises(errors.InvalidRequestError, match="no image URLs"):
        make("ollama").complete("What?", images=["https://a.invalid/x.png"])
    assert wire.seen == []
