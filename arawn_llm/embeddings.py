"""Turn texts into vectors, on this machine or by a server, through one interface."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count as numbers
from typing import Any

import platformdirs

from arawn_llm import errors
from arawn_llm._config import Config, found_config
from arawn_llm._credentials import KeyProvider, TokenProvider
from arawn_llm._embedding_work import Progress, Rows, Work, windows
from arawn_llm._resolve import Target, resolve_embedding
from arawn_llm._schema import Embedding
from arawn_llm._vector_cache import VectorCache
from arawn_llm._vectors import Engine, Kind, Vectors, similarity

__all__ = ["Embedder", "Match", "VectorCache", "embed", "get_embedder", "similarity"]


@dataclass(frozen=True)
class Match:
    """One text that `rank` found."""

    index: int
    text: str
    score: float


@dataclass(frozen=True)
class Embedder:
    """Turn texts into vectors; immutable, and shared freely between threads and tasks.

    Attributes:
        overflow: What happens to a text longer than `max_tokens`: "error", "truncate", or "split", which
            gives the mean of its pieces' vectors, weighted by length.
        caches: Where vectors are kept; `hits` and `misses` of each tell how well.
    """

    _engine: Engine
    overflow: str = "error"
    caches: tuple[VectorCache, ...] = ()
    _said: list[bool] = field(default_factory=list, repr=False, compare=False)

    @property
    def model(self) -> str:
        """Name the model."""
        return self._engine.model

    @property
    def dimensions(self) -> int:
        """Give the width of the vectors; a server whose model is not known is asked once."""
        return self._engine.dimensions

    @property
    def max_tokens(self) -> int | None:
        """Give the longest text in tokens, or None where only the server knows."""
        return self._engine.max_tokens

    @property
    def identity(self) -> str:
        """Name what decides what a vector means, in a short string to keep beside stored vectors."""
        return self._engine.space.identity

    def check(self, identity: str) -> None:
        """Make sure that stored vectors are this embedder's.

        Raises:
            EmbedderMismatchError: They are not; says in what the two differ.
        """
        mine, theirs = _facts(self.identity), _facts(identity)
        differing = [key for key in mine | theirs if mine.get(key) != theirs.get(key)]
        if differing:
            facts = ", ".join(
                f"{key} {theirs.get(key, '-')} there, {mine.get(key, '-')} here" for key in differing
            )
            raise errors.EmbedderMismatchError(
                f"these vectors are another embedder's: {facts}",
                hints=("embed the texts again", "or use the embedder that made the vectors"),
            )

    def embed(
        self,
        texts: str | Iterable[str],
        *,
        kind: Kind = "document",
        dimensions: int | None = None,
        progress: Progress = False,
    ) -> Vectors:
        """Embed a text, giving float32 of shape `(d,)`, or texts, giving `(n, d)` with rows in their order.

        Args:
            texts: A text, or any iterable of texts, which is read piece by piece.
            kind: What the texts are; some models want queries marked.
            dimensions: Another width than the model's own.
            progress: True for a bar on stderr, or a function that is told `(done, total)`.

        Raises:
            InvalidRequestError: A text is none, empty, or too long; says which.
            BackendError: The server failed; its `vectors` hold what other batches gave, as the cache does, if
                there is one.
        """
        work, rows = self.resized(dimensions)._work(kind), Rows(texts)
        with rows.collecting():
            for block in work.blocks([texts] if isinstance(texts, str) else texts, progress):
                rows.add(block)
        return rows.finish(work.engine)

    async def aembed(
        self,
        texts: str | Iterable[str],
        *,
        kind: Kind = "document",
        dimensions: int | None = None,
        progress: Progress = False,
    ) -> Vectors:
        """Embed a text or texts; the async twin of `embed`."""
        import asyncio

        work, rows = self.resized(dimensions)._work(kind), Rows(texts)
        with rows.collecting():
            async for block in work.ablocks([texts] if isinstance(texts, str) else texts, progress):
                rows.add(block)
        return await asyncio.to_thread(rows.finish, work.engine)

    def embed_iter(
        self, texts: Iterable[str], *, kind: Kind = "document", progress: Progress = False
    ) -> Iterator[Vectors]:
        """Embed texts one after the other in constant memory, however many there are."""
        for block in self._work(kind).blocks(texts, progress):
            yield from block

    async def aembed_iter(
        self, texts: Iterable[str], *, kind: Kind = "document", progress: Progress = False
    ) -> AsyncIterator[Vectors]:
        """Embed texts one after the other; the async twin of `embed_iter`."""
        async for block in self._work(kind).ablocks(texts, progress):
            for row in block:
                yield row

    def rank(self, query: str, texts: Iterable[str], *, top: int = 5) -> list[Match]:
        """Find the texts nearest to a query, the nearest first, by cosine similarity."""
        wanted = self.embed(query, kind="query")
        best: list[tuple[float, int, str]] = []
        place = numbers()
        for window in windows(texts, self._engine.window):
            scores = similarity(self.embed(window), wanted)
            found = [(float(score), -next(place), text) for score, text in zip(scores, window, strict=True)]
            best = heapq.nlargest(top, [*best, *found])
        return [Match(-index, text, score) for score, index, text in best]

    def resized(self, dimensions: int | None) -> Embedder:
        """Give an embedder like this one with other dimensions."""
        return self if dimensions is None else replace(self, _engine=self._engine.resized(dimensions))

    def _work(self, kind: Kind) -> Work:
        return Work(self._engine, self.overflow, self.caches, kind, self._said)


def _facts(identity: str) -> dict[str, str]:
    return {key: value for key, _, value in (part.partition("=") for part in identity.split(";"))}


def get_embedder(
    name: str | None = None,
    *,
    model: str | None = None,
    overflow: str | None = None,
    cache: VectorCache | bool | None = None,
    config: Config | None = None,
    credential: TokenProvider | None = None,
) -> Embedder:
    """Choose what embeds; what `[embedding] provider` says without a name.

    Args:
        name: "local", a table below `[embedding]` such as "openai", or a profile.
        model: Another model than the table's.
        overflow: "error", "truncate" or "split"; without it what the file says, else "truncate" for a
            local model, which says so, and "error" for a server.
        cache: A cache, True for the user's, False for none; what the file says without it.
        config: What `load_config` gave; the files found from the working directory without it.
        credential: Who gives a server's token; keyring, environment and file without it.

    Raises:
        ConfigError: The file cannot be used, or nothing has that name.
        MissingExtraError: A local model needs packages that are not installed.
    """
    config = config or found_config()
    table = config.embedding
    found = resolve_embedding(config, name or table.provider, model)
    if isinstance(found, Target):
        from arawn_llm._remote import RemoteEngine

        overflow = overflow or table.overflow or "error"
        size = found.profile.params.get("dimensions")
        engine: Engine = RemoteEngine(found, credential or KeyProvider(found), size, overflow)
    else:
        from arawn_llm._local import open_engine

        overflow = overflow or table.overflow or "truncate"
        engine = open_engine(found)
    caches = _caches(table, cache)
    if caches and engine.scope is None:
        raise errors.ConfigError(
            f"vectors of {engine.model} cannot be cached: quantised, they depend on the texts beside them",
            hints=("say cache = false in [embedding], or use the model's full precision",),
        )
    return Embedder(engine, overflow, caches)


def _caches(table: Embedding, cache: VectorCache | bool | None) -> tuple[VectorCache, ...]:
    if isinstance(cache, VectorCache):
        return (cache,)
    if not (table.cache if cache is None else cache):
        return ()
    path = platformdirs.user_cache_path("arawn") / "embeddings.sqlite3"
    return (VectorCache(path, table.cache_max_mb * 1_000_000),)


def embed(texts: str | Iterable[str], **options: Any) -> Vectors:
    """Embed with the embedder of the files found; see `Embedder.embed`."""
    return get_embedder().embed(texts, **options)
