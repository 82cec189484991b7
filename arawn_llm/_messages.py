"""From what a caller says to an OpenAI-style request. Pure, but for reading image files."""

from __future__ import annotations

import base64
import copy
import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, PydanticUserError, create_model

from arawn_llm.errors import InvalidRequestError

Message = Mapping[str, Any]
Tool = Mapping[str, Any] | Callable[..., Any]
Image = str | bytes | os.PathLike[str]

# The first bytes of each format that the providers' vision pages list.
_MAGIC = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF8", "gif"), (b"RIFF", "webp"))
_MOST_IMAGE_BYTES = 20 * 1024 * 1024


class Said(Protocol):
    """What holds messages, such as a `Conversation`."""

    system: str | None
    messages: list[dict[str, Any]]


def build_messages(
    prompt: str | Sequence[Message] | Said, system: str | None, images: Sequence[Image]
) -> list[dict[str, Any]]:
    """Put a prompt, a system prompt and images into OpenAI-style messages; the caller's are not touched.

    Raises:
        InvalidRequestError: The prompt is empty or no list of messages, or an image cannot be used.
    """
    if not isinstance(prompt, str | Sequence):
        prompt = prompt.messages
    if isinstance(prompt, str):
        if not prompt.strip() and not images:
            raise InvalidRequestError("the prompt is empty")
        messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    else:
        if not prompt or not all(isinstance(each, Mapping) and "role" in each for each in prompt):
            words = 'the prompt must be a text or a list of {"role": …, "content": …} messages'
            raise InvalidRequestError(words)
        messages = copy.deepcopy([dict(each) for each in prompt])
    if images:
        last = messages[-1]
        if last["role"] != "user":
            raise InvalidRequestError("images belong to a user message, and the last message is none")
        content = last.get("content") or []
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        last["content"] = parts + [
            {"type": "image_url", "image_url": {"url": read_image(image)}} for image in images
        ]
    if system and not any(each["role"] == "system" for each in messages):
        messages.insert(0, {"role": "system", "content": system})
    return messages


def read_image(image: Image) -> str:
    """Give an image as a URL: an address as it is, a file or bytes as a data URL.

    Raises:
        InvalidRequestError: It cannot be read, is too large, or is no image.
    """
    if isinstance(image, str) and image.startswith(("data:", "http://", "https://")):
        return image
    if isinstance(image, bytes):
        content, name = image, "the image"
    else:
        name = os.fspath(image)
        try:
            with Path(image).expanduser().open("rb") as file:
                content = file.read(_MOST_IMAGE_BYTES + 1)
        except (OSError, RuntimeError, ValueError) as exc:  # the last two: no such home, a NUL in the name
            why = getattr(exc, "strerror", None) or exc
            raise InvalidRequestError(f"{name} cannot be read: {why}") from exc
    if len(content) > _MOST_IMAGE_BYTES:
        raise InvalidRequestError(f"{name} is larger than 20 MiB")
    kind = next((kind for magic, kind in _MAGIC if content.startswith(magic)), None)
    if kind is None or (kind == "webp" and content[8:12] != b"WEBP"):
        raise InvalidRequestError(f"{name} is not a PNG, JPEG, GIF or WebP image")
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def find_image_urls(messages: Sequence[Message]) -> Iterator[str]:
    """Yield the address of each image."""
    for message in messages:
        for part in message["content"] if isinstance(message.get("content"), list) else ():
            address = part.get("image_url", "") if isinstance(part, Mapping) else ""
            yield str(address.get("url", "") if isinstance(address, Mapping) else address)


def build_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Describe tools in OpenAI's form: dicts are copied, functions are read by signature and docstring.

    Raises:
        InvalidRequestError: A function's signature has no JSON schema.
    """
    return [_describe(tool) if callable(tool) else copy.deepcopy(dict(tool)) for tool in tools]


def _describe(function: Callable[..., Any]) -> dict[str, Any]:
    name = getattr(function, "__name__", type(function).__name__)
    try:
        fields: dict[str, Any] = {
            parameter.name: (
                Any if parameter.annotation is parameter.empty else parameter.annotation,
                ... if parameter.default is parameter.empty else parameter.default,
            )
            for parameter in inspect.signature(function, eval_str=True).parameters.values()
            if parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
        }
        model = create_model(name, __config__=ConfigDict(arbitrary_types_allowed=False), **fields)
        schema = model.model_json_schema()
    except (NameError, PydanticUserError, TypeError, ValueError) as exc:
        raise InvalidRequestError(f"tool {name} has a signature without a JSON schema: {exc}") from exc
    schema.pop("title", None)
    description = inspect.getdoc(function) or name
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


def ask_for_json(messages: list[dict[str, Any]], model: type[BaseModel]) -> list[dict[str, Any]]:
    """Say the schema in words, for a model that takes no JSON schema."""
    schema = json.dumps(model.model_json_schema(), ensure_ascii=False)
    words = f"Answer with one JSON object that fits this JSON schema, and nothing else:\n{schema}"
    if messages[0]["role"] == "system":
        return [{**messages[0], "content": f"{messages[0]['content']}\n\n{words}"}, *messages[1:]]
    return [{"role": "system", "content": words}, *messages]


def count_bytes(value: Any) -> int:
    """Bound the tokens of messages from above: no tokenizer makes more tokens than UTF-8 bytes."""
    if isinstance(value, str):
        return 0 if value.startswith("data:") else len(value.encode("utf-8", "replace"))
    if isinstance(value, Mapping):
        return 8 + sum(count_bytes(each) for each in value.values())
    return sum(count_bytes(each) for each in value) if isinstance(value, list | tuple) else 8
