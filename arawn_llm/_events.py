"""Whole events: a stream breaks off where one is no JSON; LiteLLM would pass over it in silence."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx

_MALFORMED = "an event of the stream is not JSON"
_SSE, _LINES = "text/event-stream", "application/x-ndjson"


class MalformedEventError(Exception):
    """An event of a stream is not JSON."""


class _Check:
    """Look at a stream's bytes as they pass.

    Server-sent events are read as WHATWG HTML (section 9.2) says, the rest line by line.
    """

    def __init__(self, sse: bool) -> None:
        self._sse, self._rest, self._data = sse, b"", b""

    def find_malformed(self, content: bytes) -> int | None:
        """Give how many bytes stand before an event that is no JSON; None where all that is whole is well."""
        start = passed = 0
        while (end := content.find(b"\n", start)) >= 0:
            line, self._rest = (self._rest + content[start:end]).rstrip(b"\r"), b""
            start = end + 1
            if not self._take(line):
                return passed
            passed = start if not self._data else passed
        self._rest += content[start:]
        return None

    def _take(self, line: bytes) -> bool:
        if not self._sse:
            return _is_json(line)
        if line.startswith(b"data:"):
            self._data += line[5:].removeprefix(b" ")
        elif not line:
            data, self._data = self._data, b""
            return _is_json(data)
        return True


def _is_json(content: bytes) -> bool:
    if not content.strip() or content.strip() == b"[DONE]":
        return True
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


class _CheckedStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, stream: Any, sse: bool) -> None:
        self._stream, self._check = stream, _Check(sse)

    def __iter__(self) -> Iterator[bytes]:
        for content in self._stream:
            end = self._check.find_malformed(content)
            yield content[:end]
            if end is not None:
                raise MalformedEventError(_MALFORMED)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for content in self._stream:
            end = self._check.find_malformed(content)
            yield content[:end]
            if end is not None:
                raise MalformedEventError(_MALFORMED)

    def close(self) -> None:
        self._stream.close()

    async def aclose(self) -> None:
        await self._stream.aclose()


def check_events(response: httpx.Response) -> None:
    """Have the events of a streamed answer checked as they are read."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip()
    if kind not in {_SSE, _LINES} or response.status_code != 200:
        return
    if response.headers.get("content-encoding", "identity") == "identity":
        response.stream = _CheckedStream(response.stream, kind == _SSE)
