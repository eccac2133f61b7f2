"""The local model: an engine process of our own, started at the first request and shared by all callers."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO

from guided_evolution.errors import ModelError
from guided_evolution.llm import Reply, Request, models
from guided_evolution.llm.client import ClientLLM, Endpoint, Patience
from guided_evolution.llm.download import Progress, fetch

CONTEXT = 4096

_LOAD_SECONDS = 300.0
_STOP_SECONDS = 5.0
_LOG_LINES = 3
_LOG_TAIL = 4096
_KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
)


class Engine:
    """A child process that serves one model file on 127.0.0.1; its port is free and its key random unless given.

    It ends with this process, however that ends. Its environment holds no keys; its log goes to a temporary
    file without a name.
    """

    def __init__(
        self,
        path: Path,
        *,
        alias: str,
        threads: int,
        context: int = CONTEXT,
        port: int = 0,
        key: str | None = None,
    ) -> None:
        """Describes the engine; `start` runs it.

        Args:
            path: The GGUF file.
            alias: The model's name in replies.
            threads: Threads for reading and for generating, at least 1.
            context: Tokens of prompt and reply together.
            port: Where it listens; 0 for a free port.
            key: What it asks for; empty for nothing, a random one when None.
        """
        self._options = {
            "model": str(path),
            "alias": alias,
            "threads": max(1, threads),
            "context": context,
            "port": port,
            "key": secrets.token_urlsafe(32) if key is None else key,
            "parent": os.getpid(),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._log: int | None = None
        self.address = ""

    @property
    def key(self) -> str:
        """The key that the server asks for; empty where it asks for none."""
        return str(self._options["key"])

    @property
    def pid(self) -> int | None:
        """The process id, or None before the start."""
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """True while the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the process and waits until the model is loaded, about two seconds per gigabyte.

        Raises:
            ModelError: When the model can't be loaded; permanent.
        """
        self._log, log_name = tempfile.mkstemp(prefix="guided-evolution-engine-")
        Path(log_name).unlink()
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(),
            # Ctrl-C in the terminal must not take the engine away from a run that finishes what is in flight.
            start_new_session=True,
        )
        try:
            self.address = self._greet(self._process)
        except (OSError, EOFError, ValueError, KeyError) as error:
            text = f"The local model {self._options['model']} can't be loaded. {self.last_words()}"
            self.stop()
            raise ModelError(text.strip(), permanent=True) from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the process and waits for it; it may have ended already."""
        process, self._process = self._process, None
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    _close(pipe)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def last_words(self) -> str:
        """Returns the last lines of the engine's log, for an error message."""
        if self._log is None:
            return ""
        size = os.fstat(self._log).st_size
        text = os.pread(self._log, _LOG_TAIL, max(0, size - _LOG_TAIL)).decode("utf-8", "replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return " / ".join(lines[-_LOG_LINES:])

    def _greet(self, process: subprocess.Popen[bytes]) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(self._options).encode() + b"\n")
        process.stdin.flush()
        end = time.monotonic() + _LOAD_SECONDS
        received = b""
        while not received.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError
            piece = os.read(process.stdout.fileno(), 4096)
            if not piece:
                raise EOFError
            received += piece
        return str(json.loads(received)["address"])


class LocalLLM:
    """The embedded model: fetched if it has to be, loaded at the first request, restarted once if it dies."""

    def __init__(
        self,
        model: str = models.DEFAULT,
        threads: int | None = None,
        *,
        progress: Progress | None = None,
    ) -> None:
        """Describes the model; nothing is fetched or loaded yet.

        Args:
            model: A known model's name, or a path to a GGUF file.
            threads: Threads of the engine; every core this process may use when None.
            progress: Gets bytes done and in all, should the model have to be fetched.

        Raises:
            ModelError: When there is neither a model nor a file of that name; permanent.
        """
        self._path = _own_file(model)
        self._label = model if self._path is None else self._path.stem
        self._threads = threads or _cores()
        self._progress = progress
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._client: ClientLLM | None = None
        self._closed = False

    @property
    def name(self) -> str:
        """How the model is called in the record, e.g. "local:qwen2.5-coder-1.5b"."""
        return f"local:{self._label}"

    @property
    def small(self) -> bool:
        """Always true: what runs inside the tool is a model of a few billion parameters."""
        return True

    def price(self, tokens_in: int, tokens_out: int) -> float | None:
        """Always 0: it runs on this machine."""
        return 0.0

    @property
    def engine(self) -> Engine | None:
        """The engine process, or None before the first request."""
        return self._engine

    async def ask(self, request: Request, on_text: Callable[[str], None] | None = None) -> Reply:
        """Answers a request; `on_text` gets each piece of the reply as it arrives.

        Raises:
            ModelError: When the model can't be fetched or loaded (permanent), or died twice.
        """
        client = await asyncio.to_thread(self._ready)
        try:
            reply = await client.ask(request, on_text)
        except ModelError:
            if not await asyncio.to_thread(self._is_gone, client):
                raise
            await client.close()
            client = await asyncio.to_thread(self._ready)
            reply = await client.ask(request, on_text)
        return replace(reply, model=self._label)

    async def close(self) -> None:
        """Ends the engine."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            await client.close()
        await asyncio.to_thread(self._stop)

    def _ready(self) -> ClientLLM:
        with self._lock:
            if self._closed:
                raise ModelError(f"{self.name} is closed.", permanent=True)
            if self._client is not None and self._engine is not None and self._engine.running:
                return self._client
            if self._engine is not None:
                self._engine.stop()
            path = self._path or fetch(models.get(self._label), self._progress)
            self._engine = Engine(path, alias=self._label, threads=self._threads)
            self._engine.start()
            address = f"{self._engine.address}/v1#{self._label}"
            endpoint = Endpoint(address, key=self._engine.key, embedded=True)
            self._client = ClientLLM(endpoint, name=self.name, small=True, patience=Patience(tries=1))
            return self._client

    def _is_gone(self, client: ClientLLM) -> bool:
        # The connection breaks a moment before the process can be waited for.
        for _ in range(10):
            with self._lock:
                replaced = self._client is not client
                if self._closed or replaced or self._engine is None or not self._engine.running:
                    return not self._closed
            time.sleep(0.05)
        return False

    def _stop(self) -> None:
        with self._lock:
            if self._engine is not None:
                self._engine.stop()
                self._engine = None


def _cores() -> int:
    # Not every system tells which cores a process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _own_file(model: str) -> Path | None:
    if model == models.DEFAULT:
        return models.own_file()
    if not (model.endswith(".gguf") or "/" in model):
        models.get(model)
        return None
    path = Path(model).expanduser()
    if not path.is_file():
        raise ModelError(f"There is no model file {model}.", permanent=True)
    return path


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    # Spinning OpenMP threads beside a training on the same cores cost both of them most of their speed.
    return kept | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        return
