"""Embedding by a server: what leaves on the wire, what comes back, and what is refused."""

import asyncio
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedding_wire import KEY, WIDTH, EmbeddingWire, vector

import arawn_llm
from arawn_llm import Embedder, errors
from arawn_llm.embeddings import VectorCache

BASES = {"openai": "/v1", "ollama": "", "custom": "/v1"}


@pytest.fixture
def wire() -> Iterator[EmbeddingWire]:
    server = EmbeddingWire()
    yield server
    server.stop()


@pytest.fixture
def make(wire: EmbeddingWire, tmp_path: Path) -> Callable[..., Embedder]:
    def make(provider: str, lines: str = "", **options: Any) -> Embedder:
        path = tmp_path / f"{provider}.toml"
        path.write_text(
            f'[embedding]\nprovider = "{provider}"\n[embedding.{provider}]\nmodel = "some-model"\n'
            f'base_url = "{wire.origin}{BASES[provider]}"\napi_key = "{KEY}"\n{lines}\n'
        )
        return arawn_llm.get_embedder(config=arawn_llm.load_config(path), **options)

    return make


def embed(embedder: Embedder, texts: Any, **options: Any) -> np.ndarray:
    return embedder.embed(texts, **options)


def aembed(embedder: Embedder, texts: Any, **options: Any) -> np.ndarray:
    async def ask() -> np.ndarray:
        try:
            return await embedder.aembed(texts, **options)
        finally:
            await arawn_llm.aclose()

    return asyncio.run(ask())


both = pytest.mark.parametrize("ask", [embed, aembed])
each_provider = pytest.mark.parametrize("provider", BASES)


@both
@each_provider
def test_rows_come_in_the_order_of_the_texts(
    ask: Callable[..., Any], provider: str, make: Callable[..., Embedder], wire: EmbeddingWire
) -> None:
    texts = [f"text {i}" for i in range(300)]
    found = ask(make(provider), texts)
    assert found.dtype == np.float32 and found.shape == (300, WIDTH)
    np.testing.assert_allclose(found, [vector(text) for text in texts], rtol=1e-6)
    assert {path for path, _, _ in wire.seen} == {"/api/embed" if provider == "ollama" else "/v1/embeddings"}


@both
@each_provider
def test_one_text_gives_one_vector_and_none_gives_no_row(
    ask: Callable[..., Any], provider: str, make: Callable[..., Embedder]
) -> None:
    embedder = make(provider)
    assert ask(embedder, "one").shape == (WIDTH,)
    assert ask(embedder, []).shape == (0, WIDTH)
    assert ask(embedder, (text for text in ["a", "b"])).shape == (2, WIDTH)
    assert embedder.dimensions == WIDTH


@both
def test_a_text_is_sent_once_however_often_it_comes(
    ask: Callable[..., Any], make: Callable[..., Embedder], wire: EmbeddingWire
) -> None:
    found = ask(make("openai"), ["a", "b", "a"])
    assert sorted(wire.texts) == ["a", "b"]
    np.testing.assert_array_equal(found[0], found[2])


@both
@pytest.mark.parametrize("fault", ["reverse", "floats"])
def test_an_answer_may_be_in_another_order_or_form(
    ask: Callable[..., Any], fault: str, make: Callable[..., Embedder], wire: EmbeddingWire
) -> None:
    wire.always = fault
    texts = ["a", "b", "c"]
    np.testing.assert_allclose(ask(make("openai"), texts), [vector(text) for text in texts], rtol=1e-6)
    assert wire.seen[0][2]["encoding_format"] == "base64"


@both
@pytest.mark.parametrize(
    ("fault", "words"), [("width", "vectors of [5] dimensions, not 4"), ("short", "2 vectors for 3 texts")]
)
@pytest.mark.parametrize("provider", ["openai", "ollama"])
def test_a_wrong_answer_is_refused(
    ask: Callable[..., Any],
    provider: str,
    fault: str,
    words: str,
    make: Callable[..., Embedder],
    wire: EmbeddingWire,
) -> None:
    wire.always = fault
    with pytest.raises(errors.BackendServerError) as caught:
        ask(make(provider, "dimensions = 4"), ["a", "b", "c"])
    assert words in str(caught.value)
    assert wire.seen[0][2]["dimensions"] == 4


