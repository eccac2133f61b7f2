"""What `--llm SPEC` may say, and the model it stands for."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from guided_evolution.errors import ModelError, UsageError
from guided_evolution.llm import LLM, models
from guided_evolution.llm.client import ClientLLM, Endpoint, build_model, key_from
from guided_evolution.llm.download import Progress
from guided_evolution.llm.ensemble import Ensemble, split_weight
from guided_evolution.llm.local import LocalLLM
from guided_evolution.llm.no_model import RANDOM, NoModel
from guided_evolution.llm.scripted import ScriptedLLM

FORMS = (
    "local, local:NAME, openai:MODEL (also anthropic:, google: and others), http://host:port/v1#MODEL, "
    "scripted:FILE.py, replay:RUN, random (no model: random edits)"
)


@dataclass(frozen=True, slots=True)
class _Provider:
    keys: tuple[str, ...]
    package: str = "openai"
    requirement: str = "guided-evolution"


_PROVIDERS: dict[str, _Provider] = {
    "openai": _Provider(("OPENAI_API_KEY",)),
    "anthropic": _Provider(("ANTHROPIC_API_KEY",), "anthropic", "guided-evolution[anthropic]"),
    "google": _Provider(("GOOGLE_API_KEY", "GEMINI_API_KEY"), "google.genai", "guided-evolution[google]"),
    "groq": _Provider(("GROQ_API_KEY",), "groq", "pydantic-ai-slim[groq]"),
    "mistral": _Provider(("MISTRAL_API_KEY",), "mistralai", "pydantic-ai-slim[mistral]"),
    "xai": _Provider(("XAI_API_KEY",), "xai_sdk", "pydantic-ai-slim[xai]"),
    "alibaba": _Provider(("ALIBABA_API_KEY", "DASHSCOPE_API_KEY")),
    "cerebras": _Provider(("CEREBRAS_API_KEY",)),
    "deepseek": _Provider(("DEEPSEEK_API_KEY",)),
    "fireworks": _Provider(("FIREWORKS_API_KEY",)),
    "moonshotai": _Provider(("MOONSHOTAI_API_KEY",)),
    "nebius": _Provider(("NEBIUS_API_KEY",)),
    "openrouter": _Provider(("OPENROUTER_API_KEY",)),
    "together": _Provider(("TOGETHER_API_KEY",)),
    "zai": _Provider(("ZAI_API_KEY",)),
}


def open_llm(
    spec: str,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    recorded: Callable[[str], LLM] | None = None,
) -> LLM:
    """Opens the model that a SPEC stands for; a local one is fetched and loaded at its first request.

    Args:
        spec: One of `FORMS`, without a weight.
        threads: Threads of the local engine; every core this process may use when None.
        progress: Gets bytes done and in all, should a local model have to be fetched.
        recorded: Opens the record of a run as a model, for `replay:RUN`; records lie above this room.

    Raises:
        UsageError: When the text is none of the forms, or a key, a package, a model or a file is missing.
    """
    head, _, rest = spec.strip().partition(":")
    try:
        if spec.strip() == RANDOM:
            return NoModel()
        if head == "local":
            if spec.strip() == "local:":
                raise _wrong(spec)
            return LocalLLM(rest or models.DEFAULT, threads, progress=progress)
        if head in ("http", "https"):
            return _open_url(spec.strip())
        if not rest:
            raise _wrong(spec)
        if head == "scripted":
            return ScriptedLLM(Path(rest))
        if head == "replay" and recorded is not None:
            return recorded(rest)
        return _open_provider(head, spec.strip())
    except ModelError as error:
        raise UsageError(str(error)) from error


def open_llms(specs: Sequence[str], *, threads: int | None = None, recorded: Callable[[str], LLM] | None = None) -> LLM:
    """Opens one model, or an ensemble of several; each specification may end in `=WEIGHT`.

    Args:
        specs: Each one of `FORMS`.
        threads: As for `open_llm`.
        recorded: As for `open_llm`.

    Raises:
        UsageError: As `open_llm`, and for a weight that is not positive.
    """
    members = [
        (open_llm(spec, threads=threads, recorded=recorded), weight) for spec, weight in map(split_weight, specs)
    ]
    return members[0][0] if len(members) == 1 else Ensemble(members)


def keys_found() -> dict[str, bool]:
    """Returns, for each environment variable that may hold a key, whether it is set; never its value."""
    return {key: bool(os.environ.get(key)) for provider in _PROVIDERS.values() for key in provider.keys}


def _open_url(spec: str) -> LLM:
    address, _, model = spec.partition("#")
    if not urlsplit(address).hostname or not model:
        raise UsageError(f"--llm {spec!r} needs a host and a model, as in http://localhost:8000/v1#MODEL.")
    key = "OPENAI_API_KEY"
    return ClientLLM(Endpoint(spec, key=key_from(key), key_variable=key))


def _open_provider(head: str, spec: str) -> LLM:
    provider = _PROVIDERS.get(head)
    if provider is None:
        return _open_other(head, spec)
    names = " or ".join(provider.keys)
    if not any(os.environ.get(key) for key in provider.keys):
        raise UsageError(f"--llm {spec!r} needs a key: set the environment variable {names}.")
    if not _is_installed(provider.package):
        raise UsageError(f"--llm {spec!r} needs a package that isn't installed: pip install '{provider.requirement}'.")
    return ClientLLM(Endpoint(spec, key_variable=names))


def _open_other(head: str, spec: str) -> LLM:
    endpoint = Endpoint(spec)
    try:
        build_model(endpoint)
    except ModelError as error:
        raise UsageError(f"{error} The forms are: {FORMS}.") from error
    return ClientLLM(endpoint)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _wrong(spec: str) -> UsageError:
    return UsageError(f"--llm {spec!r} is not a model. The forms are: {FORMS}.")
