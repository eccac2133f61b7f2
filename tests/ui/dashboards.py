"""Dashboards over real records, asked without a server."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from starlette.testclient import TestClient

from guided_evolution.individual import Individual, Origin, Outcome, Status, Step
from guided_evolution.problem import Problem
from guided_evolution.run import open_run, problem_to_json
from guided_evolution.settings import Settings
from guided_evolution.store import Store
from guided_evolution.ui.app import make_app
from guided_evolution.ui.guard import Access

GE = Path(sys.executable).parent / "ge"
PAGES = (
    "/",
    "/runs/one",
    "/runs/one/individuals",
    "/runs/one/individuals/1",
    "/runs/one/operators",
    "/runs/one/failures",
    "/runs/one/lineage",
    "/runs/one/time",
)


def ge(*arguments: object, cwd: Path) -> None:
    subprocess.run([str(GE), *map(str, arguments)], cwd=cwd, check=True, capture_output=True, timeout=120)


def asked(folder: Path, access: Access | None = None) -> TestClient:
    access = access or Access.to("127.0.0.1", 8686)
    return TestClient(make_app(folder, access), base_url="http://127.0.0.1:8686", raise_server_exceptions=True)


def write_run(folder: Path, tiny: Problem, count: int = 3, **meta: object) -> Store:
    facts = {"problem": problem_to_json(tiny), "status": "done", "stop_reason": "1 generations done", **meta}
    store = Store.create(folder, settings=Settings().to_json(), versions={}, **facts)
    for number in range(count):
        genome = tiny.genome().replace("first", f"def first():\n    return {number + 1} * SCALE\n")
        origin = Origin((0,), (Step("mutate", "first", "complex", "expert"),)) if number else Origin()
        store.put_individual(Individual(number, min(number, 1), genome, origin))
        store.put_outcome(number, Outcome(Status.OK, scores={"closeness": number - 20.0, "size": 6.0 + number}))
    return store


LARGE = ("/", "/individuals", "/individuals/5000", "/operators", "/failures", "/lineage", "/time", "/figures/front")


def large_pages(runs: Path) -> tuple[float, dict[str, float], dict[str, int]]:
    """Work for the first page of the run "big" and for each other one, over that of reading it; and their sizes."""
    client = asked(runs)
    client.get("/static/app.css")  # the server is up
    begun = time.process_time()
    assert len(open_run(runs / "big").individuals) == 10_000
    reading = time.process_time() - begun
    begun = time.process_time()
    assert client.get("/runs/big").status_code == 200
    first = time.process_time() - begun
    sizes, times = {}, {}
    for path in LARGE:
        begun = time.process_time()
        answer = client.get(path if path == "/" else f"/runs/big{path}")
        times[path] = (time.process_time() - begun) / reading
        sizes[path] = len(answer.content)
        assert answer.status_code == 200
    return first / reading, times, sizes
