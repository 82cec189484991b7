"""The one door to LiteLLM: imported on first use, configured once, asked in one form."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

from arawn_llm import _deadline

# Read by LiteLLM while it is imported: price list and beta headers as packaged, no .env file, a log level.
_IMPORT_SWITCHES = {
    "LITELLM_LOG": "ERROR",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_MODE": "PRODUCTION",
}
_COUNTING_MODEL = "gpt-4"  # its tokenizer is packaged with LiteLLM; others would be downloaded
_lock = threading.Lock()


class UnsupportedModelError(Exception):
    """The model is not served by the chat's API."""


@dataclass(frozen=True)
class Request:
    """Hold one call without its key.

    Attributes:
        model: LiteLLM's model string.
        base_url: The address without what LiteLLM appends.
        messages: OpenAI-style messages.
        params: LiteLLM's other parameters.
        sdk_client: True where LiteLLM calls through the OpenAI SDK rather than plain httpx.
        bearer: True where the key is a token that goes out as `Authorization: Bearer`, whatever it looks like.
        free: True where calls cost nothing.
    """

    model: str
    base_url: str
    messages: list[dict[str, Any]] = field(repr=False)
    params: Mapping[str, Any] = field(repr=False)
    sdk_client: bool = False
    bearer: bool = False
    free: bool = False


@contextmanager
def _import_switches() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _IMPORT_SWITCHES}
    os.environ.update(_IMPORT_SWITCHES)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def load() -> Any:
    """Import LiteLLM once and set what can only be set for the whole process."""
    with _lock:
        return _import()


async def aload() -> Any:
    """Import LiteLLM once, in a thread, so that the event loop goes on."""
    return load() if _import.cache_info().currsize else await asyncio.to_thread(load)


@cache
def _import() -> Any:
    with _import_switches():
        collecting = gc.isenabled()
        gc.disable()  # a quarter of the import's time is spent collecting what will live on
        try:
            import litellm
            from litellm import anthropic_beta_headers_manager as beta_headers
        finally:
            if collecting:
                gc.enable()
        beta_headers._load_beta_headers_config()
    litellm.suppress_debug_info = True
    litellm.disable_hf_tokenizer_download = True
    litellm.REPEATED_STREAMING_CHUNK_LIMIT = sys.maxsize  # type: ignore[attr-defined]
    # Said of LiteLLM's own types when its first stream begins; nothing a user could mend.
    warnings.filterwarnings("ignore", message=".*using the `ReadOnly` qualifier", category=UserWarning)
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.ERROR))
    # Says each prompt at level DEBUG.
    openai_logger = logging.getLogger("openai._base_client")
    openai_logger.setLevel(openai_logger.level or logging.INFO)
    _keep_to_our_address(litellm.LiteLLMProxyChatConfig)
    os.register_at_fork(after_in_child=_forget_clients)
    return litellm


def _keep_to_our_address(proxy: Any) -> None:
    """Let USE_LITELLM_PROXY, which no parameter overrides, redirect every call but ours."""
    original = proxy.should_use_litellm_proxy_by_default

    def should_use(*args: Any, **kwargs: Any) -> bool:
        return not _deadline.is_ours() and bool(original(*args, **kwargs))

    proxy.should_use_litellm_proxy_by_default = staticmethod(should_use)


def _forget_clients() -> None:
    """Leave the parent's connections to the parent after a fork."""
    from arawn_llm import _clients

    _clients.forget()
    _sdk.cache_clear()
    load().in_memory_llm_clients_cache.flush_cache()


def _client(request: Request, token: str) -> Any:
    from arawn_llm import _clients

    handler = _clients.get_handler(load().HTTPHandler, request.bearer)
    return _sdk(load().OpenAI, request.base_url, token, handler) if request.sdk_client else handler


async def _aclient(request: Request, token: str) -> Any:
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

    from arawn_llm import _clients

    handler = await _clients.aget_handler(AsyncHTTPHandler, request.bearer)
    return _sdk(load().AsyncOpenAI, request.base_url, token, handler) if request.sdk_client else handler


@lru_cache(maxsize=32)
def _sdk(sdk_class: Any, base_url: str, token: str, handler: Any) -> Any:
    client = sdk_class(api_key=token, base_url=base_url, max_retries=0, http_client=handler.client)
    client._custom_headers = {}  # the environment's OPENAI_CUSTOM_HEADERS, whatever the address
    return client


def _arguments(request: Request, timeout: float, *, stream: bool) -> dict[str, Any]:
    load()
    params = dict(request.params)
    if request.sdk_client:
        from openai import Omit

        # LiteLLM and the SDK would add the environment's, whatever the address.
        theirs = {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()}
        params["extra_headers"] = theirs | params.get("extra_headers", {})
    if stream:
        params = {"stream_options": {"include_usage": True}} | params
    return params | {
        "model": request.model,
        "api_base": request.base_url,
        "messages": request.messages,
        "timeout": timeout,
        "stream": stream,
        "num_retries": 0,
        "max_retries": 0,
        "_skip_mcp_handler": True,
    }


def _prepare(request: Request) -> None:
    """Keep LiteLLM from asking an Ollama server that no profile names, and from another API than the chat's."""
    model_cost, bare = load().model_cost, request.model.partition("/")[2]
    if request.free:
        facts = {"litellm_provider": request.model.partition("/")[0], "mode": "chat"}
        model_cost.setdefault(request.model, facts | {"input_cost_per_token": 0, "output_cost_per_token": 0})
    mode = model_cost.get(bare, {}).get("mode") if request.sdk_client else None
    if bare.startswith("responses/") or mode == "responses":
        raise UnsupportedModelError(f"{bare} is served by the Responses API only, and calls here are chats")


