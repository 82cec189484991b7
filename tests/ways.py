"""The four ways to ask, as one: each gives a completion or raises."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

import arawn_llm
from arawn_llm import Backend, Completion

BACKENDS = ("anthropic", "openai", "groq", "ollama", "custom")
PROMPT = "a prompt that no message repeats"
Ask = Callable[..., Completion]
Prompt = str | Sequence[dict[str, Any]]


def complete(backend: Backend, prompt: Prompt = PROMPT, **options: Any) -> Completion:
    return backend.complete(prompt, **options)


def acomplete(backend: Backend, prompt: Prompt = PROMPT, **options: Any) -> Completion:
    async def ask() -> Completion:
        try:
            return await backend.acomplete(prompt, **options)
        finally:
            await arawn_llm.aclose()

    return asyncio.run(ask())


def stream(backend: Backend, prompt: Prompt = PROMPT, **options: Any) -> Completion:
    with backend.stream(prompt, **options) as answer:
        text = "".join(answer)
    assert answer.completion.text == answer.text == text
    return answer.completion


def astream(backend: Backend, prompt: Prompt = PROMPT, **options: Any) -> Completion:
    async def ask() -> Completion:
        try:
            async with backend.astream(prompt, **options) as answer:
                text = "".join([piece async for piece in answer])
        finally:
            await arawn_llm.aclose()
        assert answer.completion.text == answer.text == text
        return answer.completion

    return asyncio.run(ask())


each_backend = pytest.mark.parametrize("name", BACKENDS)
each_way = pytest.mark.parametrize("ask", [complete, acomplete, stream, astream])
each_whole = pytest.mark.parametrize("ask", [complete, acomplete])
each_stream = pytest.mark.parametrize("ask", [stream, astream])
