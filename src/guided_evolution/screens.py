"""What `ge show` and `ge diff` print for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from guided_evolution import view
from guided_evolution.curves import PartialResult
from guided_evolution.individual import Exchange, Individual
from guided_evolution.progress import (
    describe,
    format_failure,
    format_scores,
    format_seconds,
    format_twice,
    format_value,
    front_table,
)
from guided_evolution.pruning import is_rung
from guided_evolution.run import Run
from guided_evolution.verification import agree

_FIRST = 10  # so many steps of a learning curve are shown one by one
_SHARES = "share of each generation from the first on"


def show_run(run: Run, console: Console) -> None:
    """A run at a glance: its state, every individual, what each operator earned."""
    console.print(
        f"[bold]{escape(run.problem.name)}[/]  {run.status}"
        f"{f' ({escape(run.stop_reason)})' if run.stop_reason else ''}  {format_seconds(run.seconds)}"
    )
    if run.replay_of:
        console.print(Text(f"made again from the replies of {run.replay_of}"))
    if taken := run.spending["taken"]:
        console.print(f"{taken:.0f} replies were taken from other runs, which paid for them.")
    for change in run.problem_changes:
        console.print(f"The problem was changed after {change['individuals']} individuals; their scores were kept.")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("id", "gen", "status", *(each.name for each in run.problem.objectives), "parents", "made by"):
        table.add_column(name, justify="left" if name in ("status", "made by", "parents") else "right")
    for individual in run.individuals:
        table.add_row(*_row(run, individual))
    console.print(table)
    operators = view.operator_counts(run)
    if operators:
        console.print()
        columns = list(next(iter(operators.values())))
        counts = Table("operator", *columns, box=None, padding=(0, 2, 0, 0), header_style="bold")
        for name, row in operators.items():
            counts.add_row(name, *(str(row[column]) for column in columns))
        console.print(counts)
    if run.model_choices:
        console.print()
        console.print(_models_table(run))
    if run.operator_odds:
        console.print()
        console.print(_odds_table(run))
        for kind in ("blocks", "categories"):
            if any(row["tried"] for row in run.operator_odds[-1].get(kind, [])):
                console.print(_targets_table(run, kind))
    console.print("\n[bold]Pareto front[/]")
    console.print(front_table(run.problem, run.front))


def show_sizes(run: Run, console: Console) -> None:
    """The members of the front that have a name, with the change of every objective against the seed.

    Raises:
        UsageError: As `view.sizes`.
    """
    found = view.sizes(run)
    if not found:
        console.print(view.nothing_named(run))
        return
    columns = [("objectives", each.name, each.goal) for each in run.problem.objectives]
    measured = {each["name"] for member in found for each in member["test"] or ()}
    columns += [("test", each.name, each.goal) for each in run.problem.objectives if each.name in measured]
    table = Table("", "id", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for kind, name, goal in columns:
        head = f"{'test ' if kind == 'test' else ''}{name} {'↑' if goal == 'max' else '↓'}"
        table.add_column(head, justify="right")
        table.add_column("change", justify="right")
    for member in found:
        cells = [cell for kind, name, _ in columns for cell in _against_seed(member[kind] or (), name)]
        table.add_row(member["name"], str(member["id"]), *cells)
    seed, tested = run.individuals[0], run.tests.get(0)
    first: list[str] = []
    for kind, name, _ in columns:
        scores = seed.scores if kind == "objectives" else tested.scores if tested else {}
        first += [format_value(scores[name]) if name in scores else "", ""]
    table.add_row("seed", "0", *first)
    console.print(table)


def _against_seed(compared: Sequence[Mapping[str, Any]], name: str) -> tuple[str, str]:
    """One objective's value, and its change as a share of the seed's value, or as a number where that is 0."""
    found = next((each for each in compared if each["name"] == name), None)
    if found is None:
        return "", ""
    share = found["share"]
    change = f"{100 * share:+.1f} %" if share is not None else f"{found['difference']:+.4g}"
    return format_value(found["value"]), change


def _models_table(run: Run) -> Table:
    """What an adaptive ensemble's members had earned before the last generation, and their shares over all of them."""
    last = run.model_choices[-1]
    cost = last["cost"]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("model", "tried", "earned", cost, "share of each generation"):
        table.add_column(name, justify="right" if name in ("tried", "earned", cost) else "left")
    for number, row in enumerate(last["models"]):
        shares = [each["models"][number]["share"] for each in run.model_choices if number < len(each["models"])]
        spent = f"{row[cost]:.2f}" if cost == "usd" else f"{row[cost]:.0f}"
        percent = " ".join(f"{share:.0%}" for share in shares)
        table.add_row(Text(row["model"]), str(row["tried"]), str(row["earned"]), spent, percent)
    return table


