"""The verb that runs a recorded run again."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from guided_evolution.cli.speech import print_json, progress_for

if TYPE_CHECKING:
    from guided_evolution.individual import Outcome
    from guided_evolution.replay import Replay


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--problem", type=click.Path(path_type=Path), help="Where the problem lies here.  [default: as recorded]")
@click.option("--run", "target", type=click.Path(path_type=Path), help="Folder of the new run.")
@click.option("--executor", help="Where evaluations run: local, ray or slurm.  [default: as recorded]")
@click.option("--workers", type=int, help="Evaluations at the same time.  [default: as recorded]")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def replay(folder: Path, problem: Path | None, target: Path | None, as_json: bool, **changes: Any) -> None:
    """Run RUN again from its recorded replies, without a model, and compare.

    The same replies must give the same programs: a difference ends with exit code 1. Every program is scored again;
    scores that differ are listed, but noise is no fault.
    """
    from guided_evolution import session
    from guided_evolution.problem import Problem
    from guided_evolution.replay import replay as run_again
    from guided_evolution.run import open_run
    from guided_evolution.settings import Settings

    kept = open_run(folder)
    loaded = Problem.load(problem or kept.problem.folder)
    settings = Settings().with_changes(kept.settings, str(folder))
    target = target or session.default_folder(replace(loaded, name=f"{loaded.name}-replay"), Path("runs"))
    with progress_for(loaded, settings) as progress:
        found = run_again(kept.folder, target, loaded, [progress], changes)
    if as_json:
        print_json(_document(found))
    else:
        _say(found)
    click.echo(f"Everything is kept in {target}", err=True)
    if found.programs:
        sys.exit(1)


def _document(found: Replay) -> dict[str, Any]:
    from guided_evolution import view

    return {
        "schema": view.SCHEMA,
        "run": str(found.run.folder),
        "replay_of": str(found.source),
        "compared": found.compared,
        "programs": {str(number): text for number, text in found.programs.items()},
        "prompts": list(found.prompts),
        "scores": {
            str(number): {"recorded": view.outcome_document(before), "measured": view.outcome_document(after)}
            for number, (before, after) in found.scores.items()
        },
        "front": found.front,
    }


def _say(found: Replay) -> None:
    def scores(outcome: Outcome) -> str:
        from guided_evolution.progress import format_scores

        return format_scores(found.run.problem, outcome.scores) if outcome.ok else f"{outcome.status}: {outcome.reason}"

    for number, text in found.programs.items():
        click.echo(f"#{number}  {text}")
    if found.programs and found.ended:
        click.echo(f"It ended early: {found.ended}", err=True)
    for number, (before, after) in found.scores.items():
        click.echo(f"#{number}  recorded {scores(before)}, measured {scores(after)}")
    differ = len(found.programs)
    made = f"{differ} of {found.compared} differ" if differ else f"all {found.compared} are the same, byte for byte"
    if found.prompts:
        click.echo(f"{len(found.prompts)} came about the same way, but are asked for in other words now.")
    measured = f"{len(found.scores)} differ" if found.scores else "all are the same"
    click.echo(f"Individuals: {made}. Scores: {measured}. The front is {'the same' if found.front else 'another'}.")
