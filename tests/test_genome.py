"""Blocks: cut, joined, replaced, compared."""

import ast
import json
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guided_evolution.errors import GenomeError
from guided_evolution.genome import Genome, canonical, read_files, write_files

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


def test_unknown_blocks_and_files_are_named_with_the_known_ones():
    genome = one(AUTO)
    with pytest.raises(GenomeError, match="'Nett'; the blocks are: f, g, Net"):
        genome.block("Nett")
    with pytest.raises(GenomeError, match=r"'x\.py'; the files are: seed\.py"):
        genome.text("x.py")
    with pytest.raises(GenomeError, match="at least one"):
        Genome.parse({})


# --- files ----------------------------------------------------------------------------------------------


def test_files_are_read_and_written_byte_for_byte(tmp_path):
    files = {"seed.py": "\ufeffx = 1\r\n\ty\n\r", "lib/ä.py": "# é\n"}
    write_files(tmp_path, files)
    assert (tmp_path / "seed.py").read_bytes() == b"\xef\xbb\xbfx = 1\r\n\ty\n\r"
    assert read_files(tmp_path, list(files)) == files


@pytest.mark.parametrize("name", ["../x.py", "/x.py", "a/../../x.py", "a/../b.py", "", ".", "C:\\x.py", "..\\x.py"])
def test_a_file_name_may_not_leave_the_folder(tmp_path, name):
    for attempt in (
        lambda: read_files(tmp_path, [name]),
        lambda: write_files(tmp_path / "in", {"fine.py": "", name: "x"}),
        lambda: Genome.parse({name: AUTO}),
        lambda: Genome.from_json({"parts": [{"file": name, "line": 1, "source": ""}]}),
    ):
        with pytest.raises(GenomeError, match="file name"):
            attempt()
    assert list(tmp_path.iterdir()) == []


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "bad.py").write_bytes(b"x = 1\ny = '\xff'\n")
    (tmp_path / "out").symlink_to(tmp_path.parent)
    with pytest.raises(GenomeError, match=r"^bad\.py:2: this is not UTF-8"):
        read_files(tmp_path, ["bad.py"])
    with pytest.raises(GenomeError, match=r"^gone\.py: can't be read: No such file"):
        read_files(tmp_path, ["gone.py"])
    with pytest.raises(GenomeError, match="leads out of the folder"):
        read_files(tmp_path, ["out/x.py"])


# --- replacing ------------------------------------------------------------------------------------------


def test_fault_01_every_block_can_be_replaced_at_its_own_place():
    chunks = [f"class Part{i}(nn.Module):\n    size = {i}\n\n\n" for i in range(9)]
    text = "import torch.nn as nn\n\n\n" + "".join(f"# --OPTION--\n{chunk}" for chunk in chunks)
    seed = one(text)
    assert names(seed) == [f"Part{i}" for i in range(9)]
    for i, name in enumerate(names(seed)):
        merged = f"class {name}(nn.Module):\n    merged = {i}\n    size = {i}\n"
        child = seed.replace(name, merged)
        expected = [*chunks[:i], merged + "\n\n", *chunks[i + 1 :]]
        assert child.text("seed.py") == "import torch.nn as nn\n\n\n" + "".join(
            f"# --OPTION--\n{chunk}" for chunk in expected
        )
        assert child.changed(seed) == (name,)
        assert names(child) == names(seed)


def test_helpers_and_imports_stay_inside_the_block_and_later_lines_move():
    seed = one(AUTO)
    child = seed.replace("f", "import os\n\ndef helper(): pass\n\n\ndef f(x):\n    return helper()")
    assert names(child) == names(seed)
    assert child.block("f").source.endswith("return helper()\n")
    assert [part.line for part in child.parts] == lines_of(child)
    assert child.block("Net").line == seed.block("Net").line  # seven lines for seven
    grown = child.replace("f", child.block("f").source + "\n\nmore = 1")
    assert grown.block("Net").line == seed.block("Net").line + 3
    assert grown.block("Net").source == seed.block("Net").source


