"""Writes docs/cli.md from the command line itself: `python docs/generate.py`. A test fails when it is out of date."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from guided_evolution.cli import cli

TARGET = Path(__file__).parent / "cli.md"


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every verb with its full name, in the order of the program."""
    for name in group.commands:
        command = group.commands[name]
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


def reference() -> str:
    """The command-line reference as Markdown."""
    parts = ["# Command line\n\nWritten by `python docs/generate.py`; `ge` is short for `guided-evolution`.\n"]
    for path, command in commands(cli, "ge"):
        context = click.Context(command, info_name=path, max_content_width=100, terminal_width=100)
        parts.append(f"\n## {path}\n\n```\n{command.get_help(context)}\n```\n")
    return "".join(parts)


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