def _odds_table(run: Run) -> Table:
    """What adaptive operators had earned before the last generation, and their shares from the first one on."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("operator", "tried", "earned", "questions", _SHARES):
        table.add_column(name, justify="right" if name in ("tried", "earned", "questions") else "left")
    for number, row in enumerate(run.operator_odds[-1]["operators"]):
        percent = " ".join(f"{each['operators'][number]['share']:.0%}" for each in run.operator_odds)
        table.add_row(row["operator"], str(row["tried"]), str(row["earned"]), str(row["questions"]), percent)
    return table


def _targets_table(run: Run, kind: str) -> Table:
    """What mutations of each block, or by each category, had added to the front before the last generation."""
    known = [each.get(kind, []) for each in run.operator_odds]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ({"blocks": "block", "categories": "category"}[kind], "tried", "added", _SHARES):
        table.add_column(name, justify="right" if name in ("tried", "added") else "left")
    for number, row in enumerate(known[-1]):
        percent = " ".join(f"{rows[number]['share']:.0%}" for rows in known if rows)
        table.add_row(
            row["name"].replace("_", " ") if kind == "categories" else Text(row["name"]),
            str(row["tried"]),
            f"{row['gain']:.1%}",
            percent,
        )
    return table


def _row(run: Run, individual: Individual) -> list[str | Text]:
    values = [format_value(individual.scores[each.name]) if individual.ok else "" for each in run.problem.objectives]
    made = describe(individual)
    if individual.twin is not None:
        made += f" (same program as {individual.twin})"
    elif not individual.ok and individual.outcome:
        made += f": {individual.outcome.reason}"
    if (pair := run.verifications.get(individual.id)) and not agree(run.problem, *pair):
        made += f" (evaluated twice: {format_twice(run.problem, *pair)})"
    if individual.outcome and individual.outcome.taken_from:
        made += f" (scored in {individual.outcome.taken_from})"
    parents = " ".join(map(str, individual.origin.parents))
    return [str(individual.id), str(individual.generation), individual.status.value, *values, parents, Text(made)]


def _from(exchange: Exchange) -> str:
    return f", taken from {exchange.taken_from}" if exchange.taken_from else ""


def show_individual(run: Run, number: int, console: Console) -> None:
    """One individual: its scores against its parent's, its steps, every exchange, its program's change."""
    individual = run.individual(number)
    console.print(Text(f"#{number}  {describe(individual)}", style="bold"))
    outcome = individual.outcome
    if outcome is not None:
        text = format_scores(run.problem, outcome.scores) if outcome.ok else format_failure(outcome)
        console.print(Text(f"{text}   {outcome.seconds:.1f} s, {outcome.peak_mb:.0f} MB"))
        if outcome.taken_from:
            console.print(Text(f"scored in {outcome.taken_from}", style="dim"))
        if number in run.verifications:
            console.print(Text(f"evaluated twice: {format_twice(run.problem, *run.verifications[number])}"))
        if (curve := run.curve(individual.genome.digest)) and individual.status != "rejected":
            console.print(_curve_table(run, curve))
        if outcome.feedback:
            console.print(Text(outcome.feedback, style="dim"))
    for parent in individual.origin.parents:
        scores = run.individual(parent).scores
        console.print(Text(f"parent #{parent}  {format_scores(run.problem, scores) if scores else ''}"))
    for step in individual.origin.steps:
        for name in ("move", "lesson"):
            if value := getattr(step, name):
                console.print(Text(f"{name}: {value}"))
        if step.teacher is not None:
            console.print(Text(f"teacher: #{step.teacher}"))
            for exchange in run.lessons(step.teacher, step.lesson):
                _show_exchange(0, exchange.purpose, exchange.prompt, exchange.reply, _from(exchange)[2:], console)
    for turn, exchange in enumerate(individual.origin.exchanges, 1):
        verdict = f" (not used: {exchange.verdict})" if exchange.verdict else " (used)"
        _show_exchange(
            turn,
            f"{exchange.purpose}, {exchange.model}{verdict}",
            exchange.prompt,
            exchange.reply,
            f"{exchange.seconds:.1f} s, temperature {exchange.temperature}{_from(exchange)}",
            console,
        )
    if individual.origin.parents and individual.status != "rejected":
        console.rule("change against the parent", align="left")
        show_diff(run.diff(number), console)
    if outcome is not None and outcome.log_tail and not outcome.ok:
        console.rule("log", align="left")
        console.print(Text(outcome.log_tail))


def _curve_table(run: Run, curve: Sequence[PartialResult]) -> Table:
    """The partial results of an evaluation; of a long one, the first steps and those at twice the effort each."""
    names = [each.name for each in run.problem.objectives]
    table = Table("step", "after", *names, box=None, padding=(0, 2, 0, 0), header_style="bold")
    for each in curve:
        if each.step <= _FIRST or is_rung(each.step) or each is curve[-1]:
            known = [format_value(each.scores[name]) if name in each.scores else "" for name in names]
            table.add_row(str(each.step), f"{each.seconds:.1f} s", *known)
    return table


def _show_exchange(turn: int, head: str, prompt: str, reply: str, tail: str, console: Console) -> None:
    console.rule(escape(f"{f'question {turn}: ' if turn else 'question: '}{head}"), align="left")
    console.print(Text(prompt.rstrip(), style="dim"))
    console.rule(escape(f"reply {f'({tail})' if tail else ''}"), align="left")
    console.print(Text(reply.rstrip()))


def show_diff(text: str, console: Console) -> None:
    """A unified diff, coloured on a terminal, plain elsewhere."""
    if console.is_terminal:
        console.print(Syntax(text, "diff", theme="ansi_dark", background_color="default"))
    else:
        console.out(text.rstrip("\n"), highlight=False)


def estimate_text(values: Mapping[str, Any]) -> str:
    """What a run will take; `values` as of `Estimate.to_json`."""
    time = {name: format_seconds(values[name]) for name in ("seconds", "model_seconds", "evaluation_seconds")}
    return (
        f"A run makes {values['children']} children: roughly {time['seconds']} (model lane {time['model_seconds']}, "
        f"evaluation lane {time['evaluation_seconds']}), {values['calls']:,} calls, {', '.join(_bill(values))}. "
        "Judged by one sample of each."
    )


def comparison_text(values: Mapping[str, Any]) -> str:
    """What was foretold and what was true, on one line; `values` as of `estimate.compare`."""
    foretold, took = (
        " and ".join([", ".join(_bill(each)), format_seconds(each["seconds"])])
        for each in (values["estimated"], values["took"])
    )
    return f"estimated {foretold} from the first reply and evaluation; it took {took}"


def pruned_text(values: Mapping[str, Any]) -> str:
    """What was stopped early and what that saved, for the end of a run's line; `values` as of `view.pruned`."""
    if not values["programs"]:
        return ""
    saved = "" if values["seconds"] is None else f", about {format_seconds(values['seconds'])} of evaluation saved"
    return f"; {values['programs']} stopped early{saved}"


def _bill(values: Mapping[str, Any]) -> list[str]:
    """Tokens and money; what is not known is said to be unknown, and nothing is said of a price of nothing."""
    tokens, usd = values["tokens"], values["usd"]
    count = "an unknown number of tokens" if tokens is None else f"{tokens:,} tokens"
    if usd is None:
        return [f"{count} at an unknown price"]
    if not usd:
        return [count]
    return [count, f"{usd:.2f} USD" if usd >= 0.01 else "less than 0.01 USD"]
