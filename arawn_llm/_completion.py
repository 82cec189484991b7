"""What a backend gives back: frozen results that hold no connection and no secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Usage:
    """Count the tokens of one call, as the backend reported them (0 where it did not)."""

    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Add input and output tokens."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True)
class ToolCall:
    """Ask the application to call one of its tools.

    Attributes:
        id: The backend's name for this call, to be given back as `tool_call_id`.
        name: The tool's name.
        arguments: The parsed arguments; empty where the model wrote no valid JSON object.
        arguments_text: The arguments as the model wrote them.
    """

    id: str
    name: str
    arguments: Mapping[str, Any]
    arguments_text: str = "{}"


@dataclass(frozen=True)
class Completion:
    """Hold a whole answer.

    Attributes:
        text: The answer's text; empty when the model only calls tools.
        tool_calls: The tools that the model asks to be called.
        parsed: An instance of `response_model`, if one was given.
        reasoning: The model's visible reasoning, where the backend sends it.
        finish_reason: "stop", "length", "tool_calls" or "content_filter".
        model: The model that answered.
        backend: The backend key.
        profile: The profile's name.
        usage: Token counts.
        cost: US dollars by LiteLLM's price list, 0.0 for a local backend, None if unknown.
        raw: LiteLLM's `ModelResponse`, untouched.
    """

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    parsed: Any = None
    reasoning: str = ""
    finish_reason: str = "stop"
    model: str = ""
    backend: str = ""
    profile: str = ""
    usage: Usage = Usage()
    cost: float | None = None
    raw: Any = field(default=None, repr=False, compare=False)
