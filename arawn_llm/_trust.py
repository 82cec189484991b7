"""What a file that was merely found in a project may not decide without being asked.

Such a file may have come with someone's repository. It may choose models, agents and prompts; it may not
send a key elsewhere. A `Demand` is one thing in it that could; the person allows it once for that file.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from arawn_llm import _atomic
from arawn_llm._providers import PROVIDERS
from arawn_llm.errors import ConfigError, Problem

# Parameters that shape an answer and can carry nothing to another place.
_HARMLESS_PARAMS = frozenset(
    {
        "drop_params",
        "frequency_penalty",
        "keep_alive",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "min_p",
        "n",
        "num_ctx",
        "num_predict",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning_effort",
        "repeat_penalty",
        "seed",
        "stop",
        "temperature",
        "thinking",
        "tool_choice",
        "top_k",
        "top_logprobs",
        "top_p",
        "verbosity",
    }
)


@dataclass(frozen=True)
class Demand:
    """One thing that a found file asks for and that needs the person's consent.

    Attributes:
        key: The key's path in the file.
        subject: What is remembered when it is allowed: a host, or a key with a digest of its value.
        words: What it would do, for the message.
    """

    key: tuple[str, ...]
    subject: str
    words: str


def host_of(url: str) -> str:
    """Name the host of a URL, in lower case."""
    return (urlsplit(url).hostname or "").lower()


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_demands(values: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[Demand]:
    """List all that a file's tables of ours ask for that could send a key elsewhere."""
    for name, value in values.items():
        key = (*prefix, name)
        if not prefix and name not in {"llm", "memory", "embedding", "oauth"}:
            continue
        elif key[0] == "oauth" and not isinstance(value, dict):
            host = host_of(value) if isinstance(value, str) else ""
            words = f"sends a login's codes and tokens to {host}" if host else f"decides the {name} of a login"
            yield Demand(key, f"{'.'.join(key)}#{_digest(value)}", words)
        elif name == "base_url" and isinstance(value, str):
            backend = prefix[-1] if prefix[:1] == ("embedding",) else values.get("backend")
            yield from _address(key, value, backend)
        elif name == "trust_remote_code" and value is True:
            yield Demand(key, ".".join(key), "runs code that comes with a model")
        elif name in {"headers", "params"} and prefix != ("memory",) and isinstance(value, dict):
            for inner, content in value.items():
                if name == "headers" or inner not in _HARMLESS_PARAMS:
                    where = ".".join((*key, inner))
                    yield Demand(key, f"{where}#{_digest(content)}", f"sends {name}.{inner} of its own")
        elif isinstance(value, dict):
            yield from find_demands(value, key)


def _address(key: tuple[str, ...], url: str, backend: object) -> Iterator[Demand]:
    host = host_of(url)
    provider = PROVIDERS.get(backend) if isinstance(backend, str) else None
    own = provider is not None and provider.host == host and url.startswith("https://")
    if not own and not is_loopback(host):
        plain = "" if url.startswith("https://") else "http://"
        with_key = "" if provider is not None and not provider.key_required else ", with your key,"
        words = f"sends requests{with_key} to {plain}{host}" + (" without encryption" if plain else "")
        yield Demand(key, plain + host, words)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def load_trust(store: Path) -> dict[str, frozenset[str]]:
    """Read what was allowed: for each file's real path, the subjects of its demands.

    Raises:
        ConfigError: The store exists and cannot be read.
    """
    try:
        values = json.loads(store.read_text(encoding="utf-8"))
        return {path: frozenset(subjects) for path, subjects in values.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as exc:
        raise ConfigError(Problem(f"cannot be read as the list of trusted files: {exc}", store)) from exc


def save_trust(store: Path, path: Path, subjects: Iterable[str]) -> None:
    """Remember that a file may do what it asks for; the store is written whole or not at all.

    Raises:
        ConfigError: The store cannot be written.
    """
    allowed = load_trust(store) | {os.path.realpath(path): frozenset(subjects)}
    text = json.dumps({name: sorted(found) for name, found in sorted(allowed.items())}, indent=2)
    _atomic.write(store, text + "\n")
