"""One job over two pipes, for a host that kills its children without warning.

`python -m guided_evolution.evaluation.pipe` reads a job as one line of JSON, and writes a line {"partial": scores}
for each partial result and last {"outcome": …}, or {"error": text} when the job couldn't be run. The end of its
standard input stops the job. Between such a host and the supervisor it makes sure that the supervisor lives long
enough to clear up: were the supervisor killed itself, what its candidate started would stay.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

from guided_evolution.errors import RunError
from guided_evolution.evaluation import Job, node


def main() -> None:
    """Runs the job that comes in."""
    job = Job.from_json(json.loads(sys.stdin.buffer.readline()))
    stop = threading.Event()

    def watch() -> None:
        while os.read(0, 1):
            pass
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    try:
        _say("outcome", node.perform(job, lambda scores: _say("partial", scores), stop).to_json())
    except RunError as error:
        _say("error", str(error))


def _say(name: str, value: Any) -> None:
    sys.stdout.write(json.dumps({name: value}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