@both
def test_one_failing_batch_of_ten_is_sent_again_alone(
    ask: Callable[..., Any], make: Callable[..., Embedder], wire: EmbeddingWire
) -> None:
    wire.faults = {9: "500"}
    texts = [f"text {i}" for i in range(320)]
    np.testing.assert_allclose(ask(make("custom"), texts), [vector(text) for text in texts], rtol=1e-6)
    assert len(wire.seen) == 11 and len(wire.texts) == 352


@both
def test_a_batch_that_fails_for_good_loses_no_other(
    ask: Callable[..., Any], make: Callable[..., Embedder], wire: EmbeddingWire, tmp_path: Path
) -> None:
    wire.faults = {19: "400"}
    texts = [f"text {i}" for i in range(640)]
    cache = VectorCache(tmp_path / "cache.sqlite3")
    with pytest.raises(errors.InvalidRequestError) as caught:
        ask(make("custom", cache=cache), texts)
    found = caught.value.vectors
    np.testing.assert_allclose(list(found.values()), [vector(texts[i]) for i in found], rtol=1e-6)
    kept = len(cache.get("custom|" + wire.origin + "/v1|some-model|None|document", texts))
    assert kept == len(found) >= 18 * 32
    wire.seen.clear()
    wire.faults.clear()
    ask(make("custom", cache=cache), texts)
    assert len(wire.texts) == 640 - kept


@both
@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["a", "", "b", " "], "texts 1, 3"),
        (["a", "word " * 9000], "text 1"),
        (["a", 7], "text 1 is no string but int"),
        (["\ud800"], "half of a surrogate pair"),
    ],
)
def test_what_cannot_be_embedded_is_named_before_anything_is_sent(
    ask: Callable[..., Any], texts: list[Any], words: str, make: Callable[..., Embedder], wire: EmbeddingWire
) -> None:
    with pytest.raises(errors.InvalidRequestError, match=words):
        ask(make("openai"), texts)
    assert not wire.seen


def test_a_long_text_is_cut_or_split_where_one_says_so(
    make: Callable[..., Embedder], wire: EmbeddingWire
) -> None:
    text = "word " * 9000
    make("openai", overflow="truncate").embed(text)
    assert len(wire.texts) == 1 and text.startswith(wire.texts[0]) and len(wire.texts[0]) > 5 * 8000
    wire.seen.clear()
    found = make("openai", overflow="split").embed(["a", text])
    assert "".join(wire.texts) == "a" + text
    assert np.linalg.norm(found[1]) == pytest.approx(1)
    np.testing.assert_allclose(found[0], vector("a"), rtol=1e-6)


@both
def test_ollama_is_told_to_refuse_a_text_that_is_too_long(
    ask: Callable[..., Any], make: Callable[..., Embedder], wire: EmbeddingWire
) -> None:
    wire.limit = 10
    with pytest.raises(errors.ContextWindowError):
        ask(make("ollama"), "longer than ten")
    ask(make("ollama", overflow="truncate"), "longer than ten")
    assert [body["truncate"] for _, _, body in wire.seen] == [False, True]


def test_requests_stay_within_the_limits_of_the_provider(
    make: Callable[..., Embedder], wire: EmbeddingWire
) -> None:
    make("openai").embed([f"{i} " + "x" * 7000 for i in range(100)])
    assert len(wire.texts) == 100
    assert max(sum(map(len, body["input"])) for _, _, body in wire.seen) <= 300_000


@both
@each_provider
def test_a_refused_key_is_an_authentication_error_without_the_key(
    ask: Callable[..., Any], provider: str, make: Callable[..., Embedder], wire: EmbeddingWire
) -> None:
    wire.always = "401"
    with pytest.raises(errors.AuthenticationError) as caught:
        ask(make(provider), "a secret text that nobody repeats")
    shown = "".join(traceback.format_exception(caught.value, chain=True)) + repr(caught.value.__dict__)
    assert KEY not in shown and "secret text" not in str(caught.value)
    assert len(wire.seen) == 1


