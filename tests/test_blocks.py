"""Where blocks begin and end, and that nothing of the text is lost."""

import ast
import sysconfig
from pathlib import Path

import pytest

from guided_evolution.blocks import cut
from guided_evolution.errors import GenomeError
from guided_evolution.genome import Block, Fixed, Genome, canonical

AUTO = """\
import math

# A note about f.
# A second line.
@cached(
    1
)
def f(x):
    return x  # inner

LIMIT = 3
async def g():
    '''# ge: block not_a_marker'''
class Net(Base):
    # ge is not a marker here
    size = 1


if LIMIT:
    def hidden(): pass
"""


def names(genome):
    return [block.name for block in genome.blocks]


def one(text, file="seed.py"):
    return Genome.parse({file: text})


def lines_of(genome):
    """The line numbers that the parts should have, counted from the text before each."""
    seen, counted = {}, []
    for part in genome.parts:
        counted.append(seen.setdefault(part.file, 1))
        seen[part.file] += part.source.replace("\r\n", "\n").replace("\r", "\n").count("\n")
    return counted


def test_without_markers_every_top_level_definition_is_a_block_with_its_comments_and_decorators():
    genome = one(AUTO)
    assert names(genome) == ["f", "g", "Net"]
    assert genome.block("f").source == AUTO[AUTO.index("# A note") : AUTO.index("\nLIMIT")]
    assert genome.block("f") == Block("f", genome.block("f").source, "seed.py", 3)
    assert genome.block("g").source == "async def g():\n    '''# ge: block not_a_marker'''\n"
    assert genome.block("Net").line == 14
    assert [type(part) for part in genome.parts] == [Fixed, Block, Fixed, Block, Block, Fixed]
    assert genome.files == {"seed.py": AUTO}
    assert [part.line for part in genome.parts] == lines_of(genome)


def test_frozen_keeps_a_definition_out_wherever_it_stands_above_it():
    genome = one(
        "# ge: frozen\ndef a(): pass\n\n# why\n# ge: frozen\n# more\n@deco\nclass B: pass\n"
        "@deco\n# ge: frozen\ndef c(): pass\ndef d(): pass\n"
    )
    assert names(genome) == ["d"]


def test_shebang_and_coding_line_stay_outside_the_first_block():
    genome = one("#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\n# note\ndef f(): pass\n")
    assert genome.block("f").source == "# note\ndef f(): pass\n"
    assert genome.block("f").line == 3


@pytest.mark.parametrize(
    "text",
    [
        "x = 1 \\\n# tail\ndef f(): pass\ndef g(): pass\n",
        "def f(): pass \\\n\ndef g(): pass\n",
        "x = 1 \\\n;\\\n\ndef f(): pass\ndef g(): pass\n",
    ],
)
def test_a_definition_tied_to_its_neighbour_by_a_continuation_is_fixed_text(text):
    genome = one(text)
    assert names(genome) == ["g"]
    assert genome.files["seed.py"] == text


def test_the_decorator_in_parentheses_belongs_to_its_block():
    text = "x = '''\n# not a comment'''\n@(\n    # note\n    deco\n)\ndef f(): pass\n"
    assert one(text).block("f").source == text[text.index("@(") :]


def test_repeated_names_are_told_apart():
    twice = "@overload\ndef f(a): ...\ndef f(a, b): ...\ndef f(): ...\n"
    genome = Genome.parse({"a.py": twice, "lib/b.py": twice, "c.py": "def g(): ...\n"})
    assert names(genome) == [
        *("f", "f@2", "f@3"),
        *("lib/b.py:f", "lib/b.py:f@2", "lib/b.py:f@3"),
        "g",
    ]
    assert genome.main == "a.py"
    assert genome.text("lib/b.py") == twice


def test_ge_regions_are_blocks_and_everything_else_is_fixed():
    text = (
        "def f():\n    # ge: block body\n\n    x = 1\n    y = 2\n\n    # ge: end body\n    return x\n"
        "# ge: block rest\n# ge: end\n"
    )
    genome = one(text)
    assert names(genome) == ["body", "rest"]
    assert genome.block("body") == Block("body", "    x = 1\n    y = 2\n", "seed.py", 4)
    assert genome.block("rest").source == ""
    assert genome.files["seed.py"] == text
    assert genome.replace("rest", "z = 1").files["seed.py"] == text.replace("rest\n", "rest\nz = 1\n")


