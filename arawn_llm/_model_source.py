"""Where a local model comes from: a folder, the hub, or torch weights turned into a graph."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import platformdirs

from arawn_llm import errors
from arawn_llm._model_folder import GRAPHS, WEIGHTS, digest
from arawn_llm._resolve import LocalTarget


def missing(extra: str, what: str) -> errors.MissingExtraError:
    """Make the error for packages that are not here, with the command that brings them."""
    return errors.MissingExtraError(
        f"{what} needs packages that are not installed", hints=(f'pip install "arawn-llm[{extra}]"',)
    )


def find_folder(settings: LocalTarget, weights: Sequence[str]) -> Path:
    """Find a model's folder: the one named, or the hub's cache, into which it is fetched once.

    Args:
        settings: Which model.
        weights: The files of which one is needed; "*" for whatever weights there are.
    """
    if settings.model_path:
        path = settings.model_path
        if not path.exists():
            raise errors.ConfigError(errors.Problem("model_path names nothing", path))
        around = [path] if path.is_dir() else [path.parent, path.parent.parent]
        return next((folder for folder in around if (folder / "config.json").exists()), around[0])
    return _cached_folder(settings.model, weights) or _fetch(settings.model, weights)


def is_here(settings: LocalTarget) -> bool:
    """Tell whether a model needs no fetching.

    Raises:
        MissingExtraError: Nothing is installed that could run it.
        ConfigError: `model_path` names nothing.
    """
    onnx = find_spec("onnxruntime") and find_spec("tokenizers")
    if not (onnx if settings.engine == "onnx" else onnx or find_spec("sentence_transformers")):
        raise missing("local", "a local embedding model")
    if settings.model_path:
        find_folder(settings, GRAPHS)
        return True
    return bool(_cached_folder(settings.model, (*GRAPHS, "*")))


def ask_hub(settings: LocalTarget, limit: float) -> None:
    """Ask the hub for a model's name within so many seconds; raises what fetching it would raise."""
    _fetching(settings.model, lambda hub: str(hub.HfApi().model_info(settings.model, timeout=limit).id))


def _cached_folder(model: str, weights: Sequence[str]) -> Path | None:
    """Find a model in the hub's cache without the library that fetches, which takes half a second to import."""
    if not find_spec("huggingface_hub"):
        raise missing("local", "fetching a model")
    from huggingface_hub import constants

    repo = Path(constants.HF_HUB_CACHE, f"models--{model.replace('/', '--')}")
    commit = repo / "refs" / "main"
    folder = repo / "snapshots" / commit.read_text().strip() if commit.exists() else None
    wanted = [*weights, *WEIGHTS] if "*" in weights else weights
    return folder if folder and any((folder / name).exists() for name in wanted) else None


def _fetch(model: str, weights: Sequence[str]) -> Path:
    """Fetch a model into the hub's cache, its weights last and checked: they say that all is there."""
    patterns = ["*.safetensors", "*.bin", "*.py"] if "*" in weights else [f"{name}*" for name in weights]

    def fetch(hub: Any) -> str:
        hub.snapshot_download(model, allow_patterns=["*.json", "*.txt", "*.model"])
        return str(hub.snapshot_download(model, allow_patterns=patterns))

    folder = Path(_fetching(model, fetch))
    for path in folder.rglob("*"):
        _check(path)
    return folder


def _fetching(model: str, fetch: Callable[[Any], str]) -> str:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    from arawn_llm import _clients

    try:
        return fetch(huggingface_hub)
    except RepositoryNotFoundError as exc:
        raise errors.ModelNotAvailableError(
            f'Model "{model}" not available', hints=("is it spelled as the hub spells it?",)
        ) from exc
    except (HfHubHTTPError, OSError, _clients.HTTPError) as exc:
        raise errors.BackendConnectionError(
            f"Cannot fetch model {model}, which is not on this machine yet ({type(exc).__name__})",
            hints=(
                "is this machine online? the model is fetched once",
                "a mirror's address goes into HF_ENDPOINT",
                "or copy the model's folder here and name it: [embedding.local] model_path",
            ),
        ) from exc


def _check(path: Path) -> None:
    """Compare a fetched file with the digest that the hub named it after; small files have none."""
    blob = path.resolve()
    if path.is_file() and re.fullmatch("[0-9a-f]{64}", blob.name) and digest(blob) != blob.name:
        path.unlink()
        blob.unlink()
        raise errors.BackendConnectionError(
            f"{path.name} came broken from the hub and was removed", hints=("run the same again",)
        )


def _exported(folder: Path) -> Path:
    weights = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    name = digest(weights)[:32] if weights else "none"
    return Path(platformdirs.user_cache_path("arawn"), "onnx", name, "model.onnx")


def export(folder: Path) -> Path:
    """Make the graph out of torch weights, once for these weights.

    Raises:
        ConfigError: There are no weights, or torch is not here.
    """
    graph = _exported(folder)
    if graph.exists():
        return graph
    if not (find_spec("torch") and find_spec("transformers")):
        raise errors.ConfigError(
            errors.Problem(f"there is no {GRAPHS[0]}, and without torch none can be made", folder),
            hints=('pip install "arawn-llm[sentence-transformers]" once to make it',),
        )
    import torch  # pyright: ignore[reportMissingImports] - of an extra
    from transformers import AutoModel  # pyright: ignore[reportMissingImports]

    class Tokens(torch.nn.Module):  # type: ignore[misc]  # torch is not there for the type checker
        def __init__(self) -> None:
            super().__init__()
            self.network = AutoModel.from_pretrained(folder).eval()

        def forward(self, ids: Any, mask: Any) -> Any:
            return self.network(input_ids=ids, attention_mask=mask).last_hidden_state

    names = ["input_ids", "attention_mask"]
    graph.parent.mkdir(parents=True, exist_ok=True)
    part = graph.with_suffix(f".{os.getpid()}")
    example = torch.ones(2, 8, dtype=torch.int64)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Tokens(),
            (example, example),
            str(part),
            input_names=names,
            output_names=["last_hidden_state"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in [*names, "last_hidden_state"]},
            dynamo=False,
            opset_version=17,
        )
    os.replace(part, graph)
    return graph
