"""A conversation: kept whole, kept within the window, and carried from one backend to another."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Make
from hypothesis import given
from hypothesis import strategies as st
from ways import BACKENDS

from arawn_llm import errors
from arawn_llm._conversation import fit_turns
from arawn_llm.testing import FakeBackend, Fault, Reply, Simulator

Serve = Callable[..., Simulator]
CALL = Reply("Let me look.", tool_calls=(("get_weather", {"city": "Oslo"}),))


def get_weather(city: str) -> str:
    """Tell the weather."""
    return city


def test_each_turn_is_said_again_in_the_next() -> None:
    fake = FakeBackend(["Hi.", "Oslo.", "Bye."])
    chat = fake.conversation(system="Be brief.")
    chat.send("Hello")
    with chat.stream("The capital of Norway?") as stream:
        assert "".join(stream) == "Oslo."
    asyncio.run(chat.asend("Thanks"))
    assert [message["content"] for message in fake.asked[-1].messages] == [
        "Be brief.", "Hello", "Hi.", "The capital of Norway?", "Oslo.", "Thanks",
    ]  # fmt: skip
    assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 3
    assert len(chat.completions) == 3


def test_a_turn_that_fails_leaves_no_trace() -> None:
    chat = FakeBackend(["Hi.", errors.RateLimitError("slow"), errors.RateLimitError("slow")]).conversation()
    chat.send("Hello")
    before = [*chat.messages]
    with pytest.raises(errors.RateLimitError):
        chat.send("More")
    with pytest.raises(errors.RateLimitError), chat.stream("More") as stream:
        list(stream)
    assert chat.messages == before


def test_an_answer_left_early_is_kept_as_far_as_it_came(serve: Serve, make: Make) -> None:
    server = serve("openai")
    chat = make("openai", server).conversation()
    server.script(Fault("cut"))
    with pytest.raises(errors.StreamInterruptedError), chat.stream("Hello") as stream:
        list(stream)
    assert chat.messages[-1] == {"role": "assistant", "content": "Hello there"}
    with chat.stream("Again") as stream:
        next(iter(stream))
    assert chat.messages[-1] == {"role": "assistant", "content": "This"}
    assert chat.take_back() == {"role": "user", "content": "Again"} and len(chat.messages) == 2


@pytest.mark.parametrize("name", BACKENDS)
def test_a_conversation_moves_to_another_backend_with_images_and_tools(
    serve: Serve, make: Make, name: str
) -> None:
    first = serve("openai")
    first.script(CALL, "It rains.")
    chat = make("openai", first).conversation(system="Be brief.")
    completion = chat.send("The weather there?", images=[b"\x89PNG\r\n\x1a\n"], tools=[get_weather])
    chat.answer(completion.tool_calls[0], "rain")
    assert chat.send(tools=[get_weather]).text == "It rains."
    second = serve(name)
    second.script("Yes.")
    chat.backend = make(name, second)
    assert chat.send("Sure?", tools=[get_weather]).text == "Yes."
    sent = str(second.requests[0].body)
    assert all(
        words in sent for words in ("iVBORw0KGgo=", "get_weather", "rain", "It rains.", "Be brief.", "Sure?")
    )


def test_a_conversation_can_be_given_as_a_prompt() -> None:
    fake = FakeBackend(["Hi.", "A greeting."])
    chat = fake.conversation("Be brief.")
    chat.send("Hello")
    chat.messages.append({"role": "user", "content": "What was that?"})
    assert fake.complete(chat).text == "A greeting." and len(chat.messages) == 3
    assert fake.asked[-1].messages[0] == {"role": "system", "content": "Be brief."}


def test_the_oldest_turns_are_left_out_and_counted(serve: Serve, make: Make) -> None:
    server = serve("openai")
    chat = make("openai", server, "max_context_tokens = 400").conversation()
    for number in range(6):
        chat.send(f"{number} " + "word " * 80)
    assert chat.dropped > 0 and len(chat.messages) == 12
    assert server.requests[-1].body["messages"][0]["role"] == "user"
    assert len(server.requests[-1].body["messages"]) == 11 - 2 * chat.dropped


def test_nothing_to_say_is_refused() -> None:
    with pytest.raises(errors.InvalidRequestError):
        FakeBackend(["x"]).conversation().send()


def turn(tools: int) -> list[dict[str, Any]]:
    calls = [
        {"id": str(i), "type": "function", "function": {"name": "f", "arguments": "{}"}} for i in range(tools)
    ]
    results = [{"role": "tool", "tool_call_id": str(i), "content": "r"} for i in range(tools)]
    asked = [{"role": "assistant", "content": None, "tool_calls": calls}, *results] if tools else []
    return [{"role": "user", "content": "q"}, *asked, {"role": "assistant", "content": "a"}]


@given(st.lists(st.integers(0, 3)), st.integers(0, 200))
def test_only_whole_turns_are_left_out(turns: list[int], limit: int) -> None:
    messages = [message for tools in turns for message in turn(tools)]
    kept, dropped = fit_turns(messages, limit, lambda part: 5 * len(part))
    assert kept == [message for tools in turns[dropped:] for message in turn(tools)]
    assert dropped <= max(0, len(turns) - 1)
    assert dropped == 0 or 5 * len(kept) <= limit or dropped == len(turns) - 1