def test_the_new_source_takes_over_line_ends_and_the_missing_last_one():
    seed = one("x = 1\r\ndef f():\r\n    pass\r\ndef g(): pass")
    child = seed.replace("f", "\n\ndef f():\n    return 1\r\n\n\n").replace("g", "def g():\n  return 2\n\n")
    assert child.text("seed.py") == "x = 1\r\ndef f():\r\n    return 1\r\ndef g():\r\n  return 2"
    assert one("def f(): pass\rdef g(): pass\r").replace("f", "def f():\n  x").text("seed.py").count("\r") == 3


def test_the_new_source_is_shifted_to_its_place_but_strings_are_not():
    seed = one(
        "class A:\n    def f(self):\n        # ge: block b\n        x = 1\n        # ge: end\n        return x\n"
    )
    source = 'if x:\n    x = """a\n  b\n"""\n# low\ny = (1,\n2)\nlong = "c\\\n d"'
    child = seed.replace("b", source)
    assert child.block("b").source == (
        '        if x:\n            x = """a\n  b\n"""\n        # low\n        y = (1,\n        2)\n'
        '        long = "c\\\n d"\n'
    )
    assert seed.replace("b", textwrap.indent("a = 1\nb = 2", " " * 12)).block("b").source == (
        "        a = 1\n        b = 2\n"
    )
    assert one("def f(): pass\n").replace("f", "    def f():\n        '''\n    s'''").block("f").source == (
        "def f():\n    '''\n    s'''\n"
    )
    nested = seed.replace("b", 'x = f"""a\n {f\'{x}\'}\n"""\ny = 1').block("b").source
    assert nested == '        x = f"""a\n {f\'{x}\'}\n"""\n        y = 1\n'
    assert child.changed(seed) == ("b",)


def test_an_empty_region_takes_the_indentation_of_its_marker():
    seed = one("def f():\n    # ge: block b\n\n    # ge: end\n    return 1\n")
    assert seed.replace("b", "x = 1").text("seed.py") == (
        "def f():\n    # ge: block b\n    x = 1\n\n    # ge: end\n    return 1\n"
    )


def test_a_region_that_is_a_fragment_can_be_replaced_by_a_fragment():
    seed = one("options = {\n    # ge: block rates\n    'lr': 0.1,\n    # ge: end\n}\n")
    child = seed.replace("rates", "'lr': 0.2,\n'momentum': 0.9,")
    assert child.block("rates").source == "    'lr': 0.2,\n    'momentum': 0.9,\n"
    with pytest.raises(GenomeError, match="'rates', line 2"):
        seed.replace("rates", "'a': 1,\n'lr' = 0.2")
    with pytest.raises(GenomeError, match=r"'rates', line 1: .*EOF in multi-line statement \('a': \(1,"):
        seed.replace("rates", "'a': (1,  # ge: end")
    with pytest.raises(GenomeError, match=r"'rates', line 2: .* does not match"):
        seed.replace("rates", "  'a': 1,\n  ) 'b': (2,")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("\n\ndef f(:\n    pass", "block 'f', line 1: invalid syntax (def f(:)"),
        ("def f():\n    x = (1\n    y = 2\n", "block 'f', line 2: '(' was never closed"),
        ("def f(): pass\nx = '''", "block 'f', line 2: unterminated triple-quoted string"),
        ("def f(): pass\n@deco", "line 2: invalid syntax"),
        ("def f(): pass\nx = 1 + \\\n", "block 'f', line 2"),
        ("def f():\n    return 1\nreturn 2", "block 'f', line 3: 'return' outside function (return 2)"),
        ("from __future__ import annotations\ndef f(): pass", "block 'f', line 1: from __future__"),
        ("def f(): pass\n# ge: end\n", "block 'f', line 2: a block can't hold a block marker (# ge: end)"),
        ("# ge: frozen\ndef f(): pass\n", "line 1: a block can't hold a block marker"),
        ("def f(): pass  # EVOLVE-BLOCK-START\n", "line 1: a block can't hold a block marker"),
        ("# --OPTION--\ndef f(): pass\n", "line 1: a block can't hold a block marker"),
        (" \n# nothing\n", "holds no code"),
        ("", "holds no code"),
        ("def f(): '\x00'", "null bytes"),
        ("def f(): return '\ud800'", "surrogates not allowed"),
        ("x = " + "(" * 250 + ")" * 250, "block 'f', line 1: too many nested"),
    ],
)
def test_a_source_that_does_not_fit_is_refused_with_its_line(source, words):
    seed = one("import a\ndef f(): pass\nclass Foo:\n    '''doc'''\n")
    with pytest.raises(GenomeError) as caught:
        seed.replace("f", source)
    assert words in str(caught.value)


