"""The verbs that run something: run, resume, check."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from guided_evolution.cli.fetching import fetch_if_local
from guided_evolution.cli.speech import console, print_json, progress_for

if TYPE_CHECKING:
    from guided_evolution.problem import Problem
    from guided_evolution.run import Run
    from guided_evolution.settings import Settings
    from guided_evolution.trackers import Tracker

_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    (
        "--llm",
        {
            "multiple": True,
            "help": "The model; several, each with =WEIGHT, are an ensemble: "
            "local, local:NAME, openai:MODEL, anthropic:MODEL, google:MODEL, "
            "http://host:port/v1#MODEL, scripted:FILE.py, replay:RUN, "
            "or random: no model, but random edits.  [default: local]",
        },
    ),
    (
        "--llm-choice",
        {"help": "Of several models: weighted, or adaptive by what their children earn and cost.  [default: weighted]"},
    ),
    (
        "--preset",
        {"help": "paper: the published settings; quick: a first look in minutes. Options given beside it win."},
    ),
    ("--population", {"type": int, "help": "Survivors and children of a generation.  [default: 8]"}),
    ("--initial", {"type": int, "help": "Size of the initial population.  [default: as --population]"}),
    ("--generations", {"type": int, "help": "Generations after the initial population.  [default: 5]"}),
    ("--p-mate", {"type": float, "help": "Probability that a pair of parents is mated.  [default: 0.35]"}),
    ("--p-mutate", {"type": float, "help": "Probability that a mated child is mutated too.  [default: 0.8]"}),
    ("--p-eot", {"type": float, "help": "Share of Evolution of Thought among mutations.  [default: 0.25]"}),
    (
        "--operators",
        {"help": "fixed: by --p-mate and --p-eot, all blocks alike; adaptive: by what they earn.  [default: fixed]"},
    ),
    (
        "--search",
        {"help": "evolution, or a baseline: best-of-n (of the seed), sequential (of the best).  [default: evolution]"},
    ),
    (
        "--schedule",
        {"help": "generational can be repeated exactly, steady keeps both lanes full.  [default: generational]"},
    ),
    (
        "--characters/--no-characters",
        {"help": "Whether prompts may speak as a character; without, all are plain.  [default: characters]"},
    ),
    ("--seed", {"type": int, "help": "Seed of every random draw.  [default: 0]"}),
    ("--executor", {"help": "Where evaluations run: local, ray or slurm.  [default: local]"}),
    ("--sbatch", {"help": "Options for sbatch, e.g. '--partition=gpu --account=lab'."}),
    (
        "--sandbox",
        {"help": "auto takes the strongest jail that works, required insists, off takes none.  [default: auto]"},
    ),
    (
        "--verify/--no-verify",
        {"help": "Evaluate once more, in a fresh process, what enters the front.  [default: verify]"},
    ),
    (
        "--prune/--no-prune",
        {"help": "Stop an evaluation early when its partial results are hopeless.  [default: no-prune]"},
    ),
    (
        "--drafts",
        {"type": int, "help": "Make each child this often, and evaluate what promises most.  [default: 1]"},
    ),
    ("--workers", {"type": int, "help": "Evaluations at the same time.  [default: one per two cores]"}),
    ("--llm-parallel", {"type": int, "help": "Model calls at the same time.  [default: 1]"}),
    ("--max-evaluations", {"type": int, "help": "Stop after this many evaluations."}),
    ("--max-tokens", {"type": int, "help": "Stop after this many model tokens."}),
    ("--max-usd", {"type": float, "help": "Stop after this much money, in US dollars."}),
    ("--max-hours", {"type": float, "help": "Stop after this many hours."}),
]


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options of `ge run`."""
    for name, details in reversed(_OPTIONS):
        command = click.option(name, **({"default": None} | details))(command)
    return command


def _track(command: Callable[..., Any]) -> Callable[..., Any]:
    names = ["mlflow", "tensorboard", "trackio", "wandb"]
    option = click.option("--track", multiple=True, type=click.Choice(names), help="Send it to a tracker; repeatable.")
    return option(command)


