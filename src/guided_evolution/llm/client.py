"""One client for every model that is reached over the network, the local engine included."""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from guided_evolution.errors import GuidedEvolutionError, ModelError, RequestRefusedError
from guided_evolution.llm import Reply, Request

if TYPE_CHECKING:
    from pydantic_ai.exceptions import ModelAPIError
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import Model
    from pydantic_ai.settings import ModelSettings

OnText = Callable[[str], None]

_SMALL_BILLIONS = 4.0
_BILLIONS = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)b(?![a-z0-9])", re.IGNORECASE)
_KEY_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9_]*_(?:API_KEY|TOKEN)\b")
_OPTIONAL = ("temperature", "top_p", "max_tokens")
_UNSUPPORTED = re.compile(r"unsupported|not support|unknown|unrecogni[sz]ed|not permitted|not allowed", re.IGNORECASE)
_LONGEST_WAIT = 120.0
_SEED_RANGE = 2**31


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is reached.

    Attributes:
        spec: What the user wrote, e.g. "openai:gpt-5-mini" or "http://host:8000/v1#MODEL".
        key: The key for an address; None sends a placeholder. Named providers read theirs from the environment.
        key_variable: The environment variable that holds the key, for messages.
        embedded: True for this tool's own engine: it costs nothing, and it takes the engine's own settings.
    """

    spec: str
    key: str | None = None
    key_variable: str = ""
    embedded: bool = False

    @property
    def is_url(self) -> bool:
        """True for an OpenAI-compatible server given by its address."""
        return self.spec.startswith(("http://", "https://"))

    @property
    def model(self) -> str:
        """The model's own name."""
        return self.spec.partition("#")[2] if self.is_url else self.spec.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one request may take, and how often it is tried.

    Attributes:
        tries: Attempts in all, at least 1; only passing troubles (429, 5xx, connection) are tried again.
        pause: Seconds before the second attempt; doubled each time, with up to half of it added at random.
        timeout: Seconds that a server may stay silent.
    """

    tries: int = 4
    pause: float = 1.0
    timeout: float = 600.0


def is_small(name: str) -> bool:
    """Returns whether a model's name says that it has at most four billion parameters.

    "qwen2.5-coder-1.5b" does. The largest size in the name counts, so "30b-a3b" is not small; a name without a
    size is taken for a large model.
    """
    sizes = [float(size) for size in _BILLIONS.findall(name)]
    return bool(sizes) and max(sizes) <= _SMALL_BILLIONS


@contextmanager
def provider_border(name: str) -> Iterator[None]:
    """Turns whatever a provider's code raises into a `ModelError` that isn't permanent; our own errors pass.

    This is the project's border to code that it can't know: client libraries and scripted models.

    Raises:
        ModelError: For every exception that is not one of this project's.
    """
    try:
        yield
    except GuidedEvolutionError:
        raise
    except Exception as error:
        detail = _one_line(str(error))
        raise ModelError(f"{name} failed: {type(error).__name__}{': ' + detail if detail else ''}") from error


class ClientLLM:
    """A model behind pydantic-ai: a named provider, or any OpenAI-compatible server."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        name: str | None = None,
        small: bool | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Sets the client up; nothing is imported or sent before the first request.

        Args:
            endpoint: Where the model is.
            name: How it is called in the record; the endpoint's spec when None.
            small: Whether it is a small model; guessed from its name when None.
            patience: Time-out and repetitions; four tries when None.
        """
        self._endpoint = endpoint
        self._name = name or endpoint.spec
        self._small = is_small(endpoint.model) if small is None else small
        self._patience = patience or Patience()
        self._refused: set[str] = set()
        self._model: Model | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Lock | None = None

    @property
    def name(self) -> str:
        """How the model is called in the record."""
        return self._name

    @property
    def small(self) -> bool:
        """True for a model of at most a few billion parameters."""
        return self._small

    def price(self, tokens_in: int, tokens_out: int) -> float | None:
        """What a call costs in US dollars by the client library's price list; None when it is not listed."""
        if self._endpoint.embedded:
            return 0.0
        return _list_price(self._endpoint, tokens_in, tokens_out)

    async def open(self) -> None:
        """Imports the client library, about two seconds of work in a thread; nothing is sent.

        Raises:
            ModelError: When the provider's package or key is missing.
        """
        with provider_border(self._name):
            await self._connected()

    async def ask(self, request: Request, on_text: OnText | None = None) -> Reply:
        """Answers a request; `on_text` gets each piece of the reply as it arrives.

        Passing troubles are tried again with growing pauses, or after the pause that the server asked for.
        After a broken stream the pieces start anew. A model that refuses `temperature` or `top_p` is asked
        without, from then on. The seed is taken modulo 2³¹. On the embedded engine, a seed fixes the text: such
        a request does not reuse the engine's prompt cache, which saves time and changes the last bits.

        Raises:
            ModelError: When the model can't be reached or refuses; permanent for a wrong key, an unknown model
                and an exhausted quota.
        """
        start = time.monotonic()
        with provider_border(self._name):
            response = await self._ask_with_patience(request, on_text)
            return self._reply(response, time.monotonic() - start)

    async def close(self) -> None:
        """Closes the connections."""
        model, self._model = self._model, None
        if model is not None and self._loop is asyncio.get_running_loop():
            with provider_border(self._name):
                await model.__aexit__(None, None, None)

    async def _ask_with_patience(self, request: Request, on_text: OnText | None) -> ModelResponse:
        from pydantic_ai.exceptions import ModelAPIError, UnexpectedModelBehavior

        attempt = 0
        while True:
            try:
                return await self._ask_once(request, on_text)
            except ModelAPIError as error:
                if self._drops_a_setting(error, request):
                    continue
                attempt += 1
                trouble = _trouble(error, self._name, self._endpoint)
                if not trouble.passing or attempt >= self._patience.tries:
                    raise trouble.error from error
                pause = self._pause(attempt, error.retry_after)
                if pause is None:
                    trouble.error.retry_after = error.retry_after or 0.0
                    raise trouble.error from error
            except (UnexpectedModelBehavior, ValueError) as error:
                # an answer that isn't one, such as a proxy's page: the client library finds it when it reads it
                attempt += 1
                if attempt >= self._patience.tries:
                    detail = _one_line(str(error))
                    raise ModelError(f"{self._name} sent something that is no reply. {detail}") from error
                pause = self._pause(attempt, None)
            await asyncio.sleep(pause or 0.0)

    async def _ask_once(self, request: Request, on_text: OnText | None) -> ModelResponse:
        from pydantic_ai import direct

        model = await self._connected()
        messages, settings = _messages(request), self._settings(request)
        if on_text is None:
            return await direct.model_request(model, messages, model_settings=settings)
        async with direct.model_request_stream(model, messages, model_settings=settings) as stream:
            async for event in stream:
                if piece := _text_of(event):
                    on_text(piece)
            return stream.get()

    async def _connected(self) -> Model:
        # Connections belong to the event loop that opened them; another `asyncio.run` needs new ones.
        loop = asyncio.get_running_loop()
        if self._opening is None or self._loop is not loop:
            self._loop, self._model, self._opening = loop, None, asyncio.Lock()
        async with self._opening:
            if self._model is None:
                model = await asyncio.to_thread(build_model, self._endpoint)
                self._model = await model.__aenter__()
            return self._model

    def _settings(self, request: Request) -> ModelSettings:
        settings: ModelSettings = {"timeout": self._patience.timeout, "max_retries": 0}
        if "max_tokens" not in self._refused:
            settings["max_tokens"] = request.max_tokens
        if request.temperature is not None and "temperature" not in self._refused:
            settings["temperature"] = request.temperature
        if request.top_p is not None and "top_p" not in self._refused:
            settings["top_p"] = request.top_p
        if request.seed is not None:
            settings["seed"] = request.seed % _SEED_RANGE
        if self._endpoint.embedded:
            # A prompt read in one go and one read from the cache differ in rounding, and then in the text.
            settings["extra_body"] = {"cache_prompt": request.seed is None}
        return settings

    def _drops_a_setting(self, error: ModelAPIError, request: Request) -> bool:
        if getattr(error, "status_code", None) not in (400, 422):
            return False
        body = str(error.body).replace("max_completion_tokens", "max_tokens")
        sent = {name for name in _OPTIONAL if getattr(request, name) is not None} - self._refused
        # a limit that is too large is named too, and leaving it out would not help
        named = {name for name in sent if name in body and (name != "max_tokens" or _UNSUPPORTED.search(body))}
        self._refused |= named
        return bool(named)

    def _pause(self, attempt: int, asked_for: float | None) -> float | None:
        if asked_for is not None:
            return asked_for if asked_for <= _LONGEST_WAIT else None
        base = self._patience.pause * 2.0 ** (attempt - 1)
        # Jitter keeps lanes that failed together from coming back together; it never reaches a run's results.
        return base * (1.0 + random.random() / 2.0)

    def _reply(self, response: ModelResponse, seconds: float) -> Reply:
        from pydantic_ai.messages import TextPart, ThinkingPart

        usage = response.usage
        return Reply(
            text="".join(part.content for part in response.parts if isinstance(part, TextPart)),
            model=response.model_name or self._endpoint.model,
            reasoning="\n".join(part.content for part in response.parts if isinstance(part, ThinkingPart)),
            tokens_in=usage.input_tokens or None,
            tokens_out=usage.output_tokens or None,
            usd=0.0 if self._endpoint.embedded else _price(response),
            seconds=seconds,
            cut=response.finish_reason == "length",
            tokens_cached=usage.cache_read_tokens or None,
        )


