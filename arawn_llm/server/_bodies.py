"""What goes over the wire: the bodies of requests and answers, and the OpenAPI document made from them."""

from __future__ import annotations

import html
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.json_schema import models_json_schema

from arawn_llm import Model, ToolCall, Usage, __version__
from arawn_llm.server._statuses import CODES

# Never a path of this machine, and never http://, which some backends' clients would fetch from here.
ImageURL = Annotated[
    str, Field(pattern=r"^(https://[!-~]+|data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+={0,2})$")
]
Text = Annotated[str, Field(pattern=r"[!-~]|[^\x00-\x7f]")]  # not blank
Name = Annotated[str, Field(min_length=1, max_length=200)]
_WHOLE = BeforeValidator(
    lambda n: int(n) if isinstance(n, float) and n.is_integer() else n
)  # 1.0 is an integer
_TYPE = Field(discriminator="type")
_PARAMETERS = ("temperature", "max_tokens", "top_p", "stop", "seed", "tool_choice", "timeout")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class TextPart(_Body):
    type: Literal["text"]
    text: str


class ImageAddress(_Body):
    url: ImageURL
    detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(_Body):
    type: Literal["image_url"]
    image_url: ImageAddress


class CalledFunction(_Body):
    name: Name
    arguments: str


class CalledTool(_Body):
    id: Name
    type: Literal["function"]
    function: CalledFunction


class SystemMessage(_Body):
    role: Literal["system"]
    content: Text


class UserMessage(_Body):
    role: Literal["user"]
    content: Text | Annotated[list[Annotated[TextPart | ImagePart, _TYPE]], Field(min_length=1)]


class AssistantMessage(_Body):
    role: Literal["assistant"]
    content: str | None = None
    tool_calls: Annotated[list[CalledTool], Field(min_length=1)] | None = None


class ToolResult(_Body):
    """What a tool gave that the session's last answer asked for."""

    tool_call_id: Name
    content: str


class ToolMessage(ToolResult):
    """What a tool gave."""

    role: Literal["tool"]


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class Function(_Body):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)


class Tool(_Body):
    type: Literal["function"]
    function: Function


_NONE, _EMPTY = {"type": "null"}, {"maxItems": 0}
_KINDS: list[Any] = [
    {
        "required": ["message"],
        "properties": {"message": {"type": "string"}, "messages": _NONE, "tool_results": _NONE},
    },
    {
        "required": ["messages"],
        "properties": {"message": _NONE, "messages": {"type": "array"}, "tool_results": _NONE}
        | {"session_id": _NONE, "images": _EMPTY},
    },
    {
        "required": ["tool_results", "session_id"],
        "properties": {"message": _NONE, "messages": _NONE, "tool_results": {"type": "array"}}
        | {"session_id": {"type": "string"}, "images": _EMPTY},
    },
]


class Chat(_Body):
    """A question: `message`, alone or within a session; or `messages`; or `tool_results` within a session."""

    model_config = ConfigDict(json_schema_extra={"oneOf": _KINDS})

    message: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    tool_results: Annotated[list[ToolResult], Field(min_length=1)] | None = None
    session_id: Annotated[str, Field(max_length=64)] | None = None
    backend: Name | None = Field(None, description="A profile, or a backend key such as ollama.")
    agent: Name | None = None
    model: Name | None = Field(None, description="Another model than the profile's.")
    system: str | None = None
    images: Annotated[list[ImageURL], Field(max_length=16)] = []
    tools: Annotated[list[Tool], Field(max_length=128)] = []
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000), _WHOLE] | None = None
    top_p: float | None = Field(None, ge=0, le=1)
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=4)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1), _WHOLE] | None = None
    tool_choice: Literal["auto", "none", "required"] | None = None
    timeout: float | None = Field(None, ge=1, le=3600, description="Seconds for the whole answer.")

    @model_validator(mode="after")
    def _one_kind(self) -> Chat:
        if sum(each is not None for each in (self.message, self.messages, self.tool_results)) != 1:
            raise ValueError("say one of message, messages and tool_results")
        if self.messages is not None and self.session_id is not None:
            raise ValueError("a session takes message or tool_results; messages stand alone")
        if self.tool_results is not None and self.session_id is None:
            raise ValueError("tool_results belong to a session_id")
        if self.images and self.message is None:
            raise ValueError("images go with message; in messages they are parts of the content")
        return self

    def options(self) -> dict[str, Any]:
        """Give what goes to the library's call."""
        tools = [each.model_dump() for each in self.tools]
        given = {name: getattr(self, name) for name in _PARAMETERS} | {"tools": tools or None}
        return {name: value for name, value in given.items() if value is not None}


