"""The tables of an Arawn file that are ours, as pydantic models: the boundary where text becomes values."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from arawn_llm._providers import PROVIDERS

# Stricter than a URL may be, so that every library on the way reads the same host out of it.
_BASE_URL = re.compile(
    r"https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(:\d{1,5})?(/[A-Za-z0-9_.~%/+:@-]*)?", re.A
)
# Where a login's codes and tokens may go: https, or this machine (RFC 8252, section 8.3).
_LOGIN_URL = re.compile(
    r"(https://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)|http://(localhost|127(\.\d{1,3}){3}|\[::1\]))(:\d{1,5})?"
    r"(/[A-Za-z0-9_.~%/+:@-]*)?(\?[A-Za-z0-9_.~%/+:@=&-]*)?",
    re.A,
)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
OUR_TABLES = ("llm", "agent", "memory", "embedding", "oauth")
_SECRET_KEYS = frozenset({"api_key", "headers", "params", "client_secret", "base_url"}) | {
    "authorize_url",
    "token_url",
    "redirect_uri",
    "revoke_url",
}

# What we say to LiteLLM ourselves: in params it would be said twice.
RESERVED_PARAMS = {
    "model": "model",
    "api_key": "api_key",
    "api_base": "base_url",
    "base_url": "base_url",
    "timeout": "timeout",
    "request_timeout": "timeout",
    "num_retries": "retry_max",
    "max_retries": "retry_max",
    "extra_headers": "headers",
    "headers": "headers",
    "custom_llm_provider": "backend",
    "messages": "system_prompt",
    "stream": None,
    "client": None,
    "_skip_mcp_handler": None,
}

Positive = Annotated[int, Field(gt=0)]


def nearest(word: str, words: Iterable[str]) -> str:
    """Suggest the nearest of the words, as the end of a message; empty if none is near."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f'; did you mean "{close[0]}"?' if close else ""


def _check_base_url(url: str | None) -> str | None:
    match = _BASE_URL.fullmatch(url) if url is not None else None
    if url is not None and (match is None or int((match[2] or ":0")[1:]) > 65535):
        raise PydanticCustomError(
            "base_url", "must be http(s)://host[:port][/path], without a password, a query or a fragment"
        )
    return url


