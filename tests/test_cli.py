from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from guided_evolution.evaluation import sandbox
from guided_evolution.progress import format_value
from guided_evolution.run import open_run
from guided_evolution.testing import write_tiny_problem
from learning import learning_problem
from unsteady import clock_problem

GE = Path(sys.executable).parent / "ge"


def ge(*arguments: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "160", "OPENAI_API_KEY": ""}
    result = subprocess.run(
        [str(GE), *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120, env=environment
    )
    assert result.returncode == code, (result.returncode, result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    return result


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_tiny_problem(folder / "tiny")
    ge("run", "tiny", "--run", "runs/one", "--seed", 3, cwd=folder)
    return folder


def test_a_run_prints_the_front_to_stdout_and_the_rest_to_stderr(tmp_path: Path) -> None:
    write_tiny_problem(tmp_path / "tiny")
    result = ge("run", "tiny", "--generations", 1, "--run", "r", cwd=tmp_path)
    assert "closeness" in result.stdout
    assert "size" in result.stdout
    assert "1 generations done" in result.stderr
    assert "Everything is kept in r" in result.stderr
    assert "generation 1 done" in result.stderr


def test_show_and_front_give_the_documented_json(home: Path) -> None:
    shown = json.loads(ge("show", "runs/one", "--json", cwd=home).stdout)
    assert shown["schema"] == 1
    assert {"run", "status", "stop_reason", "seed", "individuals"} <= shown.keys()
    assert shown["seed"] == 0
    keys = {
        "id",
        "generation",
        "status",
        "scores",
        "metrics",
        "operator",
        "parents",
        "block",
        "category",
        "character",
        "digest",
        "seconds",
    }
    assert all(keys <= each.keys() for each in shown["individuals"])
    front = json.loads(ge("front", "runs/one", "--json", cwd=home).stdout)["front"]
    assert [each["id"] for each in front] == shown["front"]
    one = json.loads(ge("show", "runs/one", 1, "--json", cwd=home).stdout)["individual"]
    assert one["exchanges"][0]["prompt"]
    assert one["files"]["seed.py"].startswith('"""Three numbers')


def test_people_can_read_a_run(home: Path) -> None:
    assert "runs/one" in ge("runs", cwd=home).stdout
    assert "Pareto front" in ge("show", "runs/one", cwd=home).stdout
    individual = ge("show", "runs/one", 1, cwd=home).stdout
    assert "Your task:" in individual
    assert "I raise one number." in individual
    diff = ge("diff", "runs/one", 1, cwd=home).stdout
    assert diff.startswith("---")
    assert "+    return" in diff
    assert ge("diff", "runs/one", 0, cwd=home).stdout == ""
    assert "closeness" in ge("front", "runs/one", cwd=home).stdout


def test_export_writes_the_program_and_its_provenance(home: Path) -> None:
    best = json.loads(ge("front", "runs/one", "--json", cwd=home).stdout)["front"][0]["id"]
    ge("export", "runs/one", best, "out", cwd=home)
    note = (home / "out" / "PROVENANCE.md").read_text()
    assert f"Individual {best} of tiny" in note
    assert "```diff" in note
    program = subprocess.run([sys.executable, "out/seed.py"], cwd=home, capture_output=True, timeout=20)
    assert program.returncode == 0
    assert "exists already" in ge("export", "runs/one", best, "out", cwd=home, code=1).stderr


def test_the_held_out_test_is_recorded_once(home: Path) -> None:
    first = json.loads(ge("test", "runs/one", "--json", cwd=home).stdout)["tests"]
    assert "0" in first
    assert json.loads(ge("test", "runs/one", "--json", cwd=home).stdout)["tests"] == first
    assert "test closeness" in ge("front", "runs/one", cwd=home).stdout


def test_resume_goes_on(home: Path) -> None:
    ge("run", "tiny", "--run", "runs/two", "--generations", 0, cwd=home)
    result = ge("resume", "runs/two", "--generations", 1, cwd=home)
    assert "generation 1 done" in result.stderr


def test_init_writes_a_problem_that_runs_and_reports_the_blocks_of_a_file(tmp_path: Path) -> None:
    result = ge("init", "mine", cwd=tmp_path)
    assert "2 block(s): choose, order" in result.stdout
    write_tiny_problem(tmp_path / "tiny")
    result = ge("run", "mine", "--llm", f"scripted:{tmp_path}/tiny/model.py", "--generations", 0, cwd=tmp_path)
    assert "fullness" in result.stdout
    (tmp_path / "own.py").write_text("def work():\n    return 1\n\n\nclass Thing:\n    pass\n")
    assert "2 block(s): work, Thing" in ge("init", "other", "--from", "own.py", cwd=tmp_path).stdout


def test_check_tries_every_part(home: Path) -> None:
    result = ge("check", "tiny", cwd=home)
    assert "3 blocks: first, second, third" in result.stdout
    assert "evaluate passes" in result.stdout
    assert "a changed child that passes the check" in result.stdout
    assert result.stdout.startswith(f"sandbox {sandbox.probe()}\n")
    assert "12 children" in result.stdout
    assert "an unknown number of tokens" in result.stdout, "a scripted model counts none"


def test_a_dry_run_estimates_with_the_options_of_the_run_and_leaves_nothing(tmp_path: Path) -> None:
    write_tiny_problem(tmp_path / "tiny")
    options = ("--population", 6, "--generations", 3, "--p-mate", 0, "--run", "r")
    result = ge("run", "tiny", *options, "--dry-run", cwd=tmp_path)
    assert "evaluate passes" in result.stdout
    assert "A run makes 24 children" in result.stdout
    found = json.loads(ge("run", "tiny", *options, "--max-evaluations", 9, "--dry-run", "--json", cwd=tmp_path).stdout)
    assert found["estimate"]["children"] == 8
    assert found["estimate"]["tokens"] is None
    assert found["estimate"]["usd"] == 0
    assert [each.name for each in tmp_path.iterdir()] == ["tiny"]
    capped = ("--max-usd", 1, "--llm", "http://127.0.0.1:9/v1#unheard-of")
    assert "can't be kept" in ge("run", "tiny", *capped, "--dry-run", cwd=tmp_path, code=2).stderr


def test_a_run_ends_with_how_good_the_estimate_was(home: Path) -> None:
    shown = json.loads(ge("show", "runs/one", "--json", cwd=home).stdout)
    assert shown["estimate"]["took"]["children"] == 12
    result = ge("resume", "runs/one", cwd=home)
    assert "from the first reply and evaluation; it took" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run"], 2, "Missing argument"),
        (["run", "nowhere"], 2, "nowhere: no such folder"),
        (["run", "."], 2, "no problem.toml here"),
        (["run", "tiny", "--population", "0"], 2, "population must be at least 1"),
        (["run", "tiny", "--population", "many"], 2, "not a valid integer"),
        (["run", "tiny", "--p-mate", "1.5"], 2, "p_mate must lie between 0 and 1"),
        (["run", "tiny", "--llm", "gpt"], 2, "gpt"),
        (["run", "tiny", "--llm", "openai:gpt-5"], 2, "OPENAI_API_KEY"),
        (["run", "tiny", "--llm", "scripted:none.py"], 2, "none.py"),
        (["run", "tiny", "--llm", "local:unknown"], 2, "unknown"),
        (["run", "tiny", "--run", "runs/one"], 1, "already holds a run"),
        (["run", "tiny", "--fast"], 2, "No such option"),
        (["evolve", "tiny"], 2, "No such command"),
        (["show", "nowhere"], 1, "no run here"),
        (["show", "runs/one", "999"], 1, "no individual 999"),
        (["diff", "runs/one", "0", "999"], 1, "no individual 999"),
        (["front", "tiny"], 1, "no run here"),
        (["resume", "tiny"], 1, "no run here"),
        (["init", "tiny"], 2, "isn't an empty folder"),
        (["init", "new", "--from", "none.py"], 2, "no such file"),
        (["models", "pull", "gpt-4"], 2, "gpt-4"),
    ],
)
def test_wrong_input_gets_one_line_and_an_exit_code(home: Path, arguments: list[str], code: int, message: str) -> None:
    result = ge(*arguments, cwd=home, code=code)
    assert message in result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("Error")]) == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) <= 4, "a usage hint at the most"


