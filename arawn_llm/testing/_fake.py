"""A backend that needs no provider: scripted answers, real checks of what it is asked."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from arawn_llm import _backend, _call
from arawn_llm._backend import Backend, Prompt
from arawn_llm._completion import Completion
from arawn_llm._providers import PROVIDERS
from arawn_llm._resolve import Target
from arawn_llm._schema import Profile
from arawn_llm._stream import AsyncStream, Stream
from arawn_llm.errors import ArawnError
from arawn_llm.testing._dialect import split_text

Step = str | Completion | ArawnError


@dataclass(frozen=True)
class Asked:
    """Record one call.

    Attributes:
        messages: The OpenAI-style messages, system prompt and images included.
        params: What else would have gone to LiteLLM.
    """

    messages: list[dict[str, Any]]
    params: Mapping[str, Any]


class FakeBackend(Backend):
    """Answer with the next of `replies`: a text, a `Completion`, or an error to raise.

    Prompts, images, tools and options are checked as a real backend checks them, and `response_model` is parsed
    from the reply; nothing is sent. `asked` records each call. An error with `partial` text breaks a stream
    behind that text.

    Args:
        replies: What to answer, one for each call.
        name: The profile's name.
        backend: The backend key whose rules apply.
        model: The model's name.
    """

    def __init__(
        self, replies: Sequence[Step], *, name: str = "fake", backend: str = "custom", model: str = "fake"
    ) -> None:
        if isinstance(replies, str) or not all(
            isinstance(each, str | Completion | ArawnError) for each in replies
        ):
            raise TypeError("replies must be a list of texts, completions and arawn_llm errors")
        profile = Profile(backend=backend, model=model, base_url="http://localhost")
        target = Target(
            name, PROVIDERS[backend], model, "http://localhost", "FakeBackend", profile, f"[llm.{name}]"
        )
        super().__init__(target, _NoCredential())
        object.__setattr__(self, "asked", [])
        object.__setattr__(self, "_replies", deque(replies))

    asked: list[Asked]
    _replies: deque[Step]

    def complete(self, prompt: Prompt, **options: Any) -> Completion:
        """Give the next reply."""
        call, step = self._take(prompt, options)
        if isinstance(step, ArawnError):
            raise step
        return call.parse(step)

    async def acomplete(self, prompt: Prompt, **options: Any) -> Completion:
        """Give the next reply; the async twin of `complete`."""
        return self.complete(prompt, **options)

    def stream(self, prompt: Prompt, **options: Any) -> Stream:
        """Give the next reply word by word."""
        return _FakeStream(*self._take(prompt, options))

    def astream(self, prompt: Prompt, **options: Any) -> AsyncStream:
        """Give the next reply word by word; the async twin of `stream`."""
        return _FakeAsyncStream(*self._take(prompt, options))

    def _take(self, prompt: Prompt, options: Mapping[str, Any]) -> tuple[_call.Call, Completion | ArawnError]:
        call = _call.plan(self._target, self._credential, prompt, options)
        self.asked.append(Asked(call.request.messages, call.request.params))
        if not self._replies:
            raise ArawnError(f'FakeBackend "{self.name}" has no reply left for call {len(self.asked)}')
        step = self._replies.popleft()
        if isinstance(step, ArawnError):
            return call, step
        given = Completion(step) if isinstance(step, str) else step
        return call, replace(given, backend=self.backend, profile=self.name, model=given.model or self.model)


@contextmanager
def use_backend(backend: Backend, name: str | None = None, *, agent: str | None = None) -> Iterator[Backend]:
    """Let `get_backend` give this backend while the block runs: `with use_backend(fake, "fast"): …`.

    Args:
        backend: What to give.
        name: The profile or backend key to stand in for; without it and without an agent, for all.
        agent: The agent to stand in for.
    """
    key = name or (f"agent.{agent}" if agent else "")
    before = _backend._stand_ins.get(key)
    _backend._stand_ins[key] = backend
    try:
        yield backend
    finally:
        del _backend._stand_ins[key]
        if before is not None:
            _backend._stand_ins[key] = before


class _NoCredential:
    source = "nowhere: the backend is a fake"

    def token(self) -> str:
        return ""

    async def atoken(self) -> str:
        return ""

    def invalidate(self) -> bool:
        return False


def _pieces(step: Completion | ArawnError) -> list[str]:
    return split_text(step.text if isinstance(step, Completion) else getattr(step, "partial", ""))


class _FakeStream(Stream):
    def __init__(self, call: _call.Call, step: Completion | ArawnError) -> None:
        super().__init__(call)
        self._step = step

    def __iter__(self) -> Iterator[str]:
        for piece in _pieces(self._step):
            self.text += piece
            yield piece
        if isinstance(self._step, ArawnError):
            raise self._step
        self._completion = self._call.parse(self._step)


class _FakeAsyncStream(AsyncStream):
    def __init__(self, call: _call.Call, step: Completion | ArawnError) -> None:
        super().__init__(call)
        self._sync = _FakeStream(call, step)

    async def __aiter__(self) -> AsyncIterator[str]:
        for piece in self._sync:
            self.text = self._sync.text
            yield piece
        self._completion = self._sync.completion
