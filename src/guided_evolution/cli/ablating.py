"""The verb that compares: several arms, several seeds, equal budgets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from guided_evolution.cli.fetching import fetch_if_local
from guided_evolution.cli.running import run_options, settings_for
from guided_evolution.cli.speech import console, print_json, progress_for
from guided_evolution.errors import UsageError

if TYPE_CHECKING:
    from guided_evolution.ablation.plan import Cell, Plan
    from guided_evolution.ablation.results import Results
    from guided_evolution.events import Listener
    from guided_evolution.problem import Problem
    from guided_evolution.settings import Settings

SEEDS = 8


@click.command()
@click.argument("target", metavar="PROBLEM|FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--arms",
    metavar="NAME,...",
    help="The arms: full, no-eot, no-eot-no-crp, no-mating, no-shortcuts, adaptive, best-of-n, sequential, random. The "
    "others are compared with the first.  [default: full,no-eot,no-eot-no-crp,best-of-n]",
)
@click.option(
    "--arm",
    "own",
    metavar="NAME:KEY=VALUE,...",
    multiple=True,
    help="An arm of your own: options of a run that differ; repeatable.",
)
@click.option("--seeds", type=int, help=f"Runs of each arm, with seeds from --seed on.  [default: {SEEDS}]")
@run_options
@click.option("--folder", type=click.Path(path_type=Path), help="Where it is kept.  [default: runs/ablate-NAME-TIME]")
@click.option("--parallel", type=click.IntRange(1), default=1, show_default=True, help="Runs at the same time.")
@click.option("--so-far", is_flag=True, help="Run nothing: show the seeds whose runs are all finished.")
@click.option(
    "--at", metavar="EVALUATIONS", type=int, help="Run nothing: show finished seeds as they were after so many."
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def ablate(
    target: Path,
    arms: str | None,
    own: tuple[str, ...],
    seeds: int | None,
    folder: Path | None,
    parallel: int,
    so_far: bool,
    at: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare ways to search PROBLEM, at equal numbers of evaluations and over several seeds.

    Every run is an ordinary one, and may score --max-evaluations programs; without, as many as its generations have.
    Given the FOLDER of an ablation that was stopped, it goes on; of a finished one, it shows the results again.
    In the end it writes FOLDER/ablation.html, a page with figures, and FOLDER/ablation.md.
    """
    from guided_evolution import session
    from guided_evolution.ablation.running import Runner, finished_seeds

    plan, root = _planned(target, folder, (arms, own, seeds), options)
    if at is not None and not 1 <= at <= plan.evaluations:
        raise UsageError(f"--at must lie between 1 and the {plan.evaluations} evaluations of each run, not {at}")
    if so_far or at is not None:
        shown = replace(plan, seeds=finished_seeds(plan, root), evaluations=at or plan.evaluations)
        _show(shown, root, as_json, planned=len(plan.seeds), stem=f"ablation-at-{at}" if at else "ablation")
        return
    for settings in {plan.settings_of(cell) for cell in plan.cells}:
        fetch_if_local(*settings.models)
    with session.locked(root):
        plan.write(root)
        runner = Runner(plan, root, _progress(plan, root, alone=parallel == 1))
        if runner.pending():
            _warn(plan)
        if not runner.run(parallel):
            left = len(runner.pending())
            click.echo(f"Stopped with {left} of {len(plan.cells)} runs to do; `ge ablate {root}` goes on.", err=True)
            sys.exit(130)
    _show(plan, root, as_json)


