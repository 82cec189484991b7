"""A model's folder, in the layout of sentence-transformers: what it says of how its vectors are made."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from arawn_llm.errors import ArawnError, ConfigError, Problem

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
GRAPHS = ("onnx/model.onnx", "model.onnx")
_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_KNOWN_POOLING = {"cls", "mean", "max", "mean_sqrt_len_tokens", "lasttoken"}
_FULL_ENGINE = ('use engine = "sentence-transformers": pip install "arawn-llm[sentence-transformers]"',)


@dataclass(frozen=True)
class Recipe:
    """Say how a text becomes a vector, beyond the network itself."""

    pooling: str
    normalized: bool
    max_tokens: int
    dimensions: int
    lower_case: bool = False
    padding: str = "[PAD]"
    prompts: Mapping[str, str] = field(default_factory=dict)


def read_recipe(folder: Path) -> Recipe:
    """Read how a model's vectors are made.

    Raises:
        ConfigError: The folder is no model's, or asks for something that only sentence-transformers can do.
    """
    config = _read(folder, "config.json", required=True)
    modules = {str(each["type"]).rpartition(".")[2]: each for each in _read(folder, "modules.json") or ()}
    unknown = modules.keys() - {"Transformer", "Pooling", "Normalize"}
    if unknown:
        raise _refuse(folder / "modules.json", f"the module {sorted(unknown)[0]}")
    if "auto_map" in config:
        raise _refuse(folder / "config.json", "code of the model's own")
    at = folder / str(modules.get("Pooling", {"path": "1_Pooling"})["path"])
    pooling = _read(at, "config.json") or {}
    mode = pooling.get("pooling_mode") or [_POOLING[key] for key in _POOLING if pooling.get(key)] or "mean"
    mode = mode[0] if isinstance(mode, list) and len(mode) == 1 else mode
    if mode not in _KNOWN_POOLING or pooling.get("include_prompt") is False:
        raise _refuse(at / "config.json", f"the pooling {mode}")
    limits, words = (
        _read(folder, "sentence_bert_config.json") or {},
        _read(folder, "tokenizer_config.json") or {},
    )
    widest = [words.get("model_max_length"), config.get("max_position_embeddings")]
    limit = limits.get("max_seq_length") or min((n for n in widest if n and n > 0), default=512)
    widths = (pooling.get("word_embedding_dimension"), pooling.get("embedding_dimension"))
    pad = words.get("pad_token") or "[PAD]"
    return Recipe(
        pooling=mode,
        normalized="Normalize" in modules,
        max_tokens=int(limit),
        dimensions=int(next(filter(None, widths), None) or config["hidden_size"]),
        lower_case=bool(limits.get("do_lower_case")),
        padding=pad["content"] if isinstance(pad, dict) else pad,
        prompts=(_read(folder, "config_sentence_transformers.json") or {}).get("prompts") or {},
    )


def _read(folder: Path, name: str, *, required: bool = False) -> Any:
    path = folder / name
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not required:
            return None
        raise ConfigError(
            Problem("this is no model's folder: it has no config.json", folder),
            hints=("model_path names a folder as sentence-transformers saves it, or an .onnx file in one",),
        ) from None
    except (OSError, ValueError) as exc:
        raise ConfigError(Problem(f"cannot be read: {exc}", path)) from exc


def _refuse(path: Path, what: str) -> ArawnError:
    return ConfigError(Problem(f"the onnx engine does not know {what}", path), hints=_FULL_ENGINE)


@cache
def digest(path: Path) -> str:
    """Give the SHA-256 digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def revision(folder: Path) -> str:
    """Name a model's state: the hub's commit, or a digest of its weights."""
    if folder.parent.name == "snapshots":  # the hub's cache names the folder after the commit
        return folder.name[:12]
    files = [folder / name for name in (*WEIGHTS, *GRAPHS) if (folder / name).exists()]
    return digest(files[0])[:12] if files else "-"


@cache
def is_quantized(graph: Path) -> bool:
    """Tell whether a graph quantises its activations, so that a vector depends on its neighbours in a batch."""
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(name) >= 0 for name in (b"DynamicQuantizeLinear", b"MatMulInteger"))
