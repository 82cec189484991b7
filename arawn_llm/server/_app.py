"""The routes: a request's body, one call of the library, an answer or events."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import arawn_llm
from arawn_llm import Config, _litellm
from arawn_llm._config import found_config
from arawn_llm._providers import PROVIDERS
from arawn_llm.errors import ArawnError
from arawn_llm.server._bodies import Chat, ProfileEntry, Texts, make_document, make_page
from arawn_llm.server._guard import Guard
from arawn_llm.server._statuses import Refusal, describe
from arawn_llm.server._turns import Event, Sessions, Turn

_PATIENCE = 30.0  # seconds for a client to send its body, or to take the next piece of a stream
T = TypeVar("T")
B = TypeVar("B", bound=BaseModel)
_log = logging.getLogger("arawn_llm")


def build_app(config: Config | None, guard: Guard, max_body: int) -> Starlette:
    """Put routes, guard and error handlers together."""
    api = Api(config, max_body, make_document(asks_token=guard.asks_token))
    app = Starlette(
        routes=[
            Route("/api/v1/chat", api.chat, methods=["POST"]),
            Route("/api/v1/chat/stream", api.stream, methods=["POST"]),
            Route("/api/v1/embeddings", api.embeddings, methods=["POST"]),
            Route("/api/v1/profiles", api.profiles),
            Route("/api/v1/models", api.models),
            Route("/health", api.health),
            Route("/openapi.json", api.openapi),
            Route("/docs", api.docs),
        ],
        middleware=[
            Middleware(
                CORSMiddleware,
                allow_origins=sorted(guard.origins),
                allow_methods=["GET", "POST"],
                allow_headers=["authorization", "content-type"],
                expose_headers=["retry-after", "x-request-id", "x-session-id"],
            ),
            Middleware(_Gate, guard=guard),
        ],
        exception_handlers={ArawnError: _refuse, HTTPException: _refuse, Exception: _refuse},
        lifespan=_live,
    )
    app.router.redirect_slashes = False
    return app


@asynccontextmanager
async def _live(app: Starlette) -> AsyncIterator[None]:
    """Import LiteLLM before somebody waits for it; close what was kept open."""
    loading = asyncio.create_task(_litellm.aload())
    yield
    loading.cancel()
    with suppress(asyncio.CancelledError):
        await loading
    await arawn_llm.aclose()


class _Gate:
    """Name each request, ask the guard, and mark what goes out."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self.app, self.guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request = Request(scope)
        request.state.id = secrets.token_hex(8)

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request.state.id
                headers["x-content-type-options"] = "nosniff"
                headers["cache-control"] = "no-store"
            async with asyncio.timeout(_PATIENCE):
                await send(message)

        try:
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            self.guard.check(path, request.client.host if request.client else "", request.headers)
        except Refusal as exc:
            return await (await _refuse(request, exc))(scope, receive, send_marked)
        await self.app(scope, receive, send_marked)


async def _refuse(request: Request, exc: Exception) -> Response:
    """Answer with an error's status and body."""
    if isinstance(exc, HTTPException):
        exc = Refusal(exc.status_code, exc.detail, headers=exc.headers)
    elif not isinstance(exc, ArawnError):
        exc = Refusal(500, "the server failed; its log says more")
    status, headers, body = describe(exc, request.state.id)
    _log.info("request %s: %s %s", request.state.id, status, body["code"])
    return _json(body, status, headers)


def _json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status, headers, media_type="application/json")


