"""From a name to a target: which profile, which model, which address. Pure: no file, no key, no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from arawn_llm._config import DEFAULT, Config
from arawn_llm._hints import HINTS
from arawn_llm._providers import PROVIDERS, Issuer, Provider
from arawn_llm._schema import OUR_TABLES, EmbeddingBackend, LocalEmbedding, Profile, nearest
from arawn_llm.errors import ArawnError, ConfigError, ProfileNotFoundError, UntrustedFileError

# Another issuer's default: nothing answers there, and the address bar shows the code to be pasted.
ADDRESS_BAR = "http://127.0.0.1/callback"


@dataclass(frozen=True)
class Target:
    """Say whom to ask, and how; holds the file's own secrets only behind masks."""

    name: str
    provider: Provider
    model: str
    base_url: str
    resolved_from: str
    profile: Profile
    place: str
    system_prompt: str | None = field(default=None, repr=False)
    issuer: Issuer | None = None

    def hints(self, kind: type[ArawnError], **facts: str) -> tuple[str, ...]:
        """List what to check for a kind of error, filled in for this target."""
        texts = self.provider.hints.get(kind) or HINTS.get(kind, ())
        words: Mapping[str, Any] = {
            "backend": self.provider.key,
            "display_name": self.provider.display_name,
            "env_var": self.provider.env_var,
            "keyring_name": self.provider.keyring_name,
            "base_url": self.base_url,
            "model": self.model,
            "place": self.place,
            "key_source": "an unknown place",
            **facts,
        }
        return tuple(text.format_map(words) for text in texts)

    @property
    def file_key(self) -> SecretStr | None:
        """Give the key that the file itself holds."""
        return self.profile.api_key


@dataclass(frozen=True)
class LocalTarget:
    """Say which model embeds on this machine, and how it is run."""

    model: str
    model_path: Path | None
    tokenizer_path: Path | None
    engine: str
    dimensions: int | None
    trust_remote_code: bool


def resolve(config: Config, name: str | None = None, agent: str | None = None) -> Target:
    """Choose the profile that a name, an agent, or neither asks for.

    Args:
        config: What the files say.
        name: A profile, or a backend key; None for the agent's or the default.
        agent: An agent, whose profile and system prompt apply.

    Raises:
        ProfileNotFoundError: Nothing has that name; says what there is.
        UntrustedFileError: A file that was merely found wants to send a key elsewhere.
    """
    asked = config.agents.get(agent) if agent else None
    if name is not None:
        found, trail = _by_name(config, name)
    elif agent is not None and asked is not None and asked.llm is not None:
        found, trail = _by_agent(config, agent, asked.llm)
    else:
        found, trail = _default(config, agent)
    return _target(config, found, trail, asked.system_prompt if asked else None)


def resolve_issuer(config: Config, default: Issuer) -> Issuer:
    """Put what the file says of a login over the defaults.

    Raises:
        ConfigError: A file that was merely found wants to decide where a login's tokens go.
    """
    _refuse_untrusted(config, ("oauth", default.name))
    said = config.oauth.get(default.name)
    own = said.model_dump(exclude_none=True) if said else {}
    if "token_url" in own and own["token_url"] != default.token_url:
        own = {"token_request": "form", "redirect_uri": ADDRESS_BAR} | own
    return replace(default, **own)


def _by_name(config: Config, name: str) -> tuple[str, str]:
    if name in config.profiles:
        return name, ""
    if name == "llm" and DEFAULT in config.profiles:
        return DEFAULT, ""
    if name not in PROVIDERS:
        raise ProfileNotFoundError(f'profile "{name}" is not defined{_what_there_is(config, name)}')
    with_backend = [each for each, profile in config.profiles.items() if profile.backend == name]
    if with_backend:  # the default profile stands first
        return with_backend[0], f"backend {name} -> "
    if PROVIDERS[name].base_url is None:
        raise ProfileNotFoundError(f'no profile has backend = "{name}", which needs a base_url and a model')
    return name, f"built-in {name}"


def _by_agent(config: Config, agent: str, llm: str) -> tuple[str, str]:
    trail = f"agent.{agent}.llm"
    try:
        found, rest = _by_name(config, llm)
    except ProfileNotFoundError:
        words = f'[agent.{agent}] llm = "{llm}": profile "{llm}" is not defined{_what_there_is(config, llm)}'
        raise ProfileNotFoundError(config.problem(("agent", agent, "llm"), words)) from None
    return found, f"{trail} -> {rest}"


def _default(config: Config, agent: str | None) -> tuple[str, str]:
    fallback = config.agents.get("default")
    if agent is not None and fallback is not None and fallback.llm is not None:
        return _by_agent(config, "default", fallback.llm)
    if DEFAULT in config.profiles:
        return DEFAULT, ""
    if fallback is not None and fallback.llm is not None:
        return _by_agent(config, "default", fallback.llm)
    if len(config.profiles) == 1:
        return next(iter(config.profiles)), ""
    read = ", ".join(str(layer.path) for layer in config.layers) or "no file was found"
    begin = "write a first file: arawn init"
    if config.layers:
        begin = "say which backend: arawn config set llm.backend anthropic, say"
    raise ProfileNotFoundError(
        f"there is no default profile ({read}){_what_there_is(config)}",
        hints=(*_misspelt(config), begin, "or name a profile or a backend key"),
    )