def test_what_only_fails_in_place_names_the_place():
    seed = one("def f():\n    # ge: block b\n    x = 1\n    # ge: end\n    nonlocal_ = 1\n    global y\n")
    with pytest.raises(GenomeError, match=r"block 'b' doesn't fit its place: seed\.py:6: name 'y' is"):
        seed.replace("b", "y = 1")


FRAGMENTS = st.sampled_from(
    [
        *("import math\n", "X = 1\n", "# ge is fine\n", "\n", "\x0c\n", "T = '''\n# ge: end\n\n'''\n"),
        *("def f(x, y=2):\n    return x\n", "class A:\n    '''Doc.'''\n\n    def f(self): pass\n"),
        *(
            "@a\n@b.c(1)\nasync def g(): pass\n",
            "# note\ndef h():\n\treturn '''\n  a'''\n",
            "if X:\n  def i(): 0\n",
        ),
        *("# ge: frozen\ndef j(): pass\n", "try:\n    pass\nfinally:\n    pass\n"),
    ]
)
SOURCES = st.sampled_from(
    [
        *(
            "def f():\n    return 41",
            "\n\nclass A(B):\n  x = 1\n\n\n",
            "y: int = 3\n",
            "  def k():\n      pass\n",
        ),
        *("import os\n\n\ndef help(): pass\n\n\ndef g(): return help()\n", "Z = '''\n# ge: block\n'''"),
    ]
)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@st.composite
def genomes(draw):
    files = {}
    for file in draw(st.sampled_from([("seed.py",), ("seed.py", "lib/net.py")])):
        pieces = ["def first(): pass\n", *draw(st.lists(FRAGMENTS, max_size=8))]
        text = "X = 0\n" + "".join(draw(st.permutations(pieces)))
        text = text[:-1] if draw(st.booleans()) and not text.endswith("\n\n") else text
        files[file] = draw(st.sampled_from(["", "\ufeff"])) + text.replace("\n", draw(ENDS))
    return files, Genome.parse(files)


@settings(max_examples=150, deadline=None)
@given(genomes(), st.data(), SOURCES)
def test_replacing_changes_the_chosen_block_and_nothing_else(built, data, source):
    files, genome = built
    assert genome.files == files
    chosen = data.draw(st.sampled_from(genome.blocks))
    child = genome.replace(chosen.name, source)
    assert len(child.parts) == len(genome.parts)
    for mine, theirs in zip(child.parts, genome.parts, strict=True):
        assert (mine.source == theirs.source) == (theirs is not chosen)
        assert getattr(mine, "name", None) == getattr(theirs, "name", None)
    assert [part.line for part in child.parts] == lines_of(child)
    assert child.digest != genome.digest
    assert child.changed(genome) == genome.changed(child) == (chosen.name,)
    assert canonical(child.block(chosen.name).source) == canonical(textwrap.dedent(source))
    for each in (genome, child):
        assert all(each.replace(block.name, block.source) == each for block in each.blocks)
        assert Genome.from_json(json.loads(json.dumps(each.to_json()))) == each


# --- comparing ------------------------------------------------------------------------------------------


