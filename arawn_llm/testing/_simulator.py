"""Servers on 127.0.0.1 that speak as the providers speak, strictly, and fail as they fail."""

from __future__ import annotations

import json
import select
import ssl
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, Self

from arawn_llm.testing._anthropic import Anthropic, AnthropicBearer
from arawn_llm.testing._dialect import Dialect, Fault, Refusal, Reply
from arawn_llm.testing._ollama import Ollama
from arawn_llm.testing._openai import Groq, OpenAI

# Who speaks for each backend key; a compatible server is simulated by what it is compatible with.
DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        "anthropic": Anthropic(),
        "openai": OpenAI(),
        "groq": Groq(),
        "ollama": Ollama(),
        "custom": OpenAI(),
        "claude-oauth": AnthropicBearer(),
    }
)
KEY = "simulated-key-0123456789"
_BREAKS = frozenset({"cut", "stall", "error", "garbage"})
_FIRST_WORDS = "Hello there"


@dataclass(frozen=True)
class Received:
    """Record a request as it came.

    Attributes:
        method: "GET" or "POST".
        path: The path exactly as it stood in the request line.
        headers: The headers by lower-case name.
        body: The parsed JSON body; None where there was none.
        left: Set once the client has closed the connection before the answer's end.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: Any
    left: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)


class Simulator:
    """Serve one provider's API on loopback: `with Simulator("anthropic") as server: …`.

    It accepts what the provider's public reference lists and refuses the rest in the provider's words: unknown
    paths, missing or wrong headers, unknown and missing fields. Each request takes the next scripted step;
    without one it gets a reply that says it is simulated.

    Args:
        backend: A backend key: whose API to speak.
        key: The only key that is accepted.
        models: The models that are there; None for any.
        tls: The server side's TLS context, for https.
    """

    def __init__(
        self,
        backend: str,
        *,
        key: str = KEY,
        models: Iterable[str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if backend not in DIALECTS:
            raise ValueError(f'no simulator for "{backend}"; there are: {", ".join(DIALECTS)}')
        self.dialect, self.key = DIALECTS[backend], key
        self.models = None if models is None else tuple(models)
        self.requests: list[Received] = []
        self.stopped = threading.Event()
        self._steps: list[Reply | Fault] = []
        self._lock = threading.Lock()
        self._server = _Server(self, tls)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def base_url(self) -> str:
        """Give the address as a profile's base_url says it."""
        return self._server.origin + self.dialect.base_path

    def script(self, *steps: str | Reply | Fault) -> None:
        """Say what the next requests get, one step each; a text is a reply with that text."""
        with self._lock:
            self._steps += [Reply(step) if isinstance(step, str) else step for step in steps]

    def next_step(self) -> Reply | Fault:
        """Take the next step of the script."""
        with self._lock:
            return self._steps.pop(0) if self._steps else Reply("This reply is simulated.")

    def close(self) -> None:
        """Stop serving; requests that are waiting end."""
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, simulator: Simulator, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.simulator = simulator
        self.origin = f"{'https' if tls else 'http'}://127.0.0.1:{self.server_port}"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over what a client that went away causes; each test sees its own side of it."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride] - the class that makes us

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing to stderr."""

    def do_GET(self) -> None:
        """Answer a question about models."""
        self._handle("GET")

    def do_POST(self) -> None:
        """Answer a chat."""
        self._handle("POST")

    def _handle(self, method: str) -> None:
        simulator = self.server.simulator
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        # The standard library folds a leading "//" in `path`; the request line is as it came.
        path = self.requestline.split(" ")[1]
        self.received = Received(method, path, {k.lower(): v for k, v in self.headers.items()}, _json(content))
        simulator.requests.append(self.received)
        try:
            self._answer(simulator, content)
        except Refusal as refusal:
            self._refuse(refusal)
        except OSError:
            self.received.left.set()
            self.close_connection = True

    def _answer(self, simulator: Simulator, content: bytes) -> None:
        dialect, (method, path) = simulator.dialect, (self.received.method, self.received.path)
        dialect.check_headers(self.received.headers, simulator.key)
        if (method, path.partition("?")[0]) == ("GET", dialect.models_path):
            return self._send(200, dialect.models(simulator.models or ()))
        if method == "POST" and path in dialect.facts:
            return self._send(200, dialect.facts[path])
        if (method, path) != ("POST", dialect.chat_path):
            raise Refusal(404, f"Invalid URL ({method} {path})")
        request = dialect.read(content)
        if simulator.models is not None and request.model not in simulator.models:
            raise dialect.unknown_model(request.model)
        step = simulator.next_step()
        if isinstance(step, Fault):
            return self._fail(dialect, request, step)
        if request.stream:
            return self._stream(dialect.pieces(request, step))
        return self._send(200, dialect.whole(request, step))

    def _refuse(self, refusal: Refusal, headers: Mapping[str, str] | None = None) -> None:
        body = self.server.simulator.dialect.error(refusal.status, refusal.message, **refusal.facts)
        self._send(refusal.status, body, headers)

    def _fail(self, dialect: Dialect, request: Any, fault: Fault) -> None:
        if fault.kind == "overflow":
            raise dialect.overflow()
        if fault.kind == "status" or (fault.kind == "error" and not request.stream):
            self._refuse(Refusal(fault.status, fault.message), fault.headers)
        elif fault.kind == "body":
            self._send(200, fault.body, {"content-type": "text/html"} | dict(fault.headers))
        elif fault.kind == "no_answer" and request.stream:
            self._stream(dialect.pieces(request, Reply()))
        elif fault.kind == "no_answer":
            self._send(200, dialect.no_answer(request))
        elif fault.kind == "silence":
            self._wait()
        elif fault.kind == "drop":
            self._leave()
        elif fault.kind in _BREAKS and request.stream:
            self._break(dialect, request, fault)
        else:
            self._halve(json.dumps(dialect.whole(request, Reply(_FIRST_WORDS))).encode(), fault)

    def _halve(self, whole: bytes, fault: Fault) -> None:
        """Send half of a body that is not streamed, and then what is wrong with it."""
        half = whole[: len(whole) // 2]
        if fault.kind == "garbage":
            return self._send(200, half)
        self._head(200, {"content-type": "application/json", "content-length": str(len(whole))})
        if fault.kind == "drip":
            return self._drip(whole)
        self.wfile.write(half)
        return self._wait() if fault.kind == "stall" else self._leave()

    def _break(self, dialect: Dialect, request: Any, fault: Fault) -> None:
        """Send the first words of a stream, and then what is wrong with it."""
        self._head(200, {"content-type": dialect.stream_type, "connection": "close"})
        pieces = iter(dialect.pieces(request, Reply(_FIRST_WORDS + " and the end")))
        for piece in pieces:
            self._write(piece)
            if "there" in piece:
                break
        if fault.kind == "error":
            self._write(dialect.error_event(fault.message))
        if fault.kind == "garbage":
            self._write('data: {"broken": \n\n' if "event-stream" in dialect.stream_type else '{"broken": \n')
            self._write("".join(pieces))
        return self._wait() if fault.kind == "stall" else self._leave()

    def _stream(self, pieces: Iterable[str]) -> None:
        self._head(
            200, {"content-type": self.server.simulator.dialect.stream_type, "transfer-encoding": "chunked"}
        )
        for piece in pieces:
            content = piece.encode()
            self._write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        self._write(b"0\r\n\r\n")

    def _write(self, piece: str | bytes) -> None:
        self.wfile.write(piece if isinstance(piece, bytes) else piece.encode())
        self.wfile.flush()

    def _wait(self) -> None:
        """Say nothing until the client leaves or the simulator stops."""
        self.wfile.flush()
        while not self.server.simulator.stopped.is_set():
            if select.select([self.connection], [], [], 0.02)[0]:
                self.received.left.set()
                break
        self._leave()

    def _drip(self, whole: bytes) -> None:
        for byte in whole:
            self._write(bytes([byte]))
            if self.server.simulator.stopped.wait(0.1):
                break
        self._leave()

    def _leave(self) -> None:
        self.wfile.flush()
        self.close_connection = True

    def _send(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        length = {
            "content-length": str(len(content)),
            self.server.simulator.dialect.request_id: "req_simulated",
        }
        self._head(status, {"content-type": "application/json"} | dict(headers or {}) | length)
        self.wfile.write(content)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _json(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except ValueError:
        return None
