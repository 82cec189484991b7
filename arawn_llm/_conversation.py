"""A conversation: what was said, kept within the context window of whoever is asked next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

from arawn_llm import _messages
from arawn_llm._completion import Completion, ToolCall
from arawn_llm._stream import AsyncStream, Stream, _Answer
from arawn_llm.errors import InvalidRequestError

_LEAST_RESERVE = 1024  # tokens left for an answer where nothing says how long it may be


class Asks(Protocol):
    """Whoever a conversation can be held with, such as a `Backend`."""

    @property
    def max_context_tokens(self) -> int | None: ...
    def count_tokens(self, prompt: Any) -> int: ...
    def complete(self, prompt: Any, **options: Any) -> Completion: ...
    async def acomplete(self, prompt: Any, **options: Any) -> Completion: ...
    def stream(self, prompt: Any, **options: Any) -> Stream: ...
    def astream(self, prompt: Any, **options: Any) -> AsyncStream: ...


@dataclass
class Conversation:
    """Hold a conversation turn by turn; `backend` may be changed between turns.

    A turn that fails leaves no trace. A stream that is left early or breaks keeps what came, so that the person
    can go on from there. Not for several threads at once.

    Attributes:
        backend: Whom the next turn asks.
        system: The system prompt; the profile's without it.
        messages: All that was said, as OpenAI-style messages without the system prompt.
        dropped: How many of the oldest turns the last request left out to fit the context window.
        completions: The answers so far, for their usage and cost.
    """

    backend: Asks
    system: str | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    dropped: int = 0
    completions: list[Completion] = field(default_factory=list, repr=False)

    def send(
        self, prompt: str | None = None, *, images: Sequence[_messages.Image] = (), **options: Any
    ) -> Completion:
        """Say something and wait for the whole answer.

        Args:
            prompt: What the person says; None where tools have just been answered.
            images: Images to go with it.
            **options: As for `Backend.complete`.
        """
        said = self._say(prompt, images)
        completion = self.backend.complete(self._fit(said), system=self.system, **options)
        self._keep(said, completion.text, completion)
        return completion

    async def asend(
        self, prompt: str | None = None, *, images: Sequence[_messages.Image] = (), **options: Any
    ) -> Completion:
        """Say something and wait for the whole answer; the async twin of `send`."""
        said = self._say(prompt, images)
        completion = await self.backend.acomplete(self._fit(said), system=self.system, **options)
        self._keep(said, completion.text, completion)
        return completion

    def stream(
        self, prompt: str | None = None, *, images: Sequence[_messages.Image] = (), **options: Any
    ) -> Stream:
        """Say something and read the answer as it comes."""
        said = self._say(prompt, images)
        stream = self.backend.stream(self._fit(said), system=self.system, **options)
        stream.on_close = self._keeper(said)
        return stream

    def astream(
        self, prompt: str | None = None, *, images: Sequence[_messages.Image] = (), **options: Any
    ) -> AsyncStream:
        """Say something and read the answer as it comes; the async twin of `stream`."""
        said = self._say(prompt, images)
        stream = self.backend.astream(self._fit(said), system=self.system, **options)
        stream.on_close = self._keeper(said)
        return stream

    def answer(self, call: ToolCall, result: str) -> None:
        """Give the result of a tool that the last answer asked for; then `send()` goes on."""
        self.messages.append({"role": "tool", "tool_call_id": call.id, "content": result})

    def take_back(self) -> dict[str, Any] | None:
        """Take the last turn back, and give the person's message that began it."""
        starts = _turn_starts(self.messages)
        if not starts:
            return None
        message = self.messages[starts[-1]]
        del self.messages[starts[-1] :]
        return message

    def clear(self) -> None:
        """Forget what was said; the system prompt stays."""
        self.messages.clear()
        self.dropped = 0

    def _say(self, prompt: str | None, images: Sequence[_messages.Image]) -> list[dict[str, Any]]:
        if prompt is not None:
            return _messages.build_messages(prompt, None, images)
        if not self.messages or self.messages[-1]["role"] != "tool":
            raise InvalidRequestError("say something: no tool has just been answered")
        return []

    def _fit(self, said: list[dict[str, Any]]) -> list[dict[str, Any]]:
        messages, limit = [*self.messages, *said], self.backend.max_context_tokens
        if limit is None:
            self.dropped = 0
            return messages
        rest = limit - min(limit // 4, _LEAST_RESERVE) - len((self.system or "").encode())
        fitted, self.dropped = fit_turns(messages, rest, self.backend.count_tokens)
        return fitted

    def _keeper(self, said: list[dict[str, Any]]) -> Callable[[_Answer], None]:
        def keep(answer: _Answer) -> None:
            if answer.ended or answer.text:
                self._keep(said, answer.text, answer.completion if answer.ended else None)

        return keep

    def _keep(self, said: list[dict[str, Any]], text: str, completion: Completion | None) -> None:
        reply: dict[str, Any] = {"role": "assistant", "content": text or None}
        if completion is not None:
            self.completions.append(completion)
            if completion.tool_calls:
                reply["tool_calls"] = [_describe(call) for call in completion.tool_calls]
        self.messages += [*said, reply]


def fit_turns(
    messages: list[dict[str, Any]], limit: int, count: Callable[[list[dict[str, Any]]], int]
) -> tuple[list[dict[str, Any]], int]:
    """Leave out whole turns, the oldest first, until the rest fits; tool messages stay with their call.

    Args:
        messages: Messages without a system prompt; a turn begins with a person's message.
        limit: Tokens that they may have together.
        count: How to count the tokens of messages; not asked where their bytes already fit.

    Returns:
        The messages that fit, at least the last turn, and how many turns were left out.
    """
    starts = _turn_starts(messages)
    if len(starts) < 2 or _messages.count_bytes(messages) <= limit:
        return messages, 0
    turns = [messages[start:end] for start, end in pairwise([*starts, len(messages)])]
    sizes = [count(turn) for turn in turns]
    dropped = 0
    while dropped < len(turns) - 1 and sum(sizes[dropped:]) > limit:
        dropped += 1
    return (messages[starts[dropped] :] if dropped else messages), dropped


def _turn_starts(messages: Sequence[Mapping[str, Any]]) -> list[int]:
    return [number for number, message in enumerate(messages) if message["role"] == "user"]


def _describe(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments_text}
    return {"id": call.id, "type": "function", "function": function}