def test_fault_08_the_digest_sees_through_comments_and_formatting():
    seed = one("def f(a, b=1000):\n    'Doc.'\n    return {'a': a, 'b': (b)}\n")
    child = seed.replace(
        "f",
        "# new\ndef f(\n    a,\n    b = 1_000,  # why\n):\n\n    '''Doc.'''\n    return {u\"a\": a,'b':b}\n",
    )
    assert child != seed
    assert child.digest == seed.digest
    assert child.changed(seed) == ()
    assert child.diff(seed) != ""
    assert len(seed.digest) == 64


@pytest.mark.parametrize(
    ("one_way", "other_way"),
    [
        *(("1", "1.0"), ("1", "True"), ("0", "-0"), ("0.0", "-0.0"), ("'a'", "b'a'"), ("None", "...")),
        *(
            ("1j", "1"),
            ("[None]", "[]"),
            ("{**x}", "{'x': x}"),
            ("x[:1]", "x[1:]"),
            ("'1'", "1"),
            ("()", "[]"),
        ),
        *(("f(a=1)", "f(b=1)"), ("lambda *, a, b=1: 0", "lambda *, a=1, b: 0"), ("f'{x!r}'", "f'{x!s}'")),
        *(("f'{x}'", "'{x}'"), ("1e999", "inf"), ("x if y else z", "y if x else z"), ("'a, b'", "'a', 'b'")),
        *(("0x" + "f" * 5000, "0x" + "f" * 4999 + "e"),),
    ],
)
def test_the_digest_tells_values_apart(one_way, other_way):
    template = "def f(x, y, z):\n    return {}\n"
    left, right = (one(template.replace("{}", text)) for text in (one_way, other_way))
    assert left.digest != right.digest
    assert left.changed(right) == ("f",)
    assert left.digest == one(template.replace("{}", f"( {one_way} ) # same")).digest


def test_statements_that_differ_in_one_field_are_told_apart():
    pairs = [
        *(("return", "return None"), ("raise x", "raise x from None"), ("global a", "global b")),
        *(("'doc'", "'dot'"), ("from . import a", "from .. import a"), ("import a", "import a as b")),
        *(("match x:\n        case None: 0", "match x:\n        case True: 0"),),
        *(("match x:\n        case A(b=1): 0", "match x:\n        case A(c=1): 0"),),
    ]
    for left, right in pairs:
        assert canonical(f"def f():\n    {left}\n") != canonical(f"def f():\n    {right}\n")


def test_the_digest_counts_file_names_and_order_but_not_the_borders_of_blocks():
    a, b = "def a(): pass\n", "def b(): pass\n"
    digests = [
        Genome.parse(files).digest
        for files in ({"a.py": a, "b.py": b}, {"b.py": b, "a.py": a}, {"a.py": b, "b.py": a}, {"a.py": a + b})
    ]
    assert len(set(digests)) == 4
    assert one(f"# ge: block x\n{a}# ge: end\n{b}").digest == one(f"{a}# --OPTION--\n{b}").digest == one(a + b).digest


@settings(max_examples=100, deadline=None)
@given(genomes(), st.data())
def test_the_digest_ignores_layout_and_nothing_else(built, data):
    files, genome = built
    changed = {}
    for file, text in files.items():
        plain = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        if data.draw(st.booleans()):
            changed[file] = ast.unparse(ast.parse(plain)) + "\n# end"
            continue
        inside = {
            line
            for node in ast.walk(ast.parse(plain))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            for line in range(node.lineno, node.end_lineno)
        }
        lines = []
        for number, line in enumerate(plain.split("\n"), start=1):
            tail = data.draw(st.sampled_from(["", "\n", "\n  # comment"])) if number not in inside else ""
            lines.append(line + tail)
        changed[file] = "\n".join(lines)
    # A frozen marker loses its definition where a line is put between them: it is no part of the meaning.
    moved = Genome.parse({file: text.replace("# ge: frozen", "#") for file, text in changed.items()})
    assert moved.digest == genome.digest
    other = Genome.parse({**files, "seed.py": files["seed.py"].replace("X = 0", "X = 7")})
    assert other.digest != genome.digest