def test_a_blank_line_that_ends_a_continued_statement_stays_in_its_region():
    text = "# ge: block a\nx = 1 \\\n\n\n# ge: end\n"
    assert one(text).block("a").source == "x = 1 \\\n\n"


def test_evolve_block_regions_are_named_by_marker_or_by_the_only_definition_or_by_number():
    text = (
        "# EVOLVE-BLOCK-START\nimport x\ndef search(): pass\n# EVOLVE-BLOCK-END\n"
        "# EVOLVE-BLOCK-START tuning\nlr = 1\n# EVOLVE-BLOCK-END\n"
        "class A:\n    # EVOLVE-BLOCK-START\n    def method(self): pass\n    # EVOLVE-BLOCK-END\n"
        "# EVOLVE-BLOCK-START: two helpers\ndef a(): pass\ndef b(): pass\n# EVOLVE-BLOCK-END\n"
    )
    genome = one(text)
    assert names(genome) == ["search", "tuning", "method", "block-4"]
    assert genome.block("search").source == "import x\ndef search(): pass\n"
    assert genome.block("method").source == "    def method(self): pass\n"


def test_option_separators_cut_the_file_and_imports_stay_fixed():
    text = (
        "import torch\n\n# --OPTION--\n\ndef helper(): pass\nclass A: pass\n\n# --OPTION--\nclass B: pass\n"
        "class C: pass\ndef last(): pass\n# --OPTION--\nrate = 1\n# --OPTION--\n# the end"
    )
    genome = one(text)
    assert names(genome) == ["A", "last", "block-3"]
    assert genome.block("A").source == "def helper(): pass\nclass A: pass\n"
    assert genome.files["seed.py"] == text
    assert names(one("class A: pass\n# --OPTION--\nclass B: pass")) == ["A", "B"]


def test_each_file_has_its_own_style():
    genome = Genome.parse(
        {"a.py": "# ge: block x\ny = 1\n# ge: end\ndef no(): pass\n", "b.py": "def x(): pass\n", "c.py": ""}
    )
    assert names(genome) == ["x", "b.py:x"]
    assert genome.files["c.py"] == ""
    # A written name keeps its right, whichever file comes first.
    assert names(Genome.parse({"b.py": genome.text("b.py"), "a.py": genome.text("a.py")})) == ["b.py:x", "x"]


def test_marker_text_in_a_string_is_no_marker():
    text = "# ge: block a\nx = '''\n# ge: end\n# --OPTION--\n'''\n# ge: end\n"
    assert one(text).block("a").source == "x = '''\n# ge: end\n# --OPTION--\n'''\n"
    assert names(one('doc = """\n# ge: block a\n"""\ndef f(): pass\n')) == ["f"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("x = 1\n# ge: block a\nx = 2\n", 2, "never closed"),
        ("# EVOLVE-BLOCK-START\nx = 2\n", 1, "never closed"),
        ("# ge: block a\n# ge: block b\n# ge: end\n# ge: end\n", 2, "inside the one that starts at line 1"),
        ("x = 1\n# ge: end\n", 2, "closes nothing"),
        ("# EVOLVE-BLOCK-END\n", 1, "closes nothing"),
        ("# ge: block a\n# ge: end b\n", 2, "closes the block 'a' of line 1"),
        ("# ge: block a\n\n# ge: end\n# ge: block a\n\n# ge: end\n", 4, "exists already at seed.py:1"),
        ("# ge: block a\n# ge: end\n# --OPTION--\n", 3, "can't be mixed with '# ge: block' (line 1)"),
        ("# EVOLVE-BLOCK-START\n# ge: end\n", 2, "can't be mixed with '# EVOLVE-BLOCK-START' (line 1)"),
        ("# ge: block\n# ge: end\n", 1, "needs one name"),
        ("# ge: block two words\n# ge: end\n", 1, "needs one name"),
        ("def f(): pass\n# ge: blok a\n", 2, "unknown marker '# ge: blok a'"),
        ("def f(): pass  # ge: frozen\n", 1, "must stand alone"),
        ("# ge: frozen\n\ndef f(): pass\n", 1, "directly above"),
        ("def f():\n    # ge: frozen\n    def g(): pass\n", 2, "directly above"),
        ("# ge: block a\n# ge: frozen\ndef f(): pass\n# ge: end\n", 2, "inside a block"),
        ("def f():\n    x = 1\n    # --OPTION--\n    y = 1\n", 3, "between top-level definitions"),
        ("@deco\n# --OPTION--\ndef f(): pass\n", 2, "between top-level definitions"),
        ("x = 1\n", 1, "nothing to evolve"),
        ("# ge: frozen\ndef f(): pass\n", 1, "nothing to evolve"),
        ("x = 1\ny = = 2\n", 2, "not valid Python: invalid syntax"),
        ("x = 1\nreturn x\n", 2, "'return' outside function"),
        ("def f():\n    x = '''\n", 2, "unterminated"),
        ("x = 1\x00\n", 1, "null bytes"),
        ("x = " + "-" * 100_000 + "1\n", 1, "too deeply nested"),
    ],
)
def test_a_wrong_seed_is_refused_with_file_and_line(text, line, words):
    with pytest.raises(GenomeError) as caught:
        one(text)
    assert str(caught.value).startswith(f"seed.py:{line}: ")
    assert words in str(caught.value)