def test_a_model_that_cannot_be_used_leaves_no_run_behind(tmp_path: Path) -> None:
    write_tiny_problem(tmp_path / "tiny")
    ge("run", "tiny", "--llm", "openai:gpt-5", "--run", "r", cwd=tmp_path, code=2)
    assert not (tmp_path / "r").exists()
    ge("run", "tiny", "--generations", 0, "--run", "r", cwd=tmp_path)
    ge("resume", "r", "--llm", "openai:gpt-5", cwd=tmp_path, code=2)
    kept = json.loads(ge("show", "r", "--json", cwd=tmp_path).stdout)
    assert kept["settings"]["llm"].startswith("scripted:")


def test_a_broken_seed_is_named_with_file_and_line(tmp_path: Path) -> None:
    folder = write_tiny_problem(tmp_path / "tiny")
    (folder / "seed.py").write_text("def f(:\n    pass\n")
    assert "seed.py:1" in ge("run", "tiny", cwd=tmp_path, code=2).stderr
    (folder / "seed.py").write_text("# ge: block a\nx = 1\n")
    assert "seed.py:1" in ge("run", "tiny", cwd=tmp_path, code=2).stderr


def test_help_loads_nothing_heavy() -> None:
    heavy = ("numpy", "torch", "rich", "pydantic_ai", "moocore", "huggingface_hub", "xllamacpp")
    code = (
        "import sys; sys.argv = ['ge', '--help']\n"
        "from guided_evolution.cli import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stderr.strip() == "[]"


def test_one_unreadable_run_does_not_hide_the_others(home: Path) -> None:
    (home / "runs" / "broken").mkdir()
    (home / "runs" / "broken" / "run.sqlite").write_bytes(b"no database at all" * 50)
    result = ge("runs", cwd=home)
    assert "runs/one" in result.stdout
    assert "can't be read" in result.stderr


def test_a_rejected_individual_has_nothing_to_test_or_export(tmp_path: Path) -> None:
    write_tiny_problem(tmp_path / "tiny")
    (tmp_path / "mute.py").write_text("def reply(prompt):\n    return 'no'\n")
    ge("run", "tiny", "--llm", "scripted:mute.py", "--generations", 0, "--run", "r", cwd=tmp_path)
    assert "was rejected" in ge("export", "r", 1, "out", cwd=tmp_path, code=1).stderr
    assert "was rejected" in ge("test", "r", 1, cwd=tmp_path, code=1).stderr
    assert "rejected" in ge("show", "r", cwd=tmp_path).stdout


def test_without_characters_the_same_children_are_asked_for_in_plain_words(tmp_path: Path) -> None:
    write_tiny_problem(tmp_path / "tiny")
    steps = {}
    for option in ("--characters", "--no-characters"):
        ge("run", "tiny", "--population", 6, "--generations", 0, option, "--run", option, cwd=tmp_path)
        run = open_run(tmp_path / option)
        steps[option] = [run.individual(each.id).origin.steps[0] for each in run.individuals[1:]]
    plain, spoken = steps["--no-characters"], steps["--characters"]
    assert {step.character for step in plain} == {"plain"}
    assert len({step.character for step in spoken}) > 1
    assert [(step.block, step.category) for step in plain] == [(step.block, step.category) for step in spoken]


def test_what_was_evaluated_twice_is_told_of_wherever_a_run_is_shown(tmp_path: Path) -> None:
    clock_problem(tmp_path / "clock")
    said = ge("run", "clock", "--generations", 1, "--run", "runs/one", cwd=tmp_path).stderr
    pairs = open_run(tmp_path / "runs" / "one").verifications
    count = "1 program" if len(pairs) == 1 else f"{len(pairs)} programs"
    assert f"; {count} evaluated twice, {len(pairs)} disagreed; model lane" in said
    number, (first, second) = min(pairs.items())
    words = "closeness {}, then {}: the worse counts".format(
        *(format_value(each.scores["closeness"]) for each in (first, second))
    )
    assert f"#{number} was evaluated twice: {words}" in said
    assert f"evaluated twice: {words}" in ge("show", "runs/one", number, cwd=tmp_path).stdout
    # a column of the table wraps what is long
    assert f"(evaluated twice: {words})" in " ".join(ge("show", "runs/one", cwd=tmp_path).stdout.split())
    assert f"{len(pairs)}, {len(pairs)} disagreed" in ge("runs", cwd=tmp_path).stdout
    ge("export", "runs/one", number, "out", cwd=tmp_path)
    assert f"\nEvaluated twice: {words}.\n" in (tmp_path / "out" / "PROVENANCE.md").read_text()
    report = ge("report", "runs/one", "--format", "md", "-o", "-", cwd=tmp_path).stdout
    shown = re.sub(r"\\(.)", r"\1", report)
    assert shown.count("entered the front w") == 2, "below the front, and in the appendix"
    best = max(pairs, key=lambda each: min(outcome.scores["closeness"] for outcome in pairs[each]))
    assert f"#{best} closeness " in shown
    page = ge("report", "runs/one", "-o", "-", cwd=tmp_path).stdout
    assert page.count("entered the front w") == 2
    ge("run", "clock", "--generations", 0, "--no-verify", "--run", "runs/two", cwd=tmp_path)
    assert "evaluated twice" not in ge("report", "runs/two", "--format", "md", "-o", "-", cwd=tmp_path).stdout
    assert "evaluated twice" not in ge("show", "runs/two", cwd=tmp_path).stdout


def test_what_was_stopped_early_is_told_of_wherever_a_run_is_shown(tmp_path: Path) -> None:
    learning_problem(tmp_path / "learner", pause=0.2)
    tests = Path(__file__).parent
    (tmp_path / "model.py").write_text(f"import sys\nsys.path.insert(0, {str(tests)!r})\nfrom learning import reply\n")
    options = ("--llm", "scripted:model.py", "--population", 8, "--no-verify")
    said = ge("run", "learner", *options, "--generations", 1, "--prune", "--run", "runs/one", cwd=tmp_path).stderr
    shown = json.loads(ge("show", "runs/one", "--json", cwd=tmp_path).stdout)
    stopped = [each for each in shown["individuals"] if each["status"] == "pruned"]
    programs = {each["digest"] for each in stopped}
    assert len(programs) == shown["pruned"]["programs"] > 0
    assert shown["pruned"]["seconds"] > 0
    assert f"; {len(programs)} stopped early, about " in said
    assert " of evaluation saved; model lane" in said
    assert f"  {stopped[0]['reason']}" in said, "the line of the individual itself"
    assert shown["settings"]["prune"] is True
    assert not {each["id"] for each in stopped} & set(shown["front"])
    number, steps = stopped[0]["id"], stopped[0]["metrics"]["effort"]
    detail = json.loads(ge("show", "runs/one", number, "--json", cwd=tmp_path).stdout)["individual"]
    assert [each["step"] for each in detail["partials"]] == list(range(1, int(steps) + 1))
    assert detail["partials"][-1]["scores"] == detail["metrics"]
    text = ge("show", "runs/one", number, cwd=tmp_path).stdout
    assert stopped[0]["reason"] in text
    assert re.search(
        rf"^ *step +after +closeness +size *\n *1 +\d\.\d s +{detail['metrics']['closeness']:g} ", text, re.M
    )
    report = ge("report", "runs/one", "--format", "md", "-o", "-", cwd=tmp_path).stdout
    assert re.search(rf"stopped early \|.*\| {len(programs)}, about \d+ s saved", report)
    line = f"{len(stopped)} failed"
    assert line not in report
    assert (
        "stopped early" not in ge("run", "learner", *options, "--generations", 0, "--run", "two", cwd=tmp_path).stderr
    )
