"""The results of an ablation as plain values, table rows and Markdown; the terminal and the page show the same."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from guided_evolution.ablation.results import Results
from guided_evolution.ablation.sentences import sentence
from guided_evolution.progress import format_value
from guided_evolution.report.tables import markdown_table, markdown_text

Rows = list[list[str]]


def document(results: Results) -> dict[str, Any]:
    """What `ge ablate --json` prints, without the schema."""
    return {
        "plan": results.plan.to_json(),
        "measures": [asdict(each) for each in results.measures],
        "runs": [asdict(each) for each in results.runs],
        "comparisons": [
            {**each.to_json(), "sentence": text}
            for each, text in zip(results.comparisons, sentences(results), strict=True)
        ],
        "curves": [each.to_json() for each in results.curves],
        "operators": [each.to_json() for each in results.operators],
        "fronts": {name: list(members) for name, members in results.fronts.items()},
    }


def sentences(results: Results) -> list[str]:
    """What each comparison says, in their order."""
    return [sentence(each, results.plan.arms[0].name) for each in results.comparisons]


def head(results: Results) -> list[str]:
    """The table's columns."""
    best = results.measures[1].name
    tail = ["evaluations", "taken", "children", "calls", "replies taken", "tokens", "hours"]
    return ["arm", "hypervolume %", best, *tail]


def rows(results: Results) -> Rows:
    """A row per arm: means of the measures, sums of what was spent."""
    made = []
    for arm in results.plan.arms:
        mine = [run for run in results.runs if run.arm == arm.name]
        best = [run.best for run in mine if run.best is not None]
        names = ("evaluations", "taken", "children", "calls", "replies_taken", "tokens")
        made.append(
            [
                arm.name,
                f"{sum(run.volume for run in mine) / len(mine):.1f}",
                format_value(sum(best) / len(best)) if len(best) == len(mine) else "–",
                *(f"{sum(getattr(run, name) for run in mine):,}" for name in names),
                f"{sum(run.seconds for run in mine) / 3600:.2f}",
            ]
        )
    return made


def remarks(results: Results) -> list[str]:
    """Whether seeds are missing, and which runs ended before their evaluations were used up."""
    most, seeds = results.plan.evaluations, len(results.plan.seeds)
    early = [
        f"{seeds} of {results.planned} planned seeds so far. A test holds only where the number of seeds does not "
        "depend on what was seen of them."
    ]
    return (early if seeds < results.planned else []) + [
        f"{run.arm}, seed {run.seed} used {run.evaluations} of {most} evaluations ({run.stop_reason})."
        for run in results.runs
        if run.evaluations < most
    ]


def setup(results: Results) -> Rows:
    """What was planned, on what, with which versions."""
    plan, problem = results.plan, results.problem
    made = [["problem", problem.name], ["digest of seed, evaluator and limits", plan.digest[:16]]]
    made += [[f"objective {each.name}", each.goal] for each in problem.objectives]
    made += [["seeds", ", ".join(map(str, plan.seeds))], ["evaluations of each run", f"{plan.evaluations:,}"]]
    for arm in plan.arms:
        differs = ", ".join(f"{name} {value}" for name, value in arm.options.items())
        made.append([f"arm {arm.name}", differs or "the common options"])
    fixed = ("seed", "max_evaluations", "generations")  # the plan's own
    made += [
        [name, str(value)] for name, value in plan.settings.items() if value not in (None, "") and name not in fixed
    ]
    return made + [[f"version of {name}", str(value)] for name, value in results.versions.items()]


def seeds_table(results: Results) -> tuple[list[str], Rows]:
    """Both measures of every run: a row per arm and seed."""
    numbers = [
        [run.arm, str(run.seed), f"{run.volume:.2f}", "–" if run.best is None else format_value(run.best)]
        for run in results.runs
    ]
    return ["arm", "seed", "hypervolume %", results.measures[1].name], numbers


def operators_table(results: Results) -> tuple[list[str], Rows]:
    """What each operator came to: a row per arm and operator, sums over the seeds."""
    columns = {
        "children": "tried",
        "questions": "asked",
        "passed the check": "passed",
        "scored": "scored",
        "improved": "improved",
        "joined the front": "reached",
    }
    numbers = [
        [each.arm, each.operator, *(f"{each.counts[name]:,}" for name in columns.values())]
        for each in results.operators
    ]
    return ["arm", "operator", *columns], numbers


OPERATORS_NOTE = (
    "Sums over the seeds, replies and scores taken from other runs included. A child that was mated and then mutated "
    "counts for both. Improved: better than the first parent in one objective and worse in none."
)


def explained(results: Results) -> list[str]:
    """What the columns mean."""
    first, *others = [each.name for each in results.problem.objectives]
    within = f", no worse than the seed program in {' and '.join(others)}" if others else ""
    shared = len(results.measures) > 1 and len(results.plan.arms) > 2
    return [
        f"hypervolume %: of the joint front of all runs; mean over {count(len(results.plan.seeds))}. "
        f"best {first}: among programs that satisfy the constraints{within}; mean over the seeds.",
        "evaluations, taken, children, calls, replies taken, tokens and hours are sums; taken: scores and replies that "
        "came from another run of the same seed, so hours don't compare.",
        *(["Holm's correction is over the arms, for each measure on its own."] if shared else []),
    ]


def count(seeds: int) -> str:
    """How many seeds, in words."""
    return "one seed" if seeds == 1 else f"{seeds} seeds"


def markdown(results: Results) -> str:
    """The tables and the sentences as Markdown."""
    parts = [f"# {markdown_text(results.problem.name)}: an ablation", ""]
    parts += markdown_table(head(results), rows(results))
    for line in explained(results):
        parts += [markdown_text(line), ""]
    parts += [*(f"* {markdown_text(text)}" for text in [*sentences(results), *remarks(results)]), ""]
    parts += ["## Every run", "", *markdown_table(*seeds_table(results))]
    parts += ["## What each operator came to", "", OPERATORS_NOTE, "", *markdown_table(*operators_table(results))]
    parts += ["## The plan", "", *markdown_table(["", ""], setup(results))]
    return "\n".join(parts)
