"""`arawn chat`: a conversation at the terminal, or line by line in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import arawn_llm
from arawn_llm._messages import read_image
from arawn_llm.cli import choose_backend, complete_from_file, report, shared_options
from arawn_llm.cli._answer import show
from arawn_llm.errors import ArawnError

if TYPE_CHECKING:
    from prompt_toolkit.history import History

_WELCOME = "Ctrl-C stops an answer, Ctrl-D leaves, Esc Enter starts a new line, /help lists the commands."


@click.command(
    epilog="Examples: arawn chat; arawn chat --agent summarizer; arawn -b ollama chat -s 'Be brief.'"
)
@click.option(
    "--agent",
    metavar="NAME",
    shell_complete=complete_from_file("agents"),
    help="Talk as this agent: its profile and system prompt.",
)
@click.option("-s", "--system", metavar="TEXT", help="The system prompt.")
@shared_options
@click.pass_context
def chat(ctx: click.Context, /, agent: str | None, system: str | None, **given: Any) -> None:
    """Talk with a model; each line of a pipe is a message or a /command."""
    backend = choose_backend(ctx, given, agent)
    if agent and system is None:  # which goes with the agent to other backends
        system = backend._target.system_prompt
    talk = _Chat(ctx, given, agent, backend, system)
    talk.run()
    sys.exit(talk.code)


class _Chat:
    """The talk itself: what is typed, what is shown, and the commands."""

    def __init__(
        self,
        ctx: click.Context,
        given: dict[str, Any],
        agent: str | None,
        backend: arawn_llm.Backend,
        system: str | None,
    ) -> None:
        self.ctx, self.given, self.agent, self.backend = ctx, given, agent, backend
        self.talk = backend.conversation(system)
        self.images: list[str] = []
        self.unanswered: tuple[str, list[str]] | None = None
        self.dropped = 0
        self.code = 0  # of a pipe: the first failure's

    def run(self) -> None:
        """Read and answer until the end of the input."""
        at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        if at_terminal:
            click.echo(f"{self.backend.backend}, {self.backend.model}. {_WELCOME}", err=True)
        for line in _read_terminal() if at_terminal else sys.stdin:
            text = line.strip()
            try:
                if text.startswith("/") and not text.startswith("//"):
                    if self.obey(*text[1:].split(None, 1)):
                        return
                elif text:
                    self.say(text.removeprefix("/"))
            except ArawnError as error:
                self.fail(report(error))
            except KeyboardInterrupt:
                if not at_terminal:
                    raise
                click.echo("(stopped)", err=True)

    def fail(self, code: int) -> None:
        """Remember a failure where nobody looks on; at a terminal the chat's end is no failure."""
        if not sys.stdin.isatty():
            self.code = self.code or code

    def say(self, text: str) -> None:
        """Send a message and show the answer as it comes."""
        before, images = len(self.talk.messages), self.images
        self.images = []
        try:
            with self.talk.stream(text, images=images) as answer:
                show(answer)
        finally:
            self.unanswered = (text, images) if len(self.talk.messages) == before else None
        if self.talk.dropped != self.dropped:
            self.dropped = self.talk.dropped
            window = self.backend.max_context_tokens
            words = f"(the {self.dropped} oldest turns are left out: the context window is {window} tokens)"
            click.echo(words, err=True)

    def obey(self, name: str = "help", rest: str = "") -> bool:
        """Carry out a command; tell whether to leave."""
        if name in {"quit", "exit"}:
            return True
        command = _COMMANDS.get(name)
        if command is None:
            words = "/help lists them, and a message that begins with / has another / before it"
            click.echo(f"/{name} is not a command; {words}", err=True)
            self.fail(2)
        else:
            command[1](self, rest.strip())
        return False

    def switch(self, **wanted: str) -> None:
        """Go on with another backend or model; what was said stays."""
        given, agent = self.given | {"model": None} | wanted, self.agent
        if "backend" in wanted:
            agent, self.ctx.obj = None, self.ctx.obj | {"model": None}
        self.backend = self.talk.backend = choose_backend(self.ctx, given, agent)
        self.given, self.agent = given, agent
        click.echo(f"now {self.backend.backend}, {self.backend.model}", err=True)

    def retry(self) -> None:
        """Ask again what failed, or else take the last turn back and ask that again."""
        if self.unanswered is not None:
            text, self.images = self.unanswered
            self.say(text)
            return
        message = self.talk.take_back()
        if message is None:
            click.echo("nothing was said yet", err=True)
            return
        content = message["content"]
        if isinstance(content, str):
            self.say(content)
            return
        urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
        self.images = [*urls, *self.images]
        self.say("".join(part["text"] for part in content if part["type"] == "text"))

    def save(self, name: str) -> None:
        """Write the conversation as JSON."""
        content = {"system": self.talk.system, "messages": self.talk.messages}
        text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
        try:
            path = Path(name or "chat.json").expanduser()
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except (OSError, RuntimeError, ValueError) as exc:  # the last two: no such home, a NUL in the name
            click.echo(f"{name} was not written: {getattr(exc, 'strerror', None) or exc}", err=True)
            self.fail(1)
            return
        click.echo(f"wrote {path}", err=True)

    def attach(self, name: str) -> None:
        """Send an image with the next message."""
        if not name:
            click.echo("say which: /attach cat.png", err=True)
            return
        quoted = len(name) > 1 and name[0] == name[-1] and name[0] in "'\""
        self.images.append(read_image(name[1:-1] if quoted else name))
        click.echo(f"{name} goes with the next message", err=True)

    def clear(self) -> None:
        """Forget what was said, and what was about to be."""
        self.talk.clear()
        self.images, self.unanswered = [], None

    def usage(self) -> None:
        """Print the tokens and the cost so far."""
        done = self.talk.completions
        into = sum(each.usage.input_tokens for each in done)
        out = sum(each.usage.output_tokens for each in done)
        costs = [each.cost for each in done if each.cost is not None]
        cost = f"${sum(costs):.6f}" if len(costs) == len(done) else "unknown"
        click.echo(f"{len(done)} answers, {into} tokens in, {out} out, cost {cost}", err=True)

    def set_system(self, text: str) -> None:
        """Set the system prompt."""
        self.talk.system = text or None
        click.echo("the system prompt is set" if text else "the profile's system prompt applies", err=True)

    def help(self) -> None:
        """List the commands."""
        for name, (words, _) in _COMMANDS.items():
            click.echo(f"  /{name:8} {words}", err=True)


