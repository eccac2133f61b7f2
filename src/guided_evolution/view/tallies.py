"""What each way of asking came to, and what went wrong."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from guided_evolution.individual import PASSED_OVER, SWAP, Individual, Status, Step
from guided_evolution.llm.no_model import RANDOM
from guided_evolution.rows import Call
from guided_evolution.run import Run

CHECK_FAILED = "check failed: "
COUNTS = ("tried", "asked", "parsed", "passed", "scored", "improved", "reached", "front")
KEYS = ("operator", "block", "category", "character", "model")
_EXAMPLES = 20
_MOST = 160


def breakdown(run: Run, entered: set[int]) -> list[dict[str, Any]]:
    """One row for each operator, block, category, character and model that occurred together, with its counts.

    A child that was mated and then mutated counts in both its rows. `tried` are the children worked on, `asked` the
    questions, `parsed` the children for which a reply held a usable new block, `passed` those whose new program passed
    the problem's check, `scored` those with scores, `improved` those better than their first parent in one objective
    and worse in none, `reached` those that joined the front when they were scored (`entered`), `front` those on it
    now. An operator that was asked for a child and left no step in it, such as a mating that failed, has a row with an
    empty block. Replies of drafts that were passed over are left out.
    """
    front = {each.id for each in run.front}
    calls: dict[int, list[Call]] = defaultdict(list)
    for call in run.calls:
        if call.turn >= 0 and call.verdict != PASSED_OVER:
            calls[call.individual].append(call)
    rows: dict[tuple[str, ...], dict[str, int]] = {}
    for child in run.individuals:
        for step, asked in _work(child, calls[child.id]):
            # random edits ask nothing: whatever came of them passed
            unasked = step.operator == RANDOM or step.category == SWAP
            model = asked[-1].model if asked else RANDOM if unasked else ""
            key = (step.operator, step.block, step.category, step.character, model)
            row = rows.setdefault(key, dict.fromkeys(COUNTS, 0))
            passed = any(not call.verdict for call in asked) or (unasked and child.status is not Status.REJECTED)
            lives = passed and child.ok
            row["tried"] += 1
            row["asked"] += len(asked)
            row["parsed"] += unasked or any(not call.verdict or call.verdict.startswith(CHECK_FAILED) for call in asked)
            row["passed"] += passed
            row["scored"] += lives
            row["improved"] += lives and improved(run, child, run.by_id.get(child.origin.parents[0]))
            row["reached"] += lives and (child.id in entered or child.id in front)
            row["front"] += lives and child.id in front
    return [{**dict(zip(KEYS, key, strict=True)), **rows[key]} for key in sorted(rows)]


def grouped(rows: list[dict[str, Any]], by: str) -> dict[str, dict[str, int]]:
    """The counts of `breakdown` summed over everything but one of its keys, most tried first."""
    sums: dict[str, dict[str, int]] = {}
    for row in rows:
        total = sums.setdefault(row[by], dict.fromkeys(COUNTS, 0))
        for name in COUNTS:
            total[name] += row[name]
    return dict(sorted(sums.items(), key=lambda item: (-item[1]["tried"], item[0])))


def improved(run: Run, individual: Individual, other: Individual | None) -> bool:
    """Whether it is better than the other in one objective and worse in none; both must be scored."""
    if other is None or not other.ok or not individual.ok:
        return False
    mine, theirs = run.problem.point(individual.scores), run.problem.point(other.scores)
    return mine != theirs and all(one <= two for one, two in zip(mine, theirs, strict=True))


def _work(child: Individual, calls: list[Call]) -> Iterator[tuple[Step, list[Call]]]:
    """The steps on the way to a child with the questions of each; a repair belongs to the question before it."""
    asked: dict[str, list[Call]] = {}
    current = ""
    for call in calls:
        current = current if call.purpose == "repair" else call.purpose
        asked.setdefault(current, []).append(call)
    for step in child.origin.steps:
        yield step, asked.pop(step.operator, [])
    for operator, left in asked.items():
        yield Step(operator, ""), left


def failures(run: Run) -> list[dict[str, Any]]:
    """Individuals that failed, by status and kind of reason, most frequent first, with the first ids of each."""
    return _by_kind(
        (each.status.value, each.outcome.reason, each.id)
        for each in run.individuals
        if each.outcome is not None and not each.ok
    )


def refusals(run: Run) -> list[dict[str, Any]]:
    """Replies that could not be used, by kind of reason, most frequent first; a later try may have gone well."""
    return _by_kind(
        (Status.REJECTED.value, call.verdict, call.individual)
        for call in run.calls
        if call.verdict not in ("", PASSED_OVER)
    )


def _by_kind(found: Iterator[tuple[str, str, int]]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[int]] = {}
    example: dict[tuple[str, str], str] = {}
    for status, reason, number in found:
        key = (status, kind_of(reason))
        groups.setdefault(key, []).append(number)
        example.setdefault(key, reason)
    rows = [
        {"status": status, "kind": kind, "count": len(ids), "example": example[status, kind], "ids": ids[:_EXAMPLES]}
        for (status, kind), ids in groups.items()
    ]
    return sorted(rows, key=lambda row: (-row["count"], row["status"], row["kind"]))


def kind_of(reason: str) -> str:
    """A reason without what differs from case to case: places, numbers, quoted names and code."""
    text = re.sub(r"\s*\((?:[\w./-]+\.py:\d+[^()]*)\)", "", reason.split("\n")[0])
    text = re.sub(r"(`[^`]*`|\"[^\"]*\"|'[^']*')", "…", text)
    text = re.sub(r"\b[\d_,]+(?: ?x ?[\d_,]+)+\b", "N", text)
    text = re.sub(r"\b0x[0-9a-f]+|(?<![A-Za-z_])[-+]?\d+(?:[_,]\d+)*(?:\.\d+)?(?:e[-+]?\d+)?", "N", text)
    return text.strip()[:_MOST]
