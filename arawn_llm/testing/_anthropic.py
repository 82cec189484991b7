"""Anthropic's messages, as its reference describes them.

Sources: docs.anthropic.com/en/api/messages, /en/api/errors and /en/docs/build-with-claude/streaming.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from arawn_llm.testing._dialect import Refusal, Reply, event, parse, place, require_json, split_text
from arawn_llm.testing._requests import AnthropicRequest

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_USUAL = {
    401: "invalid x-api-key",
    403: "Your API key does not have permission to use the specified resource.",
    429: "This request would exceed your account's rate limit. Please try again later.",
    500: "Internal server error",
    529: "Overloaded",
}


class Anthropic:
    """Speak as api.anthropic.com speaks."""

    base_path = ""
    chat_path = "/v1/messages"
    models_path = "/v1/models"
    stream_type = "text/event-stream; charset=utf-8"
    request_id = "request-id"
    facts: Mapping[str, Any] = MappingProxyType({})

    def check_headers(self, headers: Mapping[str, str], key: str) -> None:
        """Refuse another key than the simulator's, two of them, or no version."""
        require_json(headers)
        if "x-api-key" in headers and "authorization" in headers:
            raise Refusal(400, "both x-api-key and authorization were sent")
        if self.credential(headers) != key:
            raise Refusal(401, "")
        if headers.get("anthropic-version") != "2023-06-01":
            raise Refusal(400, "anthropic-version: header is required")

    def credential(self, headers: Mapping[str, str]) -> str | None:
        """Find the key in the headers."""
        return headers.get("x-api-key")

    def read(self, body: bytes) -> Any:
        """Parse a request, and see that each tool use is answered in the next message."""
        request, fault = parse(AnthropicRequest, body)
        if fault:
            path = ".".join(map(str, place(fault)))
            words = "Extra inputs are not permitted" if fault["type"] == "extra_forbidden" else fault["msg"]
            raise Refusal(400, f"{path}: {words}" if path else "The request body is not valid JSON")
        uses: set[str] = set()
        for number, turn in enumerate(request.messages):
            blocks = turn.content if isinstance(turn.content, list) else []
            results = {block.tool_use_id for block in blocks if block.type == "tool_result"}
            if uses - results:
                words = "`tool_use` ids were found without `tool_result` blocks immediately after"
                raise Refusal(400, f"messages.{number}: {words}")
            if results - uses:
                raise Refusal(400, f"messages.{number}: unexpected `tool_use_id` found in `tool_result` blocks")
            uses = {block.id for block in blocks if block.type == "tool_use"}
        return request

    def error(self, status: int, message: str, **facts: Any) -> dict[str, Any]:
        """Give the body of an error, in the provider's usual words without a message."""
        kind = _KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
        said = {"type": kind, "message": message or _USUAL.get(status, kind)}
        return {"type": "error", "error": said | facts, "request_id": "req_simulated"}

    def overflow(self) -> Refusal:
        """Say that a prompt is too long."""
        return Refusal(400, "prompt is too long: 200001 tokens > 200000 maximum")

    def unknown_model(self, model: str) -> Refusal:
        """Say that a model is not there."""
        return Refusal(404, f"model: {model}")

    def whole(self, request: Any, reply: Reply) -> dict[str, Any]:
        """Give the body of a whole answer."""
        return _message(request, reply) | {"content": [block for block, _ in _blocks(reply)]}

    def no_answer(self, request: Any) -> dict[str, Any]:
        """Give the body of a message without content."""
        return _message(request, Reply()) | {"content": []}

    def pieces(self, request: Any, reply: Reply) -> Iterator[str]:
        """Yield the events of a message: its start, each block, its end."""
        start = _message(request, reply) | {"content": [], "stop_reason": None}
        start["usage"] = start["usage"] | {"output_tokens": 1}
        yield _event("message_start", message=start)
        yield _event("ping")
        for index, (block, deltas) in enumerate(_blocks(reply)):
            empty = {"text": "", "thinking": "", "signature": "", "input": {}}
            opened = {key: empty.get(key, value) for key, value in block.items()}
            yield _event("content_block_start", index=index, content_block=opened)
            for delta in deltas:
                yield _event("content_block_delta", index=index, delta=delta)
            yield _event("content_block_stop", index=index)
        delta = {"stop_reason": _reason(reply), "stop_sequence": None}
        yield _event("message_delta", delta=delta, usage={"output_tokens": reply.usage[1]})
        yield _event("message_stop")

    def error_event(self, message: str) -> str:
        """Give the event of a stream that failed."""
        return _event("error", error=self.error(529, message)["error"])

    def models(self, names: Iterable[str]) -> dict[str, Any]:
        """Give the body of the list of models."""
        found = [
            {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}
            for name in names
        ]
        ends = {"first_id": found[0]["id"], "last_id": found[-1]["id"]} if found else {}
        return {"data": found, "has_more": False} | ends


class AnthropicBearer(Anthropic):
    """Speak as an Anthropic-compatible API that takes bearer tokens speaks."""

    def credential(self, headers: Mapping[str, str]) -> str | None:
        """Find the token in the headers."""
        return headers.get("authorization", "").removeprefix("Bearer ")


def _message(request: Any, reply: Reply) -> dict[str, Any]:
    head = {"id": "msg_simulated", "type": "message", "role": "assistant", "model": request.model}
    usage = {"input_tokens": reply.usage[0], "output_tokens": reply.usage[1]}
    return head | {"stop_reason": _reason(reply), "stop_sequence": None, "usage": usage}


def _blocks(reply: Reply) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield each content block, and the deltas in which it comes."""
    if reply.reasoning:
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in split_text(reply.reasoning)]
        deltas.append({"type": "signature_delta", "signature": "c2ltdWxhdGVk"})
        yield {"type": "thinking", "thinking": reply.reasoning, "signature": "c2ltdWxhdGVk"}, deltas
    if reply.text:
        deltas = [{"type": "text_delta", "text": piece} for piece in split_text(reply.text)]
        yield {"type": "text", "text": reply.text}, deltas
    for number, (name, arguments) in enumerate(reply.tool_calls):
        text = json.dumps(arguments)
        parts = ("", text[: len(text) // 2], text[len(text) // 2 :])
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
        yield {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": dict(arguments)}, deltas


def _reason(reply: Reply) -> str:
    return "tool_use" if reply.tool_calls else {"stop": "end_turn", "length": "max_tokens"}[reply.finish_reason]


def _event(kind: str, **fields: Any) -> str:
    return event({"type": kind} | fields, kind)
