"""Makes one child: which operators work on it, what the model is asked, and what is recorded on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from guided_evolution.asking import Asker
from guided_evolution.budget import Budget
from guided_evolution.choosing import ModelChoice
from guided_evolution.drafts import Promise
from guided_evolution.errors import RequestRefusedError
from guided_evolution.events import Event
from guided_evolution.genome import Genome
from guided_evolution.individual import PASSED_OVER, Exchange, Individual, Origin, Outcome, Status, Step
from guided_evolution.lessons import Change, distil_prompt
from guided_evolution.llm import LLM, Reply, Request, Unasked
from guided_evolution.odds import Odds
from guided_evolution.operators import (
    Context,
    EvolutionOfThought,
    Mate,
    Mutate,
    Operator,
    Proposal,
    Rejection,
)
from guided_evolution.problem import Problem
from guided_evolution.prompts.book import Book
from guided_evolution.random_operators import RandomEdit, RandomMate
from guided_evolution.randomness import stream
from guided_evolution.reply import lesson
from guided_evolution.rows import Asked
from guided_evolution.scoring import Scorer
from guided_evolution.settings import Settings
from guided_evolution.store import Store

PAPER_TEMPERATURE = (0.05, 0.4)
SMALL_TEMPERATURE = (0.5, 0.9)
PAPER_REPLY_TOKENS = (600, 1400)
SMALL_REPLY_TOKENS = (500, 800)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to become one child, decided before any model is asked.

    Attributes:
        number: The child's id.
        parents: One parent, or two when `mate` is set; the child is a changed first.
        mate: Whether the parents are mated.
        mutate: Whether the result is mutated.
        changes: What the elites have to teach.
        odds: What is drawn with: whether the mutation is Evolution of Thought, its block, its category.
    """

    number: int
    generation: int
    parents: tuple[Individual, ...]
    mate: bool
    mutate: bool
    changes: Sequence[Change] = ()
    odds: Odds = field(default_factory=Odds)


@dataclass(frozen=True, slots=True)
class _Draft:
    """One way in which a child was made.

    Attributes:
        steps: What was done; what was tried last where nothing came of it.
        genome: None where nothing came of it.
        reason: Why not.
        begin: The number of its first question.
    """

    steps: tuple[Step, ...]
    genome: Genome | None
    reason: str
    begin: int = 0


