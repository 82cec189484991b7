"""Keys: keyring before environment before file, and every way in which a keyring can be missing."""

import threading
from collections.abc import Callable, Iterator

import keyring
import pytest
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


def test_a_key_that_no_header_can_carry_is_refused_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "sk-a\nb")
    with pytest.raises(errors.CredentialError) as caught:
        find()
    assert "sk-a" not in str(caught.value)


def test_a_key_shows_nowhere() -> None:
    assert "from-the-file" not in repr(find())
