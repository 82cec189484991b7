"""What each provider's reference lists in a request for a chat: nothing else is accepted.

Sources: platform.openai.com/docs/api-reference/chat, console.groq.com/docs/api-reference,
docs.anthropic.com/en/api/messages, docs.ollama.com/api/chat.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_Positive = Annotated[int, Field(gt=0)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class _Strict(BaseModel):
    """A JSON object that may hold nothing but what the reference lists."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Text(_Strict):
    type: Literal["text"]
    text: str


class _Address(_Strict):
    url: Annotated[str, Field(pattern=r"^(https?://|data:image/(png|jpeg|gif|webp);base64,)")]
    detail: Literal["auto", "low", "high"] = "auto"


class _Image(_Strict):
    type: Literal["image_url"]
    image_url: _Address


class _Function(_Strict):
    name: _Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(_Strict):
    type: Literal["function"]
    function: _Function


class _Called(_Strict):
    name: str
    arguments: str


class _Call(_Strict):
    id: str
    type: Literal["function"]
    function: _Called


class _System(_Strict):
    role: Literal["system", "developer"]
    content: str | list[_Text]
    name: str | None = None


class _User(_Strict):
    role: Literal["user"]
    content: str | list[Annotated[_Text | _Image, Field(discriminator="type")]]
    name: str | None = None


class _Assistant(_Strict):
    role: Literal["assistant"]
    content: str | list[_Text] | None = None
    name: str | None = None
    tool_calls: Annotated[list[_Call], Field(min_length=1)] | None = None


class _ToolResult(_Strict):
    role: Literal["tool"]
    content: str | list[_Text]
    tool_call_id: str


class _Schema(_Strict):
    name: _Name
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class _Format(_Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None


class _StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: bool = True


class _Chat(_Strict):
    model: str
    messages: Annotated[
        list[Annotated[_System | _User | _Assistant | _ToolResult, Field(discriminator="role")]],
        Field(min_length=1),
    ]
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    max_completion_tokens: _Positive | None = None
    max_tokens: _Positive | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    parallel_tool_calls: bool | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    reasoning_effort: str | None = None
    response_format: _Format | None = None
    seed: int | None = None
    service_tier: str | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    tools: list[_Tool] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    top_p: _Share | None = None
    user: str | None = None


class OpenAIRequest(_Chat):
    """The body of OpenAI's chat completions."""

    audio: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    modalities: list[str] | None = None
    prediction: dict[str, Any] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    store: bool | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    web_search_options: dict[str, Any] | None = None


class GroqRequest(_Chat):
    """The body of Groq's chat completions; fields that it lists as not supported are refused."""

    citation_options: str | None = None
    compound_custom: dict[str, Any] | None = None
    disable_tool_validation: bool | None = None
    documents: list[dict[str, Any]] | None = None
    include_reasoning: bool | None = None
    reasoning_format: Literal["hidden", "raw", "parsed"] | None = None
    search_settings: dict[str, Any] | None = None


class _Cached(_Strict):
    cache_control: dict[str, Any] | None = None


class _TextBlock(_Cached):
    type: Literal["text"]
    text: Annotated[str, Field(min_length=1)]
    citations: list[Any] | None = None


class _Source(_Strict):
    type: Literal["base64", "url", "file"]
    media_type: Literal["image/png", "image/jpeg", "image/gif", "image/webp"] | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None


class _ImageBlock(_Cached):
    type: Literal["image"]
    source: _Source


class _ToolUse(_Cached):
    type: Literal["tool_use"]
    id: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]+$")]
    name: str
    input: dict[str, Any]
    caller: dict[str, Any] | None = None


class _ToolResultBlock(_Cached):
    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[Annotated[_TextBlock | _ImageBlock, Field(discriminator="type")]] | None = None
    is_error: bool | None = None


class _Thinking(_Strict):
    type: Literal["thinking"]
    thinking: str
    signature: str


_Block = Annotated[
    _TextBlock | _ImageBlock | _ToolUse | _ToolResultBlock | _Thinking, Field(discriminator="type")
]


class _Turn(_Strict):
    role: Literal["user", "assistant"]
    content: str | list[_Block]


class _AnthropicTool(_Cached):
    name: _Name
    description: str | None = None
    input_schema: dict[str, Any]
    type: Literal["custom"] | None = None
    strict: bool | None = None


class AnthropicRequest(_Strict):
    """The body of Anthropic's messages."""

    model: str
    messages: Annotated[list[_Turn], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)]
    cache_control: dict[str, Any] | None = None
    container: Any = None
    inference_geo: str | None = None
    metadata: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    output_format: dict[str, Any] | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    stop_sequences: list[str] | None = None
    stream: bool = False
    system: str | list[_TextBlock] | None = None
    temperature: _Share | None = None
    thinking: dict[str, Any] | None = None
    tool_choice: dict[str, Any] | None = None
    tools: list[_AnthropicTool] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    top_p: _Share | None = None


class _OllamaCalled(_Strict):
    name: str
    arguments: dict[str, Any]
    index: int | None = None
    description: str | None = None


class _OllamaCall(_Strict):
    function: _OllamaCalled
    id: str | None = None
    type: Literal["function"] | None = None


class _OllamaMessage(_Strict):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[_OllamaCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class _Options(_Strict):
    num_keep: int | None = None
    seed: int | None = None
    num_predict: int | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_last_n: int | None = None
    temperature: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: list[str] | None = None
    num_ctx: _Positive | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: int | None = None


class OllamaRequest(_Strict):
    """The body of Ollama's chat; Ollama itself passes over what it does not know, and so hides mistakes."""

    model: str
    messages: list[_OllamaMessage] = []
    tools: list[_Tool] | None = None
    format: Literal["json"] | dict[str, Any] | None = None
    options: _Options | None = None
    stream: bool = True
    think: bool | Literal["low", "medium", "high"] | None = None
    keep_alive: str | int | float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
