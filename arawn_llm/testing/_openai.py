"""OpenAI's and Groq's chat completions, as their references describe them.

Sources: platform.openai.com/docs/api-reference/chat and /docs/guides/error-codes,
console.groq.com/docs/api-reference and /docs/errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from arawn_llm.testing._dialect import Refusal, Reply, event, parse, place, require_json, split_text
from arawn_llm.testing._requests import GroqRequest, OpenAIRequest

_CREATED = 1_760_000_000
_USUAL = {
    401: "Incorrect API key provided.",
    403: "You are not allowed to use this.",
    429: "Rate limit reached for requests.",
    500: "The server had an error while processing your request.",
    503: "The engine is currently overloaded, please try again later.",
}


class OpenAI:
    """Speak as api.openai.com/v1 speaks."""

    base_path = "/v1"
    chat_path = "/v1/chat/completions"
    models_path = "/v1/models"
    stream_type = "text/event-stream; charset=utf-8"
    request_id = "x-request-id"
    facts: Mapping[str, Any] = MappingProxyType({})
    request: type[BaseModel] = OpenAIRequest

    def check_headers(self, headers: Mapping[str, str], key: str) -> None:
        """Refuse another key than the simulator's."""
        require_json(headers)
        if headers.get("authorization") != f"Bearer {key}":
            raise Refusal(401, "", code="invalid_api_key")

    def read(self, body: bytes) -> Any:
        """Parse a request, and see that each tool result answers a call."""
        request, fault = parse(self.request, body)
        if fault:
            raise self.refusal(fault)
        if request.stream_options and not request.stream:
            raise Refusal(400, "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
        open_calls: set[str] = set()
        for message in request.messages:
            if message.role == "tool" and message.tool_call_id not in open_calls:
                raise Refusal(
                    400, "messages with role 'tool' must answer a preceding message with 'tool_calls'."
                )
            if message.role == "tool":
                open_calls.discard(message.tool_call_id)
                continue
            if open_calls:
                break
            open_calls = {call.id for call in getattr(message, "tool_calls", None) or ()}
        if open_calls:
            raise Refusal(
                400, "An assistant message with 'tool_calls' must be followed by an answer to each call."
            )
        return request

    def refusal(self, fault: ErrorDetails) -> Refusal:
        """Say in the provider's words what is wrong with a request."""
        loc = place(fault)
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
        flat = (
            f"Unrecognized request argument supplied: {path}"
            if len(loc) == 1
            else f"Unknown parameter: '{path}'."
        )
        words, code = {
            "json_invalid": ("We could not parse the JSON body of your request.", None),
            "extra_forbidden": (flat, "unknown_parameter"),
            "missing": (f"Missing required parameter: '{path}'.", "missing_required_parameter"),
        }.get(fault["type"], (f"Invalid value for '{path}': {fault['msg']}.", "invalid_value"))
        return Refusal(400, words, param=path or None, code=code)

    def error(self, status: int, message: str, **facts: Any) -> dict[str, Any]:
        """Give the body of an error, in the provider's usual words without a message."""
        kind = "server_error" if status >= 500 else "invalid_request_error"
        kind = {429: "requests", 403: "permission_error"}.get(status, kind)
        said = {"message": message or _USUAL.get(status, "The request failed."), "type": kind}
        return {"error": said | {"param": None, "code": None} | facts}

    def overflow(self) -> Refusal:
        """Say that a prompt is too long."""
        words = (
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 "
            "tokens. Please reduce the length of the messages."
        )
        return Refusal(400, words, param="messages", code="context_length_exceeded")

    def unknown_model(self, model: str) -> Refusal:
        """Say that a model is not there."""
        words = f"The model `{model}` does not exist or you do not have access to it."
        return Refusal(404, words, code="model_not_found")

    def whole(self, request: Any, reply: Reply) -> dict[str, Any]:
        """Give the body of a whole answer."""
        message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None}
        message |= self.reasoning(reply.reasoning)
        if reply.tool_calls:
            message["tool_calls"] = list(_calls(reply))
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(reply)}
        return self.head(request, "chat.completion") | {"choices": [choice], "usage": _usage(reply)}

    def no_answer(self, request: Any) -> dict[str, Any]:
        """Give the body of a reply without a choice."""
        return self.head(request, "chat.completion") | {"choices": [], "usage": _usage(Reply())}

    def pieces(self, request: Any, reply: Reply) -> Iterator[str]:
        """Yield a chunk for each piece, the usage where it was asked for, and the end."""
        counted = bool(request.stream_options and request.stream_options.include_usage)
        head = self.head(request, "chat.completion.chunk") | ({"usage": None} if counted else {})

        def chunk(delta: Mapping[str, Any], reason: str | None = None) -> str:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
            return event(head | {"choices": [choice]})

        yield chunk({"role": "assistant", "content": ""})
        for piece in split_text(reply.reasoning):
            yield chunk(self.reasoning(piece))
        for piece in split_text(reply.text):
            yield chunk({"content": piece})
        for index, call in enumerate(_calls(reply)):
            text = call["function"]["arguments"]
            yield chunk(
                {"tool_calls": [call | {"index": index, "function": call["function"] | {"arguments": ""}}]}
            )
            for part in (text[: len(text) // 2], text[len(text) // 2 :]):
                yield chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
        yield chunk({}, _reason(reply))
        if counted:
            yield event(head | {"choices": [], "usage": _usage(reply)})
        yield "data: [DONE]\n\n"

    def error_event(self, message: str) -> str:
        """Give the event of a stream that failed."""
        return event(self.error(500, message))

    def models(self, names: Iterable[str]) -> dict[str, Any]:
        """Give the body of the list of models."""
        facts = {"object": "model", "created": _CREATED, "owned_by": "simulated"}
        return {"object": "list", "data": [{"id": name} | facts for name in names]}

    def head(self, request: Any, kind: str) -> dict[str, Any]:
        """Give what each body and chunk begins with."""
        facts = {"id": "chatcmpl-simulated", "object": kind, "created": _CREATED, "model": request.model}
        return facts | {"system_fingerprint": "fp_simulated", "service_tier": "default"}

    def reasoning(self, text: str) -> dict[str, Any]:
        """Give the field in which compatible servers, such as vLLM and llama.cpp, show reasoning."""
        return {"reasoning_content": text} if text else {}


class Groq(OpenAI):
    """Speak as api.groq.com/openai/v1 speaks."""

    base_path = "/openai/v1"
    chat_path = "/openai/v1/chat/completions"
    models_path = "/openai/v1/models"
    request = GroqRequest

    def refusal(self, fault: ErrorDetails) -> Refusal:
        """Say in the provider's words what is wrong with a request."""
        loc = [str(part) for part in place(fault)]
        words = f"property '{loc[-1]}' is unsupported" if fault["type"] == "extra_forbidden" else fault["msg"]
        if len(loc) > 1:
            at, where = ".".join(loc[:2]), ".".join(loc)
            words = f"'{at}' : the following must be satisfied[('{where}' : {words})]"
        return Refusal(400, words)

    def overflow(self) -> Refusal:
        """Say that a prompt is too long."""
        words = "Please reduce the length of the messages or completion."
        return Refusal(400, words, param="messages", code="context_length_exceeded")

    def head(self, request: Any, kind: str) -> dict[str, Any]:
        """Give what each body and chunk begins with."""
        return super().head(request, kind) | {"x_groq": {"id": "req_simulated"}, "service_tier": "on_demand"}

    def reasoning(self, text: str) -> dict[str, Any]:
        """Give the field that shows reasoning in the "parsed" format."""
        return {"reasoning": text} if text else {}


def _calls(reply: Reply) -> Iterator[dict[str, Any]]:
    for number, (name, arguments) in enumerate(reply.tool_calls):
        function = {"name": name, "arguments": json.dumps(arguments)}
        yield {"id": f"call_{number}", "type": "function", "function": function}


def _reason(reply: Reply) -> str:
    return "tool_calls" if reply.tool_calls else reply.finish_reason


def _usage(reply: Reply) -> dict[str, Any]:
    into, out = reply.usage
    return {"prompt_tokens": into, "completion_tokens": out, "total_tokens": into + out}