def complete(request: Request, end: float, token: str, *, stream: bool = False) -> Any:
    """Ask, and give LiteLLM's answer, or its stream, within the deadline."""
    _prepare(request)
    arguments = _arguments(request, end - time.monotonic(), stream=stream)
    with _deadline.deadline(end):
        return load().completion(**arguments, api_key=token, client=_client(request, token))


async def acomplete(request: Request, end: float, token: str, *, stream: bool = False) -> Any:
    """Ask, and give LiteLLM's answer, or its stream, within the deadline."""
    _prepare(request)
    arguments = _arguments(request, end - time.monotonic(), stream=stream)
    with _deadline.deadline(end):
        async with asyncio.timeout(end - time.monotonic()):
            client = await _aclient(request, token)
            return await load().acompletion(**arguments, api_key=token, client=client)


def read_chunks(stream: Any, end: float) -> Iterator[Any]:
    """Yield a stream's chunks, each within the deadline."""
    iterator = iter(stream)
    while True:
        with _deadline.deadline(end):
            chunk = next(iterator, None)
        if chunk is None:
            return
        yield chunk


async def aread_chunks(stream: Any, end: float) -> AsyncIterator[Any]:
    """Yield a stream's chunks, each within the deadline."""
    iterator = aiter(stream)
    while True:
        async with asyncio.timeout(end - time.monotonic()):
            chunk = await anext(iterator, None)
        if chunk is None:
            return
        yield chunk


def close(stream: Any) -> None:
    """Close a stream's connection; LiteLLM's own wrapper cannot."""
    inner = stream.completion_stream
    source = getattr(inner, "streaming_response", inner)
    if hasattr(source, "close"):
        source.close()


async def aclose(stream: Any) -> None:
    """Close a stream's connection; LiteLLM's own wrapper does not everywhere."""
    inner = stream.completion_stream
    source = getattr(inner, "streaming_response", inner)
    closing = getattr(source, "aclose", None) or getattr(source, "close", None)
    if closing is not None:
        await closing()


async def aclose_clients() -> None:
    """Close the async connections that are kept open for later calls in this event loop."""
    from arawn_llm import _clients

    await _clients.aclose()


def ended_properly(stream: Any) -> bool:
    """Tell whether the provider itself ended the stream; LiteLLM invents an end where it is missing."""
    return stream.received_finish_reason is not None


def text_of(chunk: Any) -> str:
    """Give the text that a chunk adds."""
    return (chunk.choices[0].delta.content or "") if chunk.choices else ""


def join_chunks(stream: Any, chunks: list[Any], request: Request) -> Any:
    """Build the whole response from a stream's chunks, without the usage that LiteLLM guesses."""
    _number_tool_calls(chunks)
    response = load().stream_chunk_builder(chunks, messages=request.messages)
    if response is not None and not any(getattr(chunk, "usage", None) for chunk in stream.chunks):
        response.usage = load().Usage()
    return response


def _number_tool_calls(chunks: list[Any]) -> None:
    """Give each tool call of a stream a number of its own; Ollama's all come as number 0."""
    numbers: dict[str, int] = {}
    current: dict[int, str] = {}
    for chunk in chunks:
        for call in (chunk.choices[0].delta.tool_calls or ()) if chunk.choices else ():
            current[call.index] = call.id or current.get(call.index, "")
            if current[call.index]:
                call.index = numbers.setdefault(current[call.index], len(numbers))


def count_tokens(messages: list[dict[str, Any]]) -> int:
    """Estimate the tokens of messages, images at a flat rate, without asking anyone."""
    counter = load().token_counter
    return int(counter(model=_COUNTING_MODEL, messages=messages, use_default_image_token_count=True))


def find_prices(model: str) -> Mapping[str, Any]:
    """Give what LiteLLM's list says of a model's price; nothing for a model that is not in it."""
    return load().model_cost.get(model) or {}


def _embedding_arguments(request: Request, timeout: float) -> dict[str, Any]:
    from arawn_llm import _clients

    arguments = _arguments(request, timeout, stream=False)
    # LiteLLM's types know no base64. Said for each call: test runners forget filters between tests.
    warnings.filterwarnings("ignore", message=r"(?s).*Expected `list\[float\]`", category=UserWarning)
    texts = [message["content"] for message in arguments.pop("messages")]
    del arguments["stream"], arguments["_skip_mcp_handler"]
    # Without this LiteLLM refuses `dimensions` for every model name that it does not know.
    ours = {"allowed_openai_params": ["dimensions"], "max_retries": _clients.NoRetries(0)}
    return arguments | ours | {"input": texts}


def embed(request: Request, end: float, token: str) -> Any:
    """Embed the contents of a request's messages, and give LiteLLM's answer within the deadline."""
    from arawn_llm import _clients

    arguments = _embedding_arguments(request, end - time.monotonic())
    with _deadline.deadline(end):
        client = _client(request, token)
        with _clients.lend(load(), "module_level_client", client):
            return load().embedding(**arguments, api_key=token, client=client)


async def aembed(request: Request, end: float, token: str) -> Any:
    """Embed the contents of a request's messages, and give LiteLLM's answer within the deadline."""
    from arawn_llm import _clients

    arguments = _embedding_arguments(request, end - time.monotonic())
    with _deadline.deadline(end):
        async with asyncio.timeout(end - time.monotonic()):
            client = await _aclient(request, token)
            with _clients.lend(load(), "module_level_aclient", client):
                return await load().aembedding(**arguments, api_key=token, client=client)
