"""Keys: keyring before environment before file, and every way in which a keyring can be missing."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import keyring
import pytest
from conftest import Items
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked
from pydantic import SecretStr

import arawn_llm
from arawn_llm import errors
from arawn_llm._secrets import FoundKey, Keyring, find_key

FILE = SecretStr("from-the-file")


class Stored(KeyringBackend):
    """A keyring as a system gives it: passwords by service and user name, or a way to fail."""

    priority = 1.0  # type: ignore[assignment]

    def __init__(self, answer: Callable[[str], str | None]) -> None:
        self.asked: list[str] = []
        self.answer = answer

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError

    def get_password(self, service: str, username: str) -> str | None:
        assert service == "arawn"
        self.asked.append(username)
        return self.answer(username)


@pytest.fixture
def install() -> Iterator[Callable[[Callable[[str], str | None]], Stored]]:
    before = keyring.get_keyring()

    def install(answer: Callable[[str], str | None]) -> Stored:
        stored = Stored(answer)
        keyring.set_keyring(stored)
        arawn_llm.reload()
        return stored

    yield install
    keyring.set_keyring(before)
    arawn_llm.reload()


def find(profile: str = "fast") -> FoundKey | None:
    return find_key("groq_api_key", "GROQ_API_KEY", profile, FILE)


def value(found: FoundKey | None) -> str:
    assert found is not None
    return found.value.get_secret_value()


def test_a_profiles_own_key_comes_before_its_backends(install: Callable[..., Stored]) -> None:
    install({"groq_api_key": "backend", "groq_api_key:fast": "own"}.get)
    assert (value(find("fast")), value(find("slow"))) == ("own", "backend")


def test_the_keyring_comes_before_the_environment(
    install: Callable[..., Stored], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "environment")
    install({"groq_api_key": "stored"}.get)
    assert value(find()) == "stored"


def test_the_environment_comes_before_the_file(
    install: Callable[..., Stored], monkeypatch: pytest.MonkeyPatch
) -> None:
    install({}.get)
    assert value(find()) == "from-the-file"
    monkeypatch.setenv("GROQ_API_KEY", "  environment \n")
    found = find()
    assert value(found) == "environment" and found and found.source == "the environment (GROQ_API_KEY)"


def test_a_locked_keyring_is_asked_once_and_passed_over(install: Callable[..., Stored]) -> None:
    def locked(username: str) -> str | None:
        raise KeyringLocked("no")

    stored = install(locked)
    assert value(find()) == value(find()) == "from-the-file"
    assert len(stored.asked) == 1


def test_a_keyring_that_never_answers_is_left(install: Callable[..., Stored]) -> None:
    release = threading.Event()
    install(lambda username: str(release.wait(20)))
    ring = Keyring(limit=0.05)
    assert ring.get("groq_api_key") is None and ring.failure == "no answer within 0.05 s"
    release.set()


def test_an_event_loop_goes_on_while_the_keyring_thinks(
    install: Callable[..., Stored], write: Callable[[str, str], Path]
) -> None:
    thinking, release = threading.Event(), threading.Event()

    def think(username: str) -> str:
        thinking.set()
        return "key" if release.wait(20) else "late"

    install(think)
    backend = arawn_llm.get_backend(config=arawn_llm.load_config(write("a.toml", '[llm]\nbackend = "groq"\n')))

    async def ask() -> str:
        asked = asyncio.create_task(backend._credential.atoken())
        while not thinking.is_set():
            await asyncio.sleep(0)
        release.set()
        return await asked

    assert asyncio.run(ask()) == "key"


def test_a_stored_key_is_the_only_one_of_its_name(ring: Items) -> None:
    ring.items.append(("another tool's groq_api_key", "old"))
    assert Keyring().put("groq_api_key", SecretStr("new")) == ""
    assert ring.items == [("own groq_api_key", "new")]


def test_every_copy_of_a_key_is_deleted(ring: Items) -> None:
    ring.items += [("another tool's groq_api_key", "old"), ("own groq_api_key", "new"), ("own other", "kept")]
    assert (Keyring().delete("groq_api_key"), Keyring().delete("groq_api_key")) == (2, 0)
    assert ring.items == [("own other", "kept")]


def test_a_keyring_that_cannot_be_emptied_is_an_error(ring: Items) -> None:
    ring.failure = KeyringLocked("no")
    with pytest.raises(errors.CredentialError, match="KeyringLocked"):
        Keyring().delete("groq_api_key")


def test_a_keyring_that_keeps_nothing_is_noticed(install: Callable[..., Stored]) -> None:
    assert Keyring().put("name", SecretStr("x")) == "keyring.backends.null keeps nothing"
    install({}.get)
    assert Keyring().put("name", SecretStr("x")) == "NotImplementedError"


def test_a_keyring_without_encryption_is_not_written_to_unasked(ring: Items) -> None:
    class Plain(Items):
        pass

    Plain.__module__ = "keyrings.alt.file"
    keyring.set_keyring(Plain())
    assert Keyring().put("name", SecretStr("x")) == "keyrings.alt.file does not encrypt"
    assert Keyring().put("name", SecretStr("x"), plaintext=True) == ""


def test_a_key_that_no_header_can_carry_is_refused_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "sk-a\nb")
    with pytest.raises(errors.CredentialError) as caught:
        find()
    assert "sk-a" not in str(caught.value)


def test_a_key_shows_nowhere() -> None:
    assert "from-the-file" not in repr(find())
