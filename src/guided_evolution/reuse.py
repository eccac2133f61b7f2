"""What other runs of the same problem recorded: neither is scored nor asked again what was there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from guided_evolution.errors import RunError, UsageError
from guided_evolution.store import Store


def lender(path: Path, digest: str, seed: int) -> Store:
    """The record of a run whose scores are what the problem of this digest would give with this seed.

    A score is decided by the problem's digest (evaluator, its table, objectives, limits) and by the seed that the
    evaluator gets. How programs came about doesn't matter, so models and operators may differ.

    Raises:
        UsageError: When the other run scored by something else.
        RunError: When there is no run, or its record can't be read.
    """
    store = Store.open(path)
    theirs = store.meta("settings", {}).get("seed")
    if (store.meta("problem") or {}).get("digest") != digest or store.meta("problem_changes"):
        store.close()
        raise UsageError(f"--reuse {path}: its problem isn't the same, or changed on the way: scores don't compare.")
    if theirs != seed:
        store.close()
        raise UsageError(f"--reuse {path}: it scored with --seed {theirs}, not {seed}: scores don't compare.")
    return store


def borrow(store: Store) -> Iterator[str]:
    """Lets a record fall back on those it was begun with, and gives a line for each that is no longer of use."""
    again: str = store.meta("replay_of", "")
    others: Sequence[str] = store.meta("reuse", [])
    for path in filter(None, [again, *others]):
        try:
            other = lender(Path(path), store.meta("problem")["digest"], store.meta("settings")["seed"])
            store.borrow(other, every=path == again)
        except (RunError, UsageError) as error:
            yield f"nothing more is taken from there: {error}"
