"""What applications hold: a backend that completes and streams, sync and async."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from arawn_llm import _call, _litellm, _messages, _models
from arawn_llm._completion import Completion
from arawn_llm._config import Config, found_config
from arawn_llm._conversation import Conversation
from arawn_llm._credentials import TokenProvider, choose_provider
from arawn_llm._models import Model
from arawn_llm._resolve import Target, resolve
from arawn_llm._retry import aretry, retry
from arawn_llm._stream import AsyncStream, Stream
from arawn_llm.errors import ArawnError, CredentialError

Prompt = str | Sequence[_messages.Message] | Conversation

_log = logging.getLogger("arawn_llm")

# Filled by `arawn_llm.testing.use_backend` only: what stands in for a profile, "agent.NAME", or ("") for all.
_stand_ins: dict[str, Backend] = {}


@dataclass(frozen=True)
class Backend:
    """Talk to one profile's model; immutable, cheap, and shared freely between threads and tasks."""

    _target: Target
    _credential: TokenProvider = field(repr=False, compare=False)

    def __reduce__(self) -> tuple[object, ...]:
        if self._target.profile.api_key or self._target.profile.headers:
            words = "holds a key or headers and is not pickled: call get_backend in the other process"
            raise TypeError(f'profile "{self.name}" {words}')
        return type(self), (self._target, self._credential)

    @property
    def name(self) -> str:
        """Name the profile."""
        return self._target.name

    @property
    def backend(self) -> str:
        """Name the backend key."""
        return self._target.provider.key

    @property
    def model(self) -> str:
        """Name the model."""
        return self._target.model

    @property
    def base_url(self) -> str:
        """Give the address that requests go to."""
        return self._target.base_url

    @property
    def max_context_tokens(self) -> int | None:
        """Give the context window that the profile states, in tokens."""
        return self._target.profile.max_context_tokens

    @property
    def resolved_from(self) -> str:
        """Say how the profile was chosen, such as 'agent.summarizer.llm -> llm.local'."""
        return self._target.resolved_from

    def supports(self, capability: str) -> bool:
        """Tell whether "tools", "streaming", "vision", "json_schema" or "embeddings" can be asked of it."""
        if capability == "json_schema":
            return self._target.provider.takes_schema(self.model)
        return capability in self._target.provider.capabilities

    def count_tokens(self, prompt: Prompt) -> int:
        """Estimate the tokens of a prompt with one tokenizer for all models; nothing is sent."""
        return _litellm.count_tokens(_messages.build_messages(prompt, None, ()))

    def list_models(self, timeout: float = 10.0) -> list[Model]:
        """List what the provider serves, with context window and price where LiteLLM knows them.

        Raises:
            CredentialError: The key is missing.
            BackendError: The provider refused, or did not answer within `timeout` seconds.
        """
        return _models.list_models(self._target, self._credential, timeout)

    def complete(self, prompt: Prompt, **options: Any) -> Completion:
        """Ask and wait for the whole answer.

        Args:
            prompt: A text, a list of OpenAI-style messages, or a `Conversation`, which stays as it is.
            **options: system, images, tools, tool_choice, response_model (a pydantic model), timeout (seconds,
                for everything together), temperature, max_tokens; the rest goes to LiteLLM as it is.

        Raises:
            CredentialError: The key is missing; nothing was sent.
            BackendError: The call failed; its class says how, its hints say what to check.
        """
        return retry(_call.plan(self._target, self._credential, prompt, options), _ask)

    async def acomplete(self, prompt: Prompt, **options: Any) -> Completion:
        """Ask and wait for the whole answer; the async twin of `complete`."""
        return await aretry(_call.plan(self._target, self._credential, prompt, options), _aask)

    def conversation(self, system: str | None = None) -> Conversation:
        """Begin a conversation, kept within the context window."""
        return Conversation(self, system)

    def stream(self, prompt: Prompt, **options: Any) -> Stream:
        """Ask and read the answer as it comes: `with backend.stream("Hello") as stream`.

        Takes the arguments of `complete` and raises the same errors, the call's own while iterating.
        """
        return Stream(_call.plan(self._target, self._credential, prompt, options))

    def astream(self, prompt: Prompt, **options: Any) -> AsyncStream:
        """Ask and read the answer as it comes; the async twin of `stream`."""
        return AsyncStream(_call.plan(self._target, self._credential, prompt, options))


def _ask(call: _call.Call) -> Completion:
    try:  # the token has no name in a frame of ours that an error passes through
        response = _litellm.complete(call.request, call.end, call.token())
    except ArawnError:
        raise
    except Exception as exc:
        raise call.translate(exc) from exc
    return call.finish(response)


async def _aask(call: _call.Call) -> Completion:
    try:
        response = await _litellm.acomplete(call.request, call.end, await call.atoken())
    except ArawnError:
        raise
    except Exception as exc:
        raise call.translate(exc) from exc
    return call.finish(response)


def get_backend(
    name: str | None = None,
    *,
    agent: str | None = None,
    model: str | None = None,
    config: Config | None = None,
    credential: TokenProvider | None = None,
) -> Backend:
    """Choose a backend by profile, by backend key or by agent; the default profile without any.

    Args:
        name: A profile such as "fast" or "memory.indexing", or a backend key such as "ollama".
        agent: The agent that asks; its profile and system prompt apply.
        model: Another model than the profile's.
        config: What `load_config` gave; the files found from the working directory without it.
        credential: Who gives the token for each call; keyring, environment and file without it.

    Raises:
        ConfigError: The file cannot be used, or nothing has that name.
    """
    stand_in = _stand_ins.get(name or (f"agent.{agent}" if agent else "")) or _stand_ins.get("")
    if stand_in is not None:
        return stand_in
    target = resolve(config or found_config(), name, agent)
    if target.name in _stand_ins:
        return _stand_ins[target.name]
    if model:
        target = replace(target, model=model)
    _log.info(
        "%s: backend %s, model %s, %s", target.resolved_from, target.provider.key, target.model, target.base_url
    )
    return Backend(target, credential or choose_provider(target))


async def aclose() -> None:
    """Close the async connections kept open for later calls, as an application's last act in a loop."""
    await _litellm.aclose_clients()


def litellm_params(name: str | None = None, *, agent: str | None = None) -> dict[str, Any]:
    """Give a profile as keyword arguments of `litellm.completion`, its key among them.

    For DSPy, CrewAI, agent kits and others that call LiteLLM by themselves.

    Raises:
        ConfigError: The file cannot be used, or nothing has that name.
        CredentialError: The key is missing, or is a token that LiteLLM by itself would send as a key.
    """
    backend = get_backend(name, agent=agent)
    target = backend._target
    if target.provider.login and not backend._credential.token().startswith(target.provider.bearer_tokens):
        raise CredentialError(
            f'LiteLLM by itself sends the token of backend "{target.provider.key}" as an API key',
            hints=("call through get_backend, or give the other library a key of its own",),
        )
    return {
        "model": target.provider.prefix + target.model,
        "api_base": target.base_url,
        "api_key": backend._credential.token(),
        "timeout": target.profile.timeout,
        **_call.default_params(target),
    }
