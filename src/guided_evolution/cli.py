"""The command line: verbs, and how they speak to a person. What they do lives elsewhere."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from guided_evolution.errors import GuidedEvolutionError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from guided_evolution.problem import Problem
    from guided_evolution.progress import LiveProgress, PlainProgress
    from guided_evolution.settings import Settings

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="guided-evolution", prog_name="guided-evolution")
def cli() -> None:
    """Evolve a program with a language model and multi-objective selection.

    A problem is a folder; `ge init my-problem` writes one that runs, `ge run my-problem` evolves it.
    """


def main() -> None:
    """Runs the command line and turns errors into one line and an exit code."""
    # a candidate's code is parsed here, and what Python has to say about its style is no news to the user
    warnings.filterwarnings("ignore", category=SyntaxWarning)
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except UsageError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except GuidedEvolutionError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def _console(*, stderr: bool = True) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no width; eighty columns would fold every table
    return console


def _json(document: object) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


# -- running --------------------------------------------------------------------------------------------------------

_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    (
        "--llm",
        {
            "help": "The model: local, local:NAME, openai:MODEL, anthropic:MODEL, google:MODEL, "
            "http://host:port/v1#MODEL or scripted:FILE.py.  [default: local]"
        },
    ),
    ("--population", {"type": int, "help": "Survivors and children of a generation.  [default: 8]"}),
    ("--initial", {"type": int, "help": "Size of the initial population.  [default: as --population]"}),
    ("--generations", {"type": int, "help": "Generations after the initial population.  [default: 5]"}),
    ("--p-mate", {"type": float, "help": "Probability that a pair of parents is mated.  [default: 0.35]"}),
    ("--p-mutate", {"type": float, "help": "Probability that a mated child is mutated too.  [default: 0.8]"}),
    ("--p-eot", {"type": float, "help": "Share of Evolution of Thought among mutations.  [default: 0.25]"}),
    ("--seed", {"type": int, "help": "Seed of every random draw.  [default: 0]"}),
    ("--workers", {"type": int, "help": "Evaluations at the same time.  [default: one per two cores]"}),
    ("--llm-parallel", {"type": int, "help": "Model calls at the same time.  [default: 1]"}),
    ("--max-evaluations", {"type": int, "help": "Stop after this many evaluations."}),
    ("--max-tokens", {"type": int, "help": "Stop after this many model tokens."}),
    ("--max-usd", {"type": float, "help": "Stop after this much money, in US dollars."}),
    ("--max-hours", {"type": float, "help": "Stop after this many hours."}),
]


def _run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, details in reversed(_OPTIONS):
        command = click.option(name, default=None, **details)(command)
    return command


def _settings(problem: Problem, options: dict[str, Any]) -> Settings:
    from guided_evolution.settings import Settings

    settings = Settings().with_changes(problem.evolution, str(problem.folder / "problem.toml: evolution"))
    return settings.with_changes(options, "ge run")


def _progress(problem: Problem, settings: Settings) -> LiveProgress | PlainProgress:
    from guided_evolution.progress import LiveProgress, PlainProgress

    console = _console()
    if console.is_terminal:
        return LiveProgress(problem, settings, console)
    return PlainProgress(problem, settings, sys.stderr)


@cli.command()
@click.argument("problem", type=click.Path(path_type=Path))
@_run_options
@click.option("--run", "folder", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/NAME-TIME]")
@click.option("--json", "as_json", is_flag=True, help="Print the front as JSON at the end.")
def run(problem: Path, folder: Path | None, as_json: bool, **options: Any) -> None:
    """Evolve PROBLEM, and print the Pareto front."""
    from guided_evolution import session
    from guided_evolution.problem import Problem

    loaded = Problem.load(problem)
    settings = _settings(loaded, options)
    folder = folder or session.default_folder(loaded, Path("runs"))
    _fetch_if_local(settings.llm)
    click.echo(f"{loaded.name}: {settings.llm}, seed {settings.seed}; kept in {folder}", err=True)
    with _progress(loaded, settings) as progress:
        finished = session.start(loaded, settings, folder, [progress])
    _report(finished, as_json)


@cli.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--generations", type=int, help="Go on to this many generations.")
@click.option("--llm", help="Go on with this model.")
@click.option("--workers", type=int, help="Evaluations at the same time.")
@click.option("--max-evaluations", type=int, help="A new cap on evaluations.")
@click.option("--max-tokens", type=int, help="A new cap on model tokens.")
@click.option("--max-usd", type=float, help="A new cap on money.")
@click.option("--max-hours", type=float, help="A new cap on hours.")
@click.option("--json", "as_json", is_flag=True, help="Print the front as JSON at the end.")
def resume(folder: Path, as_json: bool, **changes: Any) -> None:
    """Go on with RUN after any kind of stop."""
    from guided_evolution import session
    from guided_evolution.run import open_run
    from guided_evolution.settings import Settings

    kept = open_run(folder)
    settings = Settings().with_changes(kept.settings, str(folder)).with_changes(changes, "ge resume")
    _fetch_if_local(settings.llm)
    with _progress(kept.problem, settings) as progress:
        finished = session.resume(folder, [progress], changes)
    _report(finished, as_json)


def _report(finished: Any, as_json: bool) -> None:
    """The end of a run: the front on stdout, everything else on stderr; exit code 130 when interrupted."""
    from guided_evolution import view
    from guided_evolution.evolution import INTERRUPTED
    from guided_evolution.progress import format_seconds, front_table

    if as_json:
        _json(view.front_document(finished))
    else:
        console = _console(stderr=False)
        console.print(front_table(finished.problem, finished.front))
    individuals = finished.individuals
    scored = sum(each.ok for each in individuals)
    spent = finished.spending
    lanes = view.lane_use(finished)
    busy = "; ".join(f"{name} lane {share:.0%} busy" for name, share in lanes.items())
    money = f", {spent['usd']:.2f} USD" if spent["usd"] else ""
    click.echo(
        f"\n{finished.stop_reason}: {len(individuals)} individuals, {scored} scored, in "
        f"{format_seconds(finished.seconds)}; {spent['calls']:.0f} model calls, "
        f"{spent['tokens_in'] + spent['tokens_out']:,.0f} tokens{money}; {busy}\n"
        f"hypervolume {finished.hypervolume():,.6g}. Everything is kept in {finished.folder}\n"
        f"Next: ge diff {finished.folder} ID, ge test {finished.folder}, ge export {finished.folder} ID FOLDER",
        err=True,
    )
    if finished.status == INTERRUPTED:
        click.echo(f"Interrupted; `ge resume {finished.folder}` goes on.", err=True)
        sys.exit(130)


def _fetch_if_local(spec: str) -> None:
    """Fetches a local model before the run begins, with a progress bar of its own."""
    from guided_evolution.llm import models

    name = {"local": models.DEFAULT}.get(spec, spec.removeprefix("local:") if spec.startswith("local:") else "")
    if name and not Path(name).is_file() and models.find(name) is None:
        _pull(name)


def _pull(name: str) -> Path:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from guided_evolution.llm import download, models

    model = models.get(name)
    console = _console()
    if not console.is_terminal:
        click.echo(f"fetching {model.name} ({model.bytes / 1e9:.1f} GB)", err=True)
        return download.fetch(model, None)
    columns = (TextColumn("fetching {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(model.name, total=model.bytes)
        return download.fetch(model, lambda done, total: bar.update(task, completed=done, total=total))


@cli.command()
@click.argument("problem", type=click.Path(path_type=Path))
@click.option("--llm", default=None, help="The model to try.  [default: the problem's, else local]")
def check(problem: Path, llm: str | None) -> None:
    """Try every part of PROBLEM once: blocks, seed, model; and estimate the time of a run."""
    import tempfile

    from guided_evolution import session
    from guided_evolution.problem import Problem
    from guided_evolution.progress import format_scores, format_seconds

    loaded = Problem.load(problem)
    settings = session.resolved(_settings(loaded, {"llm": llm}))
    _fetch_if_local(settings.llm)
    seconds: dict[str, float] = {}

    def tell(key: str, value: Any) -> None:
        if key == "blocks":
            click.echo(f"{len(value)} blocks: {', '.join(name for name, _, _ in value)}")
        elif key == "reply":
            seconds["token"] = value.seconds / max(1, value.tokens_out or 1)
            click.echo(f"model {value.model} answers: {value.text.strip()[:60]!r} after {value.seconds:.1f} s")
        else:
            seconds[key] = value.seconds
            scores = f": {format_scores(loaded, value.scores)}" if value.scores else ""
            click.echo(f"{key} passes in {value.seconds:.1f} s, {value.peak_mb:.0f} MB{scores}")

    with tempfile.TemporaryDirectory(prefix="ge-check-") as folder:
        session.check(loaded, settings, Path(folder) / "run", tell)
    children = settings.first_population + settings.generations * settings.population
    alone = (1 + children) * seconds["evaluate"] / (settings.workers or 1)
    click.echo(
        f"a run with these defaults: {children} children; evaluations alone take about {format_seconds(alone)} "
        f"with {settings.workers} worker(s)"
    )


# -- reading --------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("folder", default="runs", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def runs(folder: Path, as_json: bool) -> None:
    """List the runs below FOLDER (default: runs), newest first."""
    import time

    from rich.table import Table

    from guided_evolution import view
    from guided_evolution.progress import format_scores
    from guided_evolution.run import list_runs, open_run

    found = [open_run(path) for path in list_runs(folder)]
    if as_json:
        _json({"schema": view.SCHEMA, "runs": [view.summary_document(each) for each in found]})
        return
    if not found:
        click.echo(f"No runs in {folder}. `ge run PROBLEM` makes one.", err=True)
        return
    table = Table("run", "problem", "begun", "status", "individuals", "best", box=None, padding=(0, 2, 0, 0))
    for each in found:
        best = format_scores(each.problem, each.front[0].scores) if each.front else ""
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.created))
        table.add_row(str(each.folder), each.problem.name, begun, each.status, str(len(each.individuals)), best)
    _console(stderr=False).print(table)


@cli.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def front(folder: Path, as_json: bool) -> None:
    """Print the Pareto front of RUN."""
    from guided_evolution import view
    from guided_evolution.progress import format_value, front_table
    from guided_evolution.run import open_run

    opened = open_run(folder)
    if as_json:
        _json(view.front_document(opened))
        return
    tests = {
        number: {f"test {name}": format_value(value) for name, value in outcome.scores.items()}
        for number, outcome in opened.tests.items()
    }
    _console(stderr=False).print(front_table(opened.problem, opened.front, tests))


@cli.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("number", metavar="[ID]", type=int, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(folder: Path, number: int | None, as_json: bool) -> None:
    """Show RUN, or one individual of it with its prompts, replies and program."""
    from guided_evolution import screens, view
    from guided_evolution.run import open_run

    opened = open_run(folder)
    if as_json:
        _json(view.run_document(opened) if number is None else view.detail_document(opened, number))
    elif number is None:
        screens.show_run(opened, _console(stderr=False))
    else:
        screens.show_individual(opened, number, _console(stderr=False))


@cli.command()
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
        _json({"schema": view.SCHEMA, "run": str(folder), "id": number, "other": other, "diff": text})
    elif not text:
        click.echo("The two programs are the same.", err=True)
    else:
        screens.show_diff(text, _console(stderr=False))


@cli.command()
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
        _json({"schema": view.SCHEMA, "run": str(folder), "id": number, "files": [str(path) for path in written]})
    else:
        click.echo("\n".join(str(path) for path in written))


@cli.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("numbers", metavar="[ID]...", type=int, nargs=-1)
@click.option("--again", is_flag=True, help="Measure again what was recorded.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def test(folder: Path, numbers: tuple[int, ...], again: bool, as_json: bool) -> None:
    """Measure individuals of RUN (default: the front and the seed) on held-out data, once."""
    from guided_evolution import session, view
    from guided_evolution.progress import format_value

    def tell(number: int, outcome: Any) -> None:
        scores = "  ".join(f"{name} {format_value(value)}" for name, value in outcome.scores.items())
        click.echo(f"#{number}  {scores or f'{outcome.status}: {outcome.reason}'}", err=as_json)

    results = session.test(folder, numbers, tell, again=again)
    if as_json:
        tests = {str(number): view.outcome_document(outcome) for number, outcome in results.items()}
        _json({"schema": view.SCHEMA, "run": str(folder), "tests": tests})


# -- problems and models --------------------------------------------------------------------------------------------


@cli.command()
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


@cli.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def models(context: click.Context, as_json: bool) -> None:
    """List the local models; `ge models pull NAME` fetches one."""
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
        _json({"schema": view.SCHEMA, "models": rows})
        return
    table = Table("name", "size", "licence", "here", box=None, padding=(0, 2, 0, 0))
    for row in rows:
        here = row["path"] or "no (`ge models pull` fetches it)"
        name = f"{row['name']} (default)" if row["default"] else row["name"]
        table.add_row(name, f"{row['bytes'] / 1e9:.2f} GB", row["licence"], here)
    _console(stderr=False).print(table)


@models.command()
@click.argument("name")
def pull(name: str) -> None:
    """Fetch a model, verify its checksum, and print where it is."""
    from guided_evolution.llm import models as known

    click.echo(known.find(name) or _pull(name))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Say what this machine offers: cores, GPUs, models, keys found (never their values)."""
    from guided_evolution import view
    from guided_evolution.doctor import findings

    found = findings()
    if as_json:
        _json({"schema": view.SCHEMA, **found})
        return
    width = max(map(len, found))
    for key, value in found.items():
        click.echo(f"{key:<{width}}  {value if not isinstance(value, list) else ', '.join(value) or 'none'}")


if __name__ == "__main__":
    main()
