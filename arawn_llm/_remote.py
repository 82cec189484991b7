"""Embedding by a server: batches within its limits, sent side by side, each tried again by itself."""

from __future__ import annotations

import asyncio
import base64
import binascii
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np

from arawn_llm import _litellm, errors
from arawn_llm._call import Call
from arawn_llm._credentials import TokenProvider
from arawn_llm._litellm import Request
from arawn_llm._providers import EmbeddingRoute
from arawn_llm._resolve import Target
from arawn_llm._retry import aretry, retry
from arawn_llm._vectors import Engine, Keep, Kind, Space, Vectors
from arawn_llm.errors import ArawnError

_AT_ONCE = 4  # requests under way together
_COUNTED_AS = "gpt-4"  # its tokenizer, packaged with LiteLLM, is that of OpenAI's embedding models too


@dataclass(frozen=True)
class RemoteEngine:
    """Ask a server for vectors."""

    target: Target
    credential: TokenProvider = field(repr=False)
    size: int | None = None
    overflow: str = "error"
    _learned: list[int] = field(default_factory=list, repr=False, compare=False)
    takes_empty = False

    @property
    def model(self) -> str:
        """Name the model."""
        return self.target.model

    @property
    def window(self) -> int:
        """Say how many texts of a stream it wants at a time: enough for all requests under way together."""
        return _AT_ONCE * self._route.max_texts

    @property
    def _route(self) -> EmbeddingRoute:
        return self.target.provider.embedding or EmbeddingRoute()

    @property
    def dimensions(self) -> int:
        """Give the width of the vectors; the first time the server may be asked for one vector."""
        if self.size:
            return self.size
        if not self._learned:
            self.encode(["dimensions"], "document", lambda rows, vectors: None)
        return self._learned[0]

    @property
    def max_tokens(self) -> int | None:
        """Give the longest text in tokens, or None where only the server knows."""
        return self.target.profile.max_context_tokens or self._route.max_tokens

    @property
    def space(self) -> Space:
        """Say what decides what a vector means."""
        unit = True if self._route.normalized else None
        return Space(
            self.target.provider.key, self.model, "-", self.dimensions, self.max_tokens, normalized=unit
        )

    @property
    def scope(self) -> str:
        """Name what vectors in a cache depend on: equally named models at two addresses may differ."""
        return f"{self.target.provider.key}|{self.target.base_url}|{self.model}|{self.size}"

    def resized(self, dimensions: int) -> Engine:
        """Give an engine that asks for other dimensions."""
        return replace(self, size=dimensions, _learned=[])

    def pieces(self, text: str) -> list[str]:
        """Cut a text into pieces that fit; a token is at least one byte, so most texts need no counting."""
        limit = self.max_tokens
        if limit is None or len(text) * 4 <= limit or len(text.encode()) <= limit:
            return [text]
        tokens = _litellm.load().encode(model=_COUNTED_AS, text=text)
        parts = [tokens[i : i + limit] for i in range(0, len(tokens), limit)]
        # A cut between the bytes of one character would leave halves of it on both sides.
        return [_litellm.load().decode(model=_COUNTED_AS, tokens=part).strip("\ufffd") for part in parts]

    def encode(self, texts: Sequence[str], kind: Kind, keep: Keep) -> int:
        """Embed texts; a batch that fails for good is raised after the others have been handed over."""
        batches = list(self._batches(texts))
        if len(batches) == 1:
            keep(batches[0], self._send(texts))
            return 0
        todo = deque(batches)
        done: SimpleQueue[tuple[range, Vectors | BaseException]] = SimpleQueue()
        for _ in range(min(_AT_ONCE, len(batches))):  # daemons, so that Ctrl-C waits for no server
            Thread(target=self._work, args=(texts, todo, done), name="arawn-embed", daemon=True).start()
        failure: BaseException | None = None
        left = len(batches)
        try:
            while left:
                batch, found = done.get()
                left -= 1
                if not isinstance(found, BaseException):
                    keep(batch, found)
                    continue
                failure = failure or found
                left -= _drain(todo)
        finally:
            todo.clear()
        if failure is not None:
            raise failure
        return 0

    def _work(self, texts: Sequence[str], todo: deque[range], done: SimpleQueue[Any]) -> None:
        while todo:
            try:
                batch = todo.popleft()
            except IndexError:  # another took the last
                return
            try:
                done.put((batch, self._send([texts[i] for i in batch])))
            except BaseException as exc:  # noqa: BLE001 - raised by the one who waits
                done.put((batch, exc))

    async def aencode(self, texts: Sequence[str], kind: Kind, keep: Keep) -> int:
        """Embed texts; the async twin of `encode`."""
        failures: list[ArawnError] = []
        gate = asyncio.Semaphore(_AT_ONCE)

        async def send(batch: range) -> None:
            async with gate:
                if failures:
                    return
                try:
                    keep(batch, await self._asend([texts[i] for i in batch]))
                except ArawnError as error:
                    failures.append(error)

        async with asyncio.TaskGroup() as group:
            for batch in self._batches(texts):
                group.create_task(send(batch))
        if failures:
            raise failures[0]
        return 0

    def _batches(self, texts: Sequence[str]) -> Iterator[range]:
        """Split by count and by tokens, of which a text has at most as many as bytes and as its limit."""
        start, tokens = 0, 0
        for i, text in enumerate(texts):
            size = min(len(text.encode()), self.max_tokens or sys.maxsize)
            if i > start and (
                i - start == self._route.max_texts or tokens + size > self._route.max_request_tokens
            ):
                yield range(start, i)
                start, tokens = i, 0
            tokens += size
        yield range(start, len(texts))

    def _send(self, texts: Sequence[str]) -> Vectors:
        return retry(self._plan(texts), lambda call: self._read(call, _ask(call), len(texts)))

    async def _asend(self, texts: Sequence[str]) -> Vectors:
        async def ask(call: Call) -> Vectors:
            return self._read(call, await _aask(call), len(texts))

        return await aretry(self._plan(texts), ask)

    def _plan(self, texts: Sequence[str]) -> Call:
        target, route, profile = self.target, self._route, self.target.profile
        params: dict[str, Any] = {
            **route.params,
            **route.overflow_params.get(self.overflow, {}),
            **profile.params,
        }
        if self.size:
            params["dimensions"] = self.size
        if profile.headers:
            params["extra_headers"] = {key: value.get_secret_value() for key, value in profile.headers.items()}
        prefix = target.provider.prefix if route.prefix is None else route.prefix
        messages = [{"content": text} for text in texts]
        request = Request(
            prefix + target.model,
            target.base_url,
            messages,
            params | profile.params,
            target.provider.sdk_client,
        )
        return Call(target, self.credential, request, profile.timeout, outer=sys.exception())

    def _read(self, call: Call, response: Any, count: int) -> Vectors:
        """Turn an answer into rows in the order of the texts; what is not as asked for is an error."""
        name = self.target.provider.display_name
        items = list(getattr(response, "data", None) or ())
        try:
            rows = [(int(item["index"]), _decode(item["embedding"])) for item in items]
        except (KeyError, TypeError, ValueError, binascii.Error) as exc:
            words = f"{name} answered with something that is no list of embeddings"
            raise call.error(errors.BackendServerError, words) from exc
        rows.sort(key=itemgetter(0))
        if [index for index, _ in rows] != list(range(count)):
            words = f"{name} answered with {len(rows)} vectors for {count} texts"
            raise call.error(errors.BackendServerError, words)
        widths = {len(row) for _, row in rows}
        wanted = self.size or (self._learned[0] if self._learned else None)
        if len(widths) > 1 or (wanted and wanted not in widths):
            words = f"{name} answered with vectors of {sorted(widths)} dimensions, not {wanted or 'one width'}"
            raise call.error(errors.BackendServerError, words)
        vectors = np.stack([row for _, row in rows])
        if not np.isfinite(vectors).all():
            raise call.error(errors.BackendServerError, f"{name} answered with vectors that are not numbers")
        self._learned[:] = [vectors.shape[1]]
        return vectors


def _drain(todo: deque[range]) -> int:
    """Take what nobody has begun, and tell how much that was."""
    taken = 0
    while todo:
        try:
            todo.popleft()
        except IndexError:
            break
        taken += 1
    return taken


def _decode(embedding: Any) -> Vectors:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
    return np.array(embedding, dtype=np.float32)


def _ask(call: Call) -> Any:
    try:  # the token has no name in a frame of ours that an error passes through
        return _litellm.embed(call.request, call.end, call.token())
    except ArawnError:
        raise
    except Exception as exc:
        raise call.translate(exc) from exc


async def _aask(call: Call) -> Any:
    try:
        return await _litellm.aembed(call.request, call.end, await call.atoken())
    except ArawnError:
        raise
    except Exception as exc:
        raise call.translate(exc) from exc