def build_model(endpoint: Endpoint) -> Model:
    """Makes the pydantic-ai model of an endpoint; the first call imports the library, about two seconds.

    Raises:
        ModelError: When the provider is unknown, its package or its key is missing; permanent.
    """
    from pydantic_ai.exceptions import UserError
    from pydantic_ai.models import infer_model

    try:
        return _url_model(endpoint) if endpoint.is_url else infer_model(endpoint.spec)
    except ImportError as error:
        package = f"pydantic-ai-slim[{endpoint.spec.partition(':')[0]}]"
        raise ModelError(
            f"{endpoint.spec} needs a package that isn't installed: pip install '{package}'.", permanent=True
        ) from error
    except UserError as error:
        key = _KEY_VARIABLE.search(str(error))
        reason = f"needs a key: set the environment variable {key[0]}." if key else _one_line(str(error))
        raise ModelError(f"{endpoint.spec}: {reason}", permanent=True) from error


def _url_model(endpoint: Endpoint) -> Model:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    address, _, model = endpoint.spec.partition("#")
    host = urlsplit(address).netloc
    return OpenAIChatModel(
        model, provider=OpenAICompatibleProvider(host, base_url=address, api_key=endpoint.key or "none")
    )


def _messages(request: Request) -> list[ModelMessage]:
    from pydantic_ai.messages import ModelRequest, SystemPromptPart, UserPromptPart

    system = [SystemPromptPart(request.system)] if request.system else []
    return [ModelRequest(parts=[*system, UserPromptPart(request.prompt)])]


