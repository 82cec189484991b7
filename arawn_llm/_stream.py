"""An answer as it comes: iterate for text, leave early, and ask for the whole at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Self

from arawn_llm import _litellm
from arawn_llm._call import Call
from arawn_llm._completion import Completion
from arawn_llm._retry import aretry, retry
from arawn_llm.errors import ArawnError, BackendError


class _Answer:
    """Hold what has come of a stream: shared by the two twins."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._source: Any = None
        self._chunks: list[Any] = []
        self._completion: Completion | None = None
        self.text = ""
        self.on_close: Callable[[_Answer], None] | None = None

    @property
    def ended(self) -> bool:
        """Tell whether the answer came to its end."""
        return self._completion is not None

    def _tell(self) -> None:
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close(self)

    @property
    def completion(self) -> Completion:
        """Give the whole answer, with usage, once the stream has ended.

        Raises:
            StreamInterruptedError: It has not ended, or was left early; `partial` holds the text that came.
        """
        if self._completion is None:
            raise self._call.interrupted(self.text, why="it was not read to its end")
        return self._completion

    def _take(self, chunk: Any) -> str:
        self._chunks.append(chunk)
        text = _litellm.text_of(chunk)
        self.text += text
        return text

    def _end(self) -> None:
        if not _litellm.ended_properly(self._source):
            raise self._call.interrupted(self.text)
        self._completion = self._call.finish(
            _litellm.join_chunks(self._source, self._chunks, self._call.request)
        )

    def _translate(self, exc: BaseException) -> BackendError:
        return self._call.translate(exc, self.text if self._chunks else None)


class Stream(_Answer):
    """Iterate over an answer's text; leaving the `with` block closes the connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what has come stays in `text`."""
        if self._source is not None:
            _litellm.close(self._source)
        self._tell()

    def __iter__(self) -> Iterator[str]:
        try:
            first = retry(self._call, self._first)
            if text := self._take(first) if first is not None else "":
                yield text
            while (chunk := self._read()) is not None:
                if text := self._take(chunk):
                    yield text
            self._end()
        finally:
            self.close()

    def _first(self, call: Call) -> Any:
        try:
            self._source = _litellm.complete(call.request, call.end, call.token(), stream=True)
        except ArawnError:
            raise
        except Exception as exc:
            raise self._translate(exc) from exc
        self._reader = _litellm.read_chunks(self._source, call.end)
        return self._read()

    def _read(self) -> Any:
        try:
            return next(self._reader, None)
        except Exception as exc:
            raise self._translate(exc) from exc


class AsyncStream(_Answer):
    """Iterate over an answer's text; leaving the `async with` block closes the connection."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection; what has come stays in `text`."""
        if self._source is not None:
            await _litellm.aclose(self._source)
        self._tell()

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            first = await aretry(self._call, self._first)
            if text := self._take(first) if first is not None else "":
                yield text
            while (chunk := await self._read()) is not None:
                if text := self._take(chunk):
                    yield text
            self._end()
        finally:
            await self.aclose()

    async def _first(self, call: Call) -> Any:
        try:
            self._source = await _litellm.acomplete(call.request, call.end, await call.atoken(), stream=True)
        except ArawnError:
            raise
        except Exception as exc:
            raise self._translate(exc) from exc
        self._reader = _litellm.aread_chunks(self._source, call.end)
        return await self._read()

    async def _read(self) -> Any:
        try:
            return await anext(self._reader, None)
        except Exception as exc:
            raise self._translate(exc) from exc
