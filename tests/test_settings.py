"""Changes to a file: what was asked and nothing else, or nothing at all."""

import json
import stat
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arawn_llm import _toml, load_config
from arawn_llm._schema import describe_file
from arawn_llm.errors import ConfigError
from arawn_llm.settings import MASK, get_value, home_of, list_settings, parse_key, set_value, unset_value

Write = Callable[[str, str], Path]

FILE = """\
# The application's models.

[llm]                     # the default
backend = 'anthropic'     # who
model = "claude-sonnet-4-6"
max_context_tokens = 200_000

  [llm.fast]
  backend = "groq"   # quick
  params = { seed = 7, stop = ["a", "b"] }

[server]
port = 8080

[agent.default]
llm = "fast"
# the end
"""


def test_setting_a_value_changes_its_line_alone(write: Write) -> None:
    path = write("a.toml", FILE)
    set_value(path, ("llm", "model"), "claude-opus-4-8", named=True)
    assert path.read_text() == FILE.replace("claude-sonnet-4-6", "claude-opus-4-8")


def test_a_new_key_and_a_new_profile_leave_every_old_line(write: Write) -> None:
    path = write("a.toml", FILE)
    set_value(path, ("llm", "fast", "model"), "llama", named=True)
    set_value(path, ("llm", "new", "backend"), "ollama", named=True)
    lines = path.read_text().splitlines()
    assert [line for line in lines if line in FILE.splitlines()] == FILE.splitlines()
    assert load_config(path).profiles["fast"].model == "llama" and "new" in load_config(path).profiles


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("llm.timeout", "30", 30.0),
        ("llm.temperature", "0.5", 0.5),
        ("llm.model", "4", "4"),
        ("llm.model", "gpt-4o-mini", "gpt-4o-mini"),
        ("llm.params", '{ seed = 1, stop = ["x"] }', {"seed": 1, "stop": ["x"]}),
    ],
)
def test_a_value_is_read_as_the_key_wants_it(write: Write, key: str, value: str, found: object) -> None:
    path = write("a.toml", FILE)
    set_value(path, parse_key(key), value, named=True)
    assert getattr(load_config(path).profiles["default"], key.partition(".")[2]) == found


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("llm.timeout", "soon", 'timeout = "soon"'),
        ("llm.modle", "x", "did you mean"),
        ("llm.fast.backend", "grok", "did you mean"),
        ("llm.model.x", "1", "llm.model is not a table"),
    ],
)
def test_what_would_not_be_valid_is_not_written(write: Write, key: str, value: str, words: str) -> None:
    path = write("a.toml", FILE)
    with pytest.raises(ConfigError, match=words):
        set_value(path, parse_key(key), value, named=True)
    assert path.read_text() == FILE


def test_a_key_or_a_table_is_removed(write: Write) -> None:
    path = write("a.toml", FILE)
    unset_value(path, ("llm", "max_context_tokens"), named=True)
    assert path.read_text() == FILE.replace("max_context_tokens = 200_000\n", "")
    with pytest.raises(ConfigError, match=r"does not hold llm\.gone"):
        unset_value(path, ("llm", "gone"), named=True)
    with pytest.raises(ConfigError, match="has no backend"):
        unset_value(path, ("llm", "backend"), named=True)


@pytest.mark.parametrize("text", ["\ufeff" + FILE, FILE.replace("\n", "\r\n"), FILE.rstrip("\n")])
def test_line_ends_and_a_byte_order_mark_stay(write: Write, text: str) -> None:
    path = write("a.toml", text)
    set_value(path, ("llm", "model"), "claude-opus-4-8", named=True)
    assert path.read_bytes() == text.replace("claude-sonnet-4-6", "claude-opus-4-8").encode()


