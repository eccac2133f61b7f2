"""Fetching a local model where a person can watch."""

from __future__ import annotations

from pathlib import Path

import click

from guided_evolution.cli.speech import console


def fetch_if_local(*specs: str) -> None:
    """Fetches local models before the run begins, with a progress bar of its own."""
    from guided_evolution.llm import models
    from guided_evolution.llm.ensemble import split_weight

    for spec, _ in map(split_weight, specs):
        name = {"local": models.DEFAULT}.get(spec, spec.removeprefix("local:") if spec.startswith("local:") else "")
        if name and not Path(name).is_file() and models.find(name) is None:
            pull_model(name)


def pull_model(name: str) -> Path:
    """Fetches a model with a progress bar, and gives its path."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from guided_evolution.llm import download, models

    model = models.get(name)
    where = console()
    if not where.is_terminal:
        click.echo(f"fetching {model.name} ({model.bytes / 1e9:.1f} GB)", err=True)
        return download.fetch(model, None)
    columns = (TextColumn("fetching {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=where) as bar:
        task = bar.add_task(model.name, total=model.bytes)
        return download.fetch(model, lambda done, total: bar.update(task, completed=done, total=total))
