"""The simulators are strict, and the fake checks what it is asked."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

import arawn_llm
from arawn_llm import Completion, errors, testing
from arawn_llm.testing import KEY, FakeBackend, Reply, Simulator, use_backend

Serve = Callable[..., Simulator]
BEARER = {"authorization": f"Bearer {KEY}"}
ANTHROPIC = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
USER = {"role": "user", "content": "Hello"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def post(server: Simulator, path: str, body: Any, headers: dict[str, str]) -> tuple[int, str]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = server.base_url.removesuffix(server.dialect.base_path) + path
    request = urllib.request.Request(url, content, {"content-type": "application/json"} | headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


OPENAI_CHAT = {"model": "m", "messages": [USER]}
REFUSED = [
    ("openai", OPENAI_CHAT, {}, 401, "invalid_api_key"),
    ("openai", OPENAI_CHAT, {"authorization": "Bearer x"}, 401, "Incorrect API key"),
    ("openai", b"{", BEARER, 400, "could not parse"),
    ("openai", OPENAI_CHAT | {"num_ctx": 1}, BEARER, 400, "Unrecognized request argument supplied: num_ctx"),
    ("openai", {"messages": [USER]}, BEARER, 400, "Missing required parameter: 'model'"),
    (
        "openai",
        {"model": "m", "messages": [USER | {"x": 1}]},
        BEARER,
        400,
        "Unknown parameter: 'messages[0].x'",
    ),
    (
        "openai",
        {"model": "m", "messages": [{"role": "tool", "content": "", "tool_call_id": "c"}]},
        BEARER,
        400,
        "tool",
    ),
    (
        "openai",
        {"model": "m", "messages": [{"role": "assistant", "tool_calls": [CALL]}, USER]},
        BEARER,
        400,
        "tool",
    ),
    ("openai", OPENAI_CHAT | {"temperature": 3}, BEARER, 400, "temperature"),
    ("openai", OPENAI_CHAT | {"stream_options": {}}, BEARER, 400, "stream_options"),
    ("groq", OPENAI_CHAT | {"store": True}, BEARER, 400, "property 'store' is unsupported"),
    ("groq", {"model": "m", "messages": [USER | {"id": 1}]}, BEARER, 400, "'messages.0'"),
    ("anthropic", OPENAI_CHAT, ANTHROPIC, 400, "max_tokens: Field required"),
    (
        "anthropic",
        OPENAI_CHAT | {"max_tokens": 1, "seed": 1},
        ANTHROPIC,
        400,
        "seed: Extra inputs are not permitted",
    ),
    ("anthropic", OPENAI_CHAT | {"max_tokens": 1}, {"x-api-key": KEY}, 400, "anthropic-version"),
    ("anthropic", OPENAI_CHAT | {"max_tokens": 1}, ANTHROPIC | BEARER, 400, "both"),
    ("anthropic", OPENAI_CHAT | {"max_tokens": 1}, {}, 401, "invalid x-api-key"),
    (
        "anthropic",
        {"model": "m", "max_tokens": 1, "messages": [USER | {"role": "system"}]},
        ANTHROPIC,
        400,
        "role",
    ),
    ("claude-oauth", OPENAI_CHAT | {"max_tokens": 1}, ANTHROPIC, 401, "authentication_error"),
    ("ollama", OPENAI_CHAT | {"options": {"num_context": 1}}, {}, 400, "options.num_context"),
    (
        "ollama",
        {"model": "m", "messages": [USER | {"images": ["data:image/png;base64,AA=="]}]},
        {},
        400,
        "base64",
    ),
]


@pytest.mark.parametrize(("backend", "body", "headers", "status", "words"), REFUSED)
def test_a_simulator_refuses_what_the_reference_does_not_list(
    serve: Serve, backend: str, body: Any, headers: dict[str, str], status: int, words: str
) -> None:
    server = serve(backend)
    code, text = post(server, server.dialect.chat_path, body, headers)
    assert code == status and words in text


@pytest.mark.parametrize("path", ["//v1/chat/completions", "/v1/v1/chat/completions", "/v1/chat/completions/"])
def test_a_simulator_knows_its_paths_exactly(serve: Serve, path: str) -> None:
    server = serve("openai")
    assert post(server, path, OPENAI_CHAT, BEARER)[0] == 404 and server.requests[0].path == path


@pytest.mark.parametrize("backend", ["openai", "groq", "anthropic", "ollama"])
def test_a_simulator_lists_its_models(serve: Serve, backend: str) -> None:
    server = serve(backend, models=["a", "b"])
    path = server.base_url.removesuffix(server.dialect.base_path) + server.dialect.models_path
    with urllib.request.urlopen(
        urllib.request.Request(path, headers=ANTHROPIC if backend == "anthropic" else BEARER)
    ) as answer:
        listed = json.load(answer)
    assert [each.get("id", each.get("name")) for each in listed.get("data", listed.get("models"))] == ["a", "b"]


class City(BaseModel):
    name: str


def test_a_fake_gives_its_replies_in_turn() -> None:
    fake = FakeBackend(
        ["a reply", errors.RateLimitError("slow"), '{"name": "Oslo"}', Completion("whole", cost=1.0)]
    )
    assert fake.complete("Hello", temperature=0, tools=[print]).text == "a reply"
    with pytest.raises(errors.RateLimitError):
        fake.complete("Hello")
    assert fake.complete("Hello", response_model=City).parsed == City(name="Oslo")
    assert asyncio.run(fake.acomplete("Hello")).cost == 1.0
    with pytest.raises(arawn_llm.ArawnError, match="no reply left for call 5"):
        fake.complete("Hello")
    assert fake.asked[0].messages == [{"role": "user", "content": "Hello"}] and fake.asked[0].params["tools"]


def test_a_fake_streams_and_breaks_off() -> None:
    broken = errors.StreamInterruptedError("cut")
    broken.partial = "so far"
    fake = FakeBackend(["one two", "three four", broken])
    with fake.stream("Hello") as stream:
        assert list(stream) == ["one", " two"] and stream.completion.text == "one two"

    async def ask() -> list[str]:
        async with fake.astream("Hello") as stream:
            pieces = [piece async for piece in stream]
        assert stream.completion.text == "three four"
        return pieces

    assert asyncio.run(ask()) == ["three", " four"]
    with fake.stream("Hello") as stream, pytest.raises(errors.StreamInterruptedError):
        list(stream)
    assert stream.text == "so far"


def test_a_fake_checks_what_it_is_asked() -> None:
    with pytest.raises(errors.InvalidRequestError):
        FakeBackend(["x"]).complete("")
    with pytest.raises(errors.ResponseFormatError):
        FakeBackend(["no JSON"]).complete("Hello", response_model=City)


def test_a_fake_stands_in_by_profile_agent_or_for_all(write: Callable[[str, str], Any]) -> None:
    fake, other = FakeBackend(["x"]), FakeBackend(["y"])
    write("work/arawn.toml", '[llm.fast]\nbackend = "groq"\n[agent.writer]\nllm = "fast"\n')
    with use_backend(fake, "fast"), use_backend(other, agent="critic"):
        assert arawn_llm.get_backend("fast") is fake
        assert arawn_llm.get_backend(agent="writer") is fake
        assert arawn_llm.get_backend(agent="critic") is other
        assert arawn_llm.get_backend("groq") is fake
        assert arawn_llm.get_backend("ollama").name == "ollama"
    with use_backend(fake):
        assert arawn_llm.get_backend() is arawn_llm.get_backend("anything") is fake
    assert arawn_llm.get_backend("fast") is not fake


def test_the_public_names_of_testing_are_the_truth() -> None:
    assert all(getattr(testing, name) for name in testing.__all__) and Reply in vars(testing).values()
    assert arawn_llm.testing is testing
