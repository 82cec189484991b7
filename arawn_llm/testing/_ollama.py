"""Ollama's chat, as its reference describes it.

Sources: docs.ollama.com/api/chat, /api/errors, /api/tags and /capabilities/streaming.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from arawn_llm.testing._dialect import Refusal, Reply, parse, place, split_text
from arawn_llm.testing._requests import OllamaRequest

_CREATED = "2026-01-01T00:00:00.000000Z"


class Ollama:
    """Speak as an Ollama server speaks."""

    base_path = ""
    chat_path = "/api/chat"
    models_path = "/api/tags"
    stream_type = "application/x-ndjson"
    request_id = "x-request-id"
    facts: Mapping[str, Any] = MappingProxyType(
        {
            "/api/show": {
                "details": {"format": "gguf", "family": "llama"},
                "model_info": {"general.architecture": "llama", "llama.context_length": 8192},
                "capabilities": ["completion", "tools"],
            }
        }
    )

    def check_headers(self, headers: Mapping[str, str], key: str) -> None:
        """Accept a request without a key, and refuse a wrong one as a proxy before it would."""
        if headers.get("authorization", f"Bearer {key}") != f"Bearer {key}":
            raise Refusal(401, "unauthorized")

    def read(self, body: bytes) -> Any:
        """Parse a request; images must be plain base64."""
        request, fault = parse(OllamaRequest, body)
        if fault:
            raise Refusal(400, f"{'.'.join(map(str, place(fault)))}: {fault['msg']}")
        for message in request.messages:
            if any(image.startswith(("data:", "http")) for image in message.images or ()):
                raise Refusal(400, "illegal base64 data at input byte 4")
        return request

    def error(self, status: int, message: str, **facts: Any) -> dict[str, Any]:
        """Give the body of an error, in the provider's usual words without a message."""
        return {"error": message or "the model failed to generate a response"} | facts

    def overflow(self) -> Refusal:
        """Say that a prompt is too long."""
        return Refusal(400, "the input length exceeds the context length")

    def unknown_model(self, model: str) -> Refusal:
        """Say that a model is not there."""
        return Refusal(404, f"model '{model}' not found")

    def whole(self, request: Any, reply: Reply) -> dict[str, Any]:
        """Give the body of a whole answer."""
        message = {"role": "assistant", "content": reply.text} | _thinking(reply.reasoning) | _calls(reply)
        return _head(request) | {"message": message} | _end(reply)

    def no_answer(self, request: Any) -> dict[str, Any]:
        """Give the body of a reply without a message."""
        return _head(request) | _end(Reply())

    def pieces(self, request: Any, reply: Reply) -> Iterator[str]:
        """Yield a line for each piece, and the end with its counts."""
        messages: list[dict[str, Any]] = [{"content": ""} | _thinking(p) for p in split_text(reply.reasoning)]
        messages += [{"content": piece} for piece in split_text(reply.text)]
        messages += [{"content": "", "tool_calls": [call]} for call in _calls(reply).get("tool_calls", ())]
        for message in messages:
            yield _line(_head(request) | {"message": {"role": "assistant"} | message, "done": False})
        yield _line(_head(request) | {"message": {"role": "assistant", "content": ""}} | _end(reply))

    def error_event(self, message: str) -> str:
        """Give the line of a stream that failed."""
        return _line({"error": message or "an error was encountered while running the model"})

    def models(self, names: Iterable[str]) -> dict[str, Any]:
        """Give the body of the list of models."""
        facts = {"modified_at": _CREATED, "size": 1, "digest": "0" * 64, "details": {"format": "gguf"}}
        return {"models": [{"name": name, "model": name} | facts for name in names]}


def _head(request: Any) -> dict[str, Any]:
    return {"model": request.model, "created_at": _CREATED}


def _end(reply: Reply) -> dict[str, Any]:
    counts = {"prompt_eval_count": reply.usage[0], "eval_count": reply.usage[1]}
    times = {"total_duration": 4, "load_duration": 1, "prompt_eval_duration": 1, "eval_duration": 1}
    return {"done": True, "done_reason": reply.finish_reason} | counts | times


def _thinking(text: str) -> dict[str, Any]:
    return {"thinking": text} if text else {}


def _calls(reply: Reply) -> dict[str, Any]:
    calls = [
        {"id": f"call_{number}", "function": {"index": number, "name": name, "arguments": dict(arguments)}}
        for number, (name, arguments) in enumerate(reply.tool_calls)
    ]
    return {"tool_calls": calls} if calls else {}


def _line(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False) + "\n"
