"""What a report says, as plain values that its HTML and its Markdown fill in alike."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from guided_evolution import view
from guided_evolution.individual import Individual, Status
from guided_evolution.odds import ADAPTIVE
from guided_evolution.progress import describe, format_seconds, format_twice, format_value
from guided_evolution.run import Run

MOST_FRONT = 200
MOST_KINDS = 40
Rows = list[list[str]]


def content(run: Run) -> dict[str, Any]:
    """Everything a report says; see the keys' own functions."""
    progress = view.series(run)
    rows = view.breakdown(run, view.entered(run, progress))
    headline = view.headline(run, progress)
    begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.created))
    return {
        "problem": run.problem.name,
        "summary": run.problem.summary,
        "run": run.folder.resolve().name,
        "status": run.status,
        "stop_reason": run.stop_reason,
        "begun": begun,
        "verdict": verdict(run, headline),
        "comparison": _comparison(headline),
        "cost": _cost(run, progress, headline),
        "winner": _winner(run, headline),
        "front": _front(run),
        "names": view.named(run),
        "operators": _operators(rows),
        "breakdown": _breakdown(rows),
        "failures": _kinds(view.failures(run)),
        "refusals": _kinds(view.refusals(run)),
        "configuration": _configuration(run),
        "appendix": appendix(run, progress, headline),
    }


def verdict(run: Run, headline: Mapping[str, Any] | None) -> str:
    """The run's result in one or two sentences."""
    if headline is None:
        return "The seed has not been scored, so there is nothing to compare with yet."
    if headline["beats_seed"]:
        changes = ", ".join(_change(each) for each in headline["objectives"])
        return f"#{headline['winner']} beats the seed and gives nothing up for it: {changes}."
    ends = [
        f"{name} {format_value(run.by_id[number].scores[name])} by #{number}"
        for name, number in headline["extremes"].items()
        if number
    ]
    best = f" Best at a price elsewhere: {'; '.join(ends)}." if ends else ""
    return f"Nothing was found that is better than the seed in one objective and worse in none.{best}"


def _change(row: Mapping[str, Any]) -> str:
    if row["judgement"] == "same":
        return f"{row['name']} unchanged at {format_value(row['winner'])}"
    share = f" ({row['share']:+.1%})" if row["share"] is not None else ""
    return f"{row['name']} {format_value(row['winner'])} against {format_value(row['seed'])}{share}"