@both
@pytest.mark.parametrize("provider", ["openai", "custom"])
def test_the_key_is_sent_to_the_address_of_the_file_only(
    ask: Callable[..., Any], provider: str, make: Callable[..., Embedder], wire: EmbeddingWire, monkeypatch: Any
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_ORGANIZATION", "org-1")
    ask(make(provider), "a")
    _, headers, _ = wire.seen[0]
    assert headers["authorization"] == f"Bearer {KEY}" and "openai-organization" not in headers


@each_provider
def test_a_found_file_cannot_send_a_key_elsewhere(
    provider: str, write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    table = f'[embedding]\nprovider = "{provider}"\n[embedding.{provider}]\nmodel = "m"\n'
    write("work/arawn.toml", table + 'base_url = "https://elsewhere.example/v1"\n')
    with pytest.raises(errors.ConfigError, match=r"elsewhere\.example"):
        arawn_llm.get_embedder()
    arawn_llm.reload()
    write("work/arawn.toml", table + 'base_url = "http://127.0.0.1:9/v1"\n')
    assert arawn_llm.get_embedder().model == "m"


def test_a_profile_may_embed(wire: EmbeddingWire, write: Callable[[str, str], Path]) -> None:
    path = write(
        "a.toml",
        '[embedding]\nprovider = "vectors"\n[llm.vectors]\nbackend = "custom"\nmodel = "m"\n'
        f'base_url = "{wire.origin}/v1"\ntemperature = 0.5\nmax_tokens = 5\n'
        '[llm.claude]\nbackend = "anthropic"\n',
    )
    config = arawn_llm.load_config(path)
    np.testing.assert_allclose(arawn_llm.get_embedder(config=config).embed("a"), vector("a"), rtol=1e-6)
    assert wire.seen[0][2] == {"model": "m", "input": ["a"]}
    with pytest.raises(errors.ConfigError, match="Anthropic has no embeddings"):
        arawn_llm.get_embedder("claude", config=config)
    with pytest.raises(errors.ProfileNotFoundError, match='did you mean "vectors"'):
        arawn_llm.get_embedder("vektors", config=config)


@both
@each_provider
def test_nobody_but_us_tries_again(
    ask: Callable[..., Any], provider: str, wire: EmbeddingWire, write: Callable[[str, str], Path]
) -> None:
    wire.always = "500"
    table = f'[llm.v]\nbackend = "{provider}"\nmodel = "m"\nbase_url = "{wire.origin}{BASES[provider]}"\n'
    path = write("a.toml", table + f'api_key = "{KEY}"\nretry_max = 1\nretry_backoff_ms = 1\n')
    with pytest.raises(errors.BackendServerError):
        ask(arawn_llm.get_embedder("v", config=arawn_llm.load_config(path)), "a")
    assert len(wire.seen) == 2


@both
@each_provider
def test_a_server_that_never_answers_ends_with_the_timeout(
    ask: Callable[..., Any], provider: str, wire: EmbeddingWire, write: Callable[[str, str], Path]
) -> None:
    wire.always = "hang"
    table = f'[llm.v]\nbackend = "{provider}"\nmodel = "m"\nbase_url = "{wire.origin}{BASES[provider]}"\n'
    path = write("a.toml", table + f'api_key = "{KEY}"\ntimeout = 0.4\nretry_max = 0\n')
    with pytest.raises(errors.BackendTimeoutError):
        ask(arawn_llm.get_embedder("v", config=arawn_llm.load_config(path)), "a")


def test_a_custom_server_needs_an_address_and_a_model(write: Callable[[str, str], Path]) -> None:
    path = write("a.toml", '[embedding]\nprovider = "custom"\n[embedding.custom]\nmodel = "m"\n')
    with pytest.raises(errors.ConfigError, match=r"a\.toml:3: \[embedding\.custom\] needs a base_url"):
        arawn_llm.get_embedder(config=arawn_llm.load_config(path))
