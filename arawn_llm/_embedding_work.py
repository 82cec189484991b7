"""The work of embedding a stream of texts: checked, cut, looked up and embedded a window at a time."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np

from arawn_llm import errors
from arawn_llm._vector_cache import VectorCache
from arawn_llm._vectors import Engine, Kind, Vectors, normalize

Progress = bool | Callable[[int, int | None], object]
_WINDOW_CHARACTERS = 4_000_000  # the most of an endless stream that is held at a time
_log = logging.getLogger("arawn_llm")


@dataclass(frozen=True)
class Work:
    """Say how texts are to be embedded."""

    engine: Engine
    overflow: str
    caches: tuple[VectorCache, ...]
    kind: Kind
    said: list[bool]

    def blocks(self, texts: Iterable[str], progress: Progress) -> Iterator[Vectors]:
        """Embed texts and yield their rows, a window's at a time."""
        cut, seen = 0, 0
        with _shown(progress, texts) as tell:
            for window in windows(texts, self.engine.window):
                job = _Job(self, window, seen, tell)
                with _handing_over(job.done):
                    cut += self.engine.encode(job.missing, self.kind, job.keep) if job.missing else 0
                seen += len(window)
                yield job.finish()
        self._say_cut(cut, seen)

    async def ablocks(self, texts: Iterable[str], progress: Progress) -> AsyncIterator[Vectors]:
        """Embed texts and yield their rows; the async twin of `blocks`."""
        cut, seen = 0, 0
        with _shown(progress, texts) as tell:
            for window in windows(texts, self.engine.window):
                job = _Job(self, window, seen, tell)
                with _handing_over(job.done):
                    cut += await self.engine.aencode(job.missing, self.kind, job.keep) if job.missing else 0
                seen += len(window)
                yield job.finish()
        self._say_cut(cut, seen)

    def cut(self, text: str) -> list[str]:
        """Cut a text into the pieces that are embedded."""
        if self.overflow == "truncate":  # a local engine cuts by itself, and counts
            return [text] if self.engine.takes_empty else self.engine.pieces(text)[:1]
        return self.engine.pieces(text)

    def _say_cut(self, cut: int, seen: int) -> None:
        if cut and not self.said:
            self.said.append(True)
            _log.warning(
                "%d of %d texts (%.2g %%) are longer than the %s tokens that %s reads, and were cut",
                *(cut, seen, 100 * cut / seen, self.engine.max_tokens, self.engine.model),
            )


class _Job:
    """One window of texts: what of it has to be embedded, and the rows that come back."""

    def __init__(self, work: Work, texts: Sequence[str], offset: int, tell: Callable[[int], object]) -> None:
        _check(texts, offset, takes_empty=work.engine.takes_empty)
        cuts = [work.cut(text) for text in texts]
        long = [i for i, parts in enumerate(cuts, offset) if len(parts) > 1]
        if long and work.overflow == "error":
            limit = f"{work.engine.max_tokens} tokens that {work.engine.model} reads"
            raise errors.InvalidRequestError(
                f"longer than the {limit}: {_positions(long)}",
                hints=('cut them yourself, or say overflow = "truncate" or "split" in [embedding]',),
            )
        places: dict[str, int] = {}
        self.rows = [[places.setdefault(part, len(places)) for part in parts] for parts in cuts]
        self.weights = [[len(part) for part in parts] for parts in cuts]
        self.caches, scope = work.caches, work.caches and (work.engine.scope or work.engine.space.identity)
        self.scope = f"{scope}|{work.kind}"
        self.vectors = _look_up(self.caches, self.scope, list(places))
        self._open = [i for i, vector in enumerate(self.vectors) if vector is None]
        unique = list(places)
        self.missing = [unique[i] for i in self._open]
        self._offset, self._end = offset, offset + len(texts)
        self._left, self._tell = len(self.missing), tell
        tell(self._end - self._left)

    def keep(self, rows: Sequence[int], vectors: Vectors) -> None:
        """Take a batch of vectors as it is done, into the caches too."""
        for row, vector in zip(rows, vectors, strict=True):
            self.vectors[self._open[row]] = vector
        for cache in self.caches:
            cache.put(
                self.scope, {self.missing[row]: vector for row, vector in zip(rows, vectors, strict=True)}
            )
        self._left -= len(rows)
        self._tell(self._end - self._left)

    def done(self) -> Mapping[int, Vectors]:
        """Give what there is so far, by the positions of the texts."""
        found = ((i, self.vectors[row[0]]) for i, row in enumerate(self.rows, self._offset) if len(row) == 1)
        return {i: vector for i, vector in found if vector is not None}

    def finish(self) -> Vectors:
        """Give the rows in the order of the texts."""
        whole = [vector for vector in self.vectors if vector is not None]
        if all(len(row) == 1 for row in self.rows):
            return np.stack([whole[row[0]] for row in self.rows])
        means = [
            np.average([whole[i] for i in row], axis=0, weights=weights)
            for row, weights in zip(self.rows, self.weights, strict=True)
        ]
        split = np.array([len(row) > 1 for row in self.rows])[:, None]
        vectors = np.asarray(means, dtype=np.float32)
        return np.where(split, normalize(vectors), vectors)


