"""The one place where a call is tried again; sync and async."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from arawn_llm import _litellm
from arawn_llm._call import Call
from arawn_llm.errors import BackendError

_T = TypeVar("_T")


def retry(call: Call, ask: Callable[[Call], _T]) -> _T:
    """Start a call's clock, and ask until there is an answer or an error that no other try would mend.

    Raises:
        ArawnError: What the last try ended in.
    """
    _litellm.load()  # seconds, once in a process, that are not the backend's
    call.begin()
    while True:
        try:
            return ask(call)
        except BackendError as error:
            delay = call.delay(error)
            if delay is None:
                raise
        time.sleep(delay)


async def aretry(call: Call, ask: Callable[[Call], Awaitable[_T]]) -> _T:
    """Start a call's clock, and ask until there is an answer; the async twin of `retry`."""
    await _litellm.aload()
    call.begin()
    while True:
        try:
            return await ask(call)
        except BackendError as error:
            delay = call.delay(error)
            if delay is None:
                raise
        await asyncio.sleep(delay)
