"""What won, by how much, which change did it, and what it cost; and the paper's names for members of the front."""

from __future__ import annotations

from typing import Any

from guided_evolution.errors import UsageError
from guided_evolution.individual import Exchange, Individual
from guided_evolution.population import violations
from guided_evolution.problem import Objective
from guided_evolution.run import Run
from guided_evolution.view.lineage import trunk

# the largest loss against the seed, as a share of its value, that the smallest members may show
NAMES = {"T": 0.10, "S": 0.05, "M": 0.0}


def headline(run: Run, progress: dict[str, Any]) -> dict[str, Any] | None:
    """The winner against the seed; None until the seed is scored.

    The winner is, among the front's members that are no worse than the seed in any objective, the best in the first
    one; where there is none, the seed itself. So the comparison is never bought with another objective.

    Args:
        progress: The run's `series`.
    """
    individuals = run.individuals
    if not individuals or not individuals[0].ok:
        return None
    seed = individuals[0]
    champion = winner(run)
    return {
        "winner": champion.id,
        "beats_seed": champion.id != 0,
        "evaluations": len(progress["id"]),
        "objectives": [comparison(each, seed.scores, champion.scores) for each in run.problem.objectives],
        "test": _tested(run, champion),
        "extremes": {
            objective.name: min(run.front, key=lambda each: run.problem.point(each.scores)[column]).id
            for column, objective in enumerate(run.problem.objectives)
            if run.front
        },
        "trunk": trunk(run, champion.id),
        "found": _found(progress, champion.id),
        "change": change(run, champion.id) if champion.id else None,
    }


def winner(run: Run) -> Individual:
    """The front's member that is no worse than the seed in any objective and best in the first; else the seed."""
    seed = run.individuals[0]
    bar = run.problem.point(seed.scores)
    better = [
        each
        for each in run.front
        if all(mine <= theirs for mine, theirs in zip(run.problem.point(each.scores), bar, strict=True))
    ]
    # a seed that breaks a constraint ranks behind every program that doesn't
    return better[0] if better else seed if violations(run.problem, [seed])[0] == 0 else run.front[0]


def comparison(objective: Objective, before: Any, after: Any) -> dict[str, Any]:
    """One objective's value in the seed and the winner: difference, share of the seed's value, and a judgement."""
    old, new = before[objective.name], after[objective.name]
    gain = objective.minimised(old) - objective.minimised(new)
    return {
        "name": objective.name,
        "goal": objective.goal,
        "seed": old,
        "winner": new,
        "difference": new - old,
        "share": (new - old) / abs(old) if old else None,
        "judgement": "better" if gain > 0 else "worse" if gain < 0 else "same",
    }


def change(run: Run, number: int) -> dict[str, Any]:
    """The change that made an individual: its operators, the diff against its parent, and the questions that led to it.

    `exchanges` are those whose replies are in the program, in order; a program that was proposed again has those of
    the proposal.
    """
    individual = run.individual(number)
    parents = individual.origin.parents
    used = [_question(each) for each in individual.origin.exchanges if not each.verdict]
    return {
        "parents": list(parents),
        "steps": [
            {name: getattr(step, name) for name in type(step).__dataclass_fields__} for step in individual.origin.steps
        ],
        "diff": run.diff(number),
        "diff_to_seed": run.diff(number, 0),
        "exchanges": used,
    }


def _question(exchange: Exchange) -> dict[str, Any]:
    facts = ("purpose", "model", "prompt", "reply", "temperature", "tokens_in", "tokens_out", "usd", "seconds")
    return {name: getattr(exchange, name) for name in (*facts, "taken_from")}


def _tested(run: Run, champion: Individual) -> list[dict[str, Any]] | None:
    """The same comparison on held-out data, where both were tested."""
    seed, mine = run.tests.get(0), run.tests.get(champion.id)
    if seed is None or mine is None or not seed.ok or not mine.ok:
        return None
    both = [each for each in run.problem.objectives if each.name in seed.scores and each.name in mine.scores]
    return [comparison(each, seed.scores, mine.scores) for each in both]


def _found(progress: dict[str, Any], number: int) -> dict[str, Any]:
    """What had been spent when the winner was scored."""
    names = ("evaluations", "tokens", "usd", "seconds")
    if number not in progress["id"]:
        return dict.fromkeys(names)
    index = progress["id"].index(number)
    return {name: progress[name][index] for name in names}


def trade_off(run: Run) -> tuple[Objective, Objective] | None:
    """The objective to raise and the one to lower, where a problem has exactly one of each; else None."""
    raised = [each for each in run.problem.objectives if each.goal == "max"]
    lowered = [each for each in run.problem.objectives if each.goal == "min"]
    return (raised[0], lowered[0]) if len(raised) == len(lowered) == 1 else None


def named(run: Run) -> dict[str, int]:
    """The paper's names for members of the front, T, S, M and L, with their ids; empty where they mean nothing.

    They need one objective to raise (accuracy, say), one to lower (size) and a scored seed, and are given to evolved
    members that are no larger than the seed. T, S and M are the smallest that lose at most 10 %, 5 % and nothing of the
    seed's accuracy; L is the most accurate. One member may carry several names. The rule gives the published models
    their names.
    """
    pair = trade_off(run)
    if pair is None or not run.individuals or not run.individuals[0].ok or not run.front:
        return {}
    raised, lowered = pair
    seed = run.individuals[0].scores
    names: dict[str, int] = {}
    within = [each for each in run.front if each.id and each.scores[lowered.name] <= seed[lowered.name]]
    for name, loss in NAMES.items():
        floor = seed[raised.name] - loss * abs(seed[raised.name])
        kept = [each for each in within if each.scores[raised.name] >= floor]
        if kept:
            names[name] = min(kept, key=lambda each: each.scores[lowered.name]).id
    if within:
        names["L"] = max(within, key=lambda each: each.scores[raised.name]).id
    return names


def sizes(run: Run) -> list[dict[str, Any]]:
    """The named members of the front, smallest name first, each against the seed.

    Each has `name`, `id`, `objectives` (as `comparison`, with `value` in place of `winner`) and `test`, the same on
    held-out data where both it and the seed were tested, else None. Empty when no name applies.

    Raises:
        UsageError: When the problem has not exactly one objective to raise and one to lower.
    """
    if trade_off(run) is None:
        raise UsageError(
            f"{run.problem.name}: sizes need exactly one objective to raise and one to lower; "
            "`ge front RUN` shows any front."
        )
    seed = run.individuals[0] if run.individuals else None
    found = []
    for name, number in named(run).items():
        assert seed is not None
        member = run.individual(number)
        compared = [comparison(each, seed.scores, member.scores) for each in run.problem.objectives]
        tested = _tested(run, member)
        found.append(
            {
                "name": name,
                "id": number,
                "objectives": [_valued(each) for each in compared],
                "test": None if tested is None else [_valued(each) for each in tested],
            }
        )
    return found


def _valued(compared: dict[str, Any]) -> dict[str, Any]:
    return {"value" if key == "winner" else key: value for key, value in compared.items()}


def nothing_named(run: Run) -> str:
    """Why no member of the front has a name, in one sentence."""
    if not run.individuals or not run.individuals[0].ok:
        return "The seed has no scores, so there is nothing to compare with."
    pair = trade_off(run)
    size = pair[1].name if pair else "the objective to lower"
    return f"No evolved program on the front has at most the seed's {size}, so none is named."
