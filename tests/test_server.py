"""The JSON API as its clients see it: real HTTP on loopback, in front of simulated providers."""

import asyncio
import re
from collections.abc import Callable, Iterator

import httpx
import pytest
from embedding_wire import EmbeddingWire
from served import CHAT, STREAM, Start, profile, read_events

import arawn_llm
from arawn_llm import errors
from arawn_llm.server._statuses import STATUSES
from arawn_llm.server._turns import Sessions
from arawn_llm.testing import KEY, FakeBackend, Fault, Reply, Simulator

Serve = Callable[..., Simulator]
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


@pytest.fixture
def provider(serve: Serve) -> Simulator:
    return serve("custom")


@pytest.fixture
def wire() -> Iterator[EmbeddingWire]:
    server = EmbeddingWire()
    yield server
    server.stop()


@pytest.fixture
def client(start: Start, provider: Simulator) -> httpx.Client:
    return start(profile(provider) + profile(provider, "fast") + '[agent.writer]\nllm = "fast"\n')


def test_a_message_is_answered(client: httpx.Client, provider: Simulator) -> None:
    provider.script("Hello there")
    answer = client.post(
        CHAT, json={"message": "Hello", "agent": "writer", "system": "Be brief.", "max_tokens": 9}
    )
    body = answer.json()
    assert len(body.pop("session_id")) >= 32 and answer.headers["x-request-id"]
    assert body == {
        "response": "Hello there",
        "backend": "custom",
        "profile": "fast",
        "model": "m",
        "tool_calls": [],
        "finish_reason": "stop",
        "usage": {"input_tokens": 3, "output_tokens": 2},
        "cost": None,
    }
    sent = provider.requests[0].body
    assert sent["max_tokens"] == 9 and [each["role"] for each in sent["messages"]] == ["system", "user"]


def test_a_session_goes_on_with_its_backend(client: httpx.Client, provider: Simulator) -> None:
    provider.script("one", "two")
    first = client.post(CHAT, json={"message": "Hello", "backend": "fast"}).json()
    second = client.post(CHAT, json={"message": "And?", "session_id": first["session_id"]}).json()
    assert (second["session_id"], second["profile"]) == (first["session_id"], "fast")
    said = [each["content"] for each in provider.requests[1].body["messages"]]
    assert said == ["Hello", "one", "And?"]


def test_messages_stand_alone(client: httpx.Client, provider: Simulator) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    answer = client.post(CHAT, json={"messages": messages}).json()
    assert answer["session_id"] is None and provider.requests[0].body["messages"] == messages


def test_a_stream_is_events_and_a_session(client: httpx.Client, provider: Simulator) -> None:
    provider.script("Hello there", "and on")
    answer = client.post(STREAM, json={"message": "Hello"})
    events = read_events(answer.text)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert events[:2] == [("text", {"text": "Hello"}), ("text", {"text": " there"})]
    assert events[2][0] == "done" and events[2][1]["usage"] == {"input_tokens": 3, "output_tokens": 2}
    assert events[2][1]["session_id"] == answer.headers["x-session-id"]
    client.post(CHAT, json={"message": "And?", "session_id": answer.headers["x-session-id"]})
    assert len(provider.requests[1].body["messages"]) == 3


@pytest.mark.parametrize("fails", [False, True], ids=["at once", "after a failure"])
def test_a_session_takes_what_a_tool_gave(client: httpx.Client, provider: Simulator, fails: bool) -> None:
    provider.script(
        Reply(tool_calls=(("get_weather", {"city": "Oslo"}),)), *([Fault()] if fails else []), "Rain."
    )
    events = dict(read_events(client.post(STREAM, json={"message": "Oslo?", "tools": [TOOL]}).text))
    assert (events["tool_call"]["name"], events["tool_call"]["arguments"]) == ("get_weather", {"city": "Oslo"})
    result = {"tool_call_id": events["tool_call"]["id"], "content": "rain"}
    body = {"tool_results": [result], "session_id": events["done"]["session_id"], "tools": [TOOL]}
    for _ in range(1 + fails):
        answer = client.post(CHAT, json=body)
    assert answer.json()["response"] == "Rain."
    assert [each["role"] for each in provider.requests[-1].body["messages"]] == ["user", "assistant", "tool"]


FAULTS = [
    (Fault(status=401), 502, "backend_authentication"),
    (Fault(status=404), 404, "model_not_available"),
    (Fault(status=429, headers={"retry-after": "7"}), 429, "backend_rate_limit"),
    (Fault(status=400), 400, "invalid_request"),
    (Fault(status=500), 502, "backend_failed"),
    (Fault("overflow"), 413, "context_window"),
    (Fault("no_answer"), 502, "backend_failed"),
    (Fault("silence"), 504, "backend_timeout"),
]


@pytest.mark.parametrize("path", [CHAT, STREAM])
@pytest.mark.parametrize(
    ("fault", "status", "code"), FAULTS, ids=[f"{f.kind}-{f.status}" for f, _, _ in FAULTS]
)
def test_what_a_backend_does_has_its_status(
    client: httpx.Client, provider: Simulator, path: str, fault: Fault, status: int, code: str
) -> None:
    provider.script(fault)
    answer = client.post(path, json={"message": "Hello", "timeout": 1})
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code)
    assert set(body) == {"code", "message", "hints", "request_id"} and body["hints"]
    assert body["request_id"] == answer.headers["x-request-id"] and KEY not in answer.text
    assert answer.headers.get("retry-after") == ("7" if status == 429 else None)


