"""The verb that keeps a local model running for others."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import click

from guided_evolution.cli.fetching import pull_model
from guided_evolution.errors import ModelError, UsageError

_LOOK_SECONDS = 0.5


@click.command()
@click.argument("name", required=False)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port to serve on.  [default: a free one]")
def serve(name: str | None, port: int) -> None:
    """Keep a local model running, for several runs or other programs, until Ctrl-C.

    NAME is one of `ge models` or the path of a GGUF file; default: the default model. The server speaks the OpenAI
    protocol on 127.0.0.1 and asks for no key: whoever is on this machine can use it.
    """
    from guided_evolution.llm import models
    from guided_evolution.llm.local import Engine
    from guided_evolution.session import cores

    name = name or models.DEFAULT
    own = name.endswith(".gguf") or "/" in name
    path = Path(name).expanduser() if own else models.find(name) or pull_model(name)
    if not path.is_file():
        raise UsageError(f"There is no model file {name}.")
    alias = path.stem if own else name
    _require_free(port)
    engine = Engine(path, alias=alias, threads=cores(), port=port, key="")
    try:
        click.echo(f"loading {alias}", err=True)
        engine.start()
        click.echo(f"--llm {engine.address}/v1#{alias}")
        click.echo("Serving until Ctrl-C. It asks for no key; OPENAI_API_KEY is not needed.", err=True)
        while engine.running:
            time.sleep(_LOOK_SECONDS)
        raise ModelError(f"The server of {alias} ended. {engine.last_words()}".strip())
    except KeyboardInterrupt:
        return
    finally:
        engine.stop()


def _require_free(port: int) -> None:
    """Finds a taken port before the model is loaded, and says so in words."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(f"--port {port} can't be used: {error.strerror}. Leave it out for a free one.") from None
