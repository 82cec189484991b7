"""Servers on 127.0.0.1 that answer as the providers' public references say.

Sources: platform.openai.com/docs/api-reference/chat, console.groq.com/docs/api-reference,
docs.anthropic.com/en/api/messages and /errors, docs.ollama.com/api/chat.
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-simulated-0123456789"
Step = tuple[str, Any]


class Wire(ThreadingHTTPServer):
    """Record requests and answer them, one scripted step each, else with "Hello there"."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.steps: list[Step] = []
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        self.stopped.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Wire

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        kind, value = self.server.steps.pop(0) if self.server.steps else ("text", "Hello there")
        dialect = DIALECTS.get(self.path)
        if dialect is None:
            return self.answer(404, {"error": {"message": "no such path", "type": "not_found_error"}})
        if kind == "status":
            code, words, headers = value
            return self.answer(code, dialect.error(code, words), headers)
        if kind == "raw":
            return self.send(200, value.encode(), "text/html", {})
        if kind == "hang":
            self.server.stopped.wait(20)
            self.close_connection = True
            return None
        if kind == "drip":
            return self.drip()
        if not body.get("stream"):
            return self.answer(200, dialect.whole(body["model"], value))
        lines = list(dialect.pieces(body["model"], "Hello there" if kind != "text" else value))
        return self.pour(lines if kind == "text" else lines[:-3], kind, dialect.content_type)

    def drip(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "1000")
        self.end_headers()
        try:
            for _ in range(100):
                self.wfile.write(b" ")
                if self.server.stopped.wait(0.1):
                    break
        except OSError:  # the client has left, as it should
            pass
        self.close_connection = True

    def pour(self, lines: list[str], kind: str, content_type: str) -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("connection", "close")
        self.end_headers()
        for line in lines:
            self.wfile.write(line.encode())
        self.wfile.flush()
        if kind == "stall":
            self.server.stopped.wait(20)
        self.close_connection = True

    def answer(self, code: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self.send(code, json.dumps(body).encode(), "application/json", headers or {})

    def send(self, code: int, content: bytes, content_type: str, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in (headers | {"content-type": content_type, "x-request-id": "req-1"}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class OpenAI:
    content_type = "text/event-stream"

    @staticmethod
    def error(code: int, words: str) -> Any:
        return {"error": {"message": words, "type": "invalid_request_error", "param": None, "code": None}}

    @staticmethod
    def whole(model: str, text: str) -> Any:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model}
        return head | {"choices": [choice], "usage": usage}

    @staticmethod
    def pieces(model: str, text: str) -> Iterator[str]:
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
        words = text.split(" ")
        deltas = [{"role": "assistant", "content": words[0]}] + [{"content": " " + w} for w in words[1:]]
        for delta in deltas:
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            yield f"data: {json.dumps(head | {'choices': [choice]})}\n\n"
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        yield f"data: {json.dumps(head | {'choices': [end]})}\n\n"
        yield f"data: {json.dumps(head | {'choices': [], 'usage': usage})}\n\n"
        yield "data: [DONE]\n\n"


class Anthropic:
    content_type = "text/event-stream"

    @staticmethod
    def error(code: int, words: str) -> Any:
        return {"type": "error", "error": {"type": "invalid_request_error", "message": words}}

    @staticmethod
    def whole(model: str, text: str) -> Any:
        usage = {"input_tokens": 3, "output_tokens": 2}
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "usage": usage}
        content = [{"type": "text", "text": text}]
        return head | {"content": content, "stop_reason": "end_turn", "stop_sequence": None}

    @staticmethod
    def pieces(model: str, text: str) -> Iterator[str]:
        message = Anthropic.whole(model, "") | {"content": [], "stop_reason": None}
        yield _event("message_start", message=message)
        yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        first, _, rest = text.partition(" ")
        for word in [first, " " + rest] if rest else [first]:
            yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
        yield _event("content_block_stop", index=0)
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        yield _event("message_delta", delta=delta, usage={"output_tokens": 2})
        yield _event("message_stop")


def _event(kind: str, **fields: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | fields)}\n\n"


class Ollama:
    content_type = "application/x-ndjson"

    @staticmethod
    def error(code: int, words: str) -> Any:
        return {"error": words}

    @staticmethod
    def whole(model: str, text: str) -> Any:
        head = {"model": model, "created_at": "2025-01-01T00:00:00Z", "done": True, "done_reason": "stop"}
        counts = {"prompt_eval_count": 3, "eval_count": 2, "total_duration": 9, "load_duration": 1}
        return head | counts | {"message": {"role": "assistant", "content": text}}

    @staticmethod
    def pieces(model: str, text: str) -> Iterator[str]:
        words = text.split(" ")
        for word in [words[0]] + [" " + w for w in words[1:]] + ["", ""]:
            head = {"model": model, "created_at": "2025-01-01T00:00:00Z", "done": False}
            yield json.dumps(head | {"message": {"role": "assistant", "content": word}}) + "\n"
        yield json.dumps(Ollama.whole(model, "")) + "\n"


DIALECTS: dict[str, Any] = {
    "/v1/chat/completions": OpenAI,
    "/openai/v1/chat/completions": OpenAI,
    "/v1/messages": Anthropic,
    "/api/chat": Ollama,
}