# What /help says of each command, and what it does with the rest of the line.
_COMMANDS: dict[str, tuple[str, Callable[[_Chat, str], None]]] = {
    "model": ("NAME   go on with another model", lambda chat, rest: chat.switch(model=rest)),
    "backend": ("NAME   go on with another profile or backend", lambda chat, rest: chat.switch(backend=rest)),
    "system": ("TEXT   set the system prompt", lambda chat, rest: chat.set_system(rest)),
    "attach": ("FILE   send an image with the next message", lambda chat, rest: chat.attach(rest)),
    "save": ("FILE   write the conversation as JSON", lambda chat, rest: chat.save(rest)),
    "retry": ("       ask the last message again", lambda chat, rest: chat.retry()),
    "clear": ("       forget what was said", lambda chat, rest: chat.clear()),
    "usage": ("       tokens and cost so far", lambda chat, rest: chat.usage()),
    "help": ("       this list", lambda chat, rest: chat.help()),
    "quit": ("       leave, as Ctrl-D does", lambda chat, rest: None),
}


def _read_terminal() -> Iterator[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()
    keys.add("escape", "enter")(lambda event: event.current_buffer.insert_text("\n"))
    session: PromptSession[str] = PromptSession(history=_open_history(), key_bindings=keys)
    while True:
        try:
            yield session.prompt("› ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


def _open_history() -> History:
    """Remember what was typed in Arawn's data folder; for this chat only where nothing can be kept."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    from arawn_llm._layers import data_folder

    file = data_folder() / "chat-history"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file.open("a"):
            return FileHistory(str(file))
    except OSError:
        return InMemoryHistory()