def _planned(
    target: Path, folder: Path | None, wanted: tuple[str | None, Sequence[str], int | None], options: dict[str, Any]
) -> tuple[Plan, Path]:
    """The plan with its folder: the one that is there already, if what is asked for agrees with it, else a new one."""
    from guided_evolution import session
    from guided_evolution.ablation import plan as plans
    from guided_evolution.ablation.arms import choose
    from guided_evolution.problem import Problem
    from guided_evolution.settings import Settings

    names, own, seeds = wanted
    again = (target / plans.FILE).is_file()
    if again and folder is not None:
        raise UsageError(f"{target} is an ablation's folder already; leave --folder out.")
    root = target if again else folder
    if root is not None and (root / plans.FILE).is_file():
        kept = plans.Plan.read(root)
        problem = Problem.load(kept.problem if again else target)
        changes = options | {"llm": options["llm"] or None}
        settings = Settings().with_changes(kept.settings, str(root)).with_changes(changes, "ge ablate")
        arms = kept.arms if names is None and not own else choose(names, own)
        count = len(kept.seeds) if seeds is None else seeds
        kept.require_same(plans.Plan.make(problem, settings, arms, count), root)
        return kept, root
    problem = Problem.load(target)
    problem.genome()
    plan = plans.Plan.make(
        problem, settings_for(problem, options), choose(names, own), SEEDS if seeds is None else seeds
    )
    named = replace(problem, name=f"ablate-{problem.name}")
    return plan, root or session.default_folder(named, Path("runs"))


def _progress(plan: Plan, root: Path, *, alone: bool) -> Callable[[Cell, Settings], list[Listener]]:
    """What tells of each run: the live panel where one goes at a time in a terminal, else lines that name the run."""
    from guided_evolution.problem import Problem

    problem = Problem.load(plan.problem)
    cells = plan.cells

    def listening(cell: Cell, settings: Settings) -> list[Listener]:
        click.echo(f"run {cells.index(cell) + 1} of {len(cells)}: {cell.label}", err=True)
        return [_Panel(problem, settings) if alone and console().is_terminal else _Lines(cell, problem, settings)]

    return listening


class _Panel:
    """The live panel of one run, which goes when the run ends."""

    def __init__(self, problem: Problem, settings: Settings) -> None:
        self._progress = progress_for(problem, settings)

    def on(self, event: Any) -> None:
        if event.kind == "start":
            self._progress.__enter__()
        self._progress.on(event)
        if event.kind == "end":
            self._progress.__exit__()


class _Lines:
    """Plain lines, each of which names its run."""

    def __init__(self, cell: Cell, problem: Problem, settings: Settings) -> None:
        from guided_evolution.progress import PlainProgress

        self._name = f"{cell.arm.name}/seed-{cell.seed}"
        self._progress = PlainProgress(problem, settings, self)

    def on(self, event: Any) -> None:
        self._progress.on(event)

    def write(self, text: str) -> None:
        click.echo(f"{self._name}  {text}", nl=False, err=True)

    def flush(self) -> None:
        return


def _warn(plan: Plan) -> None:
    """Says before anything is spent when nothing could be concluded in the end."""
    from guided_evolution.ablation.sentences import shortage

    if short := shortage(len(plan.seeds), len(plan.arms) - 1):
        click.echo(f"Nothing can be concluded in the end: {short}.", err=True)


def _show(plan: Plan, root: Path, as_json: bool, planned: int | None = None, stem: str = "ablation") -> None:
    from rich.table import Table

    from guided_evolution import view
    from guided_evolution.ablation import results, tables

    found = results.gather(plan, root, planned)
    if as_json:
        print_json({"schema": view.SCHEMA, **tables.document(found)})
    else:
        table = Table(*tables.head(found), box=None, padding=(0, 2, 0, 0), header_style="bold")
        for row in tables.rows(found):
            table.add_row(*row)
        console(stderr=False).print(table)
        for text in [*tables.sentences(found), *tables.remarks(found)]:
            click.echo(text)
    _write(found, root, stem)


def _write(found: Results, root: Path, stem: str) -> None:
    """Writes the page and the Markdown, and says where; without Plotly no page, and how to get it."""
    from guided_evolution.ablation import page

    try:
        path = page.write(found, root, page=True, stem=stem)
    except UsageError:
        path = page.write(found, root, page=False, stem=stem)
        click.echo(
            f"For a page with figures: pip install 'guided-evolution[plot]', then `ge ablate {root}` again.", err=True
        )
    click.echo(f"Everything is kept in {root}; the results are in {path}", err=True)
