"""A server on 127.0.0.1 that embeds as OpenAI's and Ollama's public references say, and can go wrong.

Sources: platform.openai.com/docs/api-reference/embeddings/create, docs.ollama.com/api/embed.
"""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

KEY = "sk-simulated-0123456789"
WIDTH = 8
OPENAI = {"model", "input", "encoding_format", "dimensions", "user"}
OLLAMA = {"model", "input", "truncate", "options", "keep_alive", "dimensions"}


def vector(text: str, width: int = WIDTH) -> np.ndarray:
    """Give the one right answer for a text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    row = np.random.default_rng(seed).standard_normal(width).astype(np.float32)
    return row / np.linalg.norm(row)


class EmbeddingWire(ThreadingHTTPServer):
    """Record requests; `faults` maps the number of a request to what goes wrong with it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.faults: dict[int, str] = {}
        self.always = ""
        self.limit = 50_000  # characters; stands for the model's context length
        self.lock = threading.Lock()
        self.stopped, self.hung = threading.Event(), threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.stopped.set()
        self.shutdown()
        self.server_close()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def texts(self) -> list[str]:
        return [text for _, _, body in self.seen for text in body["input"]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: EmbeddingWire

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        if not content:  # the client was killed
            return None
        body = json.loads(content)
        server = self.server
        with server.lock:
            server.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            fault = server.faults.get(len(server.seen), server.always)
        dialect = {"/v1/embeddings": self.openai, "/api/embed": self.ollama}.get(self.path)
        if dialect is None:
            return self.answer(404, {"error": {"message": f"no {self.path}"}})
        if fault == "hang":
            self.server.hung.set()
            self.server.stopped.wait(20)
            self.close_connection = True
            return None
        if fault.isdigit():
            return self.answer(int(fault), {"error": {"message": "made to fail", "type": "server_error"}})
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        if not texts or not all(isinstance(text, str) and text for text in texts) or len(texts) > 2048:
            return self.answer(
                400, {"error": {"message": "'$.input' is invalid.", "type": "invalid_request_error"}}
            )
        width = (body.get("dimensions") or WIDTH) + (fault == "width")
        rows = [vector(text, width) for text in texts]
        return dialect(body, rows[:-1] if fault == "short" else rows, fault)

    def openai(self, body: dict[str, Any], rows: list[np.ndarray], fault: str) -> None:
        unknown = body.keys() - OPENAI
        if unknown or body.get("encoding_format") not in {None, "float", "base64"}:
            return self.answer(400, {"error": {"message": f"Unrecognized request argument: {unknown}"}})
        packed = body.get("encoding_format") == "base64" and fault != "floats"
        data = [
            {
                "object": "embedding",
                "index": i,
                "embedding": base64.b64encode(row.tobytes()).decode() if packed else row.tolist(),
            }
            for i, row in enumerate(rows)
        ]
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        if fault == "reverse":
            data.reverse()
        return self.answer(200, {"object": "list", "data": data, "model": body["model"], "usage": usage})

    def ollama(self, body: dict[str, Any], rows: list[np.ndarray], fault: str) -> None:
        if body.keys() - OLLAMA:
            return self.answer(400, {"error": f"unknown {body.keys() - OLLAMA}"})
        if body.get("truncate") is False and any(len(text) > self.server.limit for text in body["input"]):
            return self.answer(400, {"error": "the input length exceeds the context length"})
        times = {"total_duration": 14143917, "load_duration": 1019500, "prompt_eval_count": 8}
        return self.answer(200, {"model": body["model"], "embeddings": [row.tolist() for row in rows]} | times)

    def answer(self, code: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