def _check_login_url(url: str | None) -> str | None:
    if url is not None and not _LOGIN_URL.fullmatch(url):
        raise PydanticCustomError(
            "base_url", "must be https://…, or http:// on this machine, without a password"
        )
    return url


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Profile(_Table):
    """One `[llm…]` table, or a `[memory.…]` table with a backend of its own."""

    backend: str
    model: Annotated[str, Field(min_length=1)] | None = None
    base_url: str | None = Field(default=None, repr=False)
    api_key: SecretStr | None = None
    max_context_tokens: Positive | None = None
    timeout: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    retry_max: Annotated[int, Field(ge=0, le=20)] = 2
    retry_backoff_ms: Annotated[int, Field(ge=0, le=600_000)] = 500
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Positive | None = None
    system_prompt: str | None = Field(default=None, repr=False)
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    params: dict[str, Any] = Field(default_factory=dict, repr=False)

    @field_validator("backend")
    @classmethod
    def _known_backend(cls, value: str) -> str:
        if value not in PROVIDERS:
            known = nearest(value, PROVIDERS) or "; there are: " + ", ".join(PROVIDERS)
            raise PydanticCustomError("backend", "is not a backend{known}", {"known": known})
        return value

    _base_url = field_validator("base_url")(_check_base_url)

    @field_validator("headers")
    @classmethod
    def _header_values(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in value.items():
            if not _HEADER_NAME.fullmatch(name) or not is_header_value(secret.get_secret_value()):
                words = "{name} cannot be sent: its name or its value is no HTTP header's"
                raise PydanticCustomError("headers", words, {"name": json.dumps(name)})
        return value

    @field_validator("params")
    @classmethod
    def _unreserved(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name in RESERVED_PARAMS:
                instead = RESERVED_PARAMS[name]
                raise PydanticCustomError(
                    "params",
                    "may not hold {name}{instead}",
                    {"name": name, "instead": f": say {instead} in the profile" if instead else ""},
                )
        return value

    @model_validator(mode="after")
    def _complete(self) -> Profile:
        provider = PROVIDERS[self.backend]
        for key in ("base_url", "model"):
            if getattr(self, key) is None and getattr(provider, key) is None:
                raise PydanticCustomError(
                    "missing",
                    'has backend = "{backend}", which needs a {key}',
                    {"backend": self.backend, "key": key},
                )
        if provider.login:
            _check_login_url(self.base_url)
        return self


class MemoryProfile(Profile):
    """A `[memory.…]` table: a profile among keys that belong to the application."""

    model_config = ConfigDict(extra="ignore")


class Agent(_Table):
    """What an `[agent.…]` table says to us; its other keys are the application's."""

    model_config = ConfigDict(extra="ignore")

    llm: str | None = None
    system_prompt: str | None = Field(default=None, repr=False)


class EmbeddingBackend(_Table):
    """One of `[embedding.openai]`, `[embedding.ollama]`, `[embedding.custom]`."""

    model: str | None = None
    dimensions: Positive | None = None
    base_url: str | None = Field(default=None, repr=False)
    api_key: SecretStr | None = None
    max_tokens: Positive | None = None

    _base_url = field_validator("base_url")(_check_base_url)


class LocalEmbedding(_Table):
    """The `[embedding.local]` table."""

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    model_path: str | None = None
    tokenizer_path: str | None = None
    engine: Literal["auto", "onnx", "sentence-transformers"] = "auto"
    dimensions: Positive | None = None
    trust_remote_code: bool = False


class Embedding(_Table):
    """The `[embedding]` table."""

    provider: str = "local"
    cache: bool = False
    cache_max_mb: Positive = 1024
    overflow: Literal["error", "truncate", "split"] | None = None
    local: LocalEmbedding = LocalEmbedding()
    openai: EmbeddingBackend = EmbeddingBackend()
    ollama: EmbeddingBackend = EmbeddingBackend()
    custom: EmbeddingBackend = EmbeddingBackend()


class OAuth(_Table):
    """One `[oauth.…]` table."""

    client_id: Annotated[str, Field(min_length=1)] | None = None
    authorize_url: str | None = None
    token_url: str | None = None
    redirect_uri: str | None = None
    scope: str | None = None
    token_request: Literal["json", "form"] | None = None
    revoke_url: str | None = None

    _urls = field_validator("authorize_url", "token_url", "redirect_uri", "revoke_url")(_check_login_url)

    @model_validator(mode="after")
    def _one_issuer(self) -> OAuth:
        if (self.authorize_url is None) != (self.token_url is None):
            raise PydanticCustomError("issuer", "needs authorize_url and token_url, of one issuer")
        return self


def is_secret(key: tuple[str, ...]) -> bool:
    """Tell whether a value is shown masked: keys and header values, and what a name calls a secret."""
    name = key[-1].lower()
    named = any(word in name for word in ("api_key", "secret", "token", "password", "authorization"))
    return (named and not name.endswith(("_tokens", "token_url", "token_request"))) or "headers" in key[:-1]


def holds_secret(values: Mapping[str, Any], at: tuple[str, ...] = ()) -> bool:
    """Tell whether a file's values hold a key, or headers, which may be one."""
    return any(
        is_secret((*at, name)) or (isinstance(value, Mapping) and holds_secret(value, (*at, name)))
        for name, value in values.items()
    )


def describe_file() -> dict[str, Any]:
    """Give the JSON Schema of a whole file, for editors (json-schema.org, draft 2020-12)."""
    profile, embedding = Profile.model_json_schema(), Embedding.model_json_schema()
    agent = Agent.model_json_schema() | {"additionalProperties": True}
    tables = {
        "llm": profile | {"required": [], "additionalProperties": {"$ref": "#/$defs/Profile"}},
        "agent": {"type": "object", "additionalProperties": agent},
        "memory": {"type": "object", "additionalProperties": True},
        "embedding": embedding,
        "oauth": {"type": "object", "additionalProperties": OAuth.model_json_schema()},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "arawn.toml",
        "type": "object",
        "properties": tables,
        "additionalProperties": True,
        "$defs": {"Profile": profile, **embedding.pop("$defs")},
    }


def is_header_value(value: str) -> bool:
    """Tell whether a string can be sent as an HTTP header value (RFC 9110, section 5.5)."""
    return bool(value) and value == value.strip() and all("\x20" <= c <= "\x7e" or c == "\t" for c in value)


_LIKE_A_KEY = re.compile(r"(?i)(sk-|gsk_|bearer )|[\w-]{32,}$")


def explain(model: type[BaseModel], error: ValidationError) -> list[tuple[tuple[str, ...], str]]:
    """Turn pydantic's errors into (key path below the table, words), showing no secret."""
    return [
        (tuple(str(part) for part in detail["loc"]), _words(model, detail))
        for detail in error.errors(include_url=False)
    ]


def _words(model: type[BaseModel], detail: ErrorDetails) -> str:
    path = [str(part) for part in detail["loc"]]
    if detail["type"] == "extra_forbidden":
        fields: Mapping[str, Any] = model.model_fields
        for part in path[:-1]:
            fields = getattr(fields[part].annotation, "model_fields", {}) if part in fields else {}
        return f"{path[-1]} is not a known key{nearest(path[-1], fields)}"
    if detail["type"] == "missing":
        return f"has no {path[-1]}" if path else detail["msg"]
    if not path:
        return detail["msg"]
    key = ".".join(path)
    said = detail["input"]
    hidden = _SECRET_KEYS & set(path) or (isinstance(said, str) and _LIKE_A_KEY.match(said))
    found = "" if hidden else f" = {_quote(said)}"
    if detail["type"] == "dict_type":
        return f"{key}{found} must be a table: {key} = {{ name = value }}"
    separator = " " if detail["type"] in {"backend", "base_url", "params"} else ": "
    return f"{key}{found}{separator}{detail['msg']}"


def _quote(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "…"
