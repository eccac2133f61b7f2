"""Models that are a Python function: for tests, demonstrations and people with a client of their own."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from guided_evolution.errors import ModelError, UsageError
from guided_evolution.llm import Reply, Request
from guided_evolution.llm.client import provider_border


class FunctionLLM:
    """A function that answers a prompt; it runs in a thread, so it may block."""

    def __init__(self, function: Callable[..., str], name: str, *, small: bool = False) -> None:
        """Wraps a function.

        Args:
            function: Takes the prompt, and the whole `Request` too if it has a second positional parameter.
            name: How it is called in the record.
            small: Whether it is to be treated as a small model.
        """
        self._function = function
        self._name = name
        self._small = small
        self._wants_request = _positional(function) >= 2

    @property
    def name(self) -> str:
        """How the model is called in the record."""
        return self._name

    @property
    def small(self) -> bool:
        """Whether it is treated as a small model."""
        return self._small

    def price(self, tokens_in: int, tokens_out: int) -> float | None:
        """Always 0: a function costs nothing that could be known here."""
        return 0.0

    async def ask(self, request: Request, on_text: Callable[[str], None] | None = None) -> Reply:
        """Answers a request; the whole reply arrives in one piece, costs nothing and counts no tokens.

        Raises:
            ModelError: When the function raises or returns something else than text; a `ModelError` of its own
                passes unchanged.
        """
        start = time.monotonic()
        text = await asyncio.to_thread(self._call, request)
        if on_text is not None and text:
            on_text(text)
        return Reply(text=text, model=self._name, usd=0.0, seconds=time.monotonic() - start)

    async def close(self) -> None:
        """Does nothing: a function holds nothing."""

    def _call(self, request: Request) -> str:
        arguments = (request.prompt, request) if self._wants_request else (request.prompt,)
        with provider_border(self._name):
            text: object = self._function(*arguments)
        if not isinstance(text, str):
            raise ModelError(f"{self._name} returned {type(text).__name__} instead of text.", permanent=True)
        return text


class ScriptedLLM(FunctionLLM):
    """The function `reply` of a file; the file may also set `small = True`."""

    def __init__(self, path: Path) -> None:
        """Loads the file.

        Raises:
            UsageError: When there is no such file or it defines no `reply`.
            ModelError: When it can't be executed; the text names the file and the exception.
        """
        name = f"scripted:{path.name}"
        if not path.is_file():
            raise UsageError(f"There is no file {path} for --llm scripted:FILE.py.")
        spec = importlib.util.spec_from_file_location(f"guided_evolution_scripted_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise UsageError(f"{path} is not a Python file, as --llm scripted:FILE.py needs.")
        module: Any = importlib.util.module_from_spec(spec)
        with provider_border(name):
            spec.loader.exec_module(module)
        function = getattr(module, "reply", None)
        if not callable(function):
            raise UsageError(f"{path} must define reply(prompt: str) -> str.")
        super().__init__(function, name, small=bool(getattr(module, "small", False)))


def _positional(function: Callable[..., str]) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in kinds for parameter in inspect.signature(function).parameters.values())
