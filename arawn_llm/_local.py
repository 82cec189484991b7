"""Embedding on this machine: onnxruntime, or the sentence-transformers library, and the model's files."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from arawn_llm import _model_folder, _model_source, errors
from arawn_llm._model_folder import GRAPHS, Recipe
from arawn_llm._resolve import LocalTarget
from arawn_llm._vectors import PROMPT_NAMES, Engine, Keep, Kind, Space, Vectors, normalize

_BATCH, _BATCH_TOKENS = 16, 4096  # beyond these a batch costs memory and gains nothing
_log = logging.getLogger("arawn_llm")
_lock = threading.RLock()
_MOST_LOADED = 8
_loaded: dict[tuple[Any, ...], Any] = {}  # the one state of this module: models in memory
T = TypeVar("T")


def _once(load: Callable[..., T], *args: Any) -> T:
    """Give what a loader loads, once in a process, however many threads come together."""
    with _lock:
        key = (load, *args)
        if key not in _loaded:
            if len(_loaded) == _MOST_LOADED:
                del _loaded[next(iter(_loaded))]
            _loaded[key] = load(*args)
        found: T = _loaded[key]
        return found


def _forget_models() -> None:
    """Load anew in a forked child, which has none of the threads that a runtime waits for when it is freed."""
    global _lock  # noqa: PLW0603 - another thread may have held it
    _lock = threading.RLock()
    for model in _loaded.values():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(model))  # never to be freed here
    _loaded.clear()


os.register_at_fork(after_in_child=_forget_models)


@dataclass(frozen=True)
class _Local:
    """What both local engines are: a model in a folder."""

    settings: LocalTarget
    folder: Path
    size: int | None = None
    takes_empty = True
    window = 512

    @property
    def model(self) -> str:
        """Name the model."""
        return self.folder.name if self.settings.model_path else self.settings.model

    def resized(self, dimensions: int) -> Engine:
        """Give an engine whose vectors are cut to their first `dimensions` numbers."""
        full = replace(self, size=None).dimensions  # type: ignore[attr-defined]
        if dimensions > full:
            raise errors.InvalidRequestError(
                f"model {self.model} has {full} dimensions, fewer than the {dimensions} asked for"
            )
        if dimensions < full:
            _log.warning(
                "vectors of %s are cut to %d dimensions: only some models are trained for that",
                self.model,
                dimensions,
            )
        return replace(self, size=dimensions)  # type: ignore[return-value]

    def shrink(self, vectors: Vectors) -> Vectors:
        """Cut vectors to the dimensions asked for, and make them whole again."""
        return vectors if self.size in {None, vectors.shape[1]} else normalize(vectors[:, : self.size])

    async def aencode(self, texts: Sequence[str], kind: Kind, keep: Keep) -> int:
        """Embed texts in a thread; the async twin of `encode`."""
        import asyncio

        return await asyncio.to_thread(self.encode, texts, kind, keep)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class OnnxEngine(_Local):
    """Run a model's ONNX graph, without torch."""

    graph: Path = Path()
    tokenizer: Path = Path()
    recipe: Recipe = field(default_factory=lambda: Recipe("mean", False, 0, 0))

    @property
    def dimensions(self) -> int:
        """Give the width of the vectors."""
        return self.size or self.recipe.dimensions

    @property
    def max_tokens(self) -> int:
        """Give the longest text in tokens."""
        return self.recipe.max_tokens

    @property
    def space(self) -> Space:
        """Say what decides what a vector means."""
        chosen = self.settings.model_path == self.graph
        revision = _model_folder.digest(self.graph)[:12] if chosen else _model_folder.revision(self.folder)
        unit = self.recipe.normalized or self.size is not None
        prompts, limit = self.recipe.prompts, self.max_tokens
        return Space("local", self.model, revision, self.dimensions, limit, prompts, unit)

    @property
    def scope(self) -> str | None:
        """Forbid a cache where a vector depends on the texts beside it."""
        return None if _model_folder.is_quantized(self.graph) else self.space.identity

    def pieces(self, text: str) -> list[str]:
        """Cut a text into pieces that fit."""
        tokenizer = self._tokenizer(0)
        spans = tokenizer.encode(text, add_special_tokens=False).offsets
        room = self.max_tokens - tokenizer.num_special_tokens_to_add(is_pair=False)
        return _cut(text, spans, room)

    def encode(self, texts: Sequence[str], kind: Kind, keep: Keep) -> int:
        """Embed texts, the longest first, so that a batch holds little padding."""
        prompts = self.recipe.prompts
        prompt = next((prompts[name] for name in PROMPT_NAMES[kind] if name in prompts), "")
        rows, cut = self._tokenize([prompt + text for text in texts] if prompt else texts)
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        while order:
            count = max(1, min(_BATCH, _BATCH_TOKENS // len(rows[order[0]])))
            batch, order = order[:count], order[count:]
            keep(batch, self.shrink(self._run([rows[i] for i in batch])))
        if len(texts) > _BATCH:
            _return_freed_memory()
        return cut

    def _tokenize(self, texts: Sequence[str]) -> tuple[list[Any], int]:
        recipe, cut = self.recipe, 0
        rows: list[Any] = []
        tokenizer = self._tokenizer(recipe.max_tokens)
        for at in range(0, len(texts), 64):  # a few at a time: what is cut off is kept by the tokenizer as well
            found = tokenizer.encode_batch_fast(texts[at : at + 64])
            rows += [np.array(each.ids, dtype=np.int64) for each in found]
            cut += sum(len(each.ids) == recipe.max_tokens and bool(each.overflowing) for each in found)
        return rows, cut

    def _tokenizer(self, limit: int) -> Any:
        return _once(_load_tokenizer, self.tokenizer, limit, self.recipe.lower_case)

    def _run(self, rows: list[Any]) -> Vectors:
        session, inputs, output = _once(_load_session, self.graph)
        pad = self._tokenizer(self.max_tokens).token_to_id(self.recipe.padding) or 0
        ids = np.full((len(rows), len(rows[0])), pad, dtype=np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        offered = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        tokens = session.run([output], {name: offered[name] for name in inputs})[0].astype(
            np.float32, copy=False
        )
        vectors = _pool(tokens, mask, self.recipe.pooling)
        return normalize(vectors) if self.recipe.normalized else vectors


def _cut(text: str, spans: Sequence[tuple[int, int]], room: int) -> list[str]:
    """Cut a text before every token that the piece so far has no room for."""
    starts = [0, *(spans[i][0] for i in range(room, len(spans), room)), len(text)]
    return [text[a:b] for a, b in pairwise(starts) if a < b] or [text]


def _pool(tokens: Any, mask: Any, mode: str) -> Vectors:
    lengths = mask.sum(axis=1)
    if mode == "cls":
        return np.asarray(tokens[:, 0])
    if mode == "lasttoken":
        return np.asarray(tokens[np.arange(len(tokens)), lengths - 1])
    if mode == "max":
        return np.asarray(np.where(mask[:, :, None], tokens, -np.inf).max(axis=1))
    sums = np.matmul(mask[:, None, :].astype(np.float32), tokens)[:, 0]
    divisor = lengths[:, None].astype(np.float32)
    return np.asarray(sums / (np.sqrt(divisor) if mode == "mean_sqrt_len_tokens" else divisor))


def _load_tokenizer(path: Path, limit: int, lower_case: bool) -> Any:
    """Load a tokenizer that cuts at a limit, 0 for none, whatever its file says of cutting and padding."""
    from tokenizers import Tokenizer, normalizers

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if limit:
        tokenizer.enable_truncation(limit)
    if lower_case:
        parts = [normalizers.Lowercase(), *([tokenizer.normalizer] if tokenizer.normalizer else [])]
        tokenizer.normalizer = normalizers.Sequence(parts)
    return tokenizer


def _load_session(graph: Path) -> tuple[Any, list[str], str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    _return_freed_memory()
    inputs = [each.name for each in session.get_inputs()]
    outputs = [each.name for each in session.get_outputs() if len(each.shape) == 3]
    unknown = set(inputs) - {"input_ids", "attention_mask", "token_type_ids"}
    if unknown or not outputs:
        what = f"wants {', '.join(sorted(unknown))}" if unknown else "gives no vectors for tokens"
        raise errors.ConfigError(
            errors.Problem(f"the graph {what}, which the onnx engine does not know", graph)
        )
    output = next((name for name in outputs if name in {"last_hidden_state", "token_embeddings"}), outputs[0])
    return session, inputs, output


def _return_freed_memory() -> None:
    """Give back what loading a model or cutting many texts left free in glibc's heap: a fifth of it all."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


@dataclass(frozen=True)
class LibraryEngine(_Local):
    """Run a model through the sentence-transformers library."""

    @property
    def _model(self) -> Any:
        return _once(_load_library_model, self.folder, self.settings.trust_remote_code)

    @property
    def dimensions(self) -> int:
        """Give the width of the vectors."""
        return self.size or int(self._model.get_embedding_dimension())

    @property
    def max_tokens(self) -> int | None:
        """Give the longest text in tokens."""
        limit = self._model.max_seq_length
        return None if limit is None else int(limit)

    @property
    def space(self) -> Space:
        """Say what decides what a vector means."""
        prompts = {name: text for name, text in self._model.prompts.items() if text}
        unit = self.size is not None or any(type(each).__name__ == "Normalize" for each in self._model)
        return Space(
            "local",
            self.model,
            _model_folder.revision(self.folder),
            self.dimensions,
            self.max_tokens,
            prompts,
            unit,
        )

    @property
    def scope(self) -> str:
        """Name what vectors in a cache depend on."""
        return self.space.identity

    def pieces(self, text: str) -> list[str]:
        """Cut a text into pieces that fit."""
        limit = self.max_tokens
        if limit is None:
            return [text]
        tokenizer = self._model.tokenizer
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        spans, room = found["offset_mapping"], limit - tokenizer.num_special_tokens_to_add()
        return _cut(text, spans, room)

    def encode(self, texts: Sequence[str], kind: Kind, keep: Keep) -> int:
        """Embed texts; the library puts the prompt of their kind before them."""
        encode = self._model.encode_query if kind == "query" else self._model.encode_document
        for at in range(0, len(texts), 256):
            part = list(texts[at : at + 256])
            vectors = encode(part, batch_size=_BATCH, show_progress_bar=False, convert_to_numpy=True)
            keep(range(at, at + len(part)), self.shrink(np.asarray(vectors, dtype=np.float32)))
        long = [text for text in texts if len(text) >= (self.max_tokens or len(text) + 1)]
        return sum(len(self.pieces(text)) > 1 for text in long)


def _load_library_model(folder: Path, trust_remote_code: bool) -> Any:
    from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]

    return SentenceTransformer(str(folder), trust_remote_code=trust_remote_code)


@lru_cache(maxsize=8)
def open_engine(settings: LocalTarget) -> Engine:
    """Give the engine of a local model; the model itself is loaded at the first text.

    Raises:
        MissingExtraError: The engine asked for, or any, is not installed; nothing was fetched.
        ConfigError: The model needs another engine, or its folder cannot be used.
        BackendConnectionError: The model is not here and cannot be fetched.
    """
    engine = _choose(settings)
    return engine.resized(settings.dimensions) if settings.dimensions else engine


def _choose(settings: LocalTarget) -> OnnxEngine | LibraryEngine:
    """Choose how a local model is run, and fetch it where it is not here yet."""
    onnx = bool(find_spec("onnxruntime") and find_spec("tokenizers"))
    library = bool(find_spec("sentence_transformers"))
    if settings.engine == "sentence-transformers" or (settings.engine == "auto" and library and not onnx):
        if not library:
            raise _model_source.missing("sentence-transformers", "the sentence-transformers engine")
        return LibraryEngine(settings, _model_source.find_folder(settings, ("*",)))
    if not onnx:
        raise _model_source.missing("local", "a local embedding model")
    try:
        return _open_onnx(settings)
    except errors.ConfigError:
        if settings.engine == "onnx" or not library:
            raise
        return LibraryEngine(settings, _model_source.find_folder(settings, ("*",)))


def _open_onnx(settings: LocalTarget) -> OnnxEngine:
    folder = _model_source.find_folder(settings, GRAPHS)
    recipe = _model_folder.read_recipe(folder)
    tokenizer = settings.tokenizer_path or folder
    tokenizer = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
    if not tokenizer.exists():
        raise errors.ConfigError(errors.Problem("there is no tokenizer.json", tokenizer.parent))
    named = settings.model_path or folder
    graphs = [folder / name for name in GRAPHS if (folder / name).exists()]
    graph = named if named.is_file() else graphs[0] if graphs else _model_source.export(folder)
    return OnnxEngine(settings, folder, graph=graph, tokenizer=tokenizer, recipe=recipe)