@pytest.mark.parametrize(
    "written",
    [
        "x = 1; y = 2\n@d\n@e(\n1)\ndef f(): pass\nz = '\\na'",
        "x = 1; \\\ny = 2\n# c \\\n@d  # c \\\n@e(1)\ndef f():\n  pass\n\nz = '\\na';  # \\\n",
        "\\\nx = 1\n\x0cy = 2\n@d\n\n@e(1)\n\ndef f():\n  pass;\nz = (\n'\\n' 'a'\n)\n\n# the end",
    ],
)
def test_canonical_does_not_depend_on_how_statements_share_lines(written):
    told = "x = 1\ny = 2\n@d\n@e(1)\ndef f():\n    pass\nz = '\\na'\n"
    assert canonical(written) == canonical(told) != canonical(told.replace("y = 2", "y = 3"))


def test_canonical_reads_indented_source_and_falls_back_to_text():
    assert canonical("    x = 1  # a\n    y = '''\n b'''\n") == canonical("x = 1\ny = '''\n b'''")
    assert canonical("        # c\n        def f(): pass\r\n") == canonical("def f():\n  pass")
    assert canonical("else:\r\n  x\n\n") == "else:\n  x"
    deep = "x = " + "+".join(["a"] * 900)
    assert canonical(deep) == canonical(deep + "  # same") != canonical(deep + "+a")


def test_changed_counts_blocks_that_only_one_side_has():
    assert one("def a(): pass\ndef b(): pass\n").changed(one("def b(): 1\ndef c(): pass\n")) == (
        "a",
        "b",
        "c",
    )


def test_diff_leads_from_the_other_to_this_one():
    seed = Genome.parse({"seed.py": AUTO, "lib.py": "def h(): pass\r\n"})
    child = seed.replace("Net", "class Net(Base):\n    size = 2").replace("h", "def h(): 1")
    assert child.diff(child) == ""
    assert child.diff(seed, context=0) == (
        "--- a/seed.py\n+++ b/seed.py\n@@ -15,2 +15 @@\n"
        "-    # ge is not a marker here\n-    size = 1\n+    size = 2\n"
        "--- a/lib.py\n+++ b/lib.py\n@@ -1 +1 @@\n-def h(): pass\n+def h(): 1\n"
    )
    assert len(child.diff(seed).splitlines()) > len(child.diff(seed, context=0).splitlines())
    alone = one(AUTO)
    assert "--- a/lib.py\n+++ /dev/null\n" in alone.diff(seed)
    assert "--- /dev/null\n+++ b/lib.py\n" in seed.diff(alone)


# --- storing --------------------------------------------------------------------------------------------


def test_json_keeps_the_parts_that_a_new_cut_would_not_find():
    child = one(AUTO).replace("f", "def f(): pass\n\n\ndef helper(): pass\n")
    again = Genome.from_json(json.loads(json.dumps(child.to_json())))
    assert again == child
    assert again.digest == child.digest
    assert names(again) == ["f", "g", "Net"]
    assert names(Genome.parse(child.files)) == ["f", "helper", "g", "Net"]


@pytest.mark.parametrize(
    "data",
    [
        *({}, {"parts": []}, {"parts": "x"}, {"parts": [1]}, {"parts": [{"file": "a.py", "line": 1}]}),
        {"parts": [{"file": "a.py", "line": 1, "source": "", "name": 3}]},
    ],
)
def test_damaged_json_is_refused(data):
    with pytest.raises(GenomeError, match="damaged"):
        Genome.from_json(data)


def test_genomes_are_immutable_and_hashable():
    genome = one(AUTO)
    genome.files["seed.py"] = "changed"
    assert genome.files["seed.py"] == AUTO
    assert {genome, one(AUTO)} == {genome}
    with pytest.raises(AttributeError):
        genome.parts = ()
