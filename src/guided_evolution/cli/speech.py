"""How verbs speak: consoles, JSON, progress."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from guided_evolution.problem import Problem
    from guided_evolution.progress import LiveProgress, PlainProgress
    from guided_evolution.settings import Settings


def console(*, stderr: bool = True) -> Console:
    """A console that never guesses at highlights, and does not fold tables in a pipe."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal:
        made.width = 160  # a pipe has no width; eighty columns would fold every table
    return made


def print_json(document: object) -> None:
    """Prints a document to stdout."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def progress_for(problem: Problem, settings: Settings) -> LiveProgress | PlainProgress:
    """The live panel in a terminal, plain lines elsewhere."""
    from guided_evolution.progress import LiveProgress, PlainProgress

    where = console()
    if where.is_terminal:
        return LiveProgress(problem, settings, where)
    return PlainProgress(problem, settings, sys.stderr)
