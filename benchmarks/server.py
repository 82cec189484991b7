"""What `arawn serve` adds to a call over the library: the ratio, and milliseconds.

    python benchmarks/server.py

A simulated provider and the server answer from processes of their own. The server and the library are asked in
turn, so that a machine that slows down slows both; medians are printed.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

CALLS = 300
ARAWN = [sys.executable, "-c", "from arawn_llm.cli import main; main()"]


def simulate(pipe: Connection) -> None:
    """Answer as a provider until the other end closes."""
    from arawn_llm.testing import Simulator

    with Simulator("custom") as server:
        pipe.send((server.base_url, server.key))
        pipe.recv()


def measure(name: str, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    """Print the medians of both, of their ratios, and of what ours takes longer."""
    pairs = []
    for number in range(CALLS + 20):
        start = time.perf_counter()
        (ours, theirs)[number % 2]()
        middle = time.perf_counter()
        (theirs, ours)[number % 2]()
        end = time.perf_counter()
        spent = (middle - start, end - middle)
        pairs.append(spent[::-1] if number % 2 else spent)
    mine, bare = (1000 * statistics.median(side) for side in zip(*pairs[20:], strict=True))
    ratio = statistics.median(a / b for a, b in pairs[20:])
    print(
        f"POST /api/v1/chat / {name:12}  {ratio:5.3f}   ({mine:.2f} ms / {bare:.2f} ms: +{mine - bare:.2f} ms)"
    )


def main() -> None:
    """Start both, and compare."""
    import httpx

    import arawn_llm

    here, there = multiprocessing.Pipe()
    provider = multiprocessing.get_context("spawn").Process(target=simulate, args=(there,), daemon=True)
    provider.start()
    url, key = here.recv()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "arawn.toml"
        text = f'[llm]\nbackend = "custom"\nmodel = "some-model"\nbase_url = "{url}"\napi_key = "{key}"\n'
        file.write_text(text)
        backend = arawn_llm.get_backend(config=arawn_llm.load_config(file))
        words = [*ARAWN, "serve", "--port", "0", "--rate", "0", "-c", str(file)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
            address = (server.stdout or sys.stdin).readline().split()[2].rstrip(";")
            with httpx.Client(base_url=address, timeout=60) as client, asyncio.Runner() as runner:

                def post() -> None:
                    client.post("/api/v1/chat", json={"message": "Hello"}).raise_for_status()

                measure("acomplete()", post, lambda: runner.run(backend.acomplete("Hello")))
                measure("complete()", post, lambda: backend.complete("Hello"))
                runner.run(arawn_llm.aclose())
            server.terminate()
    here.send(None)


if __name__ == "__main__":
    main()