def test_a_written_name_must_be_unique_over_all_files():
    block = "# ge: block a\nx = 1\n# ge: end\n"
    with pytest.raises(GenomeError, match=r"^b\.py:2: block 'a' exists already at a\.py:1$"):
        Genome.parse({"a.py": block, "b.py": "\n" + block})


def standard_library():
    """Every module but those of the test package above 20 kB, of which every fifth is taken."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = [path for path in sorted(root.rglob("*.py")) if not {"site-packages", "dist-packages"} & {*path.parts}]
    for index, path in enumerate(paths):
        content = path.read_bytes()
        if "test" in path.relative_to(root).parts and len(content) > 20_000 and index % 5:
            continue
        try:
            yield path, content.decode("utf-8")
        except UnicodeDecodeError:
            continue


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_the_modules_of_the_standard_library_are_joined_byte_for_byte():
    files = joined = refused = blocks = 0
    for index, (path, text) in enumerate(standard_library()):
        forms = [text]
        if index % 20 == 0:
            plain = text.replace("\r\n", "\n")
            forms += [plain.replace("\n", "\r\n"), plain.replace("\n", "\r"), plain.replace("    ", "\t")]
        files += 1
        for form in forms:
            try:
                parts = cut({"m.py": form})
            except GenomeError:
                refused += 1
                continue
            assert "".join(part.source for part in parts) == form, path
            assert [part.line for part in parts] == lines_of(Genome(parts)), path
            joined += 1
            blocks += sum(isinstance(part, Block) for part in parts)
            if len(forms) > 1 and form is text:
                tree = ast.parse(text.removeprefix("\ufeff"))
                top = [node for node in tree.body if hasattr(node, "name")]
                assert sum(isinstance(part, Block) for part in parts) == len(top), path
                assert canonical(text) == canonical(forms[1]) == canonical(ast.unparse(tree)), path
    # Some distributions leave the test package out.
    assert joined > (1500 if files > 1500 else 500)
    assert blocks > 3 * joined
    assert refused < joined / 20


def test_byte_order_mark_stays_in_front_when_the_first_line_is_replaced():
    text = "\ufeffdef f(): pass\n"
    genome = one(text)
    assert genome.block("f") == Block("f", "def f(): pass\n", "seed.py", 1)
    assert genome.files["seed.py"] == text
    assert genome.replace("f", "\ufeffdef f(): return 1").files["seed.py"] == "\ufeffdef f(): return 1\n"


def test_form_feeds_and_unicode_line_separators_end_no_line():
    text = "x = 'a\u2028b'\n\x0c\ndef f():\n    return '\x1c\x85'\n\x0cdef g(): pass\n"
    genome = one(text)
    assert [(block.name, block.line) for block in genome.blocks] == [("f", 3), ("g", 5)]
    assert genome.block("g").source == "\x0cdef g(): pass\n"
    assert genome.files["seed.py"] == text
