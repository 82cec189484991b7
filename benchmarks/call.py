"""What a call costs over bare LiteLLM with the same arguments, and what the imports cost, as ratios.

    python benchmarks/call.py

A simulated provider answers from a process of its own. The two are called in turn, so that a machine that slows
down slows both; the median of the pairs' ratios is printed.
"""

from __future__ import annotations

import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

BACKENDS = ("anthropic", "openai", "groq", "ollama", "custom")
CALLS = 300


def serve(backend: str, pipe: Connection) -> None:
    """Answer until the other end closes."""
    from arawn_llm.testing import Simulator

    with Simulator(backend) as server:
        pipe.send((server.base_url, server.key))
        pipe.recv()


def measure(ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[float, float, float]:
    """Give the median of the ratios, and both medians in milliseconds."""
    pairs = []
    for number in range(CALLS + 20):
        first, second = (ours, theirs) if number % 2 else (theirs, ours)
        start = time.perf_counter()
        first()
        middle = time.perf_counter()
        second()
        end = time.perf_counter()
        spent = (middle - start, end - middle)
        pairs.append(spent if number % 2 else spent[::-1])
    pairs = pairs[20:]
    ratio = statistics.median(a / b for a, b in pairs)
    return ratio, *(1000 * statistics.median(side) for side in zip(*pairs, strict=True))


def compare(backend: str) -> None:
    """Print one backend's line."""
    import arawn_llm
    from arawn_llm import _litellm

    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(backend, there), daemon=True)
    process.start()
    url, key = here.recv()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "arawn.toml"
        file.write_text(
            f'[llm]\nbackend = "{backend}"\nmodel = "some-model"\nbase_url = "{url}"\napi_key = "{key}"\n'
        )
        ours = arawn_llm.get_backend(config=arawn_llm.load_config(file))
        litellm = _litellm.load()
        target = ours._target
        arguments = {
            "model": target.provider.prefix + target.model,
            "api_base": target.base_url,
            "api_key": key,
            "messages": [{"role": "user", "content": "Hello"}],
            "timeout": 600.0,
            "num_retries": 0,
            "max_retries": 0,
            **target.provider.params,
        }
        ratio, mine, bare = measure(lambda: ours.complete("Hello"), lambda: litellm.completion(**arguments))
    here.send(None)
    print(f"complete() / litellm.completion()  {backend:10} {ratio:5.3f}   ({mine:.2f} ms / {bare:.2f} ms)")


def run(code: str) -> float:
    """Time a fresh interpreter in milliseconds: the least of seven runs."""
    times = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        times.append(1000 * (time.perf_counter() - start))
    return min(times)


def main() -> None:
    """Print every ratio."""
    bare = run("pass")
    for name, code in {
        "import arawn_llm": "import arawn_llm",
        "get_backend('ollama')": "import arawn_llm; arawn_llm.get_backend('ollama')",
        "arawn --help": "import sys; sys.argv[1:] = ['--help']; from arawn_llm.cli import main; main()",
    }.items():
        spent = run(code)
        print(f"{name:24} / bare interpreter  {spent / bare:5.2f}   (+{spent - bare:.0f} ms)")
    for backend in BACKENDS:
        compare(backend)


if __name__ == "__main__":
    main()
