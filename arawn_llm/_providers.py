"""One row for each backend key. A new provider is one row; nothing else names one.

Sources: the providers' API references (docs.anthropic.com/en/api, platform.openai.com/docs/api-reference,
console.groq.com/docs/api-reference, docs.ollama.com/api) and LiteLLM's provider pages (docs.litellm.ai).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from arawn_llm import _hints, errors

NO_KEY = "no-key"  # stands for none, so that LiteLLM looks for no other; it is not sent
_CHAT = frozenset({"tools", "streaming", "vision", "json_schema"})


@dataclass(frozen=True)
class Issuer:
    """Say where a login happens and where its tokens come from (RFC 6749, 7636, 8252).

    Attributes:
        name: Its table in the file, below `[oauth]`.
        authorize_url: Where the person consents.
        token_url: Where a code or a refresh token becomes an access token.
        redirect_uri: The page that shows the code, where it has to be pasted.
        scope: What is asked for; empty asks for nothing by name.
        token_request: How the token endpoint reads a request; RFC 6749 asks for "form".
        revoke_url: Where a logout revokes the tokens (RFC 7009).
        client_id: The registration to log in with; the person's to give.
    """

    name: str
    authorize_url: str
    token_url: str
    redirect_uri: str
    scope: str = ""
    token_request: Literal["json", "form"] = "form"
    revoke_url: str | None = None
    client_id: str | None = None


@dataclass(frozen=True)
class EmbeddingRoute:
    """Describe how one backend embeds texts.

    Attributes:
        model: The default embedding model; None where the file has to give one.
        prefix: LiteLLM's prefix where it is not the one for chats.
        max_tokens: The longest text that its models take, in tokens; None where they differ.
        max_texts: The most texts in one request.
        max_request_tokens: The most tokens in one request.
        params: Parameters sent with every request.
        overflow_params: Parameters that make it cut texts that are too long, or refuse them.
        normalized: True where its vectors have length 1.
    """

    model: str | None = None
    prefix: str | None = None
    max_tokens: int | None = None
    max_texts: int = 32
    max_request_tokens: int = 300_000
    params: Mapping[str, Any] = field(default_factory=dict)
    overflow_params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    normalized: bool = False


@dataclass(frozen=True)
class Provider:
    """Describe how one backend is addressed, paid, and mended.

    Attributes:
        key: The backend key in the file.
        display_name: The name in messages to people.
        prefix: LiteLLM's prefix, put before the model's name.
        env_var: The environment variable of its key.
        keyring_name: The user name of its key under the keyring service "arawn".
        base_url: The default address; None where the file has to give one.
        model: The default model; None where the file has to give one.
        suffixes: Endings of a base_url that LiteLLM would append again, longest first.
        capabilities: What `Backend.supports` answers.
        key_required: False where a server may be open.
        login: The issuer, where the credential is the bearer token of a login, not an API key.
        bearer_tokens: How the tokens begin that LiteLLM by itself sends as bearer tokens.
        sdk_client: True where LiteLLM calls through the OpenAI SDK rather than plain httpx.
        image_urls: The beginnings of image addresses that the API itself fetches; others would be fetched here.
        tool_choice: False where the API knows no tool_choice.
        schema_models: Model-name prefixes that take a JSON schema; empty means all.
        context_param: The parameter that sets the context window for each call.
        params: Parameters sent with every call.
        models_path: Where it lists its models, behind the base_url.
        key_header: The header of its key, where that is no bearer token.
        fixed_headers: Headers that each request of ours to it carries.
        key_start: How its keys begin, where they all do.
        model_names: How the names of its own models begin.
        price_prefix: The prefix of its models in LiteLLM's price list; None where calls are free.
        overflow_texts: What its error says when a prompt is too long, where no code says so.
        hints: What to check, for each error; `{…}` is filled from the profile. Overrides `_hints.HINTS`.
        embedding: How it embeds texts; None where it does not.
    """

    key: str
    display_name: str
    prefix: str
    env_var: str
    keyring_name: str
    base_url: str | None = None
    model: str | None = None
    suffixes: tuple[str, ...] = ("/chat/completions",)
    capabilities: frozenset[str] = _CHAT
    key_required: bool = True
    login: Issuer | None = None
    bearer_tokens: tuple[str, ...] = ()
    sdk_client: bool = False
    image_urls: tuple[str, ...] = ("https://", "http://")
    tool_choice: bool = True
    schema_models: tuple[str, ...] = ()
    context_param: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    models_path: str = "/models"
    key_header: str = ""
    fixed_headers: Mapping[str, str] = field(default_factory=dict)
    key_start: str = ""
    model_names: tuple[str, ...] = ()
    price_prefix: str | None = ""
    overflow_texts: tuple[str, ...] = ()
    hints: Mapping[type[errors.ArawnError], tuple[str, ...]] = field(default_factory=dict)
    embedding: EmbeddingRoute | None = None

    @property
    def host(self) -> str | None:
        """Name the provider's own host, to which its key may always go."""
        return urlsplit(self.base_url).hostname if self.base_url else None

    def normalize(self, base_url: str) -> str:
        """Strip what LiteLLM appends by itself: a trailing slash and known endings."""
        url = base_url.rstrip("/")
        for suffix in self.suffixes:
            if url.endswith(suffix):
                return url.removesuffix(suffix).rstrip("/")
        return url

    def takes_schema(self, model: str) -> bool:
        """Tell whether a JSON schema may be sent for this model."""
        return "json_schema" in self.capabilities and (
            not self.schema_models or model.startswith(self.schema_models)
        )


