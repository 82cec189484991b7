"""The command line as a person runs it: its own process, its output, its exit codes."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arawn_llm.testing import KEY, Fault, Reply, Simulator

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[[str, str], Path]
ARAWN = [sys.executable, "-c", "from arawn_llm.cli import main; main()"]
HELLO = Reply("Hello there")


@pytest.fixture
def claude(serve: Callable[..., Simulator]) -> Simulator:
    return serve("anthropic")


@pytest.fixture
def ollama(serve: Callable[..., Simulator]) -> Simulator:
    return serve("ollama")


@pytest.fixture
def environment(write: Write, claude: Simulator, ollama: Simulator) -> dict[str, str]:
    write(
        "xdg/arawn/config.toml",
        f'[llm]\nbackend = "anthropic"\nmodel = "m"\nbase_url = "{claude.base_url}"\nretry_max = 0\n'
        f'[llm.local]\nbackend = "ollama"\nmodel = "llama3"\nbase_url = "{ollama.base_url}"\n'
        '[llm.gone]\nbackend = "ollama"\nbase_url = "http://127.0.0.1:9"\nretry_max = 0\n'
        '[agent.summarizer]\nllm = "local"\nsystem_prompt = "Be brief."\n',
    )
    return os.environ | {"ANTHROPIC_API_KEY": KEY}


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    def run(*words: str, stdin: str = "", **changed: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*ARAWN, *words],
            input=stdin,
            env=environment | changed,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_an_answer_is_printed_and_nothing_else(run: Run, claude: Simulator) -> None:
    claude.script(HELLO)
    done = run("ask", "Hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello there\n", "")


def test_standard_input_is_appended(run: Run, ollama: Simulator) -> None:
    done = run("--backend", "ollama", "ask", "Review", "--usage", stdin="a diff")
    assert done.returncode == 0 and "3 tokens in, 2 out, cost $0" in done.stderr
    assert ollama.requests[0].body["messages"][-1]["content"] == "Review\n\na diff"


@pytest.mark.parametrize(
    "words",
    [
        ["-b", "local", "-m", "other", "ask", "-s", "Be brief.", "Hello"],
        ["ask", "--backend", "local", "--model", "other", "--system", "Be brief.", "Hello"],
        ["ask", "--agent", "summarizer", "--model", "other", "Hello"],
    ],
)
def test_options_stand_before_or_behind_the_command(run: Run, ollama: Simulator, words: list[str]) -> None:
    assert run(*words).returncode == 0
    body = ollama.requests[0].body
    assert (body["model"], body["messages"][0]["content"]) == ("other", "Be brief.")


def test_an_image_is_attached(run: Run, claude: Simulator, write: Write) -> None:
    path = write("cat.png", "")
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    assert run("ask", "-a", str(path), "What?").returncode == 0
    assert "image/png" in str(claude.requests[0].body)


def test_json_is_json(run: Run, claude: Simulator) -> None:
    claude.script(HELLO)
    reply = json.loads(run("ask", "Hello", "--json").stdout)
    assert (reply["text"], reply["usage"]) == ("Hello there", {"input_tokens": 3, "output_tokens": 2})


@pytest.mark.parametrize("way", [[], ["--no-stream"]])
def test_the_three_messages_are_exact(run: Run, claude: Simulator, way: list[str]) -> None:
    claude.script(Fault(status=401), Fault(status=404))
    for words, first in [
        (["ask", "Hello", *way], 'Error: Authentication failed for backend "anthropic"'),
        (["ask", "Hello", *way], 'Error: Model "m" not available'),
        (["-b", "gone", "ask", "Hello", *way], "Error: Cannot connect to Ollama at http://127.0.0.1:9"),
    ]:
        done = run(*words)
        lines = done.stderr.splitlines()
        assert (done.returncode, done.stdout, lines[0], lines[1]) == (1, "", first, "What to check:")
        assert lines[2].startswith("  1. ") and KEY not in done.stderr


def test_ctrl_c_keeps_what_was_printed(environment: dict[str, str], claude: Simulator) -> None:
    claude.script(Fault("stall"))
    process = subprocess.Popen([*ARAWN, "ask", "Hello"], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.read(11) == "Hello there"
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130 and claude.requests[0].left.wait(5)
    process.stdout.close()


def test_a_closed_pipe_ends_quietly(environment: dict[str, str], claude: Simulator) -> None:
    claude.script(Reply("word " * 50_000))
    command = f"{sys.executable} -c 'from arawn_llm.cli import main; main()' ask Hello | head -c 4"
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("word", "")


@pytest.mark.parametrize(
    ("streams", "code"),
    [(">&-", 0), ("<&-", 0), ("2>&-", 0), (">/dev/full", 1), (">&- 2>&- <&-", 0), ("2>/dev/full", 0)],
)
@pytest.mark.parametrize("words", ["ask Hello", "doctor --offline"])
def test_streams_that_are_closed_or_full_end_in_no_traceback(
    environment: dict[str, str], private_home: Path, words: str, streams: str, code: int
) -> None:
    log = private_home / "stderr"
    shell = f'"$PYTHON" -c "from arawn_llm.cli import main; main()" {words} 2>"{log}" {streams}'
    done = subprocess.run(
        ["/bin/sh", "-c", shell],
        env=environment | {"PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "Traceback" in log.read_text()) == (code, False), log.read_text()


def test_bytes_that_are_no_text_pass_both_ways(environment: dict[str, str], claude: Simulator) -> None:
    claude.script("naïve \u2713")
    done = subprocess.run(
        [*ARAWN, "ask"],
        env=environment | {"PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1:strict"},
        input=b"caf\xff",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"na\xefve \\u2713\n"), done.stderr


def test_a_working_directory_may_be_gone(environment: dict[str, str]) -> None:
    main = "from arawn_llm.cli import main; main()"
    for words, said in (("ask Hello", "working directory"), ("doctor --offline", ""), ("config show", "")):
        shell = f'mkdir gone; cd gone; rmdir ../gone; exec "{sys.executable}" -c "{main}" {words}'
        command = ["/bin/sh", "-c", shell]
        done = subprocess.run(
            command, env=environment, input="", capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, said in done.stderr) == (1 if said else 0, True)
        assert "Traceback" not in done.stderr


def test_a_terminal_obeys_no_answer(environment: dict[str, str], claude: Simulator) -> None:
    claude.script("a\x1b[2Jb\x1b]0;title\x07c\td")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*ARAWN, "ask", "Hello"], env=environment, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL
    )
    os.close(theirs)
    screen = b""
    while b"d\r\n" not in screen:
        screen += os.read(ours, 1024)
    assert b"\x1b" not in screen and b"\x07" not in screen and process.wait(60) == 0
    os.close(ours)


def test_a_missing_key_names_the_places_and_the_mend(run: Run, claude: Simulator) -> None:
    done = run("ask", "Hello", ANTHROPIC_API_KEY="")
    assert done.returncode == 4 and "ANTHROPIC_API_KEY" in done.stderr
    assert "export ANTHROPIC_API_KEY" in done.stderr and claude.requests == []


def test_usage_and_configuration_have_their_codes(run: Run, write: Write) -> None:
    assert run("ask").returncode == 2
    assert run("ask", "--nonsense").returncode == 2
    assert run("--backend", "nobody", "ask", "Hello").returncode == 3
    assert run("--config", str(write("bad.toml", "[llm")), "ask", "Hello").returncode == 3


def test_without_a_file_a_backend_key_is_enough(run: Run, tmp_path: Path) -> None:
    done = run("--backend", "ollama", "ask", "Hello", XDG_CONFIG_HOME=str(tmp_path), OLLAMA_HOST="x")
    assert done.returncode == 1 and "Cannot connect to Ollama at http://localhost:11434" in done.stderr


def test_trust_is_given_by_a_command(run: Run, write: Write) -> None:
    path = write("work/arawn.toml", '[llm]\nbase_url = "https://corp.invalid"\n')
    refused = run("ask", "Hello")
    assert refused.returncode == 3 and f"arawn config trust {path}" in refused.stderr
    assert "to corp.invalid" in run("config", "trust", str(path)).stdout
    assert run("ask", "Hello").returncode == 1


@pytest.mark.parametrize(("answer", "code"), [("y", 1), ("n", 3)])
def test_at_a_terminal_an_untrusted_file_is_asked_about(
    environment: dict[str, Any], write: Write, answer: str, code: int
) -> None:
    write(
        "work/arawn.toml",
        '[llm]\nbase_url = "https://corp.invalid"\n[llm.other]\nbackend = "openai"\n'
        'base_url = "https://other.invalid"\nparams = { "x\\u001b[2J" = 1 }\n',
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*ARAWN, "ask", "Hello"], env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    screen = ""
    while "Allow this file" not in screen:
        screen += os.read(ours, 1024).decode()
    os.write(ours, f"{answer}\n".encode())
    assert process.wait(60) == code
    assert "corp.invalid" in screen and "other.invalid" in screen and "\x1b[2J" not in screen
    os.close(ours)


def test_the_demo_does_what_it_should_without_key_or_network(run: Run) -> None:
    done = run("demo", ANTHROPIC_API_KEY="a-real-key", OPENAI_API_KEY="another")
    assert done.returncode == 0 and "simulated" in done.stdout and done.stderr == ""
    for word in ("anthropic", "openai", "groq", "ollama", "custom", "agent.summarizer.llm -> llm.local"):
        assert word in done.stdout
    assert 'Error: Authentication failed for backend "anthropic"' in done.stdout


def test_a_pipe_of_lines_is_a_conversation(run: Run, claude: Simulator, ollama: Simulator) -> None:
    claude.script("Hi.", Fault(status=401))
    ollama.script("Yes.")
    done = run(
        "chat", "-s", "Be brief.", stdin="Hello\nAgain\n/backend local\n/retry\n/usage\n/nope\n/quit\nlost\n"
    )
    assert (done.returncode, done.stdout) == (1, "Hi.\nYes.\n")  # the first failure's code
    for words in (
        "Authentication failed",
        "now ollama, llama3",
        "2 answers, 6 tokens in, 4 out",
        "/nope is not",
    ):
        assert words in done.stderr
    said = [message["content"] for message in ollama.requests[0].body["messages"]]
    assert said == ["Be brief.", "Hello", "Hi.", "Again"]


def test_what_a_pipe_gets_wrong_is_said_and_the_talk_goes_on(run: Run, claude: Simulator) -> None:
    lines = "/save ~nouser/x\n/attach ~nouser/y\n/attach\n/attach .\n//etc is a folder\n"
    done = run("chat", stdin=lines)
    assert (done.returncode, done.stdout.count("simulated")) == (1, 1)
    assert claude.requests[0].body["messages"][-1]["content"][0]["text"] == "/etc is a folder"
    assert "was not written" in done.stderr and "cannot be read" in done.stderr


def test_an_agent_keeps_its_profile_and_its_words(run: Run, claude: Simulator, ollama: Simulator) -> None:
    done = run(
        "-m", "other", "chat", "--agent", "summarizer", stdin="a\n/model llama4\nb\n/backend default\nc\n"
    )
    assert done.returncode == 0, done.stderr
    assert [each.body["model"] for each in ollama.requests if "messages" in each.body] == ["other", "llama4"]
    assert (claude.requests[0].body["model"], "Be brief." in str(claude.requests[0].body["system"])) == (
        "m",
        True,
    )


def test_a_conversation_is_saved_once(run: Run, private_home: Path) -> None:
    assert run("chat", stdin="Hello\n/save talk.json\n/save talk.json\n").stderr.count("was not written") == 1
    saved = json.loads((private_home / "work/talk.json").read_text())
    assert [message["role"] for message in saved["messages"]] == ["user", "assistant"]


def test_models_secrets_and_the_doctor_answer(run: Run, ollama: Simulator) -> None:
    ollama.models = ("llama3:latest",)
    assert "llama3:latest" in run("models", "local").stdout
    assert "lists 1 models" in run("secrets", "test", "local").stdout
    listed = run("secrets", "list")
    assert "ANTHROPIC_API_KEY" in listed.stdout and KEY not in listed.stdout
    done = run("doctor", "--json")
    findings = json.loads(done.stdout)
    assert done.returncode == 1 and {"ok", "wrong"} <= {finding["state"] for finding in findings}


def test_settings_are_changed_and_shown(run: Run, private_home: Path) -> None:
    assert run("config", "set", "llm.local.timeout", "30").returncode == 0
    assert "llm.local.timeout = 30" in run("config", "show").stdout
    assert run("config", "set", "llm.local.timeout", "soon").returncode == 3
    assert run("config", "get", "llm.local.model").stdout == "llama3\n"
    assert json.loads(run("config", "schema").stdout)["title"] == "arawn.toml"
    assert run("config", "check").returncode == 0


def test_a_first_file_is_written_once_and_loads(run: Run, private_home: Path) -> None:
    done = run("init", "-b", "anthropic", "-b", "ollama", "--project")
    path = private_home / "work/arawn.toml"
    assert done.returncode == 0 and "wrote arawn.toml" in done.stdout
    text = path.read_text()
    assert text.startswith("#:schema ./arawn.schema.json") and (path.parent / "arawn.schema.json").exists()
    again = run("init", "-b", "groq", "--project")
    assert again.returncode == 3 and "stays as it is" in again.stderr and path.read_text() == text
    assert run("--config", str(path), "config", "check").returncode == 0
    assert run("init").returncode == run("init", "-b", "grok").returncode == 2


def test_verbose_says_what_is_decided_and_no_secret(run: Run, claude: Simulator) -> None:
    claude.script(Fault(status=503))
    done = run("-vv", "ask", "Hello", ANTHROPIC_API_KEY=KEY)
    for words in ("llm: backend anthropic, model m", "the environment (ANTHROPIC_API_KEY)"):
        assert words in done.stderr
    assert KEY not in done.stderr and "Hello" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_completion(run: Run, shell: str) -> None:
    assert "_ARAWN_COMPLETE" in run("completion", shell).stdout


@pytest.mark.parametrize(
    ("words", "number", "expected"),
    [
        ("arawn -b lo", "2", "local"),
        ("arawn ask --agent s", "3", "summarizer"),
        ("arawn ask -m ll", "3", "llama3"),
    ],
)
def test_names_are_completed_from_the_file(run: Run, words: str, number: str, expected: str) -> None:
    done = run(_ARAWN_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=number)
    assert done.stdout.strip() == f"plain,{expected}"
