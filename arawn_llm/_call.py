"""One call's plan and its errors: what the sync and async twins share. Pure but for the clock."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from arawn_llm import _faults, _litellm, _messages, _reply, errors
from arawn_llm._completion import Completion
from arawn_llm._credentials import TokenProvider
from arawn_llm._litellm import Request
from arawn_llm._resolve import Target
from arawn_llm._schema import RESERVED_PARAMS
from arawn_llm.errors import BackendError

_log = logging.getLogger("arawn_llm")
_LONGEST_WAIT = 60.0  # seconds; a longer Retry-After is left to the caller, in the error


@dataclass
class Call:
    """Hold everything of one call under way but its key.

    Attributes:
        timeout: Seconds for everything together.
        end: When the time is up, by `time.monotonic()`.
        outer: What the caller was handling when it called; it explains nothing of this call.
        _tries: How many tries failed, beyond the one that only refreshed a token.
        _used: The tokens sent so far.
    """

    target: Target
    credential: TokenProvider = field(repr=False)
    request: Request
    timeout: float
    end: float = math.inf
    response_model: type[BaseModel] | None = None
    outer: BaseException | None = field(default=None, repr=False)
    _tries: int = 0
    _refreshed: bool = False
    _used: list[SecretStr] = field(default_factory=list, repr=False)

    def begin(self) -> None:
        """Start the clock: all of the call has to be done within its timeout from now on."""
        _log.debug("asking within %g s, with %s", self.timeout, list(self.request.params))
        self.end, self._tries, self._refreshed = time.monotonic() + self.timeout, 0, False

    def token(self) -> str:
        """Give the token for one try, and remember it, to blank it out of what a server says."""
        within = getattr(self.credential, "token_within", None)
        self._used.append(SecretStr(within(self.end - time.monotonic()) if within else self.credential.token()))
        return self._used[-1].get_secret_value()

    async def atoken(self) -> str:
        """Give the token for one try; the async twin of `token`."""
        async with asyncio.timeout(self.end - time.monotonic()):
            self._used.append(SecretStr(await self.credential.atoken()))
        return self._used[-1].get_secret_value()

    def finish(self, response: Any) -> Completion:
        """Turn LiteLLM's response into a completion.

        Raises:
            BackendServerError: The response holds no answer.
            ResponseFormatError: The answer does not fit `response_model`.
        """
        completion = _reply.read_completion(response, self.target)
        if completion is None:
            words = f"{self.target.provider.display_name} answered without an answer"
            raise self.error(errors.BackendServerError, words)
        return self.parse(completion)

    def parse(self, completion: Completion) -> Completion:
        """Parse an answer where a model was given.

        Raises:
            ResponseFormatError: The answer does not fit `response_model`.
        """
        if self.response_model is None or completion.tool_calls:
            return completion
        return replace(completion, parsed=self._parse(completion, self.response_model))

    def _parse(self, completion: Completion, model: type[BaseModel]) -> BaseModel:
        text = completion.text.strip()
        if text.startswith("```"):
            text = text.strip("`").removeprefix("json").strip()
        try:
            return model.model_validate_json(text)
        except ValidationError as exc:
            cut = "; it was cut at max_tokens" if completion.finish_reason == "length" else ""
            faults = "; ".join(
                f"{'.'.join(map(str, each['loc'])) or 'answer'}: {each['type']}" for each in exc.errors()[:3]
            )
            error = self.error(
                errors.ResponseFormatError, f"the answer does not fit {model.__name__} ({faults}){cut}"
            )
            error.text = completion.text  # type: ignore[attr-defined]
            raise error from exc

    def error(self, kind: type[BackendError], message: str) -> BackendError:
        """Make an error that knows whom it is about and what to check."""
        source = getattr(self.credential, "source", "the application's own token provider")
        unsent = kind is errors.AuthenticationError and source.startswith("nowhere")
        hints = self.target.hints(errors.MissingCredentialError if unsent else kind, key_source=source)
        if unsent:
            own = self.target.hints(kind, key_source=source)[1:] if kind in self.target.provider.hints else ()
            hints = ("no key was sent", *hints, *own)
        error = kind(message, hints=hints)
        error.backend, error.profile, error.model = (
            self.target.provider.key,
            self.target.name,
            self.target.model,
        )
        return error

    def translate(self, exc: BaseException, partial: str | None = None) -> BackendError:
        """Name what went wrong below; `partial` is the text that had come, None before a stream began."""
        fault = _faults.diagnose(exc, self.target.provider.overflow_texts, self.outer)
        hidden = [*_texts(self.request.messages), *(token.get_secret_value() for token in self._used)]
        fault = replace(fault, detail=_faults.redact(fault.detail, hidden))
        _faults.clean(exc, self.outer, hidden)
        late = time.monotonic() >= self.end
        if partial is None:
            if late and not fault.detail:
                fault = replace(fault, kind=errors.BackendTimeoutError, status_code=None)
            error = self.error(fault.kind, self._message(fault))
            error.status_code = fault.status_code
        else:
            kind = errors.StreamTimeoutError if late else errors.StreamInterruptedError
            error = self.interrupted(partial, kind, fault.detail or self._message(fault))
        if partial is None:
            error.hints = (*self._causes(fault), *error.hints, *self._said(fault))
        error.retry_after, error.request_id = fault.retry_after, fault.request_id
        return error

    def _causes(self, fault: _faults.Fault) -> list[str]:
        """Name what is known of the cause, which comes before what may be checked."""
        if fault.kind is not errors.BackendConnectionError:
            return []
        proxy = _faults.name_proxy(self.target.base_url)
        through = f"this went through the proxy at {proxy}; NO_PROXY names hosts that need none"
        return [*([fault.cause] if fault.cause else []), *([through] if proxy else [])]

    def _said(self, fault: _faults.Fault) -> list[str]:
        """Quote the backend where the message has no room for it; at 401 it may say pieces of the key."""
        quoted = fault.kind in {errors.AuthenticationError, errors.ModelNotAvailableError}
        if not quoted or not fault.detail or fault.status_code in {None, 401}:
            return []
        return [f"{self.target.provider.display_name} said: {fault.detail}"]

    def interrupted(
        self,
        partial: str,
        kind: type[BackendError] = errors.StreamInterruptedError,
        why: str = "it ended without its proper end",
    ) -> BackendError:
        """Make the error for a stream that broke, with the text that had come."""
        error = self.error(kind, f"The stream from {self.target.provider.display_name} was interrupted: {why}")
        error.partial = partial  # type: ignore[attr-defined]
        return error

    def _message(self, fault: _faults.Fault) -> str:
        target, display = self.target, self.target.provider.display_name
        exact = {
            errors.AuthenticationError: f'Authentication failed for backend "{target.provider.key}"',
            errors.ModelNotAvailableError: f'Model "{target.model}" not available',
            errors.BackendConnectionError: f"Cannot connect to {display} at {target.base_url}",
            errors.BackendTimeoutError: f"{display} did not answer within {self.timeout:g} s",
            errors.ContextWindowError: f'The prompt does not fit the context window of model "{target.model}"',
        }.get(fault.kind)
        if exact:
            return exact
        words = {errors.RateLimitError: "limits the rate", errors.InvalidRequestError: "refused the request"}
        status = f" ({fault.status_code})" if fault.status_code else ""
        said = f": {fault.detail}" if fault.detail else ""
        return f"{display} {words.get(fault.kind, 'failed to answer')}{status}{said}"

    def delay(self, error: BackendError) -> float | None:
        """Say how many seconds to wait after a failed try; None where another makes no sense."""
        if isinstance(error, errors.AuthenticationError) and error.status_code == 401:
            refreshed, self._refreshed = self._refreshed, True
            return 0.0 if not refreshed and self.credential.invalidate() else None
        profile = self.target.profile
        passing = isinstance(error, errors.RateLimitError | errors.BackendConnectionError) or (
            isinstance(error, errors.BackendServerError) and (error.status_code or 0) >= 500
        )
        if not passing or self._tries >= profile.retry_max or _is_refused_certificate(error):
            return None
        backoff = profile.retry_backoff_ms / 1000 * 2**self._tries * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        wait = backoff if error.retry_after is None else error.retry_after
        if wait > _LONGEST_WAIT or time.monotonic() + wait >= self.end:
            return None
        self._tries += 1
        _log.info("trying again in %.1f s: %s", wait, error)
        return wait


def _is_refused_certificate(exc: BaseException | None) -> bool:
    return any("Cert" in type(each).__name__ for each in _faults.walk(exc))


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for key, each in value.items() if key not in {"role", "type"} for text in _texts(each)]
    return [text for each in value for text in _texts(each)] if isinstance(value, list) else []


def plan(
    target: Target,
    credential: TokenProvider,
    prompt: str | Sequence[_messages.Message] | _messages.Said,
    options: Mapping[str, Any],
) -> Call:
    """Put a profile's defaults and a call's options into one request; nothing is sent yet.

    Raises:
        CredentialError: The key is missing or cannot be sent.
        InvalidRequestError: An option or the prompt cannot be used.
        ContextWindowError: The prompt cannot fit `max_context_tokens`.
    """
    own = dict(options)
    system = own.pop("system", None) or getattr(prompt, "system", None) or target.system_prompt
    images = own.pop("images", None) or ()
    messages = _messages.build_messages(prompt, system, images)
    _refuse_unsupported(target, messages, own.get("tool_choice"))
    tools, model = own.pop("tools", None), own.pop("response_model", None)
    timeout = own.pop("timeout", None) or target.profile.timeout
    reserved = sorted(own.keys() & RESERVED_PARAMS.keys())
    if reserved:
        raise errors.InvalidRequestError(
            f"{', '.join(reserved)} cannot be given to a call",
            hints=("write it in the profile, or ask get_backend for another profile or model",),
        )
    params = default_params(target) | {key: value for key, value in own.items() if value is not None}
    if tools:
        params["tools"] = _messages.build_tools(tools)
    if model is not None:
        if target.provider.takes_schema(target.model):
            params["response_format"] = model
        else:
            params["response_format"] = {"type": "json_object"}
            messages = _messages.ask_for_json(messages, model)
    provider = target.provider
    request = Request(
        provider.prefix + target.model,
        target.base_url,
        messages,
        params,
        provider.sdk_client,
        bool(provider.login),
        provider.price_prefix is None,
    )
    call = Call(target, credential, request, timeout, response_model=model, outer=sys.exception())
    _guard_context(call)
    return call


def plan_question(target: Target, credential: TokenProvider, timeout: float) -> Call:
    """Plan a question to a backend that is no chat, such as which models it serves; its clock runs."""
    request = Request(target.model, target.base_url, [], {})
    call = Call(target, credential, request, timeout, outer=sys.exception())
    call.begin()
    return call


def _refuse_unsupported(target: Target, messages: list[dict[str, Any]], tool_choice: object) -> None:
    """Refuse what LiteLLM would drop in silence, or fetch by itself."""
    provider = target.provider
    for url in _messages.find_image_urls(messages):
        scheme = url.partition("://")[0] + "://"
        if scheme in {"http://", "https://"} and scheme not in provider.image_urls:
            raise errors.InvalidRequestError(
                f"{provider.display_name} fetches no {scheme} images",
                hints=("download the image and give its path or its bytes",),
            )
    if tool_choice not in (None, "auto") and not provider.tool_choice:
        raise errors.InvalidRequestError(
            f"{provider.display_name} knows no tool_choice",
            hints=("leave it out, and give only the tools that may be called",),
        )


def default_params(target: Target) -> dict[str, Any]:
    """Give what a profile says of every call, in LiteLLM's words."""
    profile = target.profile
    params = dict(target.provider.params)
    for name in ("temperature", "max_tokens"):
        if getattr(profile, name) is not None:
            params[name] = getattr(profile, name)
    if target.provider.context_param and profile.max_context_tokens:
        params[target.provider.context_param] = profile.max_context_tokens
    if profile.headers:
        params["extra_headers"] = {key: value.get_secret_value() for key, value in profile.headers.items()}
    return params | profile.params


def _guard_context(call: Call) -> None:
    limit = call.target.profile.max_context_tokens
    if limit is None or _messages.count_bytes(call.request.messages) <= limit:
        return
    tokens = _litellm.count_tokens(call.request.messages)
    if tokens > limit:
        words = f"The prompt has about {tokens} tokens; max_context_tokens is {limit}"
        raise call.error(errors.ContextWindowError, words)