def test_the_files_mode_stays_and_a_link_is_not_followed(write: Write) -> None:
    path = write("a.toml", FILE)
    path.chmod(0o640)
    set_value(path, ("llm", "model"), "x", named=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    link = path.with_name("link.toml")
    link.symlink_to(path)
    with pytest.raises(ConfigError, match="is a link"):
        set_value(link, ("llm", "model"), "y", named=True)
    assert link.is_symlink() and load_config(path).profiles["default"].model == "x"


def test_the_strongest_file_that_says_a_key_is_changed(write: Write) -> None:
    user = write("xdg/arawn/config.toml", '[llm]\nbackend = "groq"\ntimeout = 5\n')
    project = write("work/arawn.toml", '[llm]\nmodel = "a"\n')
    assert home_of(("llm", "timeout")) == user
    assert home_of(("llm", "model")) == project
    set_value(project, ("llm", "model"), "b")
    assert load_config().profiles["default"].model == "b"


def test_settings_are_shown_with_their_place_and_secrets_masked(write: Write) -> None:
    path = write("a.toml", '[llm]\nbackend = "groq"\napi_key = "s3cret"\nheaders = { X-Key = "s3cret" }\n')
    config = load_config(path)
    shown = {each.key: (each.value, each.line) for each in list_settings(config)}
    assert shown["llm.backend"] == ('"groq"', 2) and shown["llm.api_key"] == (MASK, 3)
    assert "s3cret" not in str(shown) and "s3cret" not in json.dumps(get_value(config, ("llm",)))


@pytest.mark.parametrize(
    ("text", "key"),
    [("llm.fast.model", ("llm", "fast", "model")), ('llm."a.b".model', ("llm", "a.b", "model"))],
)
def test_a_key_is_read(text: str, key: tuple[str, ...]) -> None:
    assert parse_key(text) == key


@pytest.mark.parametrize("text", ["", ".", "llm.", ".llm", "a..b", "a b", 'llm."\\q".x', "llm.x = 1\ny"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_key(text)


def test_the_schema_knows_every_table_and_key() -> None:
    schema = describe_file()
    assert {"llm", "agent", "memory", "embedding", "oauth"} == set(schema["properties"])
    assert {"backend", "model", "params"} <= set(schema["properties"]["llm"]["properties"])
    for reference in json.dumps(schema).split('"$ref": "#/$defs/')[1:]:
        assert reference.partition('"')[0] in schema["$defs"]


NAMES = st.text("abc", min_size=1, max_size=3)
VALUES = st.sampled_from(['"x"', "1", "[\n 1, # c\n 2 ]", "{ q = 1 }", "'''\nm\n'''", "2026-01-01"])
TABLES = st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, max_size=4), min_size=1, max_size=4)


@given(TABLES, NAMES, NAMES, st.sampled_from(["# c", "", "  # other"]))
def test_an_edit_says_what_was_asked_and_keeps_the_rest(
    tables: dict[str, dict[str, str]], table: str, key: str, comment: str
) -> None:
    lines = []
    for name, values in tables.items():
        lines += [f"[t.{name}] {comment}", *(f"{k}  =  {v} {comment}" for k, v in values.items()), ""]
    text = "\n".join(lines)
    try:
        after = _toml.set_value(text, ("t", table, key), "new", Path("a.toml"))
    except ConfigError as error:
        assert "by hand" in str(error)
        return
    assert tomllib.loads(after)["t"][table][key] == "new"
    kept = [
        f"{k}  =  {v} {comment}"
        for name in tables
        for k, v in tables[name].items()
        if (name, k) != (table, key)
    ]
    assert [statement for statement in kept if statement not in after] == []


BETWEEN = """\
# first
[[plugins]]
n = 1

[llm]
backend = "ollama"
model = "m1"   # mine

# second
[[plugins]]
n = 2
"""


@pytest.mark.parametrize(
    ("key", "value", "old", "new"),
    [
        ("llm.model", "m9", '"m1"', '"m9"'),
        ("llm.timeout", "5", "# mine\n", "# mine\ntimeout = 5\n"),
        ("agent.a.llm", "default", "n = 2\n", 'n = 2\n\n[agent.a]\nllm = "default"\n'),
        ("llm.model", None, 'model = "m1"   # mine\n', ""),
    ],
)
def test_tables_that_stand_between_others_stay_where_they_are(
    write: Write, key: str, value: str | None, old: str, new: str
) -> None:
    path = write("a.toml", BETWEEN)
    if value is None:
        unset_value(path, parse_key(key), named=True)
    else:
        set_value(path, parse_key(key), value, named=True)
    assert path.read_text() == BETWEEN.replace(old, new)


def test_a_table_goes_with_its_own_comment_and_no_other(write: Write) -> None:
    head, fast = '[llm]\nbackend = "ollama"\n\n', '# about fast\n[llm.fast]\nbackend = "groq"\n\n'
    tail = '# about slow\n[llm.slow]\nbackend = "openai"\n'
    path = write("a.toml", head + fast + tail)
    unset_value(path, ("llm", "fast"), named=True)
    assert path.read_text() == head + tail


def test_two_wrong_keys_are_mended_one_after_the_other(write: Write) -> None:
    path = write("a.toml", '[llm]\nbackend = "ollama"\nmodell = "m"\ntimeoutt = 3\n')
    with pytest.raises(ConfigError, match="modelll"):
        set_value(path, ("llm", "modelll"), "m", named=True)
    unset_value(path, ("llm", "modell"), named=True)
    unset_value(path, ("llm", "timeoutt"), named=True)
    assert path.read_text() == '[llm]\nbackend = "ollama"\n'


def test_changes_made_together_are_all_kept(write: Write) -> None:
    path = write("a.toml", '[llm]\nbackend = "ollama"\n')
    with ThreadPoolExecutor(8) as pool:
        done = [
            pool.submit(set_value, path, ("agent", f"a{i}", "llm"), "default", named=True) for i in range(8)
        ]
        assert [each.result() for each in done] == [None] * 8
    assert len(load_config(path).agents) == 8


def test_a_file_with_two_names_is_not_torn_from_the_other(write: Write) -> None:
    path = write("a.toml", FILE)
    (path.parent / "b.toml").hardlink_to(path)
    with pytest.raises(ConfigError, match="hard link"):
        set_value(path, ("llm", "model"), "m", named=True)
    assert path.read_text() == FILE


def test_an_inline_table_takes_a_table_within(write: Write) -> None:
    path = write("a.toml", 'agent = { a = { llm = "default" } } # all\n[llm]\nbackend = "ollama"\n')
    set_value(path, ("agent", "b", "llm"), "default", named=True)
    assert set(load_config(path).agents) == {"a", "b"} and "# all\n" in path.read_text()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("llm.'a.b'.model", ("llm", "a.b", "model")),
        ('llm."a \\" b".x', ("llm", 'a " b', "x")),
        ("llm.schnell-ü.model", ("llm", "schnell-ü", "model")),
    ],
)
def test_a_key_is_written_as_in_toml(text: str, parts: tuple[str, ...]) -> None:
    assert parse_key(text) == parts
