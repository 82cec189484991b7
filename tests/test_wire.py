"""What leaves on the wire and what comes back, for each backend, sync, async and streamed."""

import asyncio
import contextlib
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import Make
from pydantic import BaseModel
from ways import BACKENDS, PROMPT, Ask, acomplete, complete, each_backend, each_way, each_whole, stream

import arawn_llm
from arawn_llm import Backend, errors
from arawn_llm._providers import PROVIDERS, Provider
from arawn_llm.testing import KEY, Reply, Simulator

Serve = Callable[..., Simulator]
PATHS = {"anthropic": "/v1/messages", "ollama": "/api/chat", "groq": "/openai/v1/chat/completions"}


@each_backend
@each_way
def test_an_answer_comes_back(serve: Serve, make: Make, name: str, ask: Ask) -> None:
    server = serve(name)
    server.script(Reply("Hello there", usage=(7, 5)))
    reply = ask(make(name, server))
    assert (reply.text, reply.backend, reply.profile, reply.model) == (
        "Hello there",
        name,
        "default",
        "some-model",
    )
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.finish_reason) == (7, 5, "stop")
    [request] = server.requests
    assert (request.method, request.path) == ("POST", PATHS.get(name, "/v1/chat/completions"))
    assert request.body["model"] == "some-model"
    keys = [request.headers.get("x-api-key"), request.headers.get("authorization", "").removeprefix("Bearer ")]
    assert sorted(key for key in keys if key) == [KEY]


@pytest.mark.parametrize(
    ("name", "end"),
    [
        (name, end)
        for name, ends in {
            "anthropic": ("", "/", "/v1", "/v1/", "/v1/messages"),
            "openai": ("", "/", "/chat/completions"),
            "custom": ("", "/", "/chat/completions"),
            "groq": ("", "/", "/chat/completions"),
            "ollama": ("", "/", "/v1", "/v1/", "/api", "/api/chat"),
        }.items()
        for end in ends
    ],
)
def test_an_address_may_end_anyhow(serve: Serve, make: Make, name: str, end: str) -> None:
    server = serve(name, key="a-key-1234")
    assert make(name, server.base_url + end).complete("Hello").text
    assert server.requests[0].path == server.dialect.chat_path


@each_backend
@each_whole
def test_defaults_of_the_profile_apply_and_are_overridden(
    serve: Serve, make: Make, name: str, ask: Ask
) -> None:
    server = serve(name)
    lines = 'system_prompt = "Be brief."\ntemperature = 0.25\nheaders = { X-Team = "a" }\nmax_tokens = 9'
    backend = make(name, server, lines)
    ask(backend)
    ask(backend, temperature=0.75, system="Be long.", max_tokens=10)
    first, second = (request.body for request in server.requests)
    assert "Be brief." in str(first) and "Be long." in str(second) and "Be brief." not in str(second)
    assert server.requests[0].headers["x-team"] == "a"
    options = [body.get("options", body) for body in (first, second)]
    assert [each["temperature"] for each in options] == [0.25, 0.75]
    assert [each.get("max_tokens", each.get("num_predict")) for each in options] == [9, 10]


def get_weather(city: str, days: int = 1) -> str:
    """Tell the weather."""
    return city * days


TWO_CALLS = Reply(tool_calls=(("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Røros", "days": 2})))


@each_backend
@each_way
def test_tools_are_sent_and_their_calls_come_back(serve: Serve, make: Make, name: str, ask: Ask) -> None:
    server = serve(name)
    server.script(TWO_CALLS)
    reply = ask(make(name, server), tools=[get_weather])
    assert [(call.name, dict(call.arguments)) for call in reply.tool_calls] == list(TWO_CALLS.tool_calls)
    assert len({call.id for call in reply.tool_calls}) == 2 and reply.finish_reason == "tool_calls"
    tool = server.requests[0].body["tools"][0]
    tool = tool.get("function", tool)
    assert (tool["name"], tool["description"]) == ("get_weather", "Tell the weather.")
    schema = tool.get("parameters", tool.get("input_schema"))
    assert schema["required"] == ["city"] and schema["properties"]["days"]["type"] == "integer"


