"""An answer on its way to the screen: Markdown that stays, and a last block that follows the stream."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from arawn_llm.cli import plain

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from arawn_llm import Stream

# Where one block ends and another begins that is no part of the same list, quotation or table.
_BREAK = re.compile(r"\n\n+(?=[^\s\d\-*+>|])")
_FENCE = re.compile(r"(?m)^ {0,3}(```|~~~)")


def show(answer: Stream) -> None:
    """Print an answer as it comes: Markdown on a terminal that can move its cursor, plain text elsewhere."""
    from rich.console import Console

    console = Console()
    if sys.stdout.isatty() and not console.is_dumb_terminal:
        _show_markdown(answer, console)
    else:
        show_plain(answer)


def show_plain(answer: Stream) -> None:
    """Print an answer's text as it comes; what was cut short ends its line too."""
    try:
        for piece in answer:
            click.echo(plain(piece) if sys.stdout.isatty() else piece, nl=False)
            sys.stdout.flush()
    finally:
        if answer.text:
            click.echo()


def _show_markdown(answer: Stream, console: Console) -> None:
    from rich.live import Live
    from rich.markdown import Markdown
    from rich.spinner import Spinner

    done = 0  # characters that stand on the screen for good
    with _no_echo(), Live(Spinner("dots"), console=console, refresh_per_second=8, transient=True) as live:
        try:
            for _ in answer:
                end = find_break(answer.text, done)
                if end > done:
                    live.console.print(Markdown(plain(answer.text[done:end])))
                    live.console.print()
                    done = end
                live.update(_Tail(answer.text[done:]))
        finally:
            live.update("")
            # What was cut short stays as well.
            rest = plain(answer.text[done:])
            if rest.strip():
                live.console.print(Markdown(rest))


def find_break(text: str, start: int) -> int:
    """Find where the last whole block ends, outside of fenced code; the start where none is whole."""
    ends = [match.end() for match in _BREAK.finditer(text, start)]
    return next((end for end in reversed(ends) if len(_FENCE.findall(text[start:end])) % 2 == 0), start)


class _Tail:
    """Show as much of the end of a block as the screen has room for."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.markdown import Markdown
        from rich.segment import Segment

        block = Markdown(plain(self._text))
        for line in console.render_lines(block, options, pad=False)[-max(1, console.height - 2) :]:
            yield from line
            yield Segment.line()


@contextmanager
def _no_echo() -> Iterator[None]:
    """Keep a Ctrl-C from being drawn over the answer."""
    try:
        import termios
    except ImportError:  # there is none on Windows, and nothing to keep from
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    quiet = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