def _comparison(headline: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if headline is None:
        return None

    def rows(found: Iterable[Mapping[str, Any]]) -> Rows:
        return [
            [
                f"{each['name']} ({'more' if each['goal'] == 'max' else 'less'} is better)",
                format_value(each["seed"]),
                format_value(each["winner"]),
                f"{each['share']:+.1%}" if each["share"] is not None else f"{each['difference']:+.4g}",
                each["judgement"],
            ]
            for each in found
        ]

    tested = headline["test"]
    return {
        "head": ["objective", "seed #0", f"winner #{headline['winner']}", "change", ""],
        "validation": rows(headline["objectives"]),
        "test": rows(tested) if tested else [],
    }


def _cost(run: Run, progress: Mapping[str, Any], headline: Mapping[str, Any] | None) -> Rows:
    spent = run.spending
    early = view.pruned(run)
    stopped = sum(each.status is Status.PRUNED for each in run.individuals)
    failed = sum(not each.ok for each in run.individuals) - stopped
    whole = {
        "individuals": f"{len(run.individuals):,} ({failed:,} failed)",
        "evaluations": f"{len(progress['id']):,}",
        **({"stopped early": _early(early)} if early["programs"] else {}),
        "model calls": f"{spent['calls']:,.0f}",
        "model tokens": _tokens(spent["tokens_in"] + spent["tokens_out"]),
        "money": money(spent["usd"], spent["unpriced"]),
        **({"replies taken from other runs": f"{spent['taken']:,.0f}"} if spent["taken"] else {}),
        "wall-clock time": format_seconds(run.seconds),
    }
    found = headline["found"] if headline and headline["beats_seed"] else None
    until = dict.fromkeys(whole, "")
    if found and found["evaluations"] is not None:
        until["evaluations"] = f"{found['evaluations']:,}"
        until["model tokens"] = _tokens(found["tokens"])
        until["money"] = money(found["usd"], spent["unpriced"])
        until["wall-clock time"] = format_seconds(found["seconds"])
    return [[name, until[name], whole[name]] for name in whole]


def _early(counts: Mapping[str, Any]) -> str:
    """How many evaluations were stopped early, and what that saved."""
    saved = "" if counts["seconds"] is None else f", about {format_seconds(counts['seconds'])} saved"
    return f"{counts['programs']:,}{saved}"


def _tokens(count: float) -> str:
    return f"{count:,.0f}" if count else "not reported"


def money(usd: float, unpriced: float) -> str:
    """An amount with as many digits as it needs, and how many calls have no known price."""
    amount = "0 USD" if not usd else f"{usd:.2f} USD" if usd >= 1 else f"{usd:.4f} USD"
    return f"{amount}, and {unpriced:,.0f} calls of unknown price" if unpriced else amount


def _winner(run: Run, headline: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if headline is None or headline["change"] is None:
        return None
    individual = run.by_id[headline["winner"]]
    change = headline["change"]
    used = change["exchanges"]
    return {
        "id": individual.id,
        "made_by": describe(individual),
        "steps": [_step(step) for step in change["steps"]],
        "diff": change["diff"],
        "diff_to_seed": change["diff_to_seed"],
        "exchanges": [
            {**each, "facts": f"{each['model']}, {each['seconds']:.1f} s, temperature {each['temperature']}"}
            for each in used
        ],
        "trunk": [_ancestor(run, number) for number in headline["trunk"]],
        "asked": len(run.individual(individual.id).origin.exchanges),
    }


def _step(step: Mapping[str, Any]) -> Rows:
    named = {**step, "category": str(step["category"]).removeprefix("mate_").replace("_", " ")}
    return [[name, str(value)] for name, value in named.items() if value not in (None, "")]


def _ancestor(run: Run, number: int) -> list[str]:
    each = run.by_id[number]
    scores = [format_value(each.scores[item.name]) if each.ok else "" for item in run.problem.objectives]
    return [f"#{number}", str(each.generation) if number else "", *scores, describe(each)]


def _front(run: Run) -> dict[str, Any]:
    """The front as a table, the seed first; held-out figures where there are any."""
    objectives = [each.name for each in run.problem.objectives]
    tests = run.tests
    tested = [name for name in objectives if any(name in outcome.scores for outcome in tests.values())]
    names: dict[int, list[str]] = {}
    for name, number in view.named(run).items():
        names.setdefault(number, []).append(name)
    members = run.front[:MOST_FRONT]
    seed = run.by_id.get(0)
    shown: list[Individual] = [*([seed] if seed is not None and seed not in members else []), *members]

    def row(each: Individual) -> list[str]:
        test = tests.get(each.id)
        return [
            f"#{each.id}",
            "/".join(names.get(each.id, ())) or ("seed" if not each.id else ""),
            *(format_value(each.scores[name]) if each.ok else each.status.value for name in objectives),
            *(format_value(test.scores[name]) if test and name in test.scores else "" for name in tested),
            " ".join(f"#{parent}" for parent in each.origin.parents),
            describe(each),
        ]

    disagreed = [each.id for each in shown if (pair := view.verified(run, each.id)) and not pair["agrees"]]
    return {
        "note": _twice(run, disagreed),
        "head": [
            "id",
            "name",
            *(f"{name}, validation" for name in objectives),
            *(f"{name}, held-out" for name in tested),
            "parents",
            "made by",
        ],
        "numbers": len(objectives) + len(tested),
        "rows": [row(each) for each in shown],
        "size": len(run.front),
        "tested": bool(tested),
        "cut": len(run.front) > MOST_FRONT,
    }


def _twice(run: Run, disagreed: Iterable[int]) -> str:
    """The footnote of the front's table: what its members' second evaluations gave."""
    counts = view.verified_counts(run)
    if not counts["programs"]:
        return ""
    differ = [f"#{number} {format_twice(run.problem, *run.verifications[number])}" for number in disagreed]
    these = f" {'. '.join(differ)}." if differ else ""
    return f"{_evaluated_twice(counts)} In each objective, the worse value counts.{these}"


def _evaluated_twice(counts: Mapping[str, int]) -> str:
    one = counts["programs"] == 1
    programs = (
        "1 program that entered the front was" if one else f"{counts['programs']} programs that entered the front were"
    )
    return f"{programs} evaluated twice, the second time in a fresh process; {counts['disagreed']} disagreed."


def _operators(rows: list[dict[str, Any]]) -> dict[str, Any]:
    tables = []
    for by in view.tallies.KEYS:
        table = view.grouped(rows, by)
        if len(table) > 1 or by == "operator":
            tables.append([by, [[name or "(none)", *_counts(counts)] for name, counts in table.items()]])
    return {"head": list(view.tallies.COUNTS), "tables": tables}


def _breakdown(rows: list[dict[str, Any]]) -> dict[str, Any]:
    ordered = sorted(rows, key=lambda row: (-row["reached"], -row["tried"]))
    return {
        "head": [*view.tallies.KEYS, *view.tallies.COUNTS],
        "rows": [[*(str(row[key]) for key in view.tallies.KEYS), *_counts(row)] for row in ordered[:MOST_FRONT]],
        "size": len(rows),
    }


def _counts(row: Mapping[str, Any]) -> list[str]:
    return [f"{row[name]:,}" for name in view.tallies.COUNTS]


def _kinds(found: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [
        [
            f"{row['count']:,}",
            row["status"].replace("_", " "),
            row["example"].split("\n")[0][:300],
            " ".join(f"#{number}" for number in dict.fromkeys(row["ids"][:6])),
        ]
        for row in found[:MOST_KINDS]
    ]
    return {"rows": rows, "total": sum(row["count"] for row in found), "size": len(found)}


def _configuration(run: Run) -> Rows:
    """Settings, limits and versions; an option that was left to its default of none is left out."""
    problem, limits = run.problem, run.problem.limits
    rows = [["problem", problem.name], ["digest of seed, evaluator and limits", problem_digest(run)]]
    for objective in problem.objectives:
        reference = "" if objective.reference is None else f", reference {format_value(objective.reference)}"
        rows.append([f"objective {objective.name}", f"{objective.goal}{reference}"])
    for constraint in problem.constraints:
        bounds = [f"{name} {value:g}" for name in ("min", "max") if (value := getattr(constraint, name)) is not None]
        rows.append([f"constraint {constraint.name}", ", ".join(bounds)])
    rows.append(["limits of an evaluation", f"{limits.seconds:g} s, {limits.memory_mb} MiB, {limits.gpus} GPUs"])
    rows += [[name, str(value)] for name, value in run.settings.items() if value not in (None, "")]
    rows += [[f"version of {name}", str(value)] for name, value in run.versions.items()]
    rows += [[f"machine: {name}", str(value)] for name, value in run.machine.items()]
    return rows


def problem_digest(run: Run) -> str:
    """The digest of everything that decided a score, as the run recorded it."""
    return run.problem_digest[:16]


def appendix(run: Run, progress: Mapping[str, Any], headline: Mapping[str, Any] | None) -> str:
    """A paragraph for the appendix of a paper."""
    settings, spent, problem = run.settings, run.spending, run.problem
    models = sorted({call.model for call in run.calls})
    goals = " and ".join(f"{each.name} ({each.goal})" for each in problem.objectives)
    caps = [
        f"{name.replace('_', ' ')} {settings[name]}" for name in settings if name.startswith("max_") and settings[name]
    ]
    machine = ", ".join(f"{name} {value}" for name, value in run.machine.items())
    tested = " Held-out figures were measured once, after the end." if run.tests else ""
    counts = view.verified_counts(run)
    twice = f" {_evaluated_twice(counts)}" if counts["programs"] else ""
    first = settings.get("initial") or settings.get("population")
    chances = ", ".join(f"{name} {settings.get(name)}" for name in ("p_mate", "p_mutate", "p_eot"))
    chances += " at first, then adaptive" if settings.get("operators") == ADAPTIVE else ""
    return " ".join(
        f"Run {run.folder.resolve().name} of {problem.name} with Guided Evolution {run.version} (random seed "
        f"{settings.get('seed')}), objectives {goals}. Initial population {first}, population "
        f"{settings.get('population')}, {settings.get('generations')} generations, {chances}; selection by NSGA-II and "
        f"SPEA-2 on validation figures only. Model: {', '.join(models) or settings.get('llm')}. Budget: "
        f"{', '.join(caps) or 'no cap'}. The run was {run.status}{f' ({run.stop_reason})' if run.stop_reason else ''} "
        f"after {len(progress['id'])} evaluations, {spent['calls']:.0f} model calls, "
        f"{_tokens(spent['tokens_in'] + spent['tokens_out'])} tokens, {money(spent['usd'], spent['unpriced'])} and "
        f"{format_seconds(run.seconds)}; hypervolume of the front {run.hypervolume():,.6g}.{twice}"
        f"{f' Machine: {machine}.' if machine else ''} {verdict(run, headline)}{tested} "
        "One run with one random seed.".split()
    )
