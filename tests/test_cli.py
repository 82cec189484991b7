"""The command line as a person runs it: its own process, its output, its exit codes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from wire import KEY, Wire

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def wire() -> Iterator[Wire]:
    server = Wire()
    yield server
    server.stop()


@pytest.fixture
def run(write: Callable[[str, str], Path], wire: Wire) -> Run:
    write(
        "xdg/arawn/config.toml",
        f'[llm]\nbackend = "anthropic"\nmodel = "m"\nbase_url = "{wire.origin}"\nretry_max = 0\n'
        f'[llm.local]\nbackend = "ollama"\nmodel = "llama3"\nbase_url = "{wire.origin}"\n'
        '[llm.gone]\nbackend = "ollama"\nbase_url = "http://127.0.0.1:9"\nretry_max = 0\n',
    )

    def run(*words: str, key: str = KEY, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", "from arawn_llm.cli import main; main()", *words]
        environment = os.environ | ({"ANTHROPIC_API_KEY": key} if key else {})
        return subprocess.run(
            command, input=stdin, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def test_an_answer_is_printed_and_nothing_else(run: Run) -> None:
    done = run("ask", "Hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello there\n", "")


def test_standard_input_is_appended(run: Run, wire: Wire) -> None:
    assert run("--backend", "ollama", "ask", "Review", "--usage", stdin="a diff").returncode == 0
    path, _, body = wire.seen[0]
    assert (path, body["messages"][-1]["content"]) == ("/api/chat", "Review\n\na diff")


def test_json_is_json(run: Run) -> None:
    reply = json.loads(run("ask", "Hello", "--json").stdout)
    assert (reply["text"], reply["usage"]) == ("Hello there", {"input_tokens": 3, "output_tokens": 2})


@pytest.mark.parametrize("way", [[], ["--no-stream"]])
def test_the_three_messages_are_exact(run: Run, wire: Wire, way: list[str]) -> None:
    wire.steps += [("status", (401, "invalid x-api-key", {})), ("status", (404, "model: m", {}))]
    for words, first in [
        (["ask", "Hello", *way], 'Error: Authentication failed for backend "anthropic"'),
        (["ask", "Hello", *way], 'Error: Model "m" not available'),
        (["-b", "gone", "ask", "Hello", *way], "Error: Cannot connect to Ollama at http://127.0.0.1:9"),
    ]:
        done = run(*words)
        lines = done.stderr.splitlines()
        assert (done.returncode, done.stdout, lines[0], lines[1]) == (1, "", first, "What to check:")
        assert lines[2].startswith("  1. ") and KEY not in done.stderr


def test_a_missing_key_names_the_places_and_the_mend(run: Run, wire: Wire) -> None:
    done = run("ask", "Hello", key="")
    assert done.returncode == 4 and "ANTHROPIC_API_KEY" in done.stderr
    assert "keyring set arawn anthropic_api_key" in done.stderr and wire.seen == []


def test_usage_and_configuration_have_their_codes(run: Run, write: Callable[[str, str], Path]) -> None:
    assert run("ask").returncode == 2
    assert run("ask", "--nonsense").returncode == 2
    assert run("--backend", "nobody", "ask", "Hello").returncode == 3
    assert run("--config", str(write("bad.toml", "[llm")), "ask", "Hello").returncode == 3


def test_trust_is_given_by_a_command(run: Run, write: Callable[[str, str], Path]) -> None:
    path = write("work/arawn.toml", '[llm]\nbase_url = "https://corp.invalid"\n')
    refused = run("ask", "Hello")
    assert refused.returncode == 3 and f"arawn config trust {path}" in refused.stderr
    assert "corp.invalid" in run("config", "trust", str(path)).stdout
    assert run("ask", "Hello").returncode == 1
