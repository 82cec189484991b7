"""`arawn doctor`: what is wrong with a set-up."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import click

from arawn_llm.cli import load_given
from arawn_llm.errors import ConfigError

_MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "wrong": ("✗", "red")}


@click.command(epilog="Exit code 0 only when all that is used works. Example: arawn doctor --offline")
@click.option("--offline", is_flag=True, help="Ask no server.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array and nothing else.")
@click.option(
    "--limit",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="Seconds for each question to a server.",
)
@click.option("-c", "--config", metavar="FILE", help="Read this file and no other.")
@click.pass_context
def doctor(ctx: click.Context, /, offline: bool, as_json: bool, limit: float, **given: Any) -> None:
    """Check every profile, agent, key, address and model that the files name."""
    from arawn_llm.doctor import examine, examine_faulty

    if sys.stderr.isatty() and not as_json:
        click.echo("Checking …", err=True)
    code = 1
    try:
        findings = examine(load_given(ctx, given), offline=offline, limit=limit)
    except ConfigError as error:
        findings, code = examine_faulty(error), 3
    wrong = sum(finding.state == "wrong" for finding in findings)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False, indent=2))
        sys.exit(code if wrong else 0)
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        mark, colour = _MARKS[finding.state]
        place = click.style(f"  # {finding.place}", dim=True) if finding.place else ""
        subject = f"{finding.subject:{width}}"
        click.echo(f"{click.style(mark, fg=colour)} {subject}  {finding.check:8}  {finding.words}{place}")
        for hint in finding.hints:
            click.echo(f"{'':{width + 14}}→ {hint}")
    click.echo(f"\n{wrong} of {len(findings)} checks failed" if wrong else "\nAll that is used works.")
    sys.exit(code if wrong else 0)
