"""What is wrong with a set-up: each thing that is used, checked for what it needs, all at once."""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from arawn_llm import _models
from arawn_llm._config import Config
from arawn_llm._credentials import TokenProvider, choose_provider
from arawn_llm._layers import KeyPath
from arawn_llm._providers import PROVIDERS
from arawn_llm._resolve import Target, resolve, resolve_embedding
from arawn_llm._secrets import KEYRING
from arawn_llm.errors import ArawnError, BackendError, ModelNotAvailableError

State = Literal["ok", "note", "wrong"]
_MOST_AT_ONCE = 16
_CLOCK_LIMIT = 60.0  # seconds; logins and certificates suffer beyond


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        subject: What is used: "llm.fast", "agent.summarizer", "keyring".
        check: What was looked at: "profile", "key", "address", "model".
        state: "ok", "note" where it works but is worth a look, or "wrong".
        words: What was found; never a secret.
        hints: What to check or do.
        place: The file and line that say it.
    """

    subject: str
    check: str
    state: State
    words: str
    hints: tuple[str, ...] = ()
    place: str = ""


def examine(config: Config, *, offline: bool = False, limit: float = 10.0) -> list[Finding]:
    """Check all that a configuration uses.

    Args:
        config: What the files say.
        offline: Ask no server.
        limit: Seconds for each question to a server.
    """
    subjects: list[Callable[[], list[Finding]]] = [
        lambda name=name: list(_examine_profile(config, name, offline, limit))  # type: ignore[misc]
        for name in config.profiles
    ]
    subjects += [lambda name=name: list(_examine_agent(config, name)) for name in config.agents]  # type: ignore[misc]
    subjects += [lambda: list(_examine_embedding(config, offline, limit))]
    subjects += [lambda: list(_examine_files(config)), lambda: list(_examine_machine())]
    with ThreadPoolExecutor(_MOST_AT_ONCE) as pool:
        return [finding for found in pool.map(lambda examine: examine(), subjects) for finding in found]


def _examine_profile(config: Config, name: str, offline: bool, limit: float) -> Iterator[Finding]:
    table = config.tables[name]
    subject, place = ".".join(table), _place(config, table)
    try:
        target = resolve(config, name)
    except ArawnError as error:
        yield Finding(subject, "profile", "wrong", str(error), error.hints, place)
        return
    yield from _examine_model_name(subject, target, _place(config, (*table, "model")))
    yield from _examine_target(subject, target, place, offline, limit)


def _examine_target(subject: str, target: Target, place: str, offline: bool, limit: float) -> Iterator[Finding]:
    words = f"{target.provider.key}, model {target.model}, {target.base_url}"
    yield Finding(subject, "profile", "ok", words, place=place)
    credential = choose_provider(target)
    try:
        credential.token()
    except ArawnError as error:
        yield Finding(subject, "key", "wrong", str(error), error.hints, place)
        return
    source = getattr(credential, "source", "")
    yield Finding(subject, "key", "note" if "file" in source else "ok", f"from {source}", place=place)
    if not offline:
        yield from _examine_server(subject, target, credential, limit)


def _examine_embedding(config: Config, offline: bool, limit: float) -> Iterator[Finding]:
    if not any(layer.holds(("embedding",)) for layer in config.layers):
        return
    place = _place(config, ("embedding",))
    try:
        found = resolve_embedding(config, config.embedding.provider)
    except ArawnError as error:
        yield Finding("embedding", "profile", "wrong", str(error), error.hints, place)
        return
    if isinstance(found, Target):
        yield from _examine_target("embedding", found, place, offline, limit)
    elif not (find_spec("onnxruntime") and find_spec("tokenizers")) and not find_spec("sentence_transformers"):
        hint = 'pip install "arawn-llm[local]"'
        yield Finding("embedding", "packages", "wrong", "a local model needs packages", (hint,), place)
    else:
        yield Finding("embedding", "profile", "ok", f"local, model {found.model}", place=place)


def _examine_model_name(subject: str, target: Target, place: str) -> Iterator[Finding]:
    """Find a model that belongs to another backend."""
    own = target.provider
    if own.model_names and not target.model.startswith(own.model_names):
        for other in PROVIDERS.values():
            if other.model_names and target.model.startswith(other.model_names):
                words = f'model "{target.model}" is one of {other.display_name}\'s, and backend is "{own.key}"'
                hint = f'set backend = "{other.key}", or choose a model of {own.display_name}\'s'
                yield Finding(subject, "model", "wrong", words, (hint,), place)
                return


def _examine_server(subject: str, target: Target, credential: TokenProvider, limit: float) -> Iterator[Finding]:
    try:
        listing = _models.list_names(target, credential, limit)
    except BackendError as error:
        yield Finding(subject, "address", "wrong", str(error), error.hints)
        return
    yield Finding(subject, "address", "ok", f"{target.base_url} answers and takes the key")
    if abs(listing.clock_ahead) > _CLOCK_LIMIT:
        words = f"the clock here is {abs(listing.clock_ahead):.0f} s off that of {target.base_url}"
        yield Finding(subject, "clock", "wrong", words, ("set the clock of this machine",))
    if not listing.holds(target.model):
        there = ", ".join(listing.names[:8]) + (", …" if len(listing.names) > 8 else "")
        hints = target.hints(ModelNotAvailableError)
        yield Finding(subject, "model", "wrong", f'"{target.model}" is not there; there are: {there}', hints)
        return
    yield Finding(subject, "model", "ok", f"{target.model} is there")
    if target.provider.context_param:
        yield from _examine_context(subject, target, credential, limit)


def _examine_context(
    subject: str, target: Target, credential: TokenProvider, limit: float
) -> Iterator[Finding]:
    ours = target.profile.max_context_tokens
    try:
        theirs = _models.find_context_length(target, credential, limit)
    except BackendError as error:
        yield Finding(subject, "context", "note", str(error), error.hints)
        return
    if ours is None:
        words = "max_context_tokens is not set: the server cuts longer prompts at its own length, in silence"
        yield Finding(subject, "context", "note", words, (f"max_context_tokens = {theirs or 8192}",))
    elif theirs is not None and ours > theirs:
        words = f"max_context_tokens is {ours}, and the model was made for {theirs}"
        yield Finding(subject, "context", "wrong", words, (f"max_context_tokens = {theirs}",))
    else:
        yield Finding(subject, "context", "ok", f"{ours} tokens of {theirs or 'unknown'}")


def _examine_agent(config: Config, name: str) -> Iterator[Finding]:
    subject, place = f"agent.{name}", _place(config, ("agent", name))
    try:
        target = resolve(config, agent=name)
    except ArawnError as error:
        yield Finding(subject, "profile", "wrong", str(error), error.hints, place)
        return
    yield Finding(subject, "profile", "ok", target.resolved_from, place=place)


def _examine_files(config: Config) -> Iterator[Finding]:
    for layer in config.layers:
        mode = stat.S_IMODE(os.stat(layer.path).st_mode)
        holds_key = any(layer.holds((*table, "api_key")) for table in config.tables.values())
        if holds_key and os.name == "posix" and mode & 0o044:
            words = f"holds a key and can be read by others (mode {mode:o})"
            yield Finding(str(layer.path), "file", "wrong", words, (f"chmod 600 {layer.path}",))
        else:
            found = " (found in the project)" if layer.found else ""
            yield Finding(str(layer.path), "file", "ok", f"read{found}")
    if not config.layers:
        hint = "write one: arawn init"
        yield Finding("configuration", "file", "note", "no file was found", (hint,))


def _examine_machine() -> Iterator[Finding]:
    KEYRING.get("arawn_doctor")
    if KEYRING.failure:
        words = f"not used: {KEYRING.failure}"
        yield Finding("keyring", "keyring", "note", words, ("keys come from the environment or the file",))
    else:
        yield Finding("keyring", "keyring", "ok", "answers")
    packages = ", ".join(f"{name} {version(name)}" for name in ("arawn-llm", "litellm"))
    yield Finding("versions", "versions", "ok", f"{packages}, Python {platform.python_version()}")


def _place(config: Config, key: KeyPath) -> str:
    problem = config.problem(key, "")
    path: Path | None = problem.path
    return f"{path}:{problem.line}" if path and problem.line else str(path or "")
