"""The verbs before a run: init, models, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from guided_evolution.cli.fetching import pull_model
from guided_evolution.cli.serving import serve
from guided_evolution.cli.speech import console, print_json


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--from", "source", type=click.Path(path_type=Path), help="Start from this Python file.")
def init(folder: Path, source: Path | None) -> None:
    """Write a problem folder that already runs."""
    from guided_evolution.scaffold import write_problem

    blocks = write_problem(folder, source)
    click.echo(f"{folder}: {len(blocks)} block(s): {', '.join(blocks)}")
    if source:
        click.echo(f"Next: say in {folder / 'evaluate.py'} how a candidate is scored, then `ge check {folder}`.")
    else:
        click.echo(f"Next: `ge run {folder}`")


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def models(context: click.Context, as_json: bool) -> None:
    """List the local models; `ge models pull NAME` fetches one, `ge models serve` keeps one running."""
    if context.invoked_subcommand:
        return
    from rich.table import Table

    from guided_evolution import view
    from guided_evolution.llm import models as known

    rows: list[dict[str, Any]] = [
        {
            "name": model.name,
            "bytes": model.bytes,
            "licence": model.licence,
            "default": model.name == known.DEFAULT,
            "path": str(path) if (path := known.find(model.name)) else None,
        }
        for model in known.MODELS
    ]
    if as_json:
        print_json({"schema": view.SCHEMA, "models": rows})
        return
    table = Table("name", "size", "licence", "here", box=None, padding=(0, 2, 0, 0))
    for row in rows:
        here = row["path"] or "no (`ge models pull` fetches it)"
        name = f"{row['name']} (default)" if row["default"] else row["name"]
        table.add_row(name, f"{row['bytes'] / 1e9:.2f} GB", row["licence"], here)
    console(stderr=False).print(table)


models.add_command(serve)


@models.command()
@click.argument("name")
def pull(name: str) -> None:
    """Fetch a model, verify its checksum, and print where it is."""
    from guided_evolution.llm import models as known

    click.echo(known.find(name) or pull_model(name))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Say what this machine offers: cores, GPUs, models, keys found (never their values)."""
    from guided_evolution import view
    from guided_evolution.doctor import findings

    found = findings()
    if as_json:
        print_json({"schema": view.SCHEMA, **found})
        return
    width = max(map(len, found))
    for key, value in found.items():
        click.echo(f"{key:<{width}}  {value if not isinstance(value, list) else ', '.join(value) or 'none'}")