class Breeder:
    """Turns plans into individuals, asking one model.

    Attributes:
        choice: Which model makes which child.
        asker: The lane in which models are asked.
        on_check: Told when a child's check begins and when it ends; in between it asks nothing.
    """

    def __init__(
        self,
        problem: Problem,
        settings: Settings,
        store: Store,
        llm: LLM,
        scorer: Scorer,
        emit: Callable[[Event], None],
        promise: Promise | None = None,
    ) -> None:
        self._problem = problem
        self._settings = settings
        self._store = store
        self.choice = ModelChoice(problem, settings, store, llm)
        self._scorer = scorer
        self._promise = promise or Promise(problem, lambda: ())
        self._told = False
        self._emit = emit
        self._book = Book(problem.prompts)
        self._seed = problem.genome()
        self.on_check: Callable[[int, bool], None] = lambda number, begins: None
        self.asker = Asker(settings.llm_parallel, Budget.of(settings), store.spending, emit)
        self._lessons: dict[tuple[int, str], asyncio.Task[str]] = {}

    async def breed(self, plan: Plan) -> tuple[Individual, Outcome | None]:
        """Makes the child of a plan; a rejected one comes with its outcome, its program is the first parent's.

        Raises:
            ModelError: When the model can't be asked.
        """
        rng = stream(self._settings.seed, "child", plan.number)
        llm = self.choice.child(plan.number)
        drafts, asked = list[_Draft](), list[Exchange]()
        for _ in range(self._settings.drafts):
            begin, context = len(asked), self._context(plan, rng, llm, asked)
            drafts.append(replace(await self._draft(plan, self._operators(plan, rng, llm), context), begin=begin))
        draft = self._chosen(plan, drafts, asked)
        # a partner whose mating came to nothing gave the child nothing
        used = plan.parents if any(step.operator == "mate" for step in draft.steps) else plan.parents[:1]
        origin = Origin(tuple(parent.id for parent in used), draft.steps, tuple(asked))
        if draft.genome is not None:
            return Individual(plan.number, plan.generation, draft.genome, origin), None
        child = Individual(plan.number, plan.generation, plan.parents[0].genome, origin)
        return child, Outcome(Status.REJECTED, draft.reason)

    async def _draft(self, plan: Plan, operators: Sequence[Operator], context: Context) -> _Draft:
        current, steps = plan.parents[0], list[Step]()
        reason, tried = "", None
        for operator in operators:
            if operator.parents == 1 and steps and not plan.mutate:
                break
            result = await self._propose(operator, (current, *plan.parents[1:]), context)
            if isinstance(result, Rejection) and result.idle and operator.parents == 1:
                result = await self._propose(Mutate(), (current,), context)
            if isinstance(result, Proposal):
                steps.append(result.step)
                current = Individual(plan.number, plan.generation, result.genome)
            else:
                reason, tried = result.reason, result.step or tried
        return _Draft(tuple(steps) or ((tried,) if tried else ()), current.genome if steps else None, reason)

    def _chosen(self, plan: Plan, drafts: Sequence[_Draft], asked: list[Exchange]) -> _Draft:
        """The draft that becomes the child; the questions of the others are marked. The last one where all failed.

        The choice is recorded: who lived then can't be found out later in a run without generations.
        """
        passed = [(draft, draft.genome) for draft in drafts if draft.genome is not None]
        if len(passed) < 2:
            return passed[0][0] if passed else drafts[-1]
        digests = [genome.digest for _, genome in passed]
        recorded = self._store.meta(_key(plan.number))
        if recorded in digests:
            place = digests.index(recorded)
        else:
            checks = [self._store.check(digest) for digest in digests]
            known = [{**check.metrics, **check.scores} if check else {} for check in checks]
            self._tell_once(known)
            place = self._promise.choose(plan.parents[0], digests, known)
            self._store.put_meta(**{_key(plan.number): digests[place]})
        chosen = passed[place][0]
        ends = [draft.begin for draft in drafts[1:]] + [len(asked)]
        for draft, end in zip(drafts, ends, strict=True):
            for turn in range(draft.begin, end) if draft is not chosen else ():
                if not asked[turn].verdict:
                    asked[turn] = replace(asked[turn], verdict=PASSED_OVER)
                    self._store.put_verdict(plan.number, turn, PASSED_OVER)
        return chosen

    def _tell_once(self, known: Sequence[Mapping[str, float]]) -> None:
        names = {each.name for each in self._problem.objectives} | {each.name for each in self._problem.constraints}
        if not self._told and not any(names & values.keys() for values in known):
            text = "drafts: check returns no objective, so the first draft that is new is evaluated"
            self._emit(Event("note", text=text))
        self._told = True

    async def _propose(
        self, operator: Operator, parents: tuple[Individual, ...], context: Context
    ) -> Proposal | Rejection:
        try:
            return await operator.propose(parents, context)
        except RequestRefusedError as error:
            return Rejection(str(error))

    def _operators(self, plan: Plan, rng: np.random.Generator, llm: LLM) -> list[Operator]:
        """Mating first, then a mutation; a child whose mating fails is mutated, so that its place is not lost."""
        thought = bool(plan.changes) and rng.random() < plan.odds.p_eot
        if isinstance(llm, Unasked) and llm.unasked(plan.number):
            return [RandomMate(), RandomEdit()] if plan.mate else [RandomEdit()]
        mutation: Operator = EvolutionOfThought() if thought else Mutate()
        return [Mate(), mutation] if plan.mate else [mutation]

    def _context(self, plan: Plan, rng: np.random.Generator, llm: LLM, asked: list[Exchange]) -> Context:
        """What the operators of one draft work with; `asked` grows by its questions."""
        small, begin = llm.small, len(asked)

        async def ask(purpose: str, prompt: str) -> Reply:
            reply, exchange = await self._ask(llm, plan.number, len(asked), self._request(llm, purpose, prompt, rng))
            asked.append(exchange)
            return reply

        def refuse(reason: str) -> None:
            if len(asked) > begin:  # random edits are refused too, and nobody was asked for them
                asked[-1] = replace(asked[-1], verdict=reason)
                self._store.put_verdict(plan.number, len(asked) - 1, reason)
            self._emit(Event("refused", plan.number, reason))

        async def check(genome: Genome) -> Outcome:
            if len(asked) == begin:
                self.asker.before_asking()  # nobody was asked, and budgets and interruptions count here too
            self.on_check(plan.number, True)
            try:
                return await self._scorer.check(plan.number, genome)
            finally:
                self.on_check(plan.number, False)

        return Context(
            problem=self._problem,
            seed=self._seed,
            book=self._book,
            rng=rng,
            moves={"on": True, "off": False}.get(self._settings.moves, small),
            repairs={"repair": True, "draw": False}.get(self._settings.retry, not small),
            two_steps=small,
            shortcuts={"on": True, "off": False}.get(self._settings.shortcuts, small),
            tries=self._settings.tries,
            changes=plan.changes,
            ask=ask,
            refuse=refuse,
            check=check,
            distil=self._distil,
            characters=self._settings.characters,
            blocks=plan.odds.blocks,
            categories=plan.odds.categories,
        )

    def _request(self, llm: LLM, purpose: str, prompt: str, rng: np.random.Generator) -> Request:
        small = llm.small
        low, high = self._settings.temperature or (SMALL_TEMPERATURE if small else PAPER_TEMPERATURE)
        tokens = self._settings.reply_tokens or (SMALL_REPLY_TOKENS if small else PAPER_REPLY_TOKENS)
        top_p = self._settings.top_p
        if top_p is None and self._settings.temperature is None and not small:
            top_p = 0.1
        return Request(
            purpose=purpose,
            prompt=prompt,
            temperature=round(float(rng.uniform(low, high)), 3),
            top_p=top_p,
            max_tokens=int(rng.integers(int(tokens[0]), int(tokens[1]) + 1)),
            seed=int(rng.integers(2**31)),
        )

    async def _ask(self, llm: LLM, number: int, turn: int, request: Request) -> tuple[Reply, Exchange]:
        """Asks, or reads the recorded answer; a reply is committed before anybody looks at it."""
        recorded = self._store.asked(number, turn)
        question = request.key(llm.name)
        if recorded is None or recorded.exchange.prompt != request.prompt:
            recorded = self._taken(number, turn, question)
        if recorded is not None:
            exchange = recorded.exchange
            return Reply(exchange.reply, exchange.model, cut=recorded.cut), exchange
        request = replace(request, individual=number)
        made: list[Exchange] = []

        def record(reply: Reply) -> None:
            made.append(_exchange(request, reply))
            self._store.put_exchange(number, turn, made[0], cut=reply.cut, question=question)

        reply = await self.asker.ask(llm, request, number, record)
        told = {name: getattr(reply, name) for name in ("seconds", "tokens_in", "tokens_out", "usd")}
        self._emit(Event("reply", number, data=told))
        exchange = made[0]
        return replace(reply, text=exchange.reply, reasoning=exchange.reasoning), exchange

    def _taken(self, number: int, turn: int, question: str) -> Asked | None:
        """The answer that another run got to the same question, recorded here too; None where there is none."""
        found = self._store.lent(question)
        if found is not None:
            self.asker.before_asking()
            self._store.put_exchange(number, turn, found.exchange, cut=found.cut, question=question)
            told = {"seconds": 0.0, "tokens_in": 0, "tokens_out": 0, "usd": 0.0}
            self._emit(Event("reply", number, data={**told, "taken_from": found.exchange.taken_from}))
        return found

    async def _distil(self, change: Change) -> str:
        key = (change.teacher.id, change.after.name)
        if key not in self._lessons:
            self._lessons[key] = asyncio.ensure_future(self._lesson(change))
        return await asyncio.shield(self._lessons[key])

    async def _lesson(self, change: Change) -> str:
        """One lesson for each elite's change; it is recorded with the elite, under a negative turn."""
        names = [block.name for block in change.teacher.genome.blocks]
        turn = -1 - names.index(change.after.name)
        rng = stream(self._settings.seed, "lesson", change.teacher.id, turn)
        llm = self.choice.teacher("lesson model", change.teacher.id, turn)
        request = self._request(llm, "distil", distil_prompt(change, self._book, self._problem), rng)
        reply, _ = await self._ask(llm, change.teacher.id, turn, request)
        return lesson(reply.text)


def _key(number: int) -> str:
    return f"planned draft {number}"


def _exchange(request: Request, reply: Reply) -> Exchange:
    return Exchange(
        purpose=request.purpose,
        model=reply.model,
        prompt=request.prompt,
        # half a character at a broken stream's end can't be stored, and must not end a run
        reply=_whole(reply.text),
        system=request.system,
        reasoning=_whole(reply.reasoning),
        tokens_in=reply.tokens_in,
        tokens_out=reply.tokens_out,
        usd=reply.usd,
        seconds=reply.seconds,
        temperature=request.temperature,
        max_tokens=request.max_tokens,
        tokens_cached=reply.tokens_cached,
    )


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
