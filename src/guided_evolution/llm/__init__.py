"""What a language model is to this project: something that answers a request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Request:
    """One question.

    Attributes:
        purpose: What it is for: "mutate", "mate", "distil", "apply" or "repair".
        prompt: The user message.
        system: The system message; empty for none.
        temperature: Sampling temperature, 0 to 2; None leaves it to the model.
        top_p: Nucleus mass, 0 to 1; None leaves it to the model.
        max_tokens: Largest number of reply tokens.
        seed: Sampling seed for models that take one.
        individual: The child it is asked for, or the teacher of a lesson; None outside of a run.
    """

    purpose: str
    prompt: str
    system: str = ""
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int = 1000
    seed: int | None = None
    individual: int | None = None

    def key(self, model: str) -> str:
        """A SHA-256, in hexadecimal, of everything that decides the reply of a model of this name.

        Two requests with the same key are the same question, whoever asks.
        """
        sampling = [self.temperature, self.top_p, self.max_tokens, self.seed]
        question = [model, self.purpose, self.system, self.prompt, *sampling]
        return hashlib.sha256(json.dumps(question).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one request.

    Attributes:
        tokens_in: Prompt tokens, or None when the provider did not say.
        tokens_out: Reply tokens, or None when the provider did not say.
        usd: Price in US dollars; None when it is not known, 0 for a local model.
        seconds: Wall time of the call.
        cut: True when the reply ended because max_tokens was reached.
        tokens_cached: Prompt tokens that the provider found in its cache; None when it named none.
    """

    text: str
    model: str
    reasoning: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None
    usd: float | None = None
    seconds: float = 0.0
    cut: bool = False
    tokens_cached: int | None = None


class LLM(Protocol):
    """A language model."""

    @property
    def name(self) -> str:
        """How the model is called in the record, e.g. "local:qwen2.5-coder-1.5b"."""
        ...

    @property
    def small(self) -> bool:
        """True for a model of a few billion parameters: it gets moves, fresh draws, and lessons in two steps."""
        ...

    async def ask(self, request: Request, on_text: Callable[[str], None] | None = None) -> Reply:
        """Answers a request; `on_text` gets each piece of the reply as it arrives.

        Raises:
            ModelError: When the model can't be reached or refuses; `permanent` says whether asking again can help.
        """
        ...

    async def close(self) -> None:
        """Releases what the model holds; it can't be asked afterwards."""
        ...


@runtime_checkable
class Priced(Protocol):
    """A model that knows its price; one without this method has an unknown price."""

    def price(self, tokens_in: int, tokens_out: int) -> float | None:
        """What a call costs in US dollars; None when it is not known, 0 for a model of one's own."""
        ...


@runtime_checkable
class Unasked(Protocol):
    """A model that makes some individuals, or all, without being asked: random edits stand for its replies."""

    def unasked(self, individual: int) -> bool:
        """Whether the individual of this id is one of them."""
        ...


@runtime_checkable
class Opening(Protocol):
    """A model that takes a while before it can answer its first request, and can use the time of the seed's scoring."""

    async def open(self) -> None:
        """Gets ready; a request that comes meanwhile waits for it, and one without it does the same by itself.

        Raises:
            ModelError: As `LLM.ask`.
        """
        ...
