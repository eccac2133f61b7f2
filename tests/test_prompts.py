from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guided_evolution.errors import ProblemError
from guided_evolution.genome import Genome
from guided_evolution.operators import block_kind
from guided_evolution.prompts import book as module
from guided_evolution.prompts.book import CATEGORIES, CHARACTERS, MATINGS, VARIABLES, Book

EXAMPLE = Path(__file__).parents[1] / "examples" / "cifar10" / "seed.py"


def fill(name: str, book: Book | None = None, **values: str) -> str:
    return (book or Book()).fill(name, **{**dict.fromkeys(VARIABLES[name], "something"), **values})


def test_there_are_24_fixed_prompts_and_they_differ() -> None:
    book = Book()
    prompts = {
        fill("mutate", task=book.question(category), character=book.text(f"character_{character}"))
        for category in CATEGORIES
        for character in CHARACTERS
    }
    assert len(prompts) == 24


def test_the_packaged_book_is_complete_and_every_file_is_known() -> None:
    Book().check()
    files = {path.stem for path in Path(module.__file__).parent.glob("*.md")}
    assert files == set(VARIABLES)
    assert len(MATINGS) == 2


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_any_text_passes_through_unharmed(text: str) -> None:
    hostile = f"${{block}} $block {{x}} {{}} %s %(x)s \\1 \\g<0>{text}$"
    for name in ("mutate", "mate_accuracy", "eot", "repair"):
        assert hostile.strip("\n") in fill(name, block=hostile)


def test_fault_03_braces_in_an_elites_code_do_no_harm() -> None:
    code = 'class A:\n    names = {"a": 1, "b": {}}\n    text = f"{names!r:>{10}} $5 %d"\n'
    prompt = fill("eot", before=code, after=code.replace("1", "2"), block=code)
    assert prompt.count(code.rstrip("\n")) == 2
    assert code.replace("1", "2").rstrip("\n") in prompt


def test_an_empty_variable_leaves_no_hole() -> None:
    prompt = fill("mutate", character="", feedback="")
    assert "\n\n\n" not in prompt
    assert "$" not in prompt


def test_the_block_comes_last() -> None:
    for name in ("mutate", "mate_accuracy", "mate_efficiency", "eot", "eot_apply", "repair"):
        assert fill(name, block="THE_BLOCK = 1").rstrip().endswith("THE_BLOCK = 1\n```")


def test_what_is_the_same_in_every_prompt_of_a_run_comes_first_so_that_caches_of_prefixes_hit() -> None:
    for name in ("mutate", "mate_accuracy", "mate_efficiency"):
        same = {"summary": "Digits.", "rules": "- Keep the shapes.", "keep": "- Keep the class."}
        one, other = (
            Book().fill(name, **{variable: same.get(variable, f"{number}") for variable in VARIABLES[name]})
            for number in (1, 2)
        )
        stable = one[: one.index("- Keep the class.")]
        assert "- Keep the shapes." in stable
        assert other.startswith(stable)


def test_a_problems_own_prompt_replaces_the_packaged_one(tmp_path: Path) -> None:
    (tmp_path / "complex.md").write_text("Do it $5 better.\n\n## Moves for a function\n- Try harder.\n")
    with pytest.raises(ProblemError, match=r"unknown|complex"):
        (tmp_path / "rules.md").write_text("- keep $everything")
        Book(tmp_path).check()
    (tmp_path / "rules.md").write_text("- keep it short")
    book = Book(tmp_path)
    book.check()
    assert book.question("complex") == "Do it $5 better."
    assert [move.text for move in book.moves("complex")] == ["Try harder."]
    assert book.question("uncommon") == Book().question("uncommon")


def test_a_file_of_an_unknown_name_or_variable_is_reported(tmp_path: Path) -> None:
    (tmp_path / "mutate.md").write_text("Change $block and $blob.")
    with pytest.raises(ProblemError, match=r"mutate\.md: unknown variable \$blob; this prompt may use: \$block"):
        Book(tmp_path).check()
    (tmp_path / "mutate.md").unlink()
    (tmp_path / "mutation.md").write_text("Change it.")
    with pytest.raises(ProblemError, match=r"mutation\.md: no prompt has this name"):
        Book(tmp_path).check()


def test_fault_12_reading_prompts_never_writes_the_packages_files() -> None:
    folder = Path(module.__file__).parent
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*.md")}
    for name in VARIABLES:
        fill(name)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*.md")} == before


def test_most_blocks_of_the_example_find_moves_in_most_categories() -> None:
    genome = Genome.parse({"seed.py": EXAMPLE.read_text()})
    book = Book()
    fitting = {
        (block.name, category): [m for m in book.moves(category) if m.fits(block_kind(block), block.source)]
        for block in genome.blocks
        for category in CATEGORIES
    }
    assert sum(bool(moves) for moves in fitting.values()) > 0.8 * len(fitting)


def test_a_move_only_fits_where_its_condition_holds() -> None:
    move = next(move for move in Book().moves("hyperparameters") if move.when and "Dropout" in move.when.pattern)
    assert move.fits("module", "self.d = nn.Dropout(0.5)")
    assert not move.fits("module", "self.d = nn.Linear(1, 2)")
    assert not move.fits("function", "nn.Dropout(0.5)")
