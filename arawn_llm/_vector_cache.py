"""Vectors kept on disk, so that no text is embedded twice: one SQLite file, shared by processes, bounded."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from arawn_llm._vectors import Vectors
from arawn_llm.errors import ConfigError, Problem

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, used INTEGER NOT NULL, vector BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS by_use ON vectors (used);
"""
_AT_ONCE = 500  # keys in one query
_DAY = 86_400


@dataclass
class VectorCache:
    """Keep vectors by a scope, which says what made them, and a text.

    Attributes:
        path: The file.
        max_bytes: How large it may grow before the vectors not used for the longest time go; None for no bound.
        hits: How many texts were found since this object was made.
        misses: How many were not.
    """

    path: Path
    max_bytes: int | None = None
    hits: int = 0
    misses: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _open: tuple[int, sqlite3.Connection] | None = field(default=None, repr=False)

    def get(self, scope: str, texts: Sequence[str]) -> dict[int, Vectors]:
        """Find the vectors of texts, by position."""
        keys = [_key(scope, text) for text in texts]
        found: dict[bytes, Vectors] = {}
        today = int(time.time()) // _DAY
        with self._lock, self._store() as store:
            for at in range(0, len(keys), _AT_ONCE):
                part = keys[at : at + _AT_ONCE]
                marks = ",".join("?" * len(part))
                rows = store.execute(f"SELECT key, vector, used FROM vectors WHERE key IN ({marks})", part)  # noqa: S608
                old = []
                for key, vector, used in rows:
                    found[key] = np.frombuffer(vector, dtype="<f4")
                    if used < today:
                        old.append((today, key))
                store.executemany("UPDATE vectors SET used = ? WHERE key = ?", old)
        hits = {i: found[key] for i, key in enumerate(keys) if key in found}
        self.hits, self.misses = self.hits + len(hits), self.misses + len(keys) - len(hits)
        return hits

    def put(self, scope: str, vectors: Mapping[str, Vectors]) -> None:
        """Keep the vectors of texts."""
        today = int(time.time()) // _DAY
        rows = [(_key(scope, text), row.astype("<f4").tobytes(), today) for text, row in vectors.items()]
        with self._lock, self._store() as store:
            store.executemany("INSERT OR REPLACE INTO vectors (key, vector, used) VALUES (?, ?, ?)", rows)
            self._bound(store)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._open and self._open[0] == os.getpid():
                self._open[1].close()
            self._open = None

    def remove(self) -> None:
        """Remove the file and what SQLite keeps beside it."""
        self.close()
        for end in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + end).unlink(missing_ok=True)

    def _store(self) -> sqlite3.Connection:
        if self._open is None or self._open[0] != os.getpid():  # a connection must not cross a fork
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                store = sqlite3.connect(self.path, timeout=60, check_same_thread=False)
                store.executescript(_SCHEMA)
            except (OSError, sqlite3.Error) as exc:
                raise ConfigError(Problem(f"cannot be used as a cache of vectors: {exc}", self.path)) from exc
            self._open = os.getpid(), store
        return self._open[1]

    def _bound(self, store: sqlite3.Connection) -> None:
        if self.max_bytes is None:
            return
        pages, free, size = (
            int(store.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free) * size > self.max_bytes:  # a tenth at once, so that this is rare
            store.execute(
                "DELETE FROM vectors WHERE key IN (SELECT key FROM vectors ORDER BY used LIMIT"
                " (SELECT count(*) / 10 + 1 FROM vectors))"
            )


def _key(scope: str, text: str) -> bytes:
    return hashlib.sha256(f"{scope}\0{text}".encode()).digest()