@contextmanager
def _handing_over(done: Callable[[], Mapping[int, Vectors]]) -> Iterator[None]:
    """Put what was done into the error of what was not."""
    try:
        yield
    except errors.BackendError as error:
        error.vectors = {**done(), **error.vectors}
        raise


def _look_up(caches: Sequence[VectorCache], scope: str, texts: list[str]) -> list[Vectors | None]:
    found: list[Vectors | None] = [None] * len(texts)
    for cache in caches:
        missing = [i for i, vector in enumerate(found) if vector is None]
        for at, vector in cache.get(scope, [texts[i] for i in missing]).items():
            found[missing[at]] = vector
    return found


def _check(texts: Sequence[str], offset: int, *, takes_empty: bool) -> None:
    for i, text in enumerate(texts, offset):
        if not isinstance(text, str):
            raise errors.InvalidRequestError(f"text {i} is no string but {type(text).__name__}")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise errors.InvalidRequestError(f"text {i} holds half of a surrogate pair, which is no character")
    empty = [] if takes_empty else [i for i, text in enumerate(texts, offset) if not text.strip()]
    if empty:
        raise errors.InvalidRequestError(f"empty, which has no vector there: {_positions(empty)}")


def _positions(positions: Sequence[int]) -> str:
    more = f" and {len(positions) - 10} more" if len(positions) > 10 else ""
    return ("text " if len(positions) == 1 else "texts ") + ", ".join(map(str, positions[:10])) + more


class Rows:
    """Collect blocks of rows in one array, which grows in place where nobody knows how many there will be."""

    def __init__(self, texts: str | Iterable[str]) -> None:
        self.single = isinstance(texts, str)
        self.count = 1 if self.single else len(texts) if isinstance(texts, Sized) else 0
        self.rows: Vectors | None = None
        self.filled = 0

    def add(self, block: Vectors) -> None:
        """Take the next rows."""
        end = self.filled + len(block)
        if self.rows is None:
            self.rows = np.empty((max(self.count, end), block.shape[1]), dtype=np.float32)
        if end > len(self.rows):
            self.rows.resize((end + end // 16, block.shape[1]), refcheck=False)
        self.rows[self.filled : end] = block
        self.filled = end

    def collecting(self) -> AbstractContextManager[None]:
        """Put the rows so far into the error of what fails while more are added."""
        return _handing_over(lambda: {} if self.rows is None else dict(enumerate(self.rows[: self.filled])))

    def finish(self, engine: Engine) -> Vectors:
        """Give the whole; the engine is asked for its width only where there is no row."""
        if self.rows is None:
            return np.empty((0, engine.dimensions), dtype=np.float32)
        if len(self.rows) > self.filled:
            self.rows.resize((self.filled, self.rows.shape[1]), refcheck=False)
        return np.asarray(self.rows[0] if self.single else self.rows)


def windows(texts: Iterable[str], most: int) -> Iterator[list[str]]:
    """Take texts from a stream, as many at a time as may be held."""
    window: list[str] = []
    characters = 0
    for text in texts:
        window.append(text)
        characters += len(text) if isinstance(text, str) else 0
        if len(window) == most or characters > _WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


@contextmanager
def _shown(progress: Progress, texts: Iterable[str]) -> Iterator[Callable[[int], object]]:
    total = len(texts) if isinstance(texts, Sized) else None
    if callable(progress):
        yield lambda done: progress(done, total)
        return
    if not progress:
        yield lambda done: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=" texts", smoothing=0.1) as bar:
        yield lambda done: bar.update(done - bar.n)
