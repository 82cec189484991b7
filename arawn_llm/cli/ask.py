"""`arawn ask`: one question, one answer."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import click

import arawn_llm
from arawn_llm.cli import choose_backend, complete_from_file, plain, shared_options
from arawn_llm.cli._answer import show_plain


@click.command(
    epilog='Examples: arawn ask "Hello"; arawn ask -a cat.png "What is it?"; git diff | arawn ask "Review"'
)
@click.argument("prompt", nargs=-1)
@click.option(
    "--agent",
    metavar="NAME",
    shell_complete=complete_from_file("agents"),
    help="Ask as this agent: its profile and system prompt.",
)
@click.option("-s", "--system", metavar="TEXT", help="The system prompt.")
@click.option("-a", "--attach", metavar="FILE", multiple=True, help="An image: a file or a URL.")
@click.option("--no-stream", is_flag=True, help="Print the answer when it is whole.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.option("--usage", is_flag=True, help="Print tokens and cost to stderr.")
@shared_options
@click.pass_context
def ask(ctx: click.Context, /, prompt: tuple[str, ...], agent: str | None, **options: Any) -> None:
    """Ask PROMPT; standard input is the prompt, or is appended to it."""
    backend = choose_backend(ctx, options, agent)
    text = _prompt(prompt)
    wanted: dict[str, Any] = {"system": options["system"], "images": options["attach"]}
    if options["as_json"] or options["no_stream"]:
        reply = backend.complete(text, **wanted)
        text = plain(reply.text) if sys.stdout.isatty() else reply.text
        click.echo(_json(reply) if options["as_json"] else text)
    else:
        reply = _stream(backend, text, wanted)
    if options["usage"]:
        cost = "unknown" if reply.cost is None else f"${reply.cost:.6f}"
        used = reply.usage
        click.echo(f"{used.input_tokens} tokens in, {used.output_tokens} out, cost {cost}", err=True)


def _prompt(words: tuple[str, ...]) -> str:
    parts = [" ".join(words)] if words else []
    if not sys.stdin.isatty():
        parts.append(sys.stdin.read().strip())
    text = "\n\n".join(part for part in parts if part)
    if not text:
        raise click.UsageError('say what to ask: arawn ask "Hello"')
    return text


def _stream(backend: arawn_llm.Backend, text: str, wanted: dict[str, Any]) -> arawn_llm.Completion:
    with backend.stream(text, **wanted) as answer:
        show_plain(answer)
    return answer.completion


def _json(reply: arawn_llm.Completion) -> str:
    fields = {name: getattr(reply, name) for name in ("text", "reasoning", "finish_reason")}
    fields |= {name: getattr(reply, name) for name in ("model", "backend", "profile", "cost")}
    fields["tool_calls"] = [asdict(call) for call in reply.tool_calls]
    fields["usage"] = asdict(reply.usage)
    return json.dumps(fields, ensure_ascii=False)
