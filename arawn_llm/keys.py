"""The keys by name: where each is, how to store one, and how to be rid of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import SecretStr

from arawn_llm._config import Config
from arawn_llm._providers import PROVIDERS, Provider
from arawn_llm._schema import is_header_value, nearest
from arawn_llm._secrets import KEYRING, SERVICE
from arawn_llm.errors import CredentialError

_LONG_ENOUGH = 16  # characters of which four may be shown


@dataclass(frozen=True)
class StoredKey:
    """Say where a key is; `tail` is its last four characters, or nothing of a short one."""

    name: str
    place: str
    tail: str


def resolve_name(config: Config, name: str) -> str:
    """Turn a backend key, a profile or a user name of the keyring into the user name.

    Raises:
        CredentialError: It is none of these; says what there is.
    """
    rows = {row.keyring_name: row for row in _rows()}
    if name in PROVIDERS and PROVIDERS[name] in rows.values():
        return PROVIDERS[name].keyring_name
    profile = config.profiles.get(name)
    if profile is not None:
        return f"{PROVIDERS[profile.backend].keyring_name}:{name}"
    if name.partition(":")[0] in rows:
        return name
    known = [*(row.key for row in rows.values()), *config.profiles]
    raise CredentialError(f'no key is called "{name}"{nearest(name, known)}; there are: {", ".join(known)}')


def store_key(config: Config, name: str, key: SecretStr, *, plaintext: bool = False) -> str:
    """Store a key in the keyring, and give the user name under which it is.

    Args:
        config: What the files say, for the profiles' names.
        name: A backend key, or a profile for a key of its own.
        key: The key; white space around it is stripped.
        plaintext: Store it even where the keyring's backend does not encrypt.

    Raises:
        CredentialError: It cannot be sent as a header, or the keyring cannot keep it.
    """
    user, stripped = resolve_name(config, name), SecretStr(key.get_secret_value().strip())
    if not is_header_value(stripped.get_secret_value()):
        raise CredentialError("this cannot be a key: it is empty, or holds a line break or an odd character")
    failure = KEYRING.put(user, stripped, plaintext=plaintext)
    if failure:
        variable = next(row.env_var for row in _rows() if row.keyring_name == user.partition(":")[0])
        raise CredentialError(
            f"the keyring cannot keep it: {failure}",
            hints=(f"set it in the environment: export {variable}=…", "or unlock or install a keyring"),
        )
    return user


def delete_key(config: Config, name: str) -> tuple[str, int]:
    """Delete every copy of a key from the keyring; give its user name and the number of copies.

    Raises:
        CredentialError: No key is called that, or a copy may be left.
    """
    user = resolve_name(config, name)
    return user, KEYRING.delete(user)


def list_keys(config: Config) -> Iterator[StoredKey]:
    """Yield every key that is stored, by user name of the keyring, variable, or profile."""
    own = [f"{PROVIDERS[p.backend].keyring_name}:{name}" for name, p in config.profiles.items()]
    for user in [*(row.keyring_name for row in _rows()), *own]:
        yield from _found(user, f"the keyring ({SERVICE})", KEYRING.get(user))
    for row in _rows():
        yield from _found(row.env_var, "the environment", SecretStr(os.environ.get(row.env_var, "")))
    for name, profile in config.profiles.items():
        place = str(config.problem((*config.tables[name], "api_key"), "").path)
        yield from _found(".".join((*config.tables[name], "api_key")), place, profile.api_key)


def _found(name: str, place: str, key: SecretStr | None) -> Iterator[StoredKey]:
    if key:
        text = key.get_secret_value().strip()
        yield StoredKey(name, place, text[-4:] if len(text) >= _LONG_ENOUGH else "")


def _rows() -> list[Provider]:
    return [row for row in PROVIDERS.values() if not row.login]
