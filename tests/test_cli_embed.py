"""`arawn embed` as a person runs it."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import tiny_model
from embedding_wire import EmbeddingWire, vector
from tiny_model import expected

Done = subprocess.CompletedProcess[str]
COMMAND = [sys.executable, "-c", "from arawn_llm.cli import main; main()"]


@pytest.fixture
def run(write: Callable[[str, str], Path], private_home: Path) -> Callable[..., Done]:
    tiny_model.build(private_home / "model")
    write("xdg/arawn/config.toml", f'[embedding.local]\nmodel_path = "{private_home / "model"}"\n')

    def run(*words: str, stdin: str = "") -> Done:
        return subprocess.run(
            [*COMMAND, "embed", *words], input=stdin, capture_output=True, text=True, timeout=60, check=False
        )

    return run


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "w1\n\nw2 w3\n", []),
        ("a.jsonl", '{"text": "w1"}\n"w2 w3"\n', []),
        ("a.csv", "id,title\n1,w1\n2,w2 w3\n", ["--field", "title"]),
    ],
)
def test_files_in_several_forms_are_read(
    run: Callable[..., Done], write: Callable[[str, str], Path], name: str, content: str, words: list[str]
) -> None:
    write(f"work/{name}", content)
    done = run(name, *words)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["text"] for row in rows] == ["w1", "w2 w3"]
    np.testing.assert_allclose(
        [row["embedding"] for row in rows], [expected("w1"), expected("w2 w3")], atol=1e-6
    )


def test_texts_come_from_the_command_or_standard_input(run: Callable[..., Done]) -> None:
    for done in (run("w1 w2"), run(stdin="w1 w2\n")):
        np.testing.assert_allclose(json.loads(done.stdout)["embedding"], expected("w1 w2"), atol=1e-6)


@pytest.mark.parametrize("end", ["npy", "parquet", "jsonl"])
def test_files_in_several_forms_are_written(
    run: Callable[..., Done], write: Callable[[str, str], Path], end: str, private_home: Path
) -> None:
    texts = [f"w{i % 40} w{i % 7}" for i in range(1500)]
    write("work/a.txt", "\n".join(texts))
    assert run("a.txt", "-o", f"out.{end}").returncode == 0
    path: Any = private_home / "work" / f"out.{end}"
    if end == "npy":
        found = np.load(path)
    elif end == "parquet":
        table = pyarrow.parquet.read_table(path)
        assert table["text"].to_pylist() == texts
        found = np.stack(table["embedding"].to_numpy())
    else:
        found = np.array([json.loads(line)["embedding"] for line in path.read_text().splitlines()])
    np.testing.assert_allclose(found, [expected(text) for text in texts], atol=1e-6)
    assert sorted(each.name for each in path.parent.iterdir()) == ["a.txt", path.name]


def test_rank_prints_the_nearest_lines(run: Callable[..., Done], write: Callable[[str, str], Path]) -> None:
    write("work/a.txt", "w30\nquery: w1\nw12 w13\n")
    done = run("--rank", "w1", "a.txt", "--top", "2")
    assert done.stdout.splitlines()[0] == "1.0000\tquery: w1" and len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [(["missing.txt"], "there is no file missing.txt"), (["a.csv", "--field", "x"], 'has no "x"')],
)
def test_wrong_use_is_said(
    run: Callable[..., Done], write: Callable[[str, str], Path], words: list[str], said: str
) -> None:
    write("work/a.csv", "text\nw1\n")
    done = run(*words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def wire() -> Iterator[EmbeddingWire]:
    server = EmbeddingWire()
    yield server
    server.stop()


def test_a_job_that_was_ended_goes_on(
    write: Callable[[str, str], Path], private_home: Path, wire: EmbeddingWire
) -> None:
    write(
        "xdg/arawn/config.toml",
        f'[embedding]\nprovider = "custom"\n[embedding.custom]\nmodel = "m"\nbase_url = "{wire.origin}/v1"\n',
    )
    texts = [f"text {i}" for i in range(1100)]
    write("work/a.txt", "\n".join(texts))
    command = [*COMMAND, "embed", "a.txt", "-o", "out.npy"]

    def end(by: signal.Signals, hanging: range) -> tuple[int, str]:
        wire.seen.clear()
        wire.hung.clear()
        wire.stopped.clear()
        wire.faults = dict.fromkeys(hanging, "hang")
        job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert wire.hung.wait(60)
        job.send_signal(by)
        _, said = job.communicate(timeout=60)  # while the server still hangs
        wire.stopped.set()
        assert not (private_home / "work" / "out.npy").exists()
        return job.returncode, said

    assert end(signal.SIGKILL, range(33, 37))[0] == -signal.SIGKILL
    code, said = end(signal.SIGINT, range(1, 5))
    assert (code, said.strip()) == (130, "interrupted; the same command goes on from here")
    wire.seen.clear()
    wire.faults.clear()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "1024 of 1100 texts were embedded before\n")
    assert sorted(wire.texts) == sorted(texts[1024:])
    found = np.load(private_home / "work" / "out.npy")
    np.testing.assert_allclose(found, [vector(text) for text in texts], rtol=1e-6)
    assert sorted(each.name for each in (private_home / "work").iterdir()) == ["a.txt", "out.npy"]
