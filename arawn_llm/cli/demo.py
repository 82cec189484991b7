"""`arawn demo`: every backend over real HTTP, with no key and no network."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import arawn_llm
from arawn_llm import errors
from arawn_llm.testing import KEY, Fault, Reply, Simulator

_PROFILES = (
    # profile, backend, model
    ("default", "anthropic", "claude-sonnet-4-6"),
    ("smart", "openai", "gpt-4o-mini"),
    ("fast", "groq", "llama-3.3-70b-versatile"),
    ("local", "ollama", "llama3"),
    ("own", "custom", "my-model"),
)
_AGENTS = '[agent.default]\nllm = "fast"\n\n[agent.summarizer]\nllm = "local"\n'


@dataclass(frozen=True)
class _Step:
    """One question: whom it goes to, what the simulator is told, and what has to come back."""

    title: str
    profile: str
    script: Reply | Fault
    ask: Callable[[arawn_llm.Backend], str]
    expect: str
    agent: str | None = None


class _SimulatedKey:
    """Give the simulators' key, so that no key of the person's is looked for."""

    source = "the demo"

    def token(self) -> str:
        return KEY

    async def atoken(self) -> str:
        return KEY

    def invalidate(self) -> bool:
        return False


@click.command()
def demo() -> None:
    """Show every backend at work against simulated providers: no key, no network.

    Starts servers on 127.0.0.1 that speak as the providers speak, writes a temporary arawn.toml with a profile
    for each, and asks each of them over HTTP. Exits with 0 only if each did what it should.
    """
    click.echo("These providers are simulated on this machine: no key is used and nothing leaves it.\n")
    with ExitStack() as stack:
        servers = {name: stack.enter_context(Simulator(backend)) for name, backend, _ in _PROFILES}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="arawn-demo-")))
        file = folder / "arawn.toml"
        file.write_text(_file(servers), encoding="utf-8")
        click.echo(f"{_heading(str(file))}\n{file.read_text(encoding='utf-8')}")
        config = arawn_llm.load_config(file)
        failed = [step.title for step in _steps() if not _run(step, servers[step.profile], config)]
    if failed:
        click.echo(f"\n{len(failed)} did not do what they should: {', '.join(failed)}", err=True)
        sys.exit(1)
    click.echo("\nAll did what they should. Every reply above was simulated.")
    click.echo('Next: put such an arawn.toml into your project, store a key, and: arawn ask "Hello"')


def _file(servers: dict[str, Simulator]) -> str:
    tables = []
    for name, backend, model in _PROFILES:
        head = "[llm]" if name == "default" else f"[llm.{name}]"
        url = servers[name].base_url
        tables.append(f'{head}\nbackend = "{backend}"\nmodel = "{model}"\nbase_url = "{url}"')
    return "\n\n".join([*tables, _AGENTS])


def _steps() -> Iterator[_Step]:
    for name, backend, _ in _PROFILES:
        reply = f"Hello from a simulated {backend}."
        yield _Step(f'get_backend("{name}")', name, Reply(reply), _complete, reply)
    streamed = "These words came one by one."
    yield _Step('get_backend("smart"), streamed', "smart", Reply(streamed), _stream, streamed)
    call = Reply(tool_calls=(("get_weather", {"city": "Oslo"}),))
    yield _Step('get_backend("default"), with a tool', "default", call, _use_tool, "get_weather(city='Oslo')")
    short = "Three lines, simulated."
    yield _Step('get_backend(agent="summarizer")', "local", Reply(short), _complete, short, agent="summarizer")
    refused = 'Authentication failed for backend "anthropic"'
    yield _Step(
        'get_backend("default"), with a key that is refused', "default", Fault(status=401), _fail, refused
    )


def _run(step: _Step, server: Simulator, config: arawn_llm.Config) -> bool:
    server.script(step.script)
    name = None if step.agent or step.profile == "default" else step.profile
    backend = arawn_llm.get_backend(name, agent=step.agent, config=config, credential=_SimulatedKey())
    click.echo(_heading(f"\n{step.title}"))
    click.echo(f"  {backend.resolved_from} -> {backend.backend}, model {backend.model}, {backend.base_url}")
    click.echo("  ", nl=False)
    try:
        answer = step.ask(backend)
    except errors.ArawnError as error:
        answer = f"Error: {error}"
        click.echo(answer)
    right = answer == step.expect
    if not right:
        click.echo(click.style(f"  expected: {step.expect}", fg="red"))
    return right


def _complete(backend: arawn_llm.Backend) -> str:
    reply = backend.complete("Hello")
    click.echo(f"{reply.text}  ({reply.usage.input_tokens} tokens in, {reply.usage.output_tokens} out)")
    return reply.text


def _stream(backend: arawn_llm.Backend) -> str:
    with backend.stream("Hello") as stream:
        for text in stream:
            click.echo(text, nl=False)
    click.echo()
    return stream.completion.text


def _use_tool(backend: arawn_llm.Backend) -> str:
    def get_weather(city: str) -> str:
        """Tell the weather in a city."""
        return f"rain in {city}"

    call = backend.complete("What is the weather in Oslo?", tools=[get_weather]).tool_calls[0]
    arguments: dict[str, Any] = dict(call.arguments)
    said = f"{call.name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
    click.echo(f"{said} is called and gives {get_weather(**arguments)!r}")
    return said


def _fail(backend: arawn_llm.Backend) -> str:
    try:
        backend.complete("Hello")
    except errors.AuthenticationError as error:
        click.echo(f"Error: {error}")
        for number, hint in enumerate(error.hints, 1):
            click.echo(f"    {number}. {hint}")
        return str(error)
    return "no error"


def _heading(text: str) -> str:
    return click.style(text, bold=True)