_ANTHROPIC_SUFFIXES = ("/v1/messages", "/v1")
_ANTHROPIC_MODELS = "/v1/models?limit=1000"
_ANTHROPIC_VERSION = {"anthropic-version": "2023-06-01"}

_ROWS = (
    Provider(
        key="anthropic",
        display_name="Anthropic",
        prefix="anthropic/",
        env_var="ANTHROPIC_API_KEY",
        keyring_name="anthropic_api_key",
        base_url="https://api.anthropic.com",
        model="claude-sonnet-4-6",
        suffixes=_ANTHROPIC_SUFFIXES,
        image_urls=("https://",),
        models_path=_ANTHROPIC_MODELS,
        key_header="x-api-key",
        fixed_headers=_ANTHROPIC_VERSION,
        key_start="sk-ant-",
        model_names=("claude-",),
        params={"max_tokens": 8192},  # required by the Messages API; LiteLLM would say 64,000
    ),
    Provider(
        key="openai",
        display_name="OpenAI",
        prefix="openai/",
        env_var="OPENAI_API_KEY",
        keyring_name="openai_api_key",
        base_url="https://api.openai.com/v1",
        model="gpt-4o-mini",
        capabilities=_CHAT | {"embeddings"},
        sdk_client=True,
        key_start="sk-",
        model_names=("gpt-", "o1", "o3", "o4", "chatgpt-"),
        embedding=EmbeddingRoute(
            model="text-embedding-3-small",
            max_tokens=8192,
            max_texts=512,  # of 2048 allowed: four requests together are done sooner than one
            params={"encoding_format": "base64"},  # a third of the bytes, and no digits to parse
            normalized=True,
        ),
    ),
    Provider(
        # LiteLLM's own groq/ route fails on a reply without service_tier and fakes streams.
        key="groq",
        display_name="Groq",
        prefix="hosted_vllm/",
        env_var="GROQ_API_KEY",
        keyring_name="groq_api_key",
        base_url="https://api.groq.com/openai/v1",
        model="openai/gpt-oss-20b",
        key_start="gsk_",
        schema_models=("openai/gpt-oss", "moonshotai/kimi-k2", "meta-llama/llama-4"),
        price_prefix="groq/",
        overflow_texts=("reduce the length of the messages", "reduce your message size"),
    ),
    Provider(
        key="ollama",
        display_name="Ollama",
        prefix="ollama_chat/",
        env_var="OLLAMA_API_KEY",
        keyring_name="ollama_api_key",
        base_url="http://localhost:11434",
        model="llama3.2",
        suffixes=("/v1/chat/completions", "/api/chat", "/v1", "/api"),
        capabilities=_CHAT | {"embeddings"},
        key_required=False,
        image_urls=(),
        tool_choice=False,
        models_path="/api/tags",
        context_param="num_ctx",
        price_prefix=None,
        overflow_texts=("exceeds the available context size", "input length exceeds", "context length"),
        hints=_hints.OLLAMA,
        embedding=EmbeddingRoute(
            model="nomic-embed-text",
            prefix="ollama/",
            max_texts=128,
            # Without it a text that is too long is cut in silence.
            overflow_params={"truncate": {"truncate": True}, "error": {"truncate": False}},
            normalized=True,
        ),
    ),
    Provider(
        key="custom",
        display_name="the custom server",
        prefix="hosted_vllm/",
        env_var="LLM_API_KEY",
        keyring_name="llm_api_key",
        capabilities=_CHAT | {"embeddings"},
        key_required=False,
        overflow_texts=("exceeds the available context size", "exceed_context_size", "context length"),
        hints=_hints.CUSTOM,
        embedding=EmbeddingRoute(),  # 32 texts: what text-embeddings-inference takes by default
    ),
    Provider(
        key="claude-oauth",
        display_name="Anthropic",
        prefix="anthropic/",
        env_var="ANTHROPIC_AUTH_TOKEN",
        keyring_name="claude_oauth_token",
        base_url="https://api.anthropic.com",
        model="claude-sonnet-4-6",
        suffixes=_ANTHROPIC_SUFFIXES,
        models_path=_ANTHROPIC_MODELS,
        fixed_headers=_ANTHROPIC_VERSION,
        bearer_tokens=("sk-ant-oat",),
        image_urls=("https://",),
        login=Issuer(
            name="claude",
            authorize_url="https://claude.ai/oauth/authorize",
            token_url="https://console.anthropic.com/v1/oauth/token",
            redirect_uri="https://console.anthropic.com/oauth/code/callback",
            scope="org:create_api_key user:profile user:inference",
            token_request="json",
        ),
        params={"max_tokens": 8192},
        hints=_hints.LOGIN,
    ),
)

PROVIDERS: dict[str, Provider] = {row.key: row for row in _ROWS}
