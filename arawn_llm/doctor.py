"""What is wrong with a set-up: each thing that is used, checked for what it needs, all at once."""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Literal

from arawn_llm import _models
from arawn_llm._config import Config
from arawn_llm._credentials import TokenProvider, choose_provider
from arawn_llm._layers import KeyPath, client_id_variable
from arawn_llm._model_source import ask_hub, is_here
from arawn_llm._providers import NO_KEY, PROVIDERS
from arawn_llm._resolve import Target, resolve, resolve_embedding
from arawn_llm._schema import holds_secret
from arawn_llm._secrets import KEYRING
from arawn_llm.errors import ArawnError, BackendError, ConfigError, ModelNotAvailableError, Problem

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


def examine_faulty(error: ConfigError) -> list[Finding]:
    """Say what is wrong with files that cannot be used, and how this machine is."""
    files = [
        Finding("file", "file", "wrong", each.message, error.hints, _write_place(each))
        for each in error.problems
    ]
    return [*files, *_examine_machine()]


def _find_unused(config: Config) -> frozenset[str]:
    """List the profiles that no agent names; all are used where the file has no agents."""
    used = {agent.llm for agent in config.agents.values()} | {"default", config.embedding.provider}
    named = {name for name, table in config.tables.items() if table[0] == "llm"}
    return frozenset(named - used) if config.agents else frozenset()


def _examine_profile(config: Config, name: str, offline: bool, limit: float) -> Iterator[Finding]:
    unused = name in _find_unused(config)
    for finding in _examine_used(config, name, offline, limit):
        if unused and finding.state == "wrong":
            yield replace(finding, state="note", words=f"{finding.words} (no agent uses this profile)")
        else:
            yield finding


def _examine_used(config: Config, name: str, offline: bool, limit: float) -> Iterator[Finding]:
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
        unregistered = target.issuer is not None and not (target.issuer.client_id or client_id_variable())
        first = (
            ("a login wants a registration of yours first: [oauth.claude] client_id",) if unregistered else ()
        )
        yield Finding(subject, "key", "wrong", str(error), (*first, *error.hints), place)
        return
    source = getattr(credential, "source", "")
    flaw = _find_flaw(credential.token(), target)
    state: State = "note" if flaw or "file" in source else "ok"
    where = f"from {source}{flaw}" if credential.token() != NO_KEY else "none, and perhaps none is needed"
    yield Finding(subject, "key", state, where, place=place)
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
        if _models.find_mode(found) == "chat":
            words = f'model "{found.model}" is one for chats, and makes no vectors'
            hint = f'name an embedding model: [embedding.{found.provider.key}] model = "…"'
            yield Finding("embedding", "model", "wrong", words, (hint,), place)
        yield from _examine_target("embedding", found, place, offline, limit)
        return
    try:
        here = is_here(found)
        if not here and not offline:
            ask_hub(found, limit)
    except ArawnError as error:
        yield Finding("embedding", "model", "wrong", str(error), error.hints, place)
        return
    where = "is on this machine" if here else "will be fetched at the first text"
    yield Finding("embedding", "model", "ok", f"local, model {found.model}, {where}", place=place)


def _find_flaw(key: str, target: Target) -> str:
    """Say what looks wrong about a key, without showing any of it."""
    start, word = target.provider.key_start, key.lower()
    owner = max(PROVIDERS.values(), key=lambda row: len(row.key_start) if key.startswith(row.key_start) else 0)
    if key[:1] in "\"'`" or key[-1:] in "\"'`":
        return ", in quotation marks that belong to no key"
    if word.startswith(("bearer ", "authorization")):
        return ', with "Bearer" before it, which belongs to no key'
    if key.startswith(("$", "<", "{")) or "your" in word or "xxxx" in word or set(word) <= set(".…*x"):
        return ", and looks like a placeholder"
    if start and owner.key_start and owner.key != target.provider.key and key.startswith(owner.key_start):
        return f", and looks like a key of {owner.display_name}'s"
    return ""


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
        answer = getattr(error.__cause__, "response", None)
        yield from _examine_clock(subject, target, _models.read_clock(getattr(answer, "headers", {})))
        return
    takes = "" if credential.token() == NO_KEY else " and takes the key"
    yield Finding(subject, "address", "ok", f"{target.base_url} answers{takes}")
    yield from _examine_clock(subject, target, listing.clock_ahead)
    if not listing.holds(target.model):
        there = ", ".join(listing.names[:8]) + (", …" if len(listing.names) > 8 else "")
        words = f"there are: {there}" if there else f"{target.provider.display_name} lists no model at all"
        hints = target.hints(ModelNotAvailableError)
        yield Finding(subject, "model", "wrong", f'"{target.model}" is not there; {words}', hints)
        return
    yield Finding(subject, "model", "ok", f"{target.model} is there")
    if target.provider.context_param:
        yield from _examine_context(subject, target, credential, limit)


def _examine_clock(subject: str, target: Target, ahead: float) -> Iterator[Finding]:
    if abs(ahead) > _CLOCK_LIMIT:
        words = f"the clock here is {abs(ahead):.0f} s off that of {target.base_url}"
        yield Finding(subject, "clock", "wrong", words, ("set the clock of this machine",))


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
        if holds_secret(layer.values) and os.name == "posix" and mode & 0o044:
            words = f"holds a key and can be read by others (mode {mode:o})"
            yield Finding("file", "file", "wrong", words, (f"chmod 600 {layer.path}",), str(layer.path))
        else:
            found = " (found in the project)" if layer.found else ""
            yield Finding("file", "file", "ok", f"read{found}", place=str(layer.path))
    if not config.profiles and not any(layer.holds(("embedding",)) for layer in config.layers):
        words = "no profile in any file" if config.layers else "no file was found"
        yield Finding("file", "file", "wrong", words, ("write one: arawn init",))


def _examine_machine() -> Iterator[Finding]:
    KEYRING.get("arawn_doctor")
    if KEYRING.failure:
        chosen = os.environ.get("PYTHON_KEYRING_BACKEND")
        words = f"not used: {KEYRING.failure}" + (f" (PYTHON_KEYRING_BACKEND = {chosen})" if chosen else "")
        yield Finding("keyring", "keyring", "note", words, ("keys come from the environment or the file",))
    else:
        yield Finding("keyring", "keyring", "ok", "answers")
    packages = ", ".join(f"{name} {version(name)}" for name in ("arawn-llm", "litellm"))
    yield Finding("versions", "versions", "ok", f"{packages}, Python {platform.python_version()}")


def _place(config: Config, key: KeyPath) -> str:
    return _write_place(config.problem(key, ""))


def _write_place(problem: Problem) -> str:
    return f"{problem.path}:{problem.line}" if problem.path and problem.line else str(problem.path or "")