class Texts(_Body):
    """Texts to turn into vectors."""

    texts: Annotated[list[Text], Field(min_length=1, max_length=2048)]
    kind: Literal["document", "query"] = "document"


class Embeddings(BaseModel):
    """A vector for each text, in their order; keep `identity` beside vectors that you store."""

    model: str
    dimensions: int
    identity: str
    embeddings: list[list[float]]


class Answer(BaseModel):
    """A whole answer."""

    response: str
    backend: str
    profile: str
    model: str
    session_id: str | None = Field(description="Say it to go on; null for messages, which are not kept.")
    tool_calls: list[ToolCall]
    finish_reason: str
    usage: Usage
    cost: float | None = Field(description="US dollars; null where unknown.")


class ErrorBody(BaseModel):
    """Every error; in a stream that has begun, the data of `event: error`."""

    code: str = Field(json_schema_extra={"enum": [*CODES]})
    message: str
    hints: list[str]
    request_id: str


class ProfileEntry(BaseModel):
    name: str
    backend: str
    model: str
    max_context_tokens: int | None


class Profiles(BaseModel):
    profiles: list[ProfileEntry]


class Models(BaseModel):
    """Prices are US dollars for a million tokens."""

    backend: str
    profile: str
    models: list[Model]


class Health(BaseModel):
    status: Literal["ok"]
    version: str


_EVENTS = "`text` {text}, `tool_call` (a ToolCall), then `done` (an Answer) or `error` (an ErrorBody)."
_BACKEND = {"name": "backend", "in": "query", "schema": {"type": "string", "minLength": 1, "maxLength": 200}}


def make_document(*, asks_token: bool) -> dict[str, Any]:
    """Write the OpenAPI document."""
    answers = (Answer, Embeddings, ErrorBody, Profiles, Models, Health)
    _, schemas = models_json_schema(
        [(Chat, "validation"), (Texts, "validation"), *((each, "serialization") for each in answers)],
        ref_template="#/components/schemas/{model}",
    )
    event = {"event": {"enum": ["text", "tool_call", "done", "error"]}, "data": {"type": "string"}}
    schema = {"type": "object", "properties": event, "required": [*event], "description": _EVENTS}
    events = {"text/event-stream": {"schema": schema}}
    paths = {
        "/api/v1/chat": {"post": _operation("Ask, and wait for the whole answer", _json(Answer), Chat)},
        "/api/v1/chat/stream": {"post": _operation("Ask, and read the answer as it comes", events, Chat)},
        "/api/v1/embeddings": {"post": _operation("Turn texts into vectors", _json(Embeddings), Texts)},
        "/api/v1/profiles": {"get": _operation("List the profiles", _json(Profiles))},
        "/api/v1/models": {
            "get": _operation("List what a provider serves", _json(Models)) | {"parameters": [_BACKEND]}
        },
        "/health": {"get": _operation("Tell that the server is there", _json(Health)) | {"security": []}},
    }
    scheme = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}} if asks_token else {}
    return {
        "openapi": "3.1.0",
        "info": {"title": "arawn", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas["$defs"], **scheme},
        "security": [{"token": []}] if asks_token else [],
    }


def _operation(summary: str, content: dict[str, Any], asked: type[BaseModel] | None = None) -> dict[str, Any]:
    responses = {
        "200": {"description": "The answer", "content": content},
        "default": {"description": "An error", "content": _json(ErrorBody)},
    }
    operation: dict[str, Any] = {"summary": summary, "responses": responses}
    return operation | ({"requestBody": {"required": True, "content": _json(asked)}} if asked else {})


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}


def make_page(document: dict[str, Any]) -> str:
    """Show the document as a page that needs nothing from elsewhere."""
    shown = (
        f"<h2>{name}</h2><pre>{html.escape(json.dumps(part, indent=1))}</pre>"
        for name, part in {**document["paths"], **document["components"]["schemas"]}.items()
    )
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>arawn</title><h1>The JSON API</h1>'
    return f'{head}<p>As a document: <a href="openapi.json">openapi.json</a></p>{"".join(shown)}</html>'
