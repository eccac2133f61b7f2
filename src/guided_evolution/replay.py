"""Runs again from the recorded replies: the same programs without a model, and their scores measured anew."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from guided_evolution.curves import Decision
from guided_evolution.errors import ModelError, ProblemError, RunError
from guided_evolution.events import Event, Listener
from guided_evolution.executors import Executor
from guided_evolution.executors.opening import open_executor
from guided_evolution.individual import Exchange, Individual, Outcome, Status
from guided_evolution.problem import Problem
from guided_evolution.pruning import named
from guided_evolution.run import Run, recorded_model
from guided_evolution.scoring import Scorer
from guided_evolution.session import locked, prepare, resolved, run_async, start
from guided_evolution.settings import EARLIER, Settings
from guided_evolution.store import Store
from guided_evolution.verification import FIRST, VERIFY, worse_of


@dataclass(frozen=True)
class Replay:
    """A run that was run again.

    Attributes:
        run: The new run.
        source: The folder of the run that was recorded.
        compared: How many individuals both have.
        programs: Id to what differs in how an individual came about; empty when everything is the same.
        prompts: Ids of individuals that came about the same way, but were asked for in other words: this version's or
            this folder's prompts are others than the recorded ones.
        scores: Id to what was recorded and what was measured now, where the two differ.
        front: Whether both fronts hold the same individuals.
        ended: Which reply was missing where it ended early; empty when it went through.
    """

    run: Run
    source: Path
    compared: int
    programs: Mapping[int, str]
    prompts: Sequence[int]
    scores: Mapping[int, tuple[Outcome, Outcome]]
    front: bool
    ended: str


def replay(
    source: Path,
    folder: Path,
    problem: Problem,
    listeners: Iterable[Listener] = (),
    changes: Mapping[str, Any] | None = None,
) -> Replay:
    """Runs a recorded run again in a new folder, and compares the two.

    First every individual is made from the recorded replies; selection goes by the recorded outcomes, what was
    believed after a second measurement included, so that noise in a score can't lead elsewhere. Then every program is
    scored anew, twice where it was evaluated twice and no further than to its last step where it was stopped early, and
    the new record holds what was measured now.

    Args:
        problem: The problem as it is here; its folder may be another than the recorded one.
        changes: Settings of this machine, such as the executor and the number of workers.

    Raises:
        ProblemError: When the problem isn't the recorded one.
        RunError: When a record can't be read or written, or the problem changed while the run went.
        GuidedEvolutionError: As `session.start`.
    """
    old = Run(source)
    if old.problem_changes:
        raise RunError(f"{source} went on with a changed problem, so not all of its scores can be measured again.")
    if problem.digest != old.problem_digest:
        raise ProblemError(f"{problem.folder} isn't the problem of {source}: its seed, evaluator or limits differ.")
    model = recorded_model(source, in_place=True)
    settings = EARLIER.with_changes(old.settings, str(source)).with_changes(changes or {}, "ge replay")
    # the record ends where the run ended; what it may have cost decides nothing here
    settings = replace(settings, llm=f"replay:{source.resolve()}", max_tokens=None, max_usd=None, max_hours=None)
    listeners = tuple(listeners)
    ended = ""
    try:
        # the recorded outcomes are the believed ones, and cut where they were cut
        recorded = replace(settings, verify=False, prune=False)
        start(problem, recorded, folder, listeners, model, fill=lambda store: _fill(store, old)).close()
    except ModelError as error:
        ended = str(error).split(" Nothing is lost:")[0]
    with locked(folder), contextlib.closing(Store.open(folder, write=True)) as store:
        begun = time.monotonic()
        _score(problem, resolved(settings), store, frozenset(old.verifications), listeners)
        seconds = store.meta("seconds", 0.0) + time.monotonic() - begun
        store.put_meta(
            seconds=seconds, settings={**store.meta("settings"), "verify": settings.verify, "prune": settings.prune}
        )
        if ended:
            store.put_meta(status="done", stop_reason=f"as far as {source} goes")
    return _compared(old, Run(folder), ended)


def _fill(store: Store, old: Run) -> None:
    """What a replay begins with: whose it is, and how many children each generation was to have."""
    store.put_meta(replay_of=str(old.folder.resolve()), **old.plans)


def _score(
    problem: Problem, settings: Settings, store: Store, twice: frozenset[int], listeners: Sequence[Listener]
) -> None:
    waiting: dict[str, list[Individual]] = {}
    for individual in store.individuals():
        if individual.outcome is not None and individual.outcome.taken_from:
            waiting.setdefault(individual.genome.digest, []).append(individual)
    if waiting:
        executor = open_executor(settings, store.path.parent / "jobs")
        with contextlib.closing(executor):
            programs = list(waiting.values())
            run_async(lambda: _score_all(problem, settings, store, executor, programs, twice, listeners))


async def _score_all(
    problem: Problem,
    settings: Settings,
    store: Store,
    executor: Executor,
    programs: Sequence[Sequence[Individual]],
    twice: frozenset[int],
    listeners: Sequence[Listener],
) -> None:
    def tell(text: str) -> None:
        for listener in listeners:
            listener.on(Event("note", text=text))

    scorer = Scorer(problem, settings, store, executor, lambda event: None)
    await prepare(problem, executor, listeners)
    tell(f"the programs are made; scoring {len(programs)} of them again")

    async def measure(individual: Individual, *, again: bool) -> Outcome:
        name = f"{individual.id}-{VERIFY if again else 'evaluate'}"
        job = scorer.job(name, "evaluate", individual.genome, fresh=again)
        if again:
            outcome = await asyncio.wrap_future(executor.submit(job))
        else:
            outcome, _ = await scorer.follow(individual, job, _as_far(problem, store, individual))
        if outcome.status is Status.LOST:
            raise RunError(f"the evaluation of individual {individual.id} was stopped from outside: {outcome.reason}")
        return outcome

    async def score(same: Sequence[Individual]) -> None:
        outcome = await measure(same[0], again=False)
        for individual in same:
            store.put_outcome(individual.id, outcome)
        champion = next((each for each in same if each.id in twice), None)
        if champion is not None and outcome.ok:
            first, second = outcome, await measure(champion, again=True)
            outcome = worse_of(problem, first, second)
            for individual in same if outcome is not first else ():
                store.put_outcomes(individual.id, {"evaluate": outcome}, aside=FIRST if individual is champion else "")
            store.put_outcome(champion.id, second, VERIFY)
        before = same[0].outcome
        agrees = before is not None and _same(problem, before, outcome)
        tell(f"#{same[0].id} {'scores the same' if agrees else 'scores otherwise'}")

    await asyncio.gather(*map(score, programs))


def _compared(old: Run, new: Run, ended: str) -> Replay:
    programs: dict[int, str] = {}
    prompts: list[int] = []
    scores: dict[int, tuple[Outcome, Outcome]] = {}
    found = {each.id: each for each in new.individuals}
    finished = [each for each in old.individuals if each.outcome is not None]
    for before in finished:
        after = found.get(before.id)
        if after is None:
            programs[before.id] = "was not made again"
            continue
        asked = [old.individual(before.id), new.individual(before.id)]
        if differs := _difference(*asked, twins=old.settings.get("schedule") != "steady"):
            programs[before.id] = differs
            continue
        if [call.prompt for call in asked[0].origin.exchanges] != [call.prompt for call in asked[1].origin.exchanges]:
            prompts.append(before.id)
        if before.outcome and after.outcome and not _same(old.problem, before.outcome, after.outcome):
            scores[before.id] = (before.outcome, after.outcome)
    front = [each.id for each in old.front] == [each.id for each in new.front]
    return Replay(new, old.folder, len(finished), programs, prompts, scores, front, ended)


def _difference(before: Individual, after: Individual, *, twins: bool) -> str:
    """The first thing in which the making of two individuals differs, in words; empty when nothing does.

    Args:
        twins: Whether it matters which of two equal programs came first; without generations that is a matter of speed.
    """
    if dict(before.genome.files) != dict(after.genome.files):
        return "another program"
    if before.origin.parents != after.origin.parents:
        return "other parents"
    if before.origin.steps != after.origin.steps or (twins and before.twin != after.twin):
        return "other steps"
    if [*map(_words, before.origin.exchanges)] != [*map(_words, after.origin.exchanges)]:
        return "other replies"
    return ""


def _words(exchange: Exchange) -> tuple[str, ...]:
    return exchange.purpose, exchange.model, exchange.reply


def _as_far(problem: Problem, store: Store, individual: Individual) -> Decision:
    """Stops an evaluation where it was stopped when it was recorded: it is measured as far as it was then."""
    curve = store.curve(individual.genome.digest)
    last = curve[-1].step if curve and individual.status is Status.PRUNED else 0

    def decide(step: int, scores: Mapping[str, float]) -> str:
        return f"stopped after step {step}, as recorded: {named(problem, scores)}" if step == last else ""

    return decide


def _same(problem: Problem, before: Outcome, after: Outcome) -> bool:
    if before.status is not after.status:
        return False
    if before.status is not Status.PRUNED:
        return dict(before.scores) == dict(after.scores)
    names = [each.name for each in problem.objectives]
    return all(before.metrics.get(name) == after.metrics.get(name) for name in names)
