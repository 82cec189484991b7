"""Talk to language models without knowing whose: one TOML file names them, code asks for a profile."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arawn_llm import auth, doctor, draft, errors, keys, settings
    from arawn_llm._backend import Backend, aclose, get_backend, litellm_params
    from arawn_llm._completion import Completion, ToolCall, Usage
    from arawn_llm._config import Config, load_config, reload
    from arawn_llm._conversation import Conversation
    from arawn_llm._models import Model
    from arawn_llm._stream import AsyncStream, Stream
    from arawn_llm.embeddings import Embedder, embed, get_embedder
    from arawn_llm.errors import ArawnError, BackendError, ConfigError, CredentialError

__version__ = "0.1.0"

_HOMES = {
    "ArawnError": "errors",
    "AsyncStream": "_stream",
    "Model": "_models",
    "Stream": "_stream",
    "Backend": "_backend",
    "BackendError": "errors",
    "Completion": "_completion",
    "Conversation": "_conversation",
    "ToolCall": "_completion",
    "Usage": "_completion",
    "aclose": "_backend",
    "get_backend": "_backend",
    "litellm_params": "_backend",
    "Config": "_config",
    "ConfigError": "errors",
    "CredentialError": "errors",
    "load_config": "_config",
    "reload": "_config",
    "Embedder": "embeddings",
    "embed": "embeddings",
    "get_embedder": "embeddings",
}

__all__ = [
    "ArawnError",
    "AsyncStream",
    "Backend",
    "BackendError",
    "Completion",
    "Config",
    "ConfigError",
    "Conversation",
    "CredentialError",
    "Embedder",
    "Model",
    "Stream",
    "ToolCall",
    "Usage",
    "aclose",
    "auth",
    "doctor",
    "draft",
    "embed",
    "errors",
    "get_backend",
    "get_embedder",
    "keys",
    "litellm_params",
    "load_config",
    "reload",
    "settings",
]


def __getattr__(name: str) -> Any:
    if name in {"auth", "doctor", "draft", "embeddings", "errors", "keys", "settings", "testing"}:
        return import_module(f"arawn_llm.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'arawn_llm' has no attribute {name!r}")
    return getattr(import_module(f"arawn_llm.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
