"""The worker: what an evaluator may return, what it is told, and how a failure is named."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guided_evolution.evaluation import Job, launch, supervisor, worker
from guided_evolution.individual import Outcome, Status

EVALUATOR = """
import importlib.util

def load(path):
    spec = importlib.util.spec_from_file_location("candidate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

def evaluate(program):
    return load(program).score()
"""

Score = Callable[..., Outcome]


@pytest.fixture
def score(tmp_path: Path) -> Score:
    """Runs one candidate for real: its source, then the evaluator's, then fields of the job."""

    def run(source: str, evaluator: str = EVALUATOR, **fields: Any) -> Outcome:
        problem = tmp_path / "problem"
        problem.mkdir(exist_ok=True)
        (problem / "evaluate.py").write_text(evaluator)
        on_partial = fields.pop("on_partial", None)
        fields = {"files": {"seed.py": source}, "stage": "evaluate", "seconds": 30.0, **fields}
        fields.setdefault("objectives", ("accuracy",))
        outcome = launch.run(Job(name="job", problem=problem, **fields), tmp_path / "job", on_partial)
        assert not (tmp_path / "job").exists()
        return outcome

    return run


class Tensor:
    """Something with one value, as a 0-d tensor is: only float() tells."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value


class EvaluationResult:
    metrics = {"accuracy": 0.5, "other": 2}  # noqa: RUF012


def judge(answer: object, stage: str = "evaluate", objectives: tuple[str, ...] = ("accuracy",)) -> dict[str, Any]:
    return worker._judge(answer, {"stage": stage, "objectives": objectives, "ranges": {}})


@pytest.mark.parametrize(
    "answer", [0.5, {"accuracy": 0.5}, {"accuracy": np.float32(0.5)}, {"accuracy": np.array(0.5)},
               {"accuracy": Tensor(0.5)}, EvaluationResult()]
)  # fmt: skip
def test_what_counts_as_a_score(answer: object) -> None:
    assert judge(answer)["scores"] == {"accuracy": 0.5}


def test_a_bare_number_is_the_only_objective_or_the_combined_score() -> None:
    assert judge(3, objectives=("speed",))["scores"] == {"speed": 3.0}
    assert judge(3, objectives=())["metrics"] == {"combined_score": 3.0}
    with pytest.raises(worker.ResultError, match='objective "a" is missing'):
        judge(3, objectives=("a", "b"))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "evaluate returned nothing (None), expected a dict"),
        ([0.5], "evaluate returned a list, expected a dict"),
        ("0.5", "evaluate returned a str, expected a dict"),
        (True, "evaluate returned a bool, expected a dict"),
        (math.nan, 'objective "accuracy" is nan'),
        ({}, 'objective "accuracy" is missing'),
        ({"accuracy": math.nan}, 'objective "accuracy" is nan'),
        ({"accuracy": -math.inf}, 'objective "accuracy" is -inf'),
        ({"accuracy": 10**400}, 'objective "accuracy" is inf'),
        ({"accuracy": "0.9"}, 'objective "accuracy" is a str, expected a number'),
        ({"accuracy": True}, 'objective "accuracy" is a bool, expected a number'),
        ({"accuracy": np.bool_(True)}, r'objective "accuracy" is a bool_?, expected a number'),
        ({"accuracy": None}, 'objective "accuracy" is a NoneType, expected a number'),
        ({"accuracy": 1j}, 'objective "accuracy" is a complex, expected a number'),
        ({"accuracy": np.zeros(2)}, 'objective "accuracy" is a ndarray, expected a number'),
    ],
)
def test_what_is_not_a_score_is_a_failure_that_names_it(answer: object, reason: str) -> None:
    pattern = reason if "?" in reason else reason.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(worker.ResultError, match=f"^{pattern}$"):
        judge(answer)


# A small alphabet with what hurts: a lone surrogate, NUL, a path.
TEXTS = st.text("ab/\0é\ud800")
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["a", "b", "c", "feedback", 7]), VALUES))
def test_a_score_is_finite_for_every_objective_or_there_is_none(answer: dict[object, object]) -> None:
    try:
        result = judge(answer, objectives=("a", "b"))
    except worker.ResultError as error:
        assert str(error).startswith(('objective "a" is ', 'objective "b" is '))
        return
    assert result["scores"].keys() == {"a", "b"}
    assert not result["scores"].keys() & result["metrics"].keys()
    numbers = [*result["scores"].values(), *result["metrics"].values()]
    assert all(isinstance(number, float) and math.isfinite(number) for number in numbers)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@given(st.text("0123456789abcdef"), st.dictionaries(TEXTS, st.integers(), max_size=3), st.data())
def test_only_the_secret_signs(nonce: str, fields: dict[str, int], data: st.DataObject) -> None:
    payload = {**fields, "kind": "result"}
    line = supervisor.sign(payload, nonce).encode()
    assert supervisor.verified(line, nonce, "result") == payload
    assert supervisor.verified(line, nonce + "x", "result") is None
    assert supervisor.verified(line, nonce, "progress") is None
    at = data.draw(st.integers(0, len(line) - 1))
    changed = line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :]
    assert supervisor.verified(changed, nonce, "result") in (None, payload)


@given(TEXTS)
def test_text_of_a_candidate_can_always_be_stored(text: str) -> None:
    kept = launch._text(text, Path("/jobs/1/scratch"))
    assert "\0" not in kept
    assert kept.encode("utf-8").decode("utf-8") == kept


def test_a_score_has_metrics_feedback_log_time_and_memory(score: Score) -> None:
    source = """
def score():
    print("hello from the candidate")
    return {"accuracy": 0.5, "loss": 2, "bad": float("nan"), "name": "x", "feedback": "f" * 5000}
"""
    outcome = score(source)
    assert outcome.status is Status.OK
    assert outcome.reason == ""
    assert outcome.scores == {"accuracy": 0.5}
    assert outcome.metrics == {"loss": 2.0}
    assert outcome.feedback == "f" * 4000
    assert outcome.log_tail == "hello from the candidate\n"
    assert 0 < outcome.seconds < 30
    assert 5 < outcome.peak_mb < 200


def test_a_generator_gives_partial_results_and_the_last_one_counts(score: Score) -> None:
    seen: list[dict[str, float]] = []
    source = """
def score():
    yield {"accuracy": 0.1, "loss": float("inf")}
    yield {"accuracy": 0.2, "feedback": "better"}
"""
    outcome = score(source, on_partial=seen.append)
    assert seen == [{"accuracy": 0.1}, {"accuracy": 0.2}]
    assert outcome.scores == {"accuracy": 0.2}
    assert outcome.feedback == "better"


def test_what_a_generator_returns_counts_over_what_it_yields(score: Score) -> None:
    outcome = score('def score():\n    yield {"accuracy": 0.1}\n    return {"accuracy": 0.3}\n')
    assert outcome.scores == {"accuracy": 0.3}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("yield from ()", "evaluate returned nothing (None), expected a dict"),
        ("yield 'x'", "evaluate returned a str, expected a dict"),
        ("yield {'accuracy': float('nan')}", 'objective "accuracy" is nan'),
        ("yield {'accuracy': 1}\n    raise ValueError('late')", "ValueError: late (seed.py:3 in score)"),
    ],
)
def test_a_generator_can_fail(score: Score, body: str, reason: str) -> None:
    outcome = score(f"def score():\n    {body}\n")
    assert (outcome.status, outcome.reason, outcome.scores) == (Status.CRASHED, reason, {})


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def score():\n    return layer()\ndef layer():\n    raise ValueError('bad\\n  shape')\n",
         "ValueError: bad shape (seed.py:4 in layer)"),
        ("def score():\n    return {}['x']\n", "KeyError: 'x' (seed.py:2 in score)"),
        ("def score(:\n", "SyntaxError: invalid syntax (seed.py:1)"),
        ("import nonsense\n", "ModuleNotFoundError: No module named 'nonsense' (seed.py:1 in <module>)"),
        ("import json\ndef score():\n    json.loads('{')\n", "(seed.py:3 in score)"),
        ("x = 1\n", "module 'candidate' has no attribute 'score' (evaluate.py:11 in evaluate)"),
        ("import sys\nsys.exit(0)\n", "SystemExit: 0 (seed.py:2 in <module>)"),
        ("def score():\n    raise KeyboardInterrupt\n", "KeyboardInterrupt (seed.py:2 in score)"),
        ("def score():\n    return score()\n", "RecursionError: maximum recursion depth exceeded"),
        ("class E(Exception):\n    def __str__(self):\n        return 1 / 0\ndef score():\n    raise E\n",
         "candidate.E: <exception str() failed> (seed.py:5 in score)"),
        ("def score():\n    open('gone')\n", "No such file or directory: 'gone' (seed.py:2 in score)"),
        ("def score():\n    raise ValueError(__file__)\n", "ValueError: seed.py (seed.py:2 in score)"),
        ("def score():\n    raise ValueError('x' * 10**6)\n", "x… (seed.py:2 in score)"),
    ],
)  # fmt: skip
def test_an_exception_is_named_with_its_place_in_the_program(score: Score, source: str, reason: str) -> None:
    outcome = score(source)
    assert outcome.status is Status.CRASHED
    assert reason in outcome.reason
    assert "\n" not in outcome.reason
    assert len(outcome.reason) < 600
    assert outcome.log_tail.startswith("Traceback, only the program and the evaluator:\n")
    assert "worker.py" not in outcome.log_tail
    assert "importlib._bootstrap" not in outcome.log_tail


def test_an_error_that_the_evaluator_wraps_keeps_the_place_in_the_program(score: Score) -> None:
    evaluator = EVALUATOR.replace(
        "return load(program).score()",
        "try:\n        return load(program).score()\n"
        "    except ValueError as error:\n        raise RuntimeError('no score') from error",
    )
    outcome = score("def score():\n    raise ValueError('inner')\n", evaluator)
    assert outcome.reason == "RuntimeError: no score (seed.py:2 in score)"


@pytest.mark.parametrize(
    "source",
    [
        "def score():\n    raise MemoryError\n",
        "def score():\n    raise RuntimeError('DefaultCPUAllocator: can\\'t allocate memory')\n",
        "def score():\n    raise RuntimeError('CUDA out of memory. Tried to allocate 9 GiB')\n",
        "def score():\n    return bytearray(1 << 40)\n",
        "keep = []\ndef score():\n    while True:\n        keep.append([None] * 20_000)\n",
    ],
)
def test_running_out_of_memory_is_a_status_of_its_own(score: Score, source: str) -> None:
    outcome = score(source, memory_mb=400)
    assert outcome.status is Status.OUT_OF_MEMORY
    assert outcome.reason


def test_the_report_of_a_full_memory_fits_into_the_reserve(score: Score) -> None:
    # Lists of small objects reach the kernel's limit exactly; nothing of it counts as resident here.
    source = """
import mmap
keep = []
def score():
    while True:
        keep.append(mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
"""
    outcome = score(source, memory_mb=400)
    assert outcome.status is Status.OUT_OF_MEMORY
    assert outcome.reason == "OSError: [Errno 12] Cannot allocate memory (seed.py:6 in score)"


STAGES = """
def evaluate(program, context):
    fields = [context.seed, context.device, str(context.data), context.stage, context.threads, program]
    (context.scratch / "note").write_text("x")
    return {"accuracy": 1, "feedback": repr(fields) + open("note").read()}

def test(program, context=None):
    return {"held_out": 0.25, "bad": float("nan"), "seed": context.seed, "text": "t"}

def prepare(context):
    (context.data / "made").write_text(context.stage)
"""


def test_the_context_tells_what_the_job_is(score: Score, tmp_path: Path) -> None:
    outcome = score("", STAGES, sandbox="auto", seed=7, device="cuda", threads=3, data=tmp_path)
    assert outcome.feedback == repr([7, "cuda", "/data", "evaluate", 3, "seed.py"]) + "x"


def test_a_test_gives_whatever_numbers_it_has(score: Score) -> None:
    outcome = score("", STAGES, stage="test", seed=9)
    assert outcome.status is Status.OK
    assert outcome.scores == {"held_out": 0.25, "seed": 9.0}
    outcome = score("", "def test(program):\n    return {'a': 'b'}\n", stage="test")
    assert (outcome.status, outcome.reason) == (Status.CRASHED, "test returned no finite number")


def test_prepare_gets_the_context_and_no_program(score: Score, tmp_path: Path) -> None:
    assert score("", STAGES, stage="prepare", data=tmp_path, files={}).status is Status.OK
    assert (tmp_path / "made").read_text() == "prepare"


@pytest.mark.parametrize("stage", ["check", "prepare"])
def test_a_missing_check_passes(score: Score, stage: str) -> None:
    assert score("", EVALUATOR, stage=stage).status is Status.OK


@pytest.mark.parametrize("stage", ["evaluate", "test"])
def test_a_missing_evaluate_does_not(score: Score, stage: str) -> None:
    outcome = score("", "x = 1\n", stage=stage)
    assert (outcome.status, outcome.reason) == (Status.CRASHED, f"evaluate.py has no function {stage}")


def test_a_check_fails_by_raising_or_by_false(score: Score) -> None:
    assert score("", "def check(program): return True\n", stage="check").status is Status.OK
    assert score("", "def check(program): return False\n", stage="check").reason == "check returned False"
    outcome = score("", "def check(program):\n    assert 1 == 2, 'no'\n", stage="check")
    assert outcome.reason == "AssertionError: no (evaluate.py:2 in check)"


def test_the_random_module_is_seeded(score: Score) -> None:
    source = "import random\ndef score():\n    return random.random()\n"
    first, again, other = (score(source, seed=seed).scores for seed in (1, 1, 2))
    assert first == again != other


def test_files_of_a_program_import_each_other_and_not_the_originals(score: Score, tmp_path: Path) -> None:
    (tmp_path / "problem").mkdir()
    (tmp_path / "problem" / "part.py").write_text("value = 1\n")
    (tmp_path / "problem" / "helper.py").write_text("factor = 10\n")
    evaluator = "import helper\n" + EVALUATOR.replace(".score()", ".score() * helper.factor")
    files = {"main.py": "import part, lib.deep\ndef score():\n    return part.value + lib.deep.value\n",
             "part.py": "value = 2\n", "lib/deep.py": "value = 3\n"}  # fmt: skip
    assert score("", evaluator, files=files).scores == {"accuracy": 50.0}


def test_what_lies_beside_the_worker_is_not_importable(score: Score) -> None:
    outcome = score("import launch\n")
    assert outcome.reason.startswith("ModuleNotFoundError: No module named 'launch'")


def test_the_problem_folder_stays_clean(score: Score, tmp_path: Path) -> None:
    (tmp_path / "problem").mkdir()
    (tmp_path / "problem" / "helper.py").write_text("")
    score("def score():\n    return 1\n", "import helper\n" + EVALUATOR)
    assert {path.name for path in (tmp_path / "problem").iterdir()} == {"evaluate.py", "helper.py"}


def test_a_job_is_done_when_it_has_its_result(score: Score) -> None:
    source = """
import atexit, threading, time
atexit.register(time.sleep, 20)
threading.Thread(target=time.sleep, args=(20,)).start()
def score():
    return 1
"""
    outcome = score(source)
    assert outcome.ok
    assert outcome.seconds < 5


def test_a_failing_evaluator_is_a_crash_with_its_place(score: Score) -> None:
    outcome = score("", "def evaluate(program, context, more):\n    return 1\n")
    assert outcome.reason.startswith("TypeError: evaluate() missing 1 required positional argument: 'more'")
    outcome = score("", "import gone\n")
    assert outcome.reason == "ModuleNotFoundError: No module named 'gone' (evaluate.py:1 in <module>)"


@pytest.mark.parametrize("value", [1.5, -0.01])
def test_a_score_that_cannot_be_true_is_refused(score: Score, value: float) -> None:
    outcome = score(f"def score():\n    return {value}\n", ranges={"accuracy": (0.0, 1.0)})
    assert outcome.status is Status.CRASHED
    assert outcome.reason == f'objective "accuracy" is {value:g}, outside its range from 0 to 1'
    assert score("def score():\n    return 1\n", ranges={"accuracy": (0.0, 1.0)}).scores == {"accuracy": 1.0}
