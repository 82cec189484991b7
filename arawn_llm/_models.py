"""What a provider serves: its own list of models, with window and price where LiteLLM knows them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from arawn_llm import _call, _litellm, errors
from arawn_llm._credentials import TokenProvider
from arawn_llm._providers import NO_KEY
from arawn_llm._resolve import Target


@dataclass(frozen=True)
class Model:
    """One model that a provider lists.

    Attributes:
        name: Its name, as a profile spells it.
        context_window: Tokens; None where nobody says.
        input_price: US dollars for a million tokens; None where unknown.
        output_price: Likewise.
    """

    name: str
    context_window: int | None = None
    input_price: float | None = None
    output_price: float | None = None


@dataclass(frozen=True)
class Listing:
    """What a provider answered: its models, and how far its clock is ahead of ours in seconds."""

    names: tuple[str, ...]
    clock_ahead: float = 0.0

    def holds(self, model: str) -> bool:
        """Tell whether a model is listed, under its name, a dated one, or Ollama's `latest`."""
        return any(name in {model, f"{model}:latest"} or name.startswith(f"{model}-20") for name in self.names)


def list_names(target: Target, credential: TokenProvider, timeout: float = 10.0) -> Listing:
    """Ask a provider which models it serves.

    Raises:
        CredentialError: The key is missing.
        BackendError: The provider refused, or did not answer.
    """
    call = _call.plan_question(target, credential, timeout)
    body, headers = _ask(call, target.provider.models_path)
    found = body.get("data", body.get("models")) if isinstance(body, Mapping) else None
    if not isinstance(found, list):
        raise call.error(errors.BackendServerError, f"{target.provider.display_name} gave no list of models")
    names = (each.get("id") or each.get("name") for each in found if isinstance(each, Mapping))
    return Listing(tuple(sorted(name for name in names if isinstance(name, str))), read_clock(headers))


def list_models(target: Target, credential: TokenProvider, timeout: float = 10.0) -> list[Model]:
    """List the models that a provider serves, with what LiteLLM knows of them; raises as `list_names`."""
    names = list_names(target, credential, timeout).names
    prices = _litellm.load().model_cost
    prefix = target.provider.price_prefix
    return [_describe(name, prices.get(f"{prefix}{name}") or {}, free=prefix is None) for name in names]


def find_mode(target: Target) -> str | None:
    """Say what a model is for by LiteLLM's list, such as "chat" or "embedding"; None where it is not there."""
    prefix = target.provider.price_prefix
    facts = {} if prefix is None else _litellm.find_prices(f"{prefix}{target.model}")
    return facts.get("mode")


def find_context_length(target: Target, credential: TokenProvider, timeout: float = 10.0) -> int | None:
    """Ask an Ollama server how long a context its model was made for; None where it does not say."""
    call = _call.plan_question(target, credential, timeout)
    body, _ = _ask(call, "/api/show", {"model": target.model})
    facts = body.get("model_info", {}) if isinstance(body, Mapping) else {}
    lengths = [value for key, value in facts.items() if key.endswith(".context_length")]
    return int(lengths[0]) if lengths else None


def _ask(call: _call.Call, path: str, body: Mapping[str, Any] | None = None) -> tuple[Any, Mapping[str, str]]:
    from arawn_llm import _clients

    target = call.target
    try:
        return _clients.ask_json(target.base_url + path, _headers(call), call.timeout, body)
    except (ImportError, OSError, ValueError, _clients.HTTPError) as exc:
        error = call.translate(exc)
        status = error.status_code or 200
        if status == 404 or 300 <= status < 400:
            words = "has nothing at" if status == 404 else f"sends elsewhere ({status}) who asks at"
            like = f", as {target.provider.base_url} does" if target.provider.base_url else ", /v1 included"
            hint = f"does base_url = {target.base_url} end where the API begins{like}?"
            error = call.error(
                errors.InvalidRequestError, f"{target.provider.display_name} {words} {target.base_url}{path}"
            )
            error.hints, error.status_code = (hint,), status
        elif isinstance(error, errors.BackendServerError) and error.status_code is None:
            error.hints = error.hints[::-1]  # a web page, most likely
        elif isinstance(error, errors.BackendTimeoutError):
            error.hints = target.hints(errors.BackendConnectionError)
        raise error from exc


def _headers(call: _call.Call) -> dict[str, str]:
    provider, headers = call.target.provider, dict(call.target.provider.fixed_headers)
    headers |= {name: value.get_secret_value() for name, value in call.target.profile.headers.items()}
    token = call.token()
    if token != NO_KEY:
        headers |= {provider.key_header: token} if provider.key_header else {"authorization": f"Bearer {token}"}
    return headers


def read_clock(headers: Mapping[str, str]) -> float:
    """Give how many seconds the clock of who answered is ahead of ours; 0.0 where it does not say."""
    try:
        return parsedate_to_datetime(headers.get("date", "")).timestamp() - time.time()
    except ValueError:
        return 0.0


def _describe(name: str, facts: Mapping[str, Any], *, free: bool) -> Model:
    into, out = facts.get("input_cost_per_token"), facts.get("output_cost_per_token")
    return Model(
        name,
        facts.get("max_input_tokens") or facts.get("max_tokens"),
        0.0 if free else into and 1e6 * into,
        0.0 if free else out and 1e6 * out,
    )
