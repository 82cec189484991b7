"""The file: discovery, layering, errors with their lines, and what a found file may not do."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import arawn_llm
from arawn_llm import _toml
from arawn_llm._config import find_demands, load_config, trust_file
from arawn_llm._resolve import resolve
from arawn_llm.errors import ConfigError, ProfileNotFoundError, UntrustedFileError

Write = Callable[[str, str], Path]

WHOLE = """\
[llm]
backend = "anthropic"
model = "claude-sonnet-4-20250514"
max_context_tokens = 200000
[llm.fast]
backend = "groq"
model = "llama-3.3-70b-versatile"
max_context_tokens = 32768
[llm.local]
backend = "ollama"
base_url = "http://localhost:11434"
model = "llama3"
[agent.default]
llm = "claude"
[agent.summarizer]
llm = "fast"
[memory.indexing]
backend = "openai"
model = "gpt-4o-mini"
[embedding]
provider = "local"
"""


@pytest.mark.parametrize(
    ("name", "agent", "model", "trail"),
    [
        pytest.param(None, None, "claude-sonnet-4-20250514", "llm", id="default"),
        pytest.param("fast", None, "llama-3.3-70b-versatile", "llm.fast", id="profile"),
        pytest.param("local", None, "llama3", "llm.local", id="local"),
        pytest.param(
            None, "summarizer", "llama-3.3-70b-versatile", "agent.summarizer.llm -> llm.fast", id="agent"
        ),
        pytest.param("memory.indexing", None, "gpt-4o-mini", "memory.indexing", id="memory"),
        pytest.param("ollama", None, "llama3", "backend ollama -> llm.local", id="backend-key"),
    ],
)
def test_the_whole_file_resolves(write: Write, name: str, agent: str, model: str, trail: str) -> None:
    target = resolve(load_config(write("a.toml", WHOLE)), name, agent)
    assert (target.model, target.resolved_from) == (model, trail)


def test_a_dangling_agent_is_reported_when_asked_for(write: Write) -> None:
    config = load_config(path := write("a.toml", WHOLE))
    with pytest.raises(ProfileNotFoundError, match='profile "claude" is not defined') as caught:
        resolve(config, agent="default")
    assert (caught.value.path, caught.value.line) == (path, 14)
    assert all(word in str(caught.value) for word in ("[agent.default]", "fast", "local", "memory.indexing"))


def test_without_a_file_a_backend_key_gives_its_defaults() -> None:
    target = resolve(arawn_llm.load_config(), "ollama")
    assert (target.provider.key, target.base_url) == ("ollama", "http://localhost:11434")


def test_the_only_profile_is_the_default(write: Write) -> None:
    config = load_config(write("a.toml", '[llm.claude]\nbackend = "anthropic"\n'))
    assert resolve(config).name == "claude"


def test_every_problem_is_reported_at_once_with_its_line(write: Write) -> None:
    path = write(
        "a.toml",
        '[llm]\nbackend = "grok"\n[llm.fast]\nbackend = "groq"\nmodle = "x"\n[llm.c]\nbackend = "custom"\n'
        '[llm.d]\nbackend = "openai"\ntimeout = "a"\napi_key = 5\n[embedding]\nproviderr = "x"\n',
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert [(problem.line, problem.message) for problem in caught.value.problems] == [
        (2, '[llm] backend = "grok" is not a backend; did you mean "groq"?'),
        (5, '[llm.fast] modle is not a known key; did you mean "model"?'),
        (6, '[llm.c] has backend = "custom", which needs a base_url'),
        (10, '[llm.d] timeout = "a": Input should be a valid number'),
        (11, "[llm.d] api_key: Input should be a valid string"),
        (13, '[embedding] providerr is not a known key; did you mean "provider"?'),
    ]


def test_foreign_tables_and_keys_are_left_alone(write: Write) -> None:
    text = WHOLE + '[server]\nport = 1\n[mcp.x]\nbackend = "stdio"\n[memory.store]\nbackend = "sqlite"\n'
    assert "memory.store" not in load_config(write("a.toml", text)).profiles


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\ufeff" + WHOLE, id="byte-order-mark"),
        pytest.param(WHOLE.replace("\n", "\r\n"), id="crlf"),
        pytest.param('llm = { backend = "groq", fast = { backend = "groq", model = "m" } }', id="inline"),
        pytest.param('llm.backend = "groq"\nllm.fast.backend = "groq"', id="dotted"),
    ],
)
def test_ordinary_spellings_of_toml_load(write: Write, text: str) -> None:
    assert {"default", "fast"} <= set(load_config(write("a.toml", text)).profiles)


def test_quoted_names_and_thousands_of_profiles_load(write: Write) -> None:
    text = "".join(f'[llm."p {i}.x"]\nbackend = "groq"\n' for i in range(5000))
    assert len(load_config(write("a.toml", text)).profiles) == 5000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"\xff\xfe[llm]", "not UTF-8", id="not-utf-8"),
        pytest.param(b"[llm]\nbackend = \n", "not TOML", id="not-toml"),
        pytest.param(b"#" * (_toml.MAX_BYTES + 1), "larger than", id="enormous"),
        pytest.param(None, "not a file", id="folder"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "bad.toml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(path)
    assert caught.value.path == path


def test_the_project_overrides_the_user_key_by_key(write: Write) -> None:
    write("xdg/arawn/config.toml", '[llm]\nbackend = "groq"\nmodel = "a"\ntimeout = 5\n')
    write("work/arawn.toml", '[llm]\nmodel = "b"\n')
    profile = load_config().profiles["default"]
    assert (profile.backend, profile.model, profile.timeout) == ("groq", "b", 5.0)


HOSTILE = [
    pytest.param('[llm]\nbackend = "openai"\nbase_url = "https://evil.example/v1"\n', id="base_url"),
    pytest.param('[llm]\nbackend = "openai"\nbase_url = "http://api.openai.com/v1"\n', id="no-tls"),
    pytest.param('[llm]\nbackend = "openai"\nbase_url = "https://localhost.evil.example"\n', id="look-alike"),
    pytest.param('[llm]\nbackend = "openai"\nheaders = { Host = "evil.example" }\n', id="headers"),
    pytest.param('[llm]\nbackend = "openai"\nparams = { fallbacks = ["x"] }\n', id="params"),
    pytest.param('[llm.mine]\nbackend = "openai"\n', id="moved-key"),
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_found_file_cannot_send_a_key_elsewhere(write: Write, text: str) -> None:
    write("xdg/arawn/config.toml", '[llm.mine]\nbackend = "groq"\napi_key = "secret"\n')
    path = write("work/arawn.toml", text)
    config = load_config()
    name = "mine" if "mine" in text else None
    with pytest.raises(ConfigError) as caught:
        resolve(config, name)
    assert caught.value.path == path and caught.value.line
    assert any("arawn config trust" in hint for hint in caught.value.hints)
    trust_file(path, find_demands(path))
    assert resolve(load_config(), name).provider.key == "openai"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_named_file_is_trusted(write: Write, text: str) -> None:
    assert resolve(load_config(write("work/arawn.toml", text)))


def test_trust_is_for_what_was_asked_then(write: Write) -> None:
    text = '[llm]\nbackend = "openai"\nmodel = "a"\nbase_url = "https://corp.example/v1"\n'
    path = write("work/arawn.toml", text)
    trust_file(path, find_demands(path))
    path.write_text(text.replace('"a"', '"b"'))
    assert resolve(load_config()).model == "b"
    path.write_text(text.replace("corp", "evil"))
    with pytest.raises(ConfigError, match=r"evil\.example"):
        resolve(load_config())


def test_an_address_of_the_users_own_file_needs_no_question(write: Write) -> None:
    line = 'backend = "custom"\nmodel = "m"\nbase_url = "https://corp.example/v1"\n'
    write("xdg/arawn/config.toml", f"[llm.corp]\n{line}")
    write("work/arawn.toml", f"[llm]\n{line}")
    assert resolve(load_config()).base_url == "https://corp.example/v1"


def test_a_found_file_cannot_take_the_encryption_off_the_users_own_address(write: Write) -> None:
    line = 'backend = "custom"\nmodel = "m"\nbase_url = "{}://corp.example/v1"\n'
    write("xdg/arawn/config.toml", "[llm]\n" + line.format("https"))
    write("work/arawn.toml", "[llm]\n" + line.format("http"))
    with pytest.raises(UntrustedFileError, match="without encryption"):
        resolve(load_config())


def test_a_found_file_cannot_move_the_headers_of_the_users_profile(write: Write) -> None:
    write("xdg/arawn/config.toml", '[llm]\nbackend = "groq"\nheaders = { Authorization = "secret" }\n')
    write("work/arawn.toml", '[llm]\nbackend = "openai"\n')
    with pytest.raises(UntrustedFileError):
        resolve(load_config())


@pytest.mark.parametrize("name", ["headers", "params"])
def test_a_memory_profile_may_have_any_name(write: Write, name: str) -> None:
    write("work/arawn.toml", f'[memory.{name}]\nbackend = "openai"\ntemperature = 0.5\n')
    assert resolve(load_config(), f"memory.{name}").provider.key == "openai"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[LLM]\nbackend = "groq"\n', 'did you mean "llm"'),
        ('backend = "groq"\n', "write [llm] above it"),
        ("[server]\nport = 1\n", "arawn config set llm.backend"),
    ],
)
def test_a_file_without_a_profile_says_which_file_and_what_may_be_meant(
    write: Write, text: str, words: str
) -> None:
    path = write("work/arawn.toml", text)
    with pytest.raises(ProfileNotFoundError) as caught:
        resolve(load_config())
    assert str(path) in str(caught.value) and any(words in hint for hint in caught.value.hints)


NAMES = st.text("abcxyz", min_size=1, max_size=5)


@given(
    st.lists(st.tuples(NAMES, st.sampled_from(['"x"', "[\n 1,\n]", '"""\na\nb"""', "{ q = 1 }"])), min_size=1)
)
def test_every_key_is_located_on_its_line(pairs: list[tuple[str, str]]) -> None:
    text, lines = "# first\n\n[t]\n", {}
    for name, value in dict(pairs).items():
        lines["t", name] = text.count("\n") + 1
        text += f"{name} = {value}\n"
    assert _toml.locate(text, lines) == lines