def _trackers(names: tuple[str, ...]) -> list[Tracker]:
    from guided_evolution.trackers import open_tracker

    return [open_tracker(name) for name in dict.fromkeys(names)]


def settings_for(problem: Problem, options: dict[str, Any]) -> Settings:
    """The settings that a problem and a command line ask for."""
    from guided_evolution.presets import expanded
    from guided_evolution.settings import Settings

    settings = Settings().with_changes(problem.evolution, str(problem.folder / "problem.toml: evolution"))
    return settings.with_changes(expanded(options | {"llm": options.get("llm") or None}), "ge run")


@click.command()
@click.argument("problem", type=click.Path(path_type=Path))
@run_options
@_track
@click.option("--run", "folder", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/NAME-TIME]")
@click.option(
    "--reuse",
    metavar="RUN",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Take scores of programs that RUN scored already, and replies it got to the same questions; repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Try every part once, as `ge check`, estimate the run, and leave it.")
@click.option("--json", "as_json", is_flag=True, help="Print the front as JSON at the end.")
def run(
    problem: Path,
    track: tuple[str, ...],
    folder: Path | None,
    reuse: tuple[Path, ...],
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Evolve PROBLEM, and print the Pareto front."""
    from guided_evolution import session
    from guided_evolution.executors.opening import check_executor
    from guided_evolution.problem import Problem

    loaded = Problem.load(problem)
    settings = settings_for(loaded, options)
    if dry_run:
        check_executor(session.resolved(settings))
        _try(loaded, settings, as_json=as_json)
        return
    folder = folder or session.default_folder(loaded, Path("runs"))
    trackers = _trackers(track)
    fetch_if_local(*settings.models)
    with progress_for(loaded, settings) as progress:
        finished = _resumable(
            folder, lambda: session.start(loaded, settings, folder, [progress, *trackers], reuse=reuse)
        )
    _report(finished, as_json)


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--generations", type=int, help="Go on to this many generations.")
@click.option("--llm", help="Go on with this model.")
@click.option("--workers", type=int, help="Evaluations at the same time.")
@click.option("--sbatch", help="Go on with these options for sbatch.")
@click.option("--max-evaluations", type=int, help="A new cap on evaluations.")
@click.option("--max-tokens", type=int, help="A new cap on model tokens.")
@click.option("--max-usd", type=float, help="A new cap on money.")
@click.option("--max-hours", type=float, help="A new cap on hours.")
@click.option("--accept-changes", is_flag=True, help="Go on although the problem changed; old scores stay.")
@_track
@click.option("--json", "as_json", is_flag=True, help="Print the front as JSON at the end.")
def resume(folder: Path, accept_changes: bool, track: tuple[str, ...], as_json: bool, **changes: Any) -> None:
    """Go on with RUN after any kind of stop."""
    from guided_evolution import session
    from guided_evolution.run import open_run
    from guided_evolution.settings import Settings

    kept = open_run(folder)
    settings = Settings().with_changes(kept.settings, str(folder)).with_changes(changes, "ge resume")
    trackers = _trackers(track)
    fetch_if_local(*settings.models)
    with progress_for(kept.problem, settings) as progress:
        finished = _resumable(
            folder,
            lambda: session.resume(folder, [progress, *trackers], changes, accept_problem=accept_changes),
        )
    _report(finished, as_json)


def _resumable(folder: Path, work: Callable[[], Run]) -> Run:
    try:
        return work()
    except KeyboardInterrupt:
        click.echo(f"Stopped; `ge resume {folder}` goes on.", err=True)
        sys.exit(130)


def _report(finished: Run, as_json: bool) -> None:
    """The end of a run: the front on stdout, everything else on stderr; exit code 130 when interrupted."""
    from guided_evolution import screens, view
    from guided_evolution.nursery import INTERRUPTED
    from guided_evolution.progress import format_seconds, front_table

    if as_json:
        print_json(view.front_document(finished))
    else:
        console(stderr=False).print(front_table(finished.problem, finished.front))
    individuals = finished.individuals
    scored = sum(each.ok for each in individuals)
    spent = finished.spending
    lanes = view.lane_use(finished)
    busy = "; " + ", ".join(f"{name} lane {share:.0%} busy" for name, share in lanes.items()) if lanes else ""
    follows = f": {told}" if (told := view.advice(lanes)) else ""
    again = view.verified_counts(finished)
    programs = "1 program" if again["programs"] == 1 else f"{again['programs']} programs"
    twice = f"; {programs} evaluated twice, {again['disagreed']} disagreed" if again["programs"] else ""
    taken = f", {spent['taken']:.0f} replies taken from other runs" if spent["taken"] else ""
    early = screens.pruned_text(view.pruned(finished))
    money = f", {spent['usd']:.2f} USD" if spent["usd"] else ""
    if spent["unpriced"]:
        money += f", {spent['unpriced']:.0f} calls at an unknown price"
    click.echo(
        f"\n{finished.stop_reason}: {len(individuals)} individuals, {scored} scored, in "
        f"{format_seconds(finished.seconds)}; {spent['calls']:.0f} model calls, "
        f"{spent['tokens_in'] + spent['tokens_out']:,.0f} tokens{money}{taken}{twice}{early}{busy}{follows}\n"
        f"hypervolume {finished.hypervolume():,.6g}. Everything is kept in {finished.folder}\n"
        f"Next: ge diff {finished.folder} ID, ge test {finished.folder}, ge export {finished.folder} ID FOLDER",
        err=True,
    )
    if finished.estimate:
        click.echo(screens.comparison_text(finished.estimate), err=True)
    if finished.status == INTERRUPTED:
        click.echo(f"Interrupted; `ge resume {finished.folder}` goes on.", err=True)
        sys.exit(130)


@click.command()
@click.argument("problem", type=click.Path(path_type=Path))
@click.option("--llm", default=None, help="The model to try.  [default: the problem's, else local]")
@click.option("--sandbox", default=None, help="As of `ge run`.")
@click.option("--preset", default=None, help="As of `ge run`: what the estimate is of.")
def check(problem: Path, llm: str | None, sandbox: str | None, preset: str | None) -> None:
    """Try every part of PROBLEM once: blocks, seed, model; and estimate what a run takes."""
    from guided_evolution.problem import Problem

    loaded = Problem.load(problem)
    _try(loaded, settings_for(loaded, {"llm": llm, "sandbox": sandbox, "preset": preset}))


def _try(problem: Problem, settings: Settings, *, as_json: bool = False) -> None:
    """Tries every part of a problem once and prints what a run would take; nothing is kept."""
    import tempfile
    from dataclasses import replace

    from guided_evolution import errands, screens, session, view
    from guided_evolution.executors.opening import jail_in_force
    from guided_evolution.llm.no_model import RANDOM
    from guided_evolution.progress import describe, format_scores

    settings = session.resolved(settings)
    # the parts are tried on this machine, also where a run would go to a cluster
    click.echo(f"sandbox {jail_in_force(replace(settings, executor='local'))}", err=as_json)
    fetch_if_local(*settings.models)

    def tell(key: str, value: Any) -> None:
        if key == "blocks":
            line = f"{len(value)} blocks: {', '.join(name for name, _, _ in value)}"
        elif key == "note":
            line = value
        elif key == "mutation":
            child, rejected = value
            asked = child.origin.exchanges
            became = f"rejected: {rejected.reason}" if rejected else "a changed child that passes the check"
            seconds = sum(exchange.seconds for exchange in asked)
            name = asked[0].model if asked else RANDOM
            line = f"{name} tries {describe(child)}: {len(asked)} question(s), {seconds:.1f} s, {became}"
        else:
            scores = f": {format_scores(problem, value.scores)}" if value.scores else ""
            line = f"{key} passes in {value.seconds:.1f} s, {value.peak_mb:.0f} MB{scores}"
        click.echo(line, err=as_json)

    with tempfile.TemporaryDirectory(prefix="ge-check-") as folder:
        found = errands.check(problem, settings, Path(folder) / "run", tell)
    if as_json:
        print_json({"schema": view.SCHEMA, "estimate": found.to_json()})
    else:
        click.echo(screens.estimate_text(found.to_json()))