@each_backend
def test_a_tools_result_goes_back(serve: Serve, make: Make, name: str) -> None:
    server = serve(name)
    server.script(TWO_CALLS, "It rains.")
    backend = make(name, server)
    calls = backend.complete("Weather?", tools=[get_weather]).tool_calls
    asked = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_text}}
        for call in calls
    ]
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": asked},
        *({"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in calls),
    ]
    assert backend.complete(messages, tools=[get_weather]).text == "It rains."


@each_backend
def test_the_callers_lists_are_left_as_they_were(serve: Serve, make: Make, name: str) -> None:
    tools = [
        {
            "type": "function",
            "function": {
                "name": "f",
                "strict": True,
                "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
            },
        }
    ]
    messages: list[dict[str, Any]] = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    before = (repr(tools), repr(messages))
    make(name, serve(name)).complete(messages, tools=tools)
    assert (repr(tools), repr(messages)) == before


@each_backend
@each_way
def test_reasoning_is_kept_apart(serve: Serve, make: Make, name: str, ask: Ask) -> None:
    server = serve(name)
    server.script(Reply("42", reasoning="I think hard."))
    reply = ask(make(name, server))
    assert (reply.text, reply.reasoning) == ("42", "I think hard.")


@each_backend
@each_way
def test_an_answer_that_was_cut_at_its_length_says_so(serve: Serve, make: Make, name: str, ask: Ask) -> None:
    server = serve(name)
    server.script(Reply("and so", finish_reason="length"))
    assert ask(make(name, server)).finish_reason == "length"


class City(BaseModel):
    """A city."""

    name: str
    people: int | None = None


@each_backend
@each_way
def test_a_response_model_is_sent_and_parsed(serve: Serve, make: Make, name: str, ask: Ask) -> None:
    server = serve(name)
    server.script('{"name": "Oslo", "people": 7}', "no JSON")
    backend = make(name, server)
    assert ask(backend, response_model=City).parsed == City(name="Oslo", people=7)
    assert "people" in str(server.requests[0].body)
    with pytest.raises(errors.ResponseFormatError) as caught:
        ask(backend, response_model=City)
    assert caught.value.text == "no JSON"


PIXEL = b"\x89PNG\r\n\x1a\n"
SENT = "iVBORw0KGgo="


@each_backend
@each_whole
@pytest.mark.parametrize("image", [PIXEL, f"data:image/png;base64,{SENT}"], ids=["bytes", "data-uri"])
def test_an_image_is_sent_with_the_prompt(serve: Serve, make: Make, name: str, ask: Ask, image: Any) -> None:
    server = serve(name)
    ask(make(name, server), images=[image])
    assert SENT in str(server.requests[0].body["messages"][-1])


@pytest.mark.parametrize("name", ["anthropic", "openai", "groq", "custom"])
def test_an_images_address_is_sent_as_it_is(serve: Serve, make: Make, name: str) -> None:
    server = serve(name)
    make(name, server).complete("What?", images=["https://a.invalid/x.png"])
    assert "https://a.invalid/x.png" in str(server.requests[0].body)


@pytest.mark.parametrize(
    ("name", "image", "words"),
    [
        pytest.param("openai", b"no image", "PNG, JPEG", id="bytes"),
        pytest.param("openai", "gone.png", "gone.png cannot be read", id="no-file"),
        pytest.param("ollama", "https://a.invalid/x.png", "fetches no https:// images", id="url-for-ollama"),
        pytest.param(
            "anthropic", "http://a.invalid/x.png", "fetches no http:// images", id="no-tls-for-anthropic"
        ),
    ],
)
def test_an_image_that_cannot_be_used_is_refused_before_sending(
    serve: Serve, make: Make, name: str, image: Any, words: str
) -> None:
    server = serve(name)
    with pytest.raises(errors.InvalidRequestError, match=words):
        make(name, server).complete("What?", images=[image])
    assert server.requests == []


@each_way
def test_a_prompt_that_cannot_fit_is_not_sent(serve: Serve, make: Make, ask: Ask) -> None:
    server = serve("openai")
    with pytest.raises(errors.ContextWindowError, match="max_context_tokens is 20"):
        ask(make("openai", server, "max_context_tokens = 20"), "word " * 100)
    assert server.requests == []


def test_ollama_is_told_its_context_window_and_asked_nothing_else(serve: Serve, make: Make) -> None:
    server = serve("ollama")
    make("ollama", server, "max_context_tokens = 4096").complete("Hello")
    assert [request.path for request in server.requests] == ["/api/chat"]
    assert server.requests[0].body["options"]["num_ctx"] == 4096


def test_a_backend_without_tool_choice_does_not_pass_over_it(serve: Serve, make: Make) -> None:
    server = serve("ollama")
    backend = make("ollama", server)
    with pytest.raises(errors.InvalidRequestError, match="tool_choice"):
        backend.complete("Weather?", tools=[get_weather], tool_choice="required")
    assert server.requests == [] and backend.complete("Weather?", tools=[get_weather], tool_choice="auto")


def test_anthropic_is_told_a_moderate_max_tokens(serve: Serve, make: Make) -> None:
    server = serve("anthropic")
    make("anthropic", server).complete("Hello")
    assert server.requests[0].body["max_tokens"] == 8192


@pytest.mark.parametrize("token", ["sk-ant-oat01-simulated", "a-gateways-own-token"])
@each_way
def test_a_logins_token_goes_out_as_bearer_alone(
    serve: Serve, make: Make, ask: Ask, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", token)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "another-key")
    server = serve("claude-oauth", key=token)
    backend = make("claude-oauth", server.base_url)
    assert ask(backend).text and "x-api-key" not in server.requests[0].headers


def test_params_go_through_to_the_provider(serve: Serve, make: Make) -> None:
    server = serve("openai")
    make("openai", server, "params = { seed = 7 }").complete("Hello", top_p=0.5)
    assert (server.requests[0].body["seed"], server.requests[0].body["top_p"]) == (7, 0.5)


@each_backend
def test_threads_share_a_backend(serve: Serve, make: Make, name: str) -> None:
    server = serve(name)
    backend = make(name, server)
    with ThreadPoolExecutor(8) as pool:
        assert {reply.text for reply in pool.map(lambda _: complete(backend), range(16))} == {
            "This reply is simulated."
        }
    assert len(server.requests) == 16


@each_backend
def test_tasks_share_a_backend(serve: Serve, make: Make, name: str) -> None:
    backend = make(name, serve(name))

    async def ask() -> list[arawn_llm.Completion]:
        try:
            return await asyncio.gather(*(backend.acomplete(PROMPT) for _ in range(32)))
        finally:
            await arawn_llm.aclose()

    assert {reply.text for reply in asyncio.run(ask())} == {"This reply is simulated."}


@each_backend
def test_event_loops_one_after_another_share_a_backend(serve: Serve, make: Make, name: str) -> None:
    backend = make(name, serve(name))
    assert [acomplete(backend).text for _ in range(3)] == ["This reply is simulated."] * 3


@each_backend
def test_a_backend_works_after_a_fork(serve: Serve, make: Make, name: str) -> None:
    backend = make(name, serve(name))
    complete(backend)
    child = os.fork()
    if child == 0:
        os._exit(0 if complete(backend).text else 1)
    assert os.waitpid(child, 0)[1] == 0 and complete(backend).text


@each_way
def test_a_seventh_provider_is_one_row(
    serve: Serve, make: Make, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Provider(
        key="acme",
        display_name="Acme",
        prefix="hosted_vllm/",
        env_var="ACME_API_KEY",
        keyring_name="acme_api_key",
        base_url="https://api.acme.invalid/v1",
        model="acme-1",
    )
    monkeypatch.setitem(PROVIDERS, "acme", row)
    reply = ask(make("acme", serve("openai")))
    assert (reply.text, reply.backend) == ("This reply is simulated.", "acme")


@pytest.mark.parametrize("name", [*BACKENDS, "claude-oauth"])
def test_capabilities_can_be_asked(make: Make, name: str) -> None:
    backend = make(name, "http://localhost:1/v1")
    assert backend.supports("tools") and backend.supports("streaming") and backend.supports("vision")
    assert backend.supports("embeddings") == (name in {"openai", "ollama", "custom"})


def test_tokens_are_counted_without_asking_anyone(make: Make) -> None:
    backend: Backend = make("anthropic", "http://localhost:1")
    assert 1 < backend.count_tokens("one two three") < 30


def test_a_known_model_has_a_price_and_a_local_one_is_free(serve: Serve, make: Make) -> None:
    server = serve("anthropic")
    server.script(Reply("a", usage=(1_000_000, 0)))
    assert make("anthropic", server, model="claude-sonnet-4-6").complete("Hello").cost == pytest.approx(3.0)
    assert make("anthropic", server, model="unheard-of").complete("Hello").cost is None
    assert stream(make("ollama", serve("ollama"))).cost == 0.0


@pytest.mark.parametrize("name", ["ollama", "custom"])
@each_way
def test_without_a_key_none_is_sent_whatever_the_environment_holds(
    serve: Serve, write: Callable[[str, str], Any], name: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OPENAI_API_KEY", "HOSTED_VLLM_API_KEY", "GROQ_API_KEY"):
        monkeypatch.setenv(variable, "anothers-key")
    server = serve(name)
    path = write("a.toml", f'[llm]\nbackend = "{name}"\nmodel = "m"\nbase_url = "{server.base_url}"\n')
    with contextlib.suppress(errors.AuthenticationError):
        ask(arawn_llm.get_backend(config=arawn_llm.load_config(path)))
    assert "authorization" not in server.requests[0].headers


def test_a_backend_with_a_key_of_the_file_is_not_pickled(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="is not pickled"):
        pickle.dumps(make("openai", "http://localhost:1"))
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    backend = arawn_llm.get_backend("groq")
    assert KEY.encode() not in pickle.dumps(backend) and pickle.loads(pickle.dumps(backend)).name == "groq"


def test_a_profile_is_given_to_other_users_of_litellm(
    serve: Serve, write: Callable[[str, str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from arawn_llm import _litellm

    server = serve("groq")
    write("work/arawn.toml", f'[llm]\nbackend = "groq"\nmodel = "m"\nbase_url = "{server.base_url}"\n')
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    messages = [{"role": "user", "content": "Hello"}]
    assert _litellm.load().completion(messages=messages, **arawn_llm.litellm_params()).choices
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "a-gateways-own-token")
    with pytest.raises(errors.CredentialError, match="as an API key"):
        arawn_llm.litellm_params("claude-oauth")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "sk-ant-oat01-x")
    assert arawn_llm.litellm_params("claude-oauth")["api_key"] == "sk-ant-oat01-x"
