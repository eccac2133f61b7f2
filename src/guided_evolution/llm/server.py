"""The embedded engine: a process that serves one model file over HTTP on this machine only.

It is started by `local.Engine` and run by its path, so it imports nothing of this package. The first line on its
standard input holds the options as JSON; the rest of that stream is the lifeline: the process ends when it
closes. When the model is loaded, it writes one JSON line with the server's address to standard output.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

_HALF_SECOND = 0.5


def main() -> int:
    """Loads the model, announces the address and serves until the parent is gone."""
    options: dict[str, Any] = json.loads(sys.stdin.buffer.readline() or b"{}")
    if not options:
        return 2
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    threading.Thread(target=_end_with_parent, args=(options["parent"],), daemon=True).start()
    announce = os.dup(1)
    # The engine writes its log to both streams; only the announcement may reach the parent's pipe.
    os.dup2(2, 1)
    try:
        server = _serve(options)
    except (RuntimeError, ImportError) as error:
        # The parent shows the last lines of this log; a traceback would push out the engine's own words.
        sys.stderr.write(f"{error}\n")
        return 1
    os.write(announce, (json.dumps({"address": server.listening_address}) + "\n").encode())
    os.close(announce)
    threading.Event().wait()
    return 0


def _serve(options: dict[str, Any]) -> Any:
    import xllamacpp

    return xllamacpp.Server(parameters(options))


def parameters(options: dict[str, Any]) -> Any:
    """The engine's settings; the benchmark of the local model varies them."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options["model"]
    params.model_alias = {options["alias"]}
    params.api_keys = [options["key"]] if options["key"] else []
    params.hostnames = ["127.0.0.1"]
    params.port = options["port"]
    params.ui = False
    params.offline = True
    params.endpoint_slots = False
    params.n_ctx = options["context"]
    params.n_parallel = 1
    params.cache_prompt = True
    params.cache_ram_mib = 0
    params.cpuparams.n_threads = options["threads"]
    params.cpuparams_batch.n_threads = options["threads"]
    params.verbosity = 1
    return params


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def _end_with_parent(parent: int) -> None:
    # A process that the parent forked can hold the lifeline's other end open after the parent died.
    while os.getppid() == parent:
        time.sleep(_HALF_SECOND)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
