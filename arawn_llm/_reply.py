"""From LiteLLM's response to ours."""

from __future__ import annotations

import json
from typing import Any

from arawn_llm import _litellm
from arawn_llm._completion import Completion, ToolCall, Usage
from arawn_llm._resolve import Target


def read_completion(response: Any, target: Target) -> Completion | None:
    """Turn LiteLLM's `ModelResponse` to a target into ours; None if it holds no answer."""
    if not getattr(response, "choices", None):
        return None
    choice, usage = response.choices[0], getattr(response, "usage", None)
    message = choice.message
    calls = tuple(_tool_call(call) for call in message.tool_calls or ())
    reasoning = vars(message).get("reasoning_content") or ""
    if not (message.content or calls or reasoning) and choice.finish_reason in {None, "stop"}:
        return None
    counts = Usage(getattr(usage, "prompt_tokens", 0) or 0, getattr(usage, "completion_tokens", 0) or 0)
    return Completion(
        text=message.content or "",
        tool_calls=calls,
        reasoning=reasoning,
        finish_reason=choice.finish_reason or "stop",
        model=(response.model or "").removeprefix(target.provider.prefix) or target.model,
        backend=target.provider.key,
        profile=target.name,
        usage=counts,
        cost=_price(target, counts),
        raw=response,
    )


def _price(target: Target, usage: Usage) -> float | None:
    if target.provider.price_prefix is None:
        return 0.0
    prices = _litellm.find_prices(target.provider.price_prefix + target.model)
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
