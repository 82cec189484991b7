"""What to check when something fails, for each error; `{…}` is filled from the profile."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from arawn_llm import errors

HINTS: Mapping[type[errors.ArawnError], tuple[str, ...]] = MappingProxyType(
    {
        errors.MissingCredentialError: (
            "store it in the system keyring: arawn secrets set {backend}",
            "or set it in the environment: export {env_var}=…",
            'or, least safe, write api_key = "…" in the profile',
        ),
        errors.LoginRequiredError: (
            "log in: arawn auth",
            "or give a bearer token that you may use here: export {env_var}=…",
            'or use backend = "anthropic" with an API key',
        ),
        errors.AuthenticationError: (
            "the key used came from {key_source}: is it current, and whole?",
            "is it a key for {display_name} at {base_url}?",
            "may this account use model {model}?",
        ),
        errors.ModelNotAvailableError: (
            'is model = "{model}" spelled as {display_name} spells it, and not retired?',
            "does this account have access to it?",
            "does base_url = {base_url} end where the API begins?",
        ),
        errors.BackendConnectionError: (
            "is base_url = {base_url} right, and is this machine online?",
            "does a proxy or firewall stand between (HTTPS_PROXY, NO_PROXY)?",
        ),
        errors.BackendTimeoutError: (
            "give it longer: timeout = … (seconds) in {place}",
            "ask for less: max_tokens, a shorter prompt, a smaller model",
        ),
        errors.RateLimitError: (
            "wait and try again, or raise retry_max and retry_backoff_ms in {place}",
            "does the account have quota and credit left at {display_name}?",
        ),
        errors.ContextWindowError: (
            "shorten the prompt or the conversation",
            "choose a model with a larger context window; max_context_tokens in {place} says what is used",
        ),
        errors.InvalidRequestError: (
            "do the parameters in {place} suit model {model}?",
            "a parameter that the model refuses can be dropped: params = {{ drop_params = true }}",
        ),
        errors.ResponseFormatError: (
            "raise max_tokens if the answer was cut",
            "say in the prompt what the fields mean, or choose a stronger model",
        ),
        errors.StreamInterruptedError: (
            "the text that came is kept (in Python: error.partial)",
            "try again; if it happens at the same place, look at the server's log",
        ),
        errors.StreamTimeoutError: (
            "the text that came is kept (in Python: error.partial)",
            "give it longer: timeout = … (seconds) in {place}",
        ),
        errors.BackendServerError: (
            "try again in a minute; {display_name} may have a status page",
            "does base_url = {base_url} lead to {display_name}'s API and not to a web page?",
        ),
    }
)

OLLAMA: Mapping[type[errors.ArawnError], tuple[str, ...]] = {
    errors.BackendConnectionError: (
        "is Ollama running? start it: ollama serve",
        "is base_url = {base_url} its address (OLLAMA_HOST on its side)?",
    ),
    errors.ModelNotAvailableError: (
        "fetch the model: ollama pull {model}",
        "what there is: ollama list",
        "does base_url = {base_url} lead to Ollama?",
    ),
    errors.AuthenticationError: (
        "the key used came from {key_source}: is it current, and whole?",
        'Ollama asks for no key: another server answers there, perhaps; then backend = "custom"',
    ),
}

CUSTOM: Mapping[type[errors.ArawnError], tuple[str, ...]] = {
    errors.BackendConnectionError: (
        "is the server running, and is base_url = {base_url} its address, /v1 included?",
    ),
}

LOGIN: Mapping[type[errors.ArawnError], tuple[str, ...]] = {
    errors.AuthenticationError: (
        "the token came from {key_source}: log in again: arawn auth",
        "does {base_url} accept this issuer's tokens?",
        "may this login use model {model}?",
    ),
}
