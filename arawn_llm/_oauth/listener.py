"""The one-shot listener on this machine that the browser comes back to (RFC 8252, section 7.3)."""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from collections.abc import Callable
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

PATH = "/callback"
_PATIENCE = 60.0  # seconds that the browser waits for the login's outcome
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Arawn</title>
<body style="font-family: sans-serif; margin: 4em"><h1>{title}</h1><p>{text}</p></body></html>
"""

Page = tuple[int, str, str]
_log = logging.getLogger("arawn_llm")


class Listener(ThreadingHTTPServer):
    """Wait for one redirect that carries the login's state; everything else gets a page and changes nothing."""

    daemon_threads = True  # a connection that says nothing holds nobody up

    def __init__(self, tell: Callable[[str], object]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tell = tell
        self.state = secrets.token_urlsafe()  # until the login's own is set, nothing fits
        self.redirect_uri = f"http://127.0.0.1:{self.server_port}{PATH}"
        self.shown = threading.Event()
        self._warning = threading.Lock()
        self._taking = threading.Lock()
        self._answer: queue.SimpleQueue[SecretStr] = queue.SimpleQueue()
        self._outcome: queue.SimpleQueue[Page] = queue.SimpleQueue()
        threading.Thread(target=self.serve_forever, args=(0.05,), name="arawn-login", daemon=True).start()

    def wait(self, limit: float) -> SecretStr | None:
        """Wait for the redirect and give its URL; None after so many seconds."""
        try:
            return self._answer.get(timeout=limit)
        except queue.Empty:
            return None

    def close(self, title: str, text: str, status: int = 200) -> None:
        """Show the outcome to the browser, if one waits for it, and stop listening."""
        if self._taking.locked():
            self._outcome.put((status, title, text))
            self.shown.wait(2)
        self.shutdown()
        self.server_close()

    def refusal(self, path: str) -> Page | None:
        """Give the page for whatever is not the one answer that is waited for, and None for that one."""
        url = urlsplit(path)
        if url.path != PATH:
            return 404, "Nothing here", "This is the end of a login on this machine."
        state = parse_qs(url.query).get("state", [""])[0]
        if not secrets.compare_digest(state.encode(), self.state.encode()):
            if self._warning.acquire(blocking=False):  # once: anyone on this machine can send many
                self.tell(
                    "A request that does not belong to this login came back and was ignored; still waiting."
                )
            return 400, "Not this login", "This answer belongs to another login, or to none. It was ignored."
        if not self._taking.acquire(blocking=False):
            return 409, "Already answered", "This login has had its answer. You can close this page."
        self._answer.put(SecretStr(f"{self.redirect_uri}?{url.query}"))
        return None

    def outcome(self) -> Page:
        """Wait for the login's outcome."""
        try:
            return self._outcome.get(timeout=_PATIENCE)
        except queue.Empty:
            return 504, "No outcome", "The login did not come to an end. Look at the terminal."

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over a connection that broke off."""
        _log.debug("a connection to the login's listener broke off")


class _Handler(BaseHTTPRequestHandler):
    server: Listener  # pyright: ignore[reportIncompatibleVariableOverride] - the only server it is made by
    timeout = 10  # seconds for a connection that says nothing
    server_version, sys_version = "arawn", ""

    def do_GET(self) -> None:
        refusal = self.server.refusal(self.path)
        try:
            self.show(*(refusal or self.server.outcome()))
        finally:
            if refusal is None:
                self.server.shown.set()

    def show(self, status: int, title: str, text: str) -> None:
        """Send a small page that loads nothing."""
        page = _PAGE.format(title=escape(title), text=escape(text)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the path holds the code."""