def _misspelt(config: Config) -> Iterator[str]:
    """Find what may have been meant for a table of ours."""
    for layer in config.layers:
        for name in layer.values.keys() - set(OUR_TABLES):
            if name in Profile.model_fields:
                yield f"{layer.path}: {name} stands outside of any table; write [llm] above it"
            elif suggestion := nearest(name.lower().partition(".")[0], OUR_TABLES):
                yield f"{layer.path}: [{name}] is read as another program's table{suggestion}"


def _what_there_is(config: Config, name: str = "") -> str:
    profiles = ", ".join(config.profiles) or "none"
    suggestion = nearest(name, [*config.profiles, *PROVIDERS])
    return f"{suggestion}; profiles: {profiles}; backends: {', '.join(PROVIDERS)}"


def _target(config: Config, name: str, trail: str, system_prompt: str | None) -> Target:
    table = config.tables.get(name)
    if table is None:
        profile, resolved, place = Profile(backend=name), trail, "the profile"
    else:
        profile, resolved, place = config.profiles[name], trail + ".".join(table), f"[{'.'.join(table)}]"
        _refuse_untrusted(config, table)
    provider = PROVIDERS[profile.backend]
    return Target(
        name=name,
        provider=provider,
        model=profile.model or provider.model or "",
        base_url=provider.normalize(profile.base_url or provider.base_url or ""),
        resolved_from=resolved,
        profile=profile,
        place=place,
        system_prompt=system_prompt or profile.system_prompt,
        issuer=resolve_issuer(config, provider.login) if provider.login else None,
    )


def _refuse_untrusted(config: Config, table: tuple[str, ...]) -> None:
    problems = config.untrusted(table)
    if problems:
        raise UntrustedFileError(
            problems,
            hints=(
                f"if you trust this file: arawn config trust {problems[0].path}",
                f"or name it: --config {problems[0].path}, ARAWN_CONFIG, or load_config(path)",
            ),
        )


def resolve_embedding(config: Config, name: str, model: str | None = None) -> LocalTarget | Target:
    """Choose what embeds: the local model, a table below `[embedding]`, or a profile.

    Raises:
        ConfigError: Nothing has that name, it cannot embed, or a found file wants to send a key elsewhere.
    """
    table = getattr(config.embedding, name, None)
    if isinstance(table, LocalEmbedding):
        _refuse_untrusted(config, ("embedding", name))
        return LocalTarget(
            model=model or table.model,
            model_path=_beside(config, "model_path", table.model_path),
            tokenizer_path=_beside(config, "tokenizer_path", table.tokenizer_path),
            engine=table.engine,
            dimensions=table.dimensions,
            trust_remote_code=table.trust_remote_code,
        )
    if isinstance(table, EmbeddingBackend):
        return _embedding_target(config, name, table, model)
    if name not in config.profiles:
        known = [*(key for key, row in PROVIDERS.items() if row.embedding), "local", *config.profiles]
        words = (
            f'[embedding] provider = "{name}" is not known{nearest(name, known)}; there are: {", ".join(known)}'
        )
        raise ProfileNotFoundError(config.problem(("embedding", "provider"), words))
    target = resolve(config, name)
    if target.provider.embedding is None:
        words = f"{target.place}: {target.provider.display_name} has no embeddings"
        raise ConfigError(config.problem(("embedding", "provider"), words))
    return replace(target, model=model) if model else target


def _embedding_target(config: Config, name: str, table: EmbeddingBackend, model: str | None) -> Target:
    provider, place = PROVIDERS[name], ("embedding", name)
    model = model or table.model or (provider.embedding.model if provider.embedding else None)
    address = table.base_url or provider.base_url
    missing = "model" if not model else "base_url" if not address else None
    if missing or not model or not address:
        raise ConfigError(config.problem(place, f"[{'.'.join(place)}] needs a {missing}"))
    _refuse_untrusted(config, place)
    return Target(
        name=".".join(place),
        provider=provider,
        model=model,
        base_url=provider.normalize(address),
        resolved_from=".".join(place),
        profile=Profile(
            backend=name,
            model=model,
            base_url=address,
            api_key=table.api_key,
            max_context_tokens=table.max_tokens,
            params={"dimensions": table.dimensions} if table.dimensions else {},
        ),
        place=f"[{'.'.join(place)}]",
    )


def _beside(config: Config, key: str, value: str | None) -> Path | None:
    """Read a relative path from the folder of the file that says it."""
    if value is None:
        return None
    home = config.problem(("embedding", "local", key), "").path
    return Path(home.parent if home else "", Path(value).expanduser())
