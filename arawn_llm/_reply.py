"""From LiteLLM's response to ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from arawn_llm._completion import Completion, ToolCall, Usage


def read_completion(response: Any, prices: Mapping[str, Any] | None) -> Completion | None:
    """Turn LiteLLM's response into ours; None if it holds no answer.

    Args:
        response: A `ModelResponse`.
        prices: What LiteLLM's list says of the model's price; None where calls are free.
    """
    if not getattr(response, "choices", None):
        return None
    choice, usage = response.choices[0], getattr(response, "usage", None)
    message = choice.message
    calls = tuple(_tool_call(call) for call in message.tool_calls or ())
    reasoning = getattr(message, "reasoning_content", None) or ""
    if not (message.content or calls or reasoning) and choice.finish_reason in {None, "stop"}:
        return None
    counts = Usage(getattr(usage, "prompt_tokens", 0) or 0, getattr(usage, "completion_tokens", 0) or 0)
    return Completion(
        text=message.content or "",
        tool_calls=calls,
        reasoning=reasoning,
        finish_reason=choice.finish_reason or "stop",
        model=response.model or "",
        usage=counts,
        cost=0.0 if prices is None else _price(prices, counts),
        raw=response,
    )


def _price(prices: Mapping[str, Any], usage: Usage) -> float | None:
    into, out = prices.get("input_cost_per_token"), prices.get("output_cost_per_token")
    if into is None or out is None:
        return None
    return float(into) * usage.input_tokens + float(out) * usage.output_tokens


def _tool_call(call: Any) -> ToolCall:
    text = call.function.arguments or "{}"
    try:
        arguments = json.loads(text)
    except ValueError:
        arguments = {}
    return ToolCall(
        call.id or "", call.function.name or "", arguments if isinstance(arguments, dict) else {}, text
    )
