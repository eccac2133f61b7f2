"""Writes an evolved program out of a run, with a note that says where it comes from."""

from __future__ import annotations

import time
from pathlib import Path

from guided_evolution.errors import RunError
from guided_evolution.genome import write_files
from guided_evolution.individual import Individual, Status
from guided_evolution.progress import describe, format_scores, format_twice
from guided_evolution.run import Run


def export_individual(run: Run, number: int, folder: Path) -> list[Path]:
    """Writes an individual's files and a PROVENANCE.md to a folder, and gives their paths.

    Raises:
        RunError: When the individual was rejected, the folder already holds one of the files, or can't be written.
    """
    individual = run.individual(number)
    if individual.status is Status.REJECTED:
        raise RunError(f"{run.folder}: individual {number} was rejected: it has no program of its own.")
    targets = [folder / name for name in individual.genome.files]
    note = folder / "PROVENANCE.md"
    taken = next((path for path in [*targets, note] if path.exists()), None)
    if taken is not None:
        raise RunError(f"{taken} exists already; choose another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_files(folder, individual.genome.files)
        note.write_text(_provenance(run, individual), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{folder}: can't write: {error}") from None
    return [*targets, note]


def _provenance(run: Run, individual: Individual) -> str:
    problem = run.problem
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.created))
    lines = [
        f"# Individual {individual.id} of {problem.name}",
        "",
        f"Evolved by Guided Evolution {run.version}; run {run.folder.name}, begun {began}, "
        f"seed {run.settings.get('seed')}, model {run.settings.get('llm')}.",
        "",
        f"Digest: `{individual.genome.digest}`",
        "",
        "| | " + " | ".join(each.name for each in problem.objectives) + " |",
        "|---|" + "---|" * len(problem.objectives),
    ]
    seed = run.seed
    for name, each in (("seed", seed), ("this", individual)):
        values = (f"{each.scores[objective.name]:g}" if each.ok else each.status for objective in problem.objectives)
        lines.append(f"| {name} (validation) | " + " | ".join(values) + " |")
    for name, each in (("seed", seed), ("this", individual)):
        if test := run.tests.get(each.id):
            values = (f"{test.scores[item.name]:g}" if item.name in test.scores else "" for item in problem.objectives)
            lines.append(f"| {name} (held-out test) | " + " | ".join(values) + " |")
    if individual.id in run.verifications:
        lines += ["", f"Evaluated twice: {format_twice(problem, *run.verifications[individual.id])}."]
    lines += ["", "## Lineage", ""]
    lines += [f"* {line}" for line in _lineage(run, individual)]
    lines += ["", "## Change against the seed", "", "```diff", run.diff(individual.id, 0).rstrip("\n"), "```", ""]
    return "\n".join(lines)


def _lineage(run: Run, individual: Individual) -> list[str]:
    lines, current = [], individual
    while current.origin.parents:
        parents = " and ".join(f"#{parent}" for parent in current.origin.parents)
        scores = f": {format_scores(run.problem, current.scores)}" if current.ok else ""
        lines.append(f"#{current.id} from {parents}: {describe(current)}{scores}")
        current = run.individual(current.origin.parents[0])
    return [*lines, "#0: seed"]