def _text_of(event: object) -> str:
    from pydantic_ai.messages import PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta

    if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
        return event.part.content
    if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
        return event.delta.content_delta
    return ""


def _price(response: ModelResponse) -> float | None:
    # The price list says "not known" in three ways: no such model, no usage, no model name.
    try:
        return float(response.cost().total_price)
    except (LookupError, ValueError, AssertionError):
        return None


def _list_price(endpoint: Endpoint, tokens_in: int, tokens_out: int) -> float | None:
    from genai_prices import Usage, calc_price

    if endpoint.is_url:
        return None
    provider = endpoint.spec.partition(":")[0]
    usage = Usage(input_tokens=tokens_in, output_tokens=tokens_out)
    try:
        return float(calc_price(usage, endpoint.model, provider_id=provider).total_price)
    except LookupError:
        return None


@dataclass(frozen=True, slots=True)
class _Trouble:
    error: ModelError
    passing: bool


def _trouble(error: ModelAPIError, name: str, endpoint: Endpoint) -> _Trouble:
    from pydantic_ai.exceptions import ModelConnectionError, ModelQuotaExceededError, ModelTimeoutError

    status: int | None = getattr(error, "status_code", None)
    detail = _one_line(_detail(error))
    if isinstance(error, ModelQuotaExceededError) or status == 402:
        return _Trouble(
            ModelError(f"{name}: the account's quota or credit is used up. {detail}", permanent=True), False
        )
    if status in (401, 403):
        variable = endpoint.key_variable or "the provider's API key"
        return _Trouble(
            ModelError(f"{name} refused the key ({status}): check {variable}. {detail}", permanent=True),
            False,
        )
    if status == 404:
        return _Trouble(
            ModelError(f"{name} doesn't exist there (404): check the model's name. {detail}", permanent=True),
            False,
        )
    if status == 429:
        return _Trouble(ModelError(f"{name} is over its rate limit (429). {detail}"), True)
    if status is not None and (status >= 500 or status in (408, 409)):
        return _Trouble(ModelError(f"{name} is in trouble ({status}). {detail}"), True)
    if status is not None:
        return _Trouble(RequestRefusedError(f"{name} refused the request ({status}). {detail}"), False)
    if isinstance(error, ModelTimeoutError):
        return _Trouble(ModelError(f"{name} didn't answer in time. {detail}"), True)
    if isinstance(error, ModelConnectionError):
        return _Trouble(ModelError(f"{name} can't be reached: is the server running? {detail}"), True)
    return _Trouble(ModelError(f"{name} failed. {detail}"), True)


def _detail(error: ModelAPIError) -> str:
    body = error.body
    if isinstance(body, dict):
        inner = body.get("error", body)
        message = inner.get("message") if isinstance(inner, dict) else inner
        return f"It said: {message}" if message else ""
    return "" if body is None else f"It said: {body}"


def _one_line(text: str, longest: int = 240) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def key_from(variable: str) -> str | None:
    """Returns the key in an environment variable, or None when it is not set or empty."""
    return os.environ.get(variable) or None
