"""One job on a machine of a cluster: the same supervisor and worker as at home, with files on both sides.

`python -m guided_evolution.evaluation.node FOLDER` reads `FOLDER/task.json`, appends each partial result to
`FOLDER/partial.jsonl`, and leaves `FOLDER/outcome.json`, written and then renamed. The candidate works in a folder
of its own on the machine's own disk and never sees FOLDER.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from guided_evolution.errors import RunError
from guided_evolution.evaluation import Job, launch
from guided_evolution.individual import Outcome, Status

_LOCK = ".lock"
TASK, PARTIAL, OUTCOME = "task.json", "partial.jsonl", "outcome.json"


def perform(job: Job, on_partial: launch.Partial | None = None, stop: threading.Event | None = None) -> Outcome:
    """Runs a job on this machine, in a folder below its temporary folder; see `launch.run`."""
    temporary, mine = Path(tempfile.gettempdir()), f"ge-{os.getuid()}-"
    _sweep(temporary, mine)
    folder = temporary / f"{mine}{secrets.token_hex(8)}"
    lock = folder.with_suffix(_LOCK)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            return launch.run(job, folder, on_partial, stop)
        finally:
            lock.unlink(missing_ok=True)


def _sweep(temporary: Path, mine: str) -> None:
    """Removes what jobs left that a batch system killed with all their processes: nobody holds their lock."""
    for lock in temporary.glob(f"{mine}*{_LOCK}"):
        with suppress(OSError), lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Writes a file so that a reader sees all of it or nothing."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    draft.write_text(json.dumps(document), encoding="utf-8")
    draft.replace(path)


def main(folder: Path) -> None:
    """Runs the job that lies in `folder`; a failure of our own is left as `{"error": text}`."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    job = Job.from_json(json.loads((folder / TASK).read_text(encoding="utf-8")))
    with (folder / PARTIAL).open("a", encoding="utf-8") as partial:

        def on_partial(scores: dict[str, float]) -> None:
            partial.write(json.dumps(scores) + "\n")
            partial.flush()

        try:
            outcome = perform(job, on_partial, stop)
            if stop.is_set() and not outcome.ok:
                # A batch system signals the candidate as well, whose death is then none of its own doing.
                outcome = Outcome(Status.LOST, "stopped by a signal", seconds=outcome.seconds)
            document = outcome.to_json()
        except RunError as error:
            document = {"error": str(error)}
    write_json(folder / OUTCOME, document)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
