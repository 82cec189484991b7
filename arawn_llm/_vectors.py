"""What embedders share: the space that their vectors live in, and what an engine has to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from arawn_llm.errors import EmbedderMismatchError

Vectors = NDArray[np.float32]
Kind = Literal["document", "query"]
Keep = Callable[[Sequence[int], Vectors], None]
PROMPT_NAMES: Mapping[Kind, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}


@dataclass(frozen=True)
class Space:
    """Hold all that decides what a vector means.

    Attributes:
        revision: The model's revision, or a digest of its weights; "-" where a server keeps it to itself.
        limit: The longest text in tokens; None where it is not known.
        prompts: What is put before a text, by name.
        normalized: Whether vectors have length 1; None where it is not known.
    """

    provider: str
    model: str
    revision: str
    dimensions: int
    limit: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    normalized: bool | None = None

    @property
    def identity(self) -> str:
        """Name the space in a short string that stays the same as long as the vectors do."""
        said = json.dumps(dict(sorted(self.prompts.items())))
        facts = {
            "provider": self.provider,
            "model": self.model,
            "revision": self.revision,
            "dimensions": self.dimensions,
            "limit": self.limit or "-",
            "prompts": hashlib.sha256(said.encode()).hexdigest()[:8] if self.prompts else "-",
            "normalized": {True: "yes", False: "no", None: "-"}[self.normalized],
        }
        return ";".join(f"{key}={value}" for key, value in facts.items())


class Engine(Protocol):
    """Turn texts into vectors; each engine is immutable and shared between threads and tasks."""

    @property
    def model(self) -> str:
        """Name the model."""
        ...

    @property
    def dimensions(self) -> int:
        """Give the width of the vectors."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """Give the longest text in tokens, or None where it is not known."""
        ...

    @property
    def space(self) -> Space:
        """Say what decides what a vector means."""
        ...

    @property
    def scope(self) -> str | None:
        """Name what vectors in a cache depend on, beside text and kind; None where they may not be cached."""
        ...

    @property
    def takes_empty(self) -> bool:
        """Tell whether an empty text has a vector."""
        ...

    @property
    def window(self) -> int:
        """Say how many texts of a stream it wants at a time."""
        ...

    def resized(self, dimensions: int) -> Engine:
        """Give an engine like this one with other dimensions."""
        ...

    def pieces(self, text: str) -> list[str]:
        """Cut a text into pieces that fit; the text alone where it fits or where nobody knows."""
        ...

    def encode(self, texts: Sequence[str], kind: Kind, keep: Keep) -> int:
        """Embed texts, hand each batch over as it is done, and tell how many texts were cut."""
        ...

    async def aencode(self, texts: Sequence[str], kind: Kind, keep: Keep) -> int:
        """Embed texts; the async twin of `encode`."""
        ...


def normalize(vectors: Vectors) -> Vectors:
    """Scale each row to length 1; a row of zeros stays as it is."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)


def similarity(a: Any, b: Any) -> Any:
    """Give the cosine similarity of vectors: a float for two, an array `(n, m)` for `(n, d)` and `(m, d)`.

    Raises:
        EmbedderMismatchError: They do not have the same number of dimensions.
    """
    a, b = np.asarray(a, dtype=np.float32), np.asarray(b, dtype=np.float32)
    if a.shape[-1] != b.shape[-1]:
        raise EmbedderMismatchError(
            f"vectors of {a.shape[-1]} and {b.shape[-1]} dimensions cannot be compared",
            hints=("embed both with the same embedder; `identity` tells which one made them",),
        )
    found = normalize(a) @ normalize(b).T
    return float(found) if found.ndim == 0 else found
