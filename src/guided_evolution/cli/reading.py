"""The verbs that read a run: runs, show, front, diff, export, report; and test, which adds the held-out figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from guided_evolution.cli.speech import console, print_json
from guided_evolution.errors import GuidedEvolutionError


@click.command()
@click.argument("folder", default="runs", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def runs(folder: Path, as_json: bool) -> None:
    """List the runs below FOLDER (default: runs), newest first."""
    import time

    from rich.table import Table

    from guided_evolution import view
    from guided_evolution.progress import format_scores
    from guided_evolution.run import list_runs, open_run

    found = []
    for path in list_runs(folder):
        try:
            opened = open_run(path)
            found.append((opened, view.summary_document(opened)))
        except GuidedEvolutionError as error:
            click.echo(f"{error}", err=True)
    if as_json:
        print_json({"schema": view.SCHEMA, "runs": [document for _, document in found]})
        return
    if not found:
        click.echo(f"No runs in {folder}. `ge run PROBLEM` makes one.", err=True)
        return
    columns = ["run", "problem", "begun", "status", "individuals", "best"]
    unsteady = any(document["verified"]["disagreed"] for _, document in found)
    table = Table(*columns, *(["evaluated twice"] if unsteady else []), box=None, padding=(0, 2, 0, 0))
    for each, document in found:
        best = format_scores(each.problem, each.front[0].scores) if each.front else ""
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.created))
        cells = [str(each.folder), each.problem.name, begun, document["status"], str(document["individuals"]), best]
        counts = document["verified"]
        marked = f"{counts['programs']}, {counts['disagreed']} disagreed" if counts["disagreed"] else ""
        table.add_row(*cells, *([marked] if unsteady else []))
    console(stderr=False).print(table)


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--sizes", is_flag=True, help="Name members T, S, M and L, as the paper does, against the seed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def front(folder: Path, sizes: bool, as_json: bool) -> None:
    """Print the Pareto front of RUN."""
    from guided_evolution import screens, view
    from guided_evolution.progress import format_value, front_table
    from guided_evolution.run import open_run

    opened = open_run(folder)
    if as_json:
        print_json(view.front_document(opened) | ({"sizes": view.sizes(opened)} if sizes else {}))
        return
    if sizes:
        screens.show_sizes(opened, console(stderr=False))
        return
    tests = {
        number: {f"test {name}": format_value(value) for name, value in outcome.scores.items()}
        for number, outcome in opened.tests.items()
    }
    console(stderr=False).print(front_table(opened.problem, opened.front, tests))


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("number", metavar="[ID]", type=int, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(folder: Path, number: int | None, as_json: bool) -> None:
    """Show RUN, or one individual of it with its prompts, replies and program."""
    from guided_evolution import screens, view
    from guided_evolution.run import open_run

    opened = open_run(folder)
    if as_json:
        print_json(view.run_document(opened) if number is None else view.detail_document(opened, number))
    elif number is None:
        screens.show_run(opened, console(stderr=False))
    else:
        screens.show_individual(opened, number, console(stderr=False))


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("number", metavar="ID", type=int)
@click.argument("other", metavar="[OTHER]", type=int, required=False)
@click.option("--seed", "against_seed", is_flag=True, help="Compare with the seed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff(folder: Path, number: int, other: int | None, against_seed: bool, as_json: bool) -> None:
    """Show what changed from an individual's parent (or OTHER, or the seed) to the individual."""
    from guided_evolution import screens, view
    from guided_evolution.run import open_run

    opened = open_run(folder)
    other = 0 if against_seed else other
    text = opened.diff(number, other)
    if as_json:
        print_json({"schema": view.SCHEMA, "run": str(folder), "id": number, "other": other, "diff": text})
    elif not text:
        click.echo("The two programs are the same.", err=True)
    else:
        screens.show_diff(text, console(stderr=False))


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("number", metavar="ID", type=int)
@click.argument("target", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def export(folder: Path, number: int, target: Path, as_json: bool) -> None:
    """Write an evolved program to DIR, with a PROVENANCE.md that says where it comes from."""
    from guided_evolution import view
    from guided_evolution.export import export_individual
    from guided_evolution.run import open_run

    written = export_individual(open_run(folder), number, target)
    if as_json:
        print_json({"schema": view.SCHEMA, "run": str(folder), "id": number, "files": [str(path) for path in written]})
    else:
        click.echo("\n".join(str(path) for path in written))


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("numbers", metavar="[ID]...", type=int, nargs=-1)
@click.option("--again", is_flag=True, help="Measure again what was recorded.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def test(folder: Path, numbers: tuple[int, ...], again: bool, as_json: bool) -> None:
    """Measure individuals of RUN (default: the front and the seed) on held-out data, once."""
    from guided_evolution import errands, view
    from guided_evolution.progress import format_value

    def tell(number: int, outcome: Any) -> None:
        scores = "  ".join(f"{name} {format_value(value)}" for name, value in outcome.scores.items())
        click.echo(f"#{number}  {scores or f'{outcome.status}: {outcome.reason}'}", err=as_json)

    results = errands.test(folder, numbers, tell, again=again)
    if as_json:
        tests = {str(number): view.outcome_document(outcome) for number, outcome in results.items()}
        print_json({"schema": view.SCHEMA, "run": str(folder), "tests": tests})


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write; - is stdout.  [default: RUN/report.FORMAT]",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["html", "md", "csv", "json"]),
    default="html",
    show_default=True,
    help="What to write.",
)
def report(folder: Path, output: Path | None, kind: str) -> None:
    """Write RUN as one file: what won and by how much, the front, charts, operators, failures, configuration."""
    from guided_evolution.report import report as text_of
    from guided_evolution.report import write_report
    from guided_evolution.run import open_run

    opened = open_run(folder)
    if output is not None and str(output) == "-":
        click.echo(text_of(opened, kind), nl=False)
        return
    click.echo(str(write_report(opened, output or opened.folder / f"report.{kind}", kind)))
