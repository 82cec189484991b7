"""One question of a client, alone or within a conversation that it comes back to."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

from arawn_llm import AsyncStream, Backend, Completion, Conversation
from arawn_llm.server._bodies import Chat
from arawn_llm.server._statuses import SessionNotFoundError

_MOST_IN_ONE = 16 * 1024 * 1024  # characters, images included

Event = tuple[str, dict[str, Any]]


@dataclass
class Session:
    """One conversation, for one request after the other; whoever knows its id may go on with it."""

    conversation: Conversation
    id: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    size: int = 0
    used: float = 0.0  # when, by `time.monotonic()`


class Sessions:
    """Hold sessions until they expire or newer ones need the room.

    Args:
        most: How many to hold.
        room: Characters of all of them.
        lifetime: Seconds without use until one expires.
    """

    def __init__(self, most: int = 1000, room: int = 4 * _MOST_IN_ONE, lifetime: float = 3600.0) -> None:
        self.most, self.room, self.lifetime = most, room, lifetime
        self._held: dict[str, Session] = {}  # the least recently used first
        self._size = 0

    def find(self, session_id: str) -> Session:
        """Give a session.

        Raises:
            SessionNotFoundError: There is none, or no more.
        """
        self._drop()
        if session_id not in self._held:
            raise SessionNotFoundError(
                "there is no such session: it has expired, or has grown too large",
                hints=("leave session_id out: the answer names a new one",),
            )
        return self._held[session_id]

    def begin(self, backend: Backend) -> Session:
        """Make a session; it is held from its first turn on."""
        return Session(Conversation(backend))

    def keep(self, session: Session) -> None:
        """Hold a session as it is after a turn, if anything was said."""
        conversation = session.conversation
        conversation.completions.clear()  # they hold the backends' whole answers
        if conversation.messages:
            self._forget(session.id)
            session.size, session.used = len(repr(conversation.messages)), time.monotonic()
            if session.size <= _MOST_IN_ONE:
                self._held[session.id] = session
                self._size += session.size
            self._drop()

    def _drop(self) -> None:
        oldest = time.monotonic() - self.lifetime
        while self._held:
            session = next(iter(self._held.values()))
            if len(self._held) <= self.most and self._size <= self.room and session.used >= oldest:
                break
            self._forget(session.id)

    def _forget(self, session_id: str) -> None:
        session = self._held.pop(session_id, None)
        self._size -= session.size if session else 0


@dataclass(frozen=True)
class Turn:
    """One question and whom it goes to."""

    asked: Chat
    backend: Backend
    session: Session | None
    sessions: Sessions
    options: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", self.asked.options())

    async def ask(self) -> Completion:
        """Wait for the whole answer."""
        if self.session is None:
            return await self.backend.acomplete(self._messages(), system=self.asked.system, **self.options)
        async with self.session.lock:
            try:
                return await self._prepare(self.session).asend(
                    self.asked.message, images=self.asked.images, **self.options
                )
            finally:
                self.sessions.keep(self.session)

    async def events(self) -> AsyncGenerator[Event]:
        """Yield the answer as it comes; closing this closes the connection to the backend."""
        async with self.session.lock if self.session else nullcontext():
            try:
                async with self._stream() as answer:
                    async for text in answer:
                        yield "text", {"text": text}
                for call in answer.completion.tool_calls:
                    yield "tool_call", asdict(call)
                yield "done", self.describe(answer.completion)
            finally:
                if self.session:
                    self.sessions.keep(self.session)

    def _stream(self) -> AsyncStream:
        if self.session is None:
            return self.backend.astream(self._messages(), system=self.asked.system, **self.options)
        conversation = self._prepare(self.session)
        return conversation.astream(self.asked.message, images=self.asked.images, **self.options)

    def _messages(self) -> list[dict[str, Any]]:
        return [each.model_dump(exclude_none=True) for each in self.asked.messages or ()]

    def _prepare(self, session: Session) -> Conversation:
        """Bring a session's conversation to where the question can be asked."""
        conversation = session.conversation
        conversation.backend = self.backend
        conversation.system = self.asked.system or conversation.system
        while conversation.messages and conversation.messages[-1]["role"] == "tool":
            conversation.messages.pop()  # of a turn that failed
        for result in self.asked.tool_results or ():
            conversation.messages.append({"role": "tool", **result.model_dump()})
        return conversation

    def describe(self, reply: Completion) -> dict[str, Any]:
        """Give the answer's body."""
        return {
            "response": reply.text,
            "backend": reply.backend,
            "profile": reply.profile,
            "model": reply.model,
            "session_id": self.session.id if self.session else None,
            "tool_calls": [asdict(call) for call in reply.tool_calls],
            "finish_reason": reply.finish_reason,
            "usage": asdict(reply.usage),
            "cost": reply.cost,
        }
