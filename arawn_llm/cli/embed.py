"""`arawn embed`: texts in, vectors out; an interrupted job goes on where it stopped."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

import arawn_llm
from arawn_llm.cli import shared_options
from arawn_llm.errors import InvalidRequestError, MissingExtraError

if TYPE_CHECKING:
    from arawn_llm._vectors import Kind, Vectors

Write = Callable[[str, "Vectors"], None]
_LINES, _TABLES = {".jsonl", ".ndjson"}, {".csv", ".tsv"}
_ROWS_AT_ONCE = 1024


@click.command(epilog="Examples: arawn embed notes.txt -o notes.npy; arawn embed --rank 'a query' notes.txt")
@click.argument("source", nargs=-1, metavar="[TEXT|FILE]...")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help=".jsonl, .npy or .parquet."
)
@click.option(
    "--field", default="text", show_default=True, help="The JSON key or CSV column that holds the text."
)
@click.option("--rank", metavar="QUERY", help="Print the nearest texts instead of vectors.")
@click.option("--top", default=5, show_default=True, help="How many texts --rank prints.")
@click.option("--query", is_flag=True, help="The texts are queries, which some models want marked.")
@click.option("--dimensions", type=int, metavar="N", help="Another width than the model's own.")
@click.option("--identity", is_flag=True, help="Print what names these vectors, to keep beside them.")
@shared_options
@click.pass_context
def embed(ctx: click.Context, /, source: tuple[str, ...], output: Path | None, **options: Any) -> None:
    """Embed texts, the lines of files, JSON lines (.jsonl) or a column (.csv, .tsv).

    Blank lines are left out. With an output file, Ctrl-C loses nothing: the same command goes on.
    """
    wanted = {name: options[name] or ctx.obj[name] for name in ("backend", "model", "config")}
    config = arawn_llm.load_config(wanted["config"]) if wanted["config"] else None
    embedder = arawn_llm.get_embedder(wanted["backend"], model=wanted["model"], config=config)
    embedder = embedder.resized(options["dimensions"])
    if options["identity"]:
        return click.echo(embedder.identity)
    if options["rank"]:
        for match in embedder.rank(options["rank"], _read(source, options["field"]), top=options["top"]):
            click.echo(f"{match.score:.4f}\t{match.text}")
        return None
    kind: Kind = "query" if options["query"] else "document"
    with ExitStack() as stack:
        if output is not None:
            embedder = stack.enter_context(_resumable(embedder, output))
        write = stack.enter_context(_writer(output))
        texts, kept = _remembering(_read(source, options["field"]))
        bar = sys.stderr.isatty() and output is not None
        for row in embedder.embed_iter(texts, kind=kind, progress=bar):
            write(kept.pop(0), row)
    for cache in embedder.caches:
        if cache.hits:
            click.echo(f"{cache.hits} of {cache.hits + cache.misses} texts were embedded before", err=True)
    return None


def _read(source: tuple[str, ...], field: str) -> Iterator[str]:
    for name in source or ("-",):
        path = Path(name)
        if name == "-":
            yield from _lines(sys.stdin)
        elif path.is_file():
            with path.open(encoding="utf-8-sig", newline="" if path.suffix in _TABLES else None) as file:
                yield from _fields(file, path, field)
        elif path.suffix in {".txt", ".md"} | _LINES | _TABLES:
            raise click.UsageError(f"there is no file {name}")
        else:
            yield name


def _fields(file: IO[str], path: Path, field: str) -> Iterator[str]:
    try:
        if path.suffix in _LINES:
            for line in _lines(file):
                found = json.loads(line)
                yield found if isinstance(found, str) else str(found[field])
        elif path.suffix in _TABLES:
            for row in csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","):
                yield row[field]
        else:
            yield from _lines(file)
    except (KeyError, TypeError) as exc:
        raise click.UsageError(
            f'{path} has no "{field}" in one of its rows; name the right one: --field'
        ) from exc
    except ValueError as exc:
        raise InvalidRequestError(f"{path} cannot be read: {exc}") from exc


def _lines(file: IO[str]) -> Iterator[str]:
    return (line for each in file if (line := each.rstrip("\r\n")).strip())


def _remembering(texts: Iterator[str]) -> tuple[Iterator[str], list[str]]:
    """Keep what is being embedded, to be written beside its vector."""
    kept: list[str] = []

    def remember() -> Iterator[str]:
        for text in texts:
            kept.append(text)
            yield text

    return remember(), kept


@contextmanager
def _resumable(embedder: arawn_llm.Embedder, output: Path) -> Iterator[arawn_llm.Embedder]:
    """Keep what is done beside the output until the output is whole."""
    from arawn_llm.embeddings import VectorCache

    store = VectorCache(output.with_name(output.name + ".partial"))
    try:
        yield replace(embedder, caches=(*embedder.caches, store))
    except KeyboardInterrupt:
        click.echo("interrupted; the same command goes on from here", err=True)
        raise
    finally:
        store.close()
    store.remove()


@contextmanager
def _writer(output: Path | None) -> Iterator[Write]:
    """Give a function that writes one row; a file appears whole, or not at all."""
    if output is None:
        yield lambda text, row: _write_line(sys.stdout, text, row)
        return
    part = output.with_name(f"{output.name}.unfinished")
    kinds = {".npy": _write_npy, ".parquet": _write_parquet}
    try:
        with kinds.get(output.suffix, _write_jsonl)(part) as write:
            yield write
        os.replace(part, output)
    finally:
        part.unlink(missing_ok=True)


def _write_line(file: IO[str], text: str, row: Vectors) -> None:
    file.write(
        json.dumps({"text": text, "embedding": [float(f"{x:.9g}") for x in row]}, ensure_ascii=False) + "\n"
    )


@contextmanager
def _write_jsonl(path: Path) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda text, row: _write_line(file, text, row)


@contextmanager
def _write_npy(path: Path) -> Iterator[Write]:
    from numpy.lib import format as npy

    shape = [0, 0]
    header = {"descr": "<f4", "fortran_order": False}
    with path.open("wb") as file:

        def write(text: str, row: Vectors) -> None:
            if not shape[0]:
                npy.write_array_header_1_0(file, {**header, "shape": (0, len(row))})
            shape[:] = shape[0] + 1, len(row)
            file.write(row.astype("<f4").tobytes())

        yield write
        file.seek(0)  # numpy leaves room in a header for the number of rows to grow
        npy.write_array_header_1_0(file, {**header, "shape": tuple(shape)})


@contextmanager
def _write_parquet(path: Path) -> Iterator[Write]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as exc:
        raise MissingExtraError(
            "Parquet needs a package that is not installed", hints=('pip install "arawn-llm[parquet]"',)
        ) from exc
    rows: list[tuple[str, Vectors]] = []
    writers: list[Any] = []

    def flush() -> None:
        width = len(rows[0][1]) if rows else 0
        vectors = pyarrow.array([row for _, row in rows], pyarrow.list_(pyarrow.float32(), width))
        table = pyarrow.table(
            {"text": pyarrow.array([text for text, _ in rows], "string"), "embedding": vectors}
        )
        if not writers:
            writers.append(parquet.ParquetWriter(path, table.schema))
        writers[0].write_table(table)
        rows.clear()

    def write(text: str, row: Vectors) -> None:
        rows.append((text, row))
        if len(rows) == _ROWS_AT_ONCE:
            flush()

    yield write
    if rows or not writers:
        flush()
    writers[0].close()
