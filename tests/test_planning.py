from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from guided_evolution import session
from guided_evolution.individual import Individual
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.population import champion
from guided_evolution.problem import Constraint, Problem
from guided_evolution.run import Run
from guided_evolution.settings import Settings
from guided_evolution.testing import scripted_reply

SETTINGS = Settings(population=4, generations=3, llm="fake", p_mate=1.0, p_eot=1.0)


def evolve(problem: Problem, folder: Path, settings: Settings) -> Run:
    return session.start(problem, settings, folder, (), FunctionLLM(scripted_reply, "fake"))


def operators(run: Run) -> set[str]:
    return {step.operator for each in run.individuals for step in each.origin.steps}


@pytest.mark.parametrize("schedule", ["generational", "steady"])
def test_best_of_n_changes_the_seed_every_time_whatever_the_odds_of_mating(
    tiny: Problem, tmp_path: Path, schedule: str
) -> None:
    run = evolve(tiny, tmp_path / "run", replace(SETTINGS, search="best-of-n", schedule=schedule))
    assert {each.origin.parents for each in run.individuals[1:]} == {(0,)}
    assert operators(run) == {"mutate"}
    evolved = evolve(tiny, tmp_path / "evolved", replace(SETTINGS, schedule=schedule))
    assert {"mate", "eot"} <= operators(evolved)


@pytest.mark.parametrize("schedule", ["generational", "steady"])
def test_sequential_changes_the_best_so_far(tmp_path: Path, tiny: Problem, schedule: str) -> None:
    """With the size free, closer is better; one child at a time, each of the closest before it."""
    settings = replace(SETTINGS, search="sequential", schedule=schedule, population=1, generations=12)
    free = replace(tiny, objectives=tiny.objectives[:1])
    run = evolve(free, tmp_path / "run", settings)
    assert operators(run) == {"mutate"}
    for each in run.individuals[1:]:
        before = [one for one in run.individuals[: each.id] if one.ok]
        best = max(before, key=lambda one: (one.scores["closeness"], -one.id))
        if schedule == "generational":
            assert each.origin.parents == (best.id,)
    assert len({each.origin.parents for each in run.individuals}) > 2


def test_first_generations_of_one_seed_are_the_same_in_every_search(tiny: Problem, tmp_path: Path) -> None:
    """So that arms of an ablation are paired, and can share what they have in common."""
    runs = [evolve(tiny, tmp_path / name, replace(SETTINGS, search=name)) for name in ("evolution", "best-of-n")]
    first = [[each.genome.digest for each in run.individuals[:5]] for run in runs]
    assert first[0] == first[1]


def test_the_champion_is_never_bought_with_another_objective(tiny: Problem, tmp_path: Path) -> None:
    run = evolve(tiny, tmp_path / "run", replace(SETTINGS, generations=0))
    seed = run.seed

    def made(number: int, closeness: float, size: float) -> Individual:
        assert seed.outcome is not None
        scores = {"closeness": closeness, "size": size}
        return replace(seed, id=number, outcome=replace(seed.outcome, scores=scores))

    size = seed.scores["size"]
    larger, equal, smaller = made(1, -1.0, size + 1), made(2, -2.0, size), made(3, -2.0, size - 1)
    assert champion(tiny, [larger], seed) is seed
    assert champion(tiny, [larger, equal], seed) is equal
    assert champion(tiny, [larger, equal, smaller], seed) is smaller
    # a seed that breaks a constraint sets no bar
    bound = replace(tiny, constraints=(Constraint("closeness", min=-1.5),))
    assert champion(bound, [larger, equal, smaller], seed) is larger
