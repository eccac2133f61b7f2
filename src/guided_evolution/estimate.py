"""What a run will take, judged by one reply and one evaluation; and, at its end, how good that judgement was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from guided_evolution.genome import Genome
from guided_evolution.individual import PASSED_OVER, Exchange, Individual, Status, Step
from guided_evolution.rows import Call
from guided_evolution.settings import Settings


@dataclass(frozen=True, slots=True)
class Estimate:
    """What some children take; None stands for what is not known.

    Attributes:
        children: How many it is for; the seed comes on top.
        calls: Questions to the model.
        tokens: Read and written together; None where a provider counts none.
        usd: Money; None where a price is not known, 0 for a model of one's own.
        model_seconds: How long the model lane is busy.
        evaluation_seconds: How long the evaluation lane is busy.
        seconds: Wall-clock time, both lanes at work at the same time.
    """

    children: int
    calls: int
    tokens: int | None
    usd: float | None
    model_seconds: float
    evaluation_seconds: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The estimate as plain values."""
        return asdict(self)


def planned_generations(settings: Settings) -> list[int]:
    """How many children each generation has, the initial population first; a cap on evaluations cuts the last ones."""
    wanted = [settings.first_population, *[settings.population] * settings.generations]
    if settings.max_evaluations is None:
        return wanted
    left, planned = settings.max_evaluations - 1, []
    for children in wanted:
        planned.append(max(0, min(children, left)))
        left -= children
    return [children for children in planned if children]


def estimate(
    settings: Settings, generations: Sequence[int], exchanges: Sequence[Exchange], evaluation_seconds: float
) -> Estimate:
    """What generations of children take, if each operator asks as the one of the sample did.

    After the initial population, `p_mate` of the children are mated and `p_mutate` of those are mutated too, so that a
    child takes 1 + p_mate · p_mutate times the sample's questions; fewer where matings take shortcuts. The lanes work
    side by side; at the end of a generation one of them waits for the other's last child. Lessons and second
    evaluations of champions are left out.

    Args:
        settings: Decides on the operators and on how many calls and evaluations run at the same time.
        generations: How many children each generation has, the initial population first.
        exchanges: Every question that one child took; see `as_usual`.
        evaluation_seconds: How long one evaluation took.
    """
    children = sum(generations)
    later = children - sum(generations[:1])
    operators = children + later * settings.p_mate * settings.p_mutate
    tokens, usd = tokens_of(exchanges), usd_of(exchanges)
    asking = sum(exchange.seconds for exchange in exchanges)
    model = operators * asking / settings.llm_parallel
    evaluation = (1 + children) * evaluation_seconds / (settings.workers or 1)
    return Estimate(
        children=children,
        calls=round(operators * len(exchanges)),
        tokens=None if tokens is None else round(operators * tokens),
        usd=None if usd is None else operators * usd,
        model_seconds=model,
        evaluation_seconds=evaluation,
        seconds=max(model, evaluation) + len(generations) * min(asking, evaluation_seconds),
    )


def as_usual(exchanges: Iterable[Exchange], genome: Genome, steps: Sequence[Step]) -> list[Exchange]:
    """Questions about one block as they would be about a block of the program's mean length.

    A prompt holds the block once, and so does the reply: their tokens grow by the share of the text that it is. Time
    goes with what is written, money with all tokens.

    Args:
        genome: The program; it has the blocks of the steps.
        steps: What the questions were for.
    """
    lengths = {block.name: len(block.source) for block in genome.blocks}
    asked = [lengths[step.block] for step in steps]
    if not asked:
        return list(exchanges)
    own, usual = sum(asked) / len(asked), sum(lengths.values()) / len(lengths)
    # those of other drafts were about other blocks
    return [each if each.verdict == PASSED_OVER else _resized(each, own, usual) for each in exchanges]


def _resized(exchange: Exchange, own: float, usual: float) -> Exchange:
    def scale(text: str) -> float:
        # a text that is shorter than the block, such as an empty reply, should have held it whole
        return 1 + (usual - own) / max(len(text), own)

    counts = (exchange.tokens_in, exchange.tokens_out)
    scaled = [
        None if count is None else round(count * scale(text))
        for count, text in zip(counts, (exchange.prompt, exchange.reply), strict=True)
    ]
    before, after = tokens_of([exchange]), sum(count for count in scaled if count is not None)
    usd = exchange.usd if not before or exchange.usd is None else exchange.usd * after / before
    seconds = exchange.seconds * scale(exchange.reply)
    return replace(exchange, tokens_in=scaled[0], tokens_out=scaled[1], usd=usd, seconds=seconds)


def compare(
    settings: Settings,
    individuals: Iterable[Individual],
    calls: Sequence[Call],
    seconds: float,
) -> dict[str, Any] | None:
    """What the first accepted child and the seed's evaluation foretold for the children that were made, and the truth.

    Args:
        settings: The run's.
        individuals: The run's, with their exchanges.
        calls: Every question of the run, lessons included.
        seconds: Wall-clock time of the run.

    Returns:
        `child` (whose questions it is judged by), `estimated` (see `Estimate`) and `took`, with the same keys except
        those of the lanes; None when no child was accepted, or replies were taken from other runs: what they cost there
        says nothing about this one.
    """
    if any(call.taken_from for call in calls):
        return None
    ordered = sorted(individuals, key=lambda each: each.id)
    genome, seed = next(((each.genome, each.outcome) for each in ordered if each.id == 0), (None, None))
    children = [each for each in ordered if each.origin.parents]
    accepted = (each for each in children if each.status is not Status.REJECTED)
    first = next((each for each in accepted if each.origin.exchanges or not calls), None)
    if genome is None or seed is None or first is None:
        return None
    made: dict[int, int] = {}
    for child in children:
        made[child.generation] = made.get(child.generation, 0) + 1
    usual = as_usual(first.origin.exchanges, genome, first.origin.steps)
    foretold = estimate(settings, list(made.values()), usual, seed.seconds)
    took = {
        "children": len(children),
        "calls": len(calls),
        "tokens": tokens_of(calls),
        "usd": usd_of(calls),
        "seconds": seconds,
    }
    return {"child": first.id, "estimated": foretold.to_json(), "took": took}


def tokens_of(exchanges: Iterable[Exchange | Call]) -> int | None:
    """Tokens read and written; None as soon as one of the exchanges does not tell."""
    counts = [count for exchange in exchanges for count in (exchange.tokens_in, exchange.tokens_out)]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def usd_of(exchanges: Iterable[Exchange | Call]) -> float | None:
    """The price in US dollars; None as soon as one of the exchanges has none."""
    prices = [exchange.usd for exchange in exchanges]
    known = [price for price in prices if price is not None]
    return sum(known) if len(known) == len(prices) else None
