"""What a simulator is told to do, and what each provider's dialect has to know."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Kind = Literal[
    "status", "overflow", "body", "no_answer", "silence", "drop", "drip", "cut", "stall", "error", "garbage"
]


# Values of `role` and `type`, which pydantic puts into a path behind the number of the element.
_TAGS = {
    "system",
    "developer",
    "user",
    "assistant",
    "tool",
    "text",
    "image_url",
    "image",
    "tool_use",
    "tool_result",
}


@dataclass(frozen=True)
class Reply:
    """Answer with a text, tool calls, or both.

    Attributes:
        text: The answer's text.
        tool_calls: For each call, the tool's name and its arguments.
        reasoning: The model's visible reasoning.
        finish_reason: "stop" or "length"; calling tools is its own reason.
        usage: Input and output tokens to report.
    """

    text: str = ""
    tool_calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    reasoning: str = ""
    finish_reason: Literal["stop", "length"] = "stop"
    usage: tuple[int, int] = (3, 2)


@dataclass(frozen=True)
class Fault:
    """Fail once.

    Attributes:
        kind: "status" answers with an error; "overflow" says that the prompt is too long; "body" answers 200
            with `body`; "no_answer" with a reply that holds none; "silence" says nothing; "drop" closes
            at once; "drip" sends a byte
            now and then; "cut", "stall", "error" and "garbage" send the first words and then close, fall
            silent, send the provider's error event, or go on behind an event that is no JSON.
        status: The HTTP status of "status".
        message: What the error says; the provider's usual words without it.
        headers: Headers of the answer, such as {"retry-after": "1"}.
        body: The body of "body".
    """

    kind: Kind = "status"
    status: int = 500
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f'no fault is called "{self.kind}"; there are: {", ".join(get_args(Kind))}')


class Refusal(Exception):
    """The request is not what the provider's reference allows.

    Attributes:
        status: The HTTP status that says so.
        message: The provider's words.
        facts: What its error body says beside them, such as the parameter.
    """

    def __init__(self, status: int, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.status, self.message, self.facts = status, message, facts


class Dialect(Protocol):
    """Speak as one provider speaks."""

    base_path: str
    chat_path: str
    models_path: str
    stream_type: str
    request_id: str
    facts: Mapping[str, Any]  # what other paths answer

    def check_headers(self, headers: Mapping[str, str], key: str) -> None:
        """Refuse a request without the headers that the provider requires."""
        ...

    def read(self, body: bytes) -> Any:
        """Parse a request for a chat, strictly; the result has `model` and `stream`."""
        ...

    def error(self, status: int, message: str, **facts: Any) -> dict[str, Any]:
        """Give the body of an error, in the provider's usual words without a message."""
        ...

    def overflow(self) -> Refusal:
        """Say that a prompt is too long."""
        ...

    def unknown_model(self, model: str) -> Refusal:
        """Say that a model is not there."""
        ...

    def whole(self, request: Any, reply: Reply) -> dict[str, Any]:
        """Give the body of a whole answer."""
        ...

    def no_answer(self, request: Any) -> dict[str, Any]:
        """Give the body of a reply that holds no answer."""
        ...

    def pieces(self, request: Any, reply: Reply) -> Iterator[str]:
        """Yield the stream's text, event by event."""
        ...

    def error_event(self, message: str) -> str:
        """Give the text with which a stream that has begun says that it failed."""
        ...

    def models(self, names: Iterable[str]) -> dict[str, Any]:
        """Give the body of the list of models."""
        ...


def require_json(headers: Mapping[str, str]) -> None:
    """Refuse a body that is not said to be JSON."""
    if not headers.get("content-type", "application/json").startswith("application/json"):
        raise Refusal(400, f"Unsupported content type: '{headers['content-type']}'")


def parse(model: type[BaseModel], body: bytes) -> tuple[Any, ErrorDetails | None]:
    """Parse a body; give the fault that matters most where there is one."""
    try:
        return model.model_validate_json(body), None
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False)
        order = {"json_invalid": 0, "extra_forbidden": 1, "missing": 2}
        return None, min(faults, key=lambda fault: order.get(fault["type"], 3))


def place(fault: ErrorDetails) -> list[str | int]:
    """Give the path of a fault in the request, without what pydantic adds to name an alternative."""
    loc = fault["loc"]
    return [
        part for i, part in enumerate(loc) if part != "str" and not (part in _TAGS and _is_index(loc, i - 1))
    ]


def _is_index(loc: tuple[int | str, ...], i: int) -> bool:
    return i >= 0 and isinstance(loc[i], int)


def split_text(text: str) -> list[str]:
    """Split a text into pieces as models send them: words with the space before them."""
    words = text.split(" ")
    return [words[0]] + [" " + word for word in words[1:]] if text else []


def event(data: Mapping[str, Any], name: str = "") -> str:
    """Write one server-sent event (WHATWG HTML, section 9.2)."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n"
