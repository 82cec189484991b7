"""Embedding on this machine: the vectors themselves, the model's folder, the hub, the cache."""

import asyncio
import hashlib
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_model
from tiny_model import LIMIT, WIDTH, expected

import arawn_llm
from arawn_llm import Embedder, embeddings, errors
from arawn_llm.embeddings import VectorCache

Make = Callable[..., Embedder]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make an embedder of a tiny model: lines of `[embedding.local]`, changes to the model's files."""

    def make(lines: str = "", options: dict[str, Any] | None = None, **files: Any) -> Embedder:
        folder = tiny_model.build(tmp_path / "model", **files)
        path = tmp_path / "a.toml"
        named = "" if "model_path" in lines else f'model_path = "{folder}"\n'
        path.write_text(f"[embedding.local]\n{named}{lines}\n")
        return arawn_llm.get_embedder(config=arawn_llm.load_config(path), **(options or {}))

    return make


TEXTS = ["w1 w2", "w3", "", "w4 " * 9, "unknown w5 w6", "w7 w8 w9", " w1 "]


def test_vectors_are_the_right_ones_in_any_order_and_batch(make: Make) -> None:
    embedder, texts = make(), [" ".join(f"w{(i * j) % 40}" for j in range(i % 11)) for i in range(100)]
    found = embedder.embed(texts)
    assert found.dtype == np.float32 and found.shape == (100, WIDTH)
    np.testing.assert_allclose(found, [expected(text) for text in texts], atol=1e-6)
    np.testing.assert_allclose(found[::-1], embedder.embed(texts[::-1]), atol=1e-6)
    np.testing.assert_allclose(found[:9], [embedder.embed(text) for text in texts[:9]], atol=1e-6)
    np.testing.assert_allclose(found, asyncio.run(embedder.aembed(texts)), atol=1e-6)


def test_nothing_gives_no_row_of_the_right_width(make: Make) -> None:
    assert make().embed([]).shape == (0, WIDTH)
    assert asyncio.run(make().aembed([])).shape == (0, WIDTH)


@pytest.mark.parametrize("pooling", ["cls_token", "max_tokens", "mean_tokens", "lasttoken"])
def test_the_folder_says_how_to_pool_and_whether_to_normalize(make: Make, pooling: str) -> None:
    modules = [{"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    found = make(pooling=pooling, modules=modules).embed(TEXTS)
    mode = pooling.partition("_")[0]
    np.testing.assert_allclose(found, [expected(t, pooling=mode, normalized=False) for t in TEXTS], atol=1e-5)


def test_a_query_gets_the_models_prompt(make: Make) -> None:
    np.testing.assert_allclose(make().embed("w1", kind="query"), expected("query: w1"), atol=1e-6)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"modules": [{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]}, "the module Dense"),
        ({"pooling": "weightedmean_tokens"}, "the pooling weightedmean"),
        ({"config": {"hidden_size": 6, "auto_map": {"AutoModel": "code.Model"}}}, "code of the model's own"),
        ({"config": None}, r"has no config\.json"),
    ],
)
def test_a_model_that_needs_more_is_refused(make: Make, files: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.ConfigError, match=words) as caught:
        make('engine = "onnx"', **files)
    assert caught.value.hints