def test_no_connection_and_no_key_are_the_servers_trouble(start: Start) -> None:
    client = start(profile("http://127.0.0.1:9") + '[llm.keyless]\nbackend = "groq"\n')
    answers = [
        client.post(CHAT, json={"message": "x", "backend": name}) for name in ("llm", "keyless", "nobody")
    ]
    assert [(each.status_code, each.json()["code"]) for each in answers] == [
        (503, "backend_unreachable"),
        (503, "credential_missing"),
        (404, "profile_not_found"),
    ]


def test_a_stream_that_breaks_says_so_behind_the_text(client: httpx.Client, provider: Simulator) -> None:
    provider.script(Fault("cut"))
    *texts, (name, error) = read_events(client.post(STREAM, json={"message": "Hello"}).text)
    assert "".join(data["text"] for _, data in texts) == "Hello there"
    assert (name, error["code"]) == ("error", "stream_interrupted") and error["hints"]


def test_every_error_has_its_own_row() -> None:
    kinds = {getattr(errors, name) for name in errors.__all__} - {errors.Problem, errors.ArawnError}
    inherit = {errors.UntrustedFileError, errors.MissingCredentialError, errors.LoginRequiredError}
    assert kinds - inherit <= STATUSES.keys()


def test_an_image_is_passed_on(client: httpx.Client, provider: Simulator) -> None:
    url = "data:image/png;base64,iVBORw0KGgo="
    assert client.post(CHAT, json={"message": "What?", "images": [url]}).status_code == 200
    assert url in str(provider.requests[0].body)


def test_profiles_and_models_are_listed(start: Start, serve: Serve) -> None:
    client = start(profile(serve("openai", models=["a", "b"]), backend="openai"))
    profiles = client.get("/api/v1/profiles")
    assert profiles.json()["profiles"] == [
        {"name": "default", "backend": "openai", "model": "m", "max_context_tokens": None}
    ]
    assert [each["name"] for each in client.get("/api/v1/models?backend=openai").json()["models"]] == ["a", "b"]
    assert KEY not in profiles.text


def test_the_document_is_whole_and_its_page_needs_nothing_from_elsewhere(client: httpx.Client) -> None:
    document, page = client.get("/openapi.json"), client.get("/docs")
    names = set(re.findall(r"#/components/schemas/(\w+)", document.text))
    assert names <= document.json()["components"]["schemas"].keys() and CHAT in document.json()["paths"]
    assert "src=" not in page.text and "default-src 'none'" in page.headers["content-security-policy"]


def test_of_twenty_streams_half_go_away(start: Start, serve: Serve) -> None:
    providers = [serve("custom") for _ in range(20)]
    client = start("".join(profile(each, f"p{number}") for number, each in enumerate(providers)))
    for number, each in enumerate(providers):
        each.script(Fault("stall") if number % 2 else Reply(f"from{number} " * 50))

    async def read(http: httpx.AsyncClient, number: int) -> str:
        async with http.stream("POST", STREAM, json={"message": "Hello", "backend": f"p{number}"}) as answer:
            if number % 2:
                return await anext(answer.aiter_text())
            return "".join([piece async for piece in answer.aiter_text()])

    async def read_all() -> list[str]:
        async with httpx.AsyncClient(base_url=client.base_url, timeout=30) as http:
            return await asyncio.gather(*(read(http, number) for number in range(20)))

    for number, (text, server) in enumerate(zip(asyncio.run(read_all()), providers, strict=True)):
        if number % 2:
            assert server.requests[0].left.wait(5)
        else:
            assert dict(read_events(text))["done"]["response"] == f"from{number} " * 50


@pytest.mark.parametrize("path", [CHAT, STREAM])
def test_the_work_stops_when_the_client_goes_before_an_answer(
    client: httpx.Client, provider: Simulator, path: str
) -> None:
    provider.script(Fault("silence"))
    with pytest.raises(httpx.ReadTimeout):
        client.post(path, json={"message": "Hello"}, timeout=1)
    assert provider.requests[0].left.wait(5)


def test_sessions_are_few_small_and_short_lived() -> None:
    def keep(sessions: Sessions, text: str) -> str:
        session = sessions.begin(FakeBackend([]))
        session.conversation.messages.append({"role": "user", "content": text})
        sessions.keep(session)
        return session.id

    def is_held(sessions: Sessions, session_id: str) -> bool:
        try:
            return bool(sessions.find(session_id))
        except arawn_llm.ArawnError:
            return False

    for sessions, text, held in [
        (Sessions(most=2), "x", [False, True, True]),
        (Sessions(room=120), "x" * 20, [False, True, True]),
        (Sessions(lifetime=-1.0), "x", [False, False, False]),
        (Sessions(), "x" * 17_000_000, [False, False, False]),
    ]:
        assert [is_held(sessions, each) for each in [keep(sessions, text) for _ in range(3)]] == held


def test_texts_become_vectors(start: Start, wire: EmbeddingWire) -> None:
    table = '[embedding]\nprovider = "custom"\n[embedding.custom]\nmodel = "m"\n'
    client = start(f'{table}base_url = "{wire.origin}/v1"\n')
    body = client.post("/api/v1/embeddings", json={"texts": ["one", "two"]}).json()
    assert (body["model"], len(body["embeddings"])) == ("m", 2) and wire.texts == ["one", "two"]
    assert body["dimensions"] == len(body["embeddings"][0])
    assert client.post("/api/v1/embeddings", json={"texts": []}).status_code == 422