class Api:
    """Answer requests out of one configuration."""

    def __init__(self, config: Config | None, max_body: int, document: dict[str, Any]) -> None:
        self.config, self.max_body, self.document = config, max_body, document
        self.sessions = Sessions()

    async def chat(self, request: Request) -> Response:
        """Answer with the whole."""
        turn = self._turn(_parse(Chat, await self._read(request)))
        return _json(turn.describe(await _unless_gone(request.receive, turn.ask())))

    async def stream(self, request: Request) -> Response:
        """Answer with events; what fails before the first is an error with its status."""
        turn = self._turn(_parse(Chat, await self._read(request)))
        events = turn.events()
        first = await _unless_gone(request.receive, anext(events))
        headers = {"x-session-id": turn.session.id} if turn.session else {}
        return _EventStream(first, events, request.state.id, headers)

    async def embeddings(self, request: Request) -> Response:
        """Turn texts into vectors with what [embedding] names."""
        asked = _parse(Texts, await self._read(request))
        embedder = await asyncio.to_thread(arawn_llm.get_embedder, config=self.config)
        vectors = await _unless_gone(request.receive, embedder.aembed(asked.texts, kind=asked.kind))
        facts = {"model": embedder.model, "dimensions": embedder.dimensions, "identity": embedder.identity}
        return _json(facts | {"embeddings": vectors.tolist()})

    async def profiles(self, request: Request) -> Response:
        """List the profiles."""
        config = self.config or found_config()
        found = [
            ProfileEntry(
                name=name,
                backend=profile.backend,
                model=profile.model or PROVIDERS[profile.backend].model or "",
                max_context_tokens=profile.max_context_tokens,
            ).model_dump()
            for name, profile in config.profiles.items()
        ]
        return _json({"profiles": found})

    async def models(self, request: Request) -> Response:
        """List what a provider serves."""
        backend = arawn_llm.get_backend(request.query_params.get("backend"), config=self.config)
        found = await asyncio.to_thread(backend.list_models)
        body = {"backend": backend.backend, "profile": backend.name, "models": [asdict(each) for each in found]}
        return _json(body)

    async def health(self, request: Request) -> Response:
        """Tell that the server is there."""
        return _json({"status": "ok", "version": arawn_llm.__version__})

    async def openapi(self, request: Request) -> Response:
        """Give the OpenAPI document."""
        return _json(self.document)

    async def docs(self, request: Request) -> Response:
        """Show the OpenAPI document."""
        return HTMLResponse(make_page(self.document), headers={"content-security-policy": "default-src 'none'"})

    async def _read(self, request: Request) -> bytes:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refusal(415, "the body has to be application/json")
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.max_body:
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(_PATIENCE):
                async for piece in request.stream():
                    body += piece
                    if len(body) > self.max_body:
                        raise self._too_large()
        except TimeoutError:
            raise Refusal(408, f"the body did not come within {_PATIENCE:g} s") from None
        except ClientDisconnect:
            raise _gone() from None
        return bytes(body)

    def _too_large(self) -> Refusal:
        return Refusal(413, f"a body may have {self.max_body} bytes; arawn serve --max-body changes that")

    def _turn(self, asked: Chat) -> Turn:
        found = self.sessions.find(asked.session_id) if asked.session_id is not None else None
        if found and not (asked.backend or asked.agent or asked.model):
            backend: Any = found.conversation.backend
        else:
            backend = arawn_llm.get_backend(
                asked.backend, agent=asked.agent, model=asked.model, config=self.config
            )
        session = None if asked.messages else found or self.sessions.begin(backend)
        return Turn(asked, backend, session, self.sessions)


def _parse(kind: type[B], body: bytes) -> B:
    try:
        return kind.model_validate(from_json(body, allow_inf_nan=False))
    except ValidationError as exc:
        faults = exc.errors(include_url=False, include_context=False, include_input=False)[:5]
        words = "; ".join(f"{'.'.join(map(str, each['loc']))[:80] or 'body'}: {each['msg']}" for each in faults)
        raise Refusal(422, words) from None
    except ValueError as exc:
        raise Refusal(400, f"the body is no JSON: {exc}") from None


class _EventStream(StreamingResponse):
    """Send events until their end, or until the client has gone."""

    def __init__(
        self, first: Event, rest: AsyncGenerator[Event], request_id: str, headers: Mapping[str, str]
    ) -> None:
        super().__init__(self._encode(first), headers=headers, media_type="text/event-stream")
        self.rest, self.request_id = rest, request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self.rest):
            await super().__call__(scope, receive, send)

    async def _encode(self, first: Event) -> AsyncIterator[bytes]:
        yield _encode_event(*first)
        try:
            async for event in self.rest:
                yield _encode_event(*event)
        except ArawnError as exc:
            yield _encode_event("error", describe(exc, self.request_id)[2])


def _encode_event(name: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


async def _unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """Do some work for a client, and stop it when the client has gone.

    The work is done in this task: after one of its own, what LiteLLM leaves to the loop would come first.

    Raises:
        Refusal: The client has gone.
    """
    task, gone = asyncio.current_task(), False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        if task:
            task.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if gone and task and not task.uncancel():
            raise _gone() from None
        raise
    finally:
        watching.cancel()


def _gone() -> Refusal:
    return Refusal(400, "the client has gone")