def test_cutting_is_said_once_with_its_share(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    embedder, long = make(), "w1 " * 50
    with caplog.at_level(logging.WARNING):
        found = embedder.embed([long, "w2", "w3", "w1 " * (LIMIT - 2)])
        embedder.embed(long)
    np.testing.assert_allclose(found[0], expected(long), atol=1e-6)
    assert [r.getMessage() for r in caplog.records] == [
        "1 of 4 texts (25 %) are longer than the 12 tokens that model reads, and were cut"
    ]


def test_a_long_text_is_refused_or_split_where_one_says_so(make: Make) -> None:
    texts = ["w1", "w2 " * 10 + "w3 " * 10]
    with pytest.raises(errors.InvalidRequestError, match="text 1"):
        make(options={"overflow": "error"}).embed(texts)
    mean = expected("w2 " * 10) + expected("w3 " * 10)
    found = make(options={"overflow": "split"}).embed(texts)
    np.testing.assert_allclose(found, [expected("w1"), mean / np.linalg.norm(mean)], atol=1e-2)


def test_fewer_dimensions_have_length_one_and_another_identity(make: Make) -> None:
    embedder = make()
    found = embedder.embed(["w1", "w2"], dimensions=3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    whole = embedder.embed("w1")[:3]
    np.testing.assert_allclose(found[0], whole / np.linalg.norm(whole), atol=1e-6)
    assert make("dimensions = 3").identity != embedder.identity
    with pytest.raises(errors.InvalidRequestError, match="6 dimensions, fewer than the 7"):
        embedder.embed("w1", dimensions=7)


def test_identity_follows_the_weights_and_not_the_place(make: Make, tmp_path: Path) -> None:
    embedder = make()
    assert embedder.identity == make().identity
    embedder.check(embedder.identity)
    with pytest.raises(errors.EmbedderMismatchError, match="dimensions 99 there, 6 here"):
        embedder.check(embedder.identity.replace("dimensions=6", "dimensions=99"))


def test_streams_are_read_piece_by_piece(make: Make) -> None:
    taken = 0

    def stream() -> Iterator[str]:
        nonlocal taken
        for i in range(100_000):
            taken += 1
            yield f"w{i % 40}"

    rows = make().embed_iter(stream())
    np.testing.assert_allclose(
        [next(rows) for _ in range(50)], [expected(f"w{i % 40}") for i in range(50)], atol=1e-6
    )
    assert taken == 512


def test_rank_finds_the_nearest(make: Make) -> None:
    found = make(config_sentence_transformers=None).rank("w1 w2", ["w30 w31", "w1 w2", "w9"], top=2)
    assert found[0] == embeddings.Match(1, "w1 w2", pytest.approx(1, abs=1e-6)) and len(found) == 2


def test_similarity_is_the_cosine(make: Make) -> None:
    a, b = np.array([3.0, 0.0]), np.array([[1.0, 1.0], [0.0, 2.0]])
    assert embeddings.similarity(a, a) == pytest.approx(1)
    np.testing.assert_allclose(embeddings.similarity(b, a), [2**-0.5, 0], atol=1e-6)
    with pytest.raises(errors.EmbedderMismatchError):
        embeddings.similarity(a, np.ones(3))


def test_progress_is_told(make: Make) -> None:
    said: list[tuple[int, int | None]] = []
    make().embed([f"w{i}" for i in range(40)], progress=lambda done, total: said.append((done, total)))
    assert said[-1] == (40, 40) and sorted(said) == said


def test_threads_and_forks_share_an_embedder(make: Make) -> None:
    embedder, found = make(), {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: embedder.embed(f"w{i}")})) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose([found[i] for i in range(8)], [expected(f"w{i}") for i in range(8)], atol=1e-6)
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        np.testing.assert_allclose(pool.apply(embedder.embed, ("w1",)), expected("w1"), atol=1e-6)


def test_a_relative_path_starts_at_the_file(make: Make, private_home: Path) -> None:
    np.testing.assert_allclose(make('model_path = "model"').embed("w1"), expected("w1"), atol=1e-6)
    np.testing.assert_allclose(
        make('model_path = "model/onnx/model.onnx"').embed("w1"), expected("w1"), atol=1e-6
    )


@pytest.mark.parametrize(
    ("engine", "gone", "command"),
    [
        ("auto", {"onnxruntime", "sentence_transformers"}, 'pip install "arawn-llm[local]"'),
        ("onnx", {"onnxruntime"}, 'pip install "arawn-llm[local]"'),
        (
            "sentence-transformers",
            {"sentence_transformers"},
            'pip install "arawn-llm[sentence-transformers]"',
        ),
    ],
)
def test_a_missing_extra_names_the_command(
    make: Make, engine: str, gone: set[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in gone:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(errors.MissingExtraError) as caught:
        make(f'engine = "{engine}"')
    assert caught.value.hints == (command,)


class Hub(BaseHTTPRequestHandler):
    """Serve one model as the hub does: a listing, and files whose headers name their content."""

    folder: Path
    asked: list[str]
    broken = False

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append(self.path)
        names = sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file())
        if self.path.startswith("/api/models/some/model"):
            listing = {"id": "some/model", "sha": "a" * 40, "siblings": [{"rfilename": name} for name in names]}
            tree = [{"type": "file", "path": name, "size": 1, "oid": "b" * 40} for name in names]
            body = json.dumps(tree if "/tree/" in self.path else listing)
            return self.send(200, body.encode(), {"content-type": "application/json"})
        name = self.path.partition("/resolve/")[2].partition("/")[2]
        if name not in names:
            return self.send(404, b"", {"x-error-code": "EntryNotFound"})
        content = (self.folder / name).read_bytes()
        digest = hashlib.sha256(content + b"x" * (self.broken and name.endswith(".onnx"))).hexdigest()
        return self.send(200, content, {"etag": f'"{digest}"', "x-repo-commit": "a" * 40})

    do_HEAD = do_GET

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"content-length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[Any, dict[str, str]]]:
    handler: Any = type("ThisHub", (Hub,), {"folder": tiny_model.build(tmp_path / "hub"), "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    yield handler, {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    server.shutdown()
    server.server_close()


def ask(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    code = (
        "import arawn_llm, time; start = time.monotonic()\n"
        "e = arawn_llm.get_embedder('local', model='some/model')\n"
        "print(*e.embed('w1'), time.monotonic() - start, e.identity)"
    )
    command, env = [sys.executable, "-c", code], os.environ | environment
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_model_is_fetched_once_and_used_offline_without_waiting(hub: tuple[Any, dict[str, str]]) -> None:
    handler, environment = hub
    first = ask(environment)
    assert first.returncode == 0, first.stderr
    np.testing.assert_allclose([float(n) for n in first.stdout.split()[:WIDTH]], expected("w1"), atol=1e-6)
    assert "revision=aaaaaaaaaaaa" in first.stdout
    handler.asked.clear()
    again = ask(environment | {"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert again.stdout.split()[:WIDTH] == first.stdout.split()[:WIDTH], again.stderr
    assert not handler.asked and float(again.stdout.split()[WIDTH]) < 5


def test_a_broken_file_from_the_hub_is_not_used(hub: tuple[Any, dict[str, str]]) -> None:
    handler, environment = hub
    handler.broken = True
    assert "came broken from the hub" in ask(environment).stderr
    handler.broken = False
    assert ask(environment).returncode == 0


def test_a_hub_that_cannot_be_reached_is_said(tmp_path: Path) -> None:
    found = ask({"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf")})
    assert "BackendConnectionError: Cannot fetch model some/model" in found.stderr


def test_a_cache_saves_work_and_is_shared_by_processes(make: Make, tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "c.sqlite3")
    embedder = make(options={"cache": cache})
    texts = [f"w{i % 30}" for i in range(60)]
    first = embedder.embed(texts)
    assert (cache.hits, cache.misses) == (0, 30)
    np.testing.assert_array_equal(embedder.embed(texts), first)
    assert (cache.hits, cache.misses) == (30, 30)
    embedder.embed("w1", kind="query")
    assert cache.misses == 31
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(fill, [(tmp_path / "c.sqlite3", start) for start in range(4)]) == [200] * 4
    assert len(cache.get("s", [f"t{i}" for i in range(203)])) == 203


def fill(path: Path, start: int) -> int:
    cache = VectorCache(path)
    for i in range(start, start + 200):
        cache.put("s", {f"t{i}": np.full(4, i, dtype=np.float32)})
    return len(cache.get("s", [f"t{i}" for i in range(start, start + 200)]))


def test_a_cache_stays_within_its_bound(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "c.sqlite3", max_bytes=300_000)
    for i in range(600):
        cache.put("s", {f"t{i}": np.zeros(384, dtype=np.float32)})
    assert 0 < len(cache.get("s", [f"t{i}" for i in range(600)])) < 200
    assert (tmp_path / "c.sqlite3").stat().st_size < 600_000


def test_the_file_switches_the_cache_on(
    make: Make, private_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(private_home / "cache"))
    embedder = make("[embedding]\ncache = true\n")
    embedder.embed(["w1", "w1"])
    assert embedder.caches[0].misses == 1 and embedder.caches[0].path.is_relative_to(private_home)


def test_a_quantised_model_is_not_cached(make: Make, tmp_path: Path) -> None:
    graph = tiny_model.build(tmp_path / "model") / "onnx" / "model_int8.onnx"
    graph.write_bytes(b"..DynamicQuantizeLinear..")
    with pytest.raises(errors.ConfigError, match="quantised"):
        make(f'model_path = "{graph}"', options={"cache": True})


def test_a_found_file_cannot_run_a_models_own_code(write: Callable[[str, str], Path]) -> None:
    write("work/arawn.toml", '[embedding.local]\nmodel_path = "m"\ntrust_remote_code = true\n')
    with pytest.raises(errors.ConfigError, match="runs code that comes with a model"):
        arawn_llm.get_embedder()
