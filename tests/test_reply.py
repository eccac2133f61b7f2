from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from guided_evolution.genome import Genome
from guided_evolution.reply import Extracted, Refused, extract, keep_list, lesson
from guided_evolution.signatures import definitions, mismatch

SEED = '''\
import torch
from torch import nn


def make_optimizer(model, lr=0.1):
    return torch.optim.SGD(model.parameters(), lr=lr)


class Gate(nn.Module):
    """A gate."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x):
        return x * torch.sigmoid(self.norm(x.mean(dim=(2, 3))))[:, :, None, None]


class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.gate = Gate(3)

    def forward(self, x):
        return self.gate(x)
'''
GENOME = Genome.parse({"seed.py": SEED})
GATE = GENOME.block("Gate")
NEW = GATE.source.replace("torch.sigmoid", "torch.tanh")


def fenced(code: str, language: str = "python") -> str:
    return f"```{language}\n{code}```\n"


def used(reply: str, block: str = "Gate", **options: bool) -> str:
    result = extract(reply, GENOME.block(block), GENOME, **options)
    assert isinstance(result, Extracted), result
    child = GENOME.replace(block, result.source)
    assert child.changed(GENOME) == (block,)
    return result.source


def refused(reply: str, block: str = "Gate", **options: bool) -> str:
    result = extract(reply, GENOME.block(block), GENOME, **options)
    assert isinstance(result, Refused), result
    return result.reason


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(f"I use tanh.\n{fenced(NEW)}", id="plain"),
        pytest.param(fenced(NEW, "py"), id="short tag"),
        pytest.param(fenced(NEW, "javascript"), id="wrong tag"),
        pytest.param(fenced(NEW, ""), id="no tag"),
        pytest.param(f"~~~python\n{NEW}~~~", id="tildes"),
        pytest.param(f"   ```python\n{NEW}\n   ```", id="indented fence"),
        pytest.param(f"````python\n{NEW}````", id="four ticks"),
        pytest.param(f"```python\n{NEW}", id="unclosed"),
        pytest.param(NEW, id="no fence at all"),
        pytest.param(f"Here it is:\n\n{NEW}", id="no fence, prose before"),
        pytest.param(f"{NEW}\nThis uses tanh instead of sigmoid.", id="no fence, prose after"),
        pytest.param(f"The old code:\n{fenced(GATE.source)}The new code:\n{fenced(NEW)}", id="old code first"),
        pytest.param(f"{fenced(NEW)}Before it was:\n{fenced(GATE.source)}", id="old code last"),
        pytest.param(fenced(NEW) + "Try it:\n" + fenced("gate = Gate(3)\nprint(gate)\n"), id="demonstration last"),
        pytest.param(fenced(NEW.replace("\n", "\r\n")), id="CRLF"),
        pytest.param(fenced("".join(f"    {line}" for line in NEW.splitlines(keepends=True))), id="indented code"),
        pytest.param(fenced(f"Here is the code:\n{NEW}"), id="prose inside the fence"),
        pytest.param(fenced(f"{NEW}\nThis version uses tanh.\n"), id="prose at the end of the fence"),
    ],
)
def test_a_changed_block_is_found_in(reply: str) -> None:
    assert ast.dump(ast.parse(used(reply))) == ast.dump(ast.parse(NEW))


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        pytest.param("I would rather not.", "the reply holds no code", id="prose only"),
        pytest.param("", "the reply holds no code", id="empty"),
        pytest.param(fenced(GATE.source), "came back unchanged", id="unchanged"),
        pytest.param(
            fenced(GATE.source.replace("        super", "        # a comment\n        super")),
            "came back unchanged",
            id="only a comment added",
        ),
        pytest.param(fenced("self.norm = nn.BatchNorm1d(channels)\n"), "does not define `Gate`", id="a fragment"),
        pytest.param(fenced(NEW.replace("return x *", "return x * (")), "syntax error in line", id="syntax error"),
        pytest.param(fenced(NEW.replace("channels)", "w, channels)", 1)), "signature of `Gate.__init__`", id="more"),
        pytest.param(fenced(NEW.replace(", channels", "", 1)), "signature of `Gate.__init__`", id="an argument lost"),
        pytest.param(fenced(NEW.replace("def forward(self, x)", "def run(self, x)")), "lost its method", id="method"),
        pytest.param(
            fenced(NEW.replace("        super().__init__()", "        # ... rest of the code stays the same")),
            "leaves parts out",
            id="left out",
        ),
        pytest.param(fenced("def Gate(channels):\n    return channels\n"), "was a class", id="another kind"),
    ],
)
def test_a_reply_is_refused_with_a_reason(reply: str, reason: str) -> None:
    assert reason in refused(reply)


def test_a_cut_reply_says_so() -> None:
    assert "cut off" in refused(f"```python\n{NEW[:-30]}(", cut=True)
    assert "cut off" in refused("Let me think about", cut=True)


def test_a_renamed_class_gets_its_name_back() -> None:
    code = used(fenced(NEW.replace("class Gate", "class ImprovedGate").replace("super()", "super(ImprovedGate, self)")))
    assert "class Gate(nn.Module)" in code
    assert "super(Gate, self)" in code


def test_other_blocks_demonstrations_and_known_imports_are_left_behind() -> None:
    code = used(
        fenced(
            "import torch\nfrom torch import nn\n\n"
            f"{NEW}\n\n{GENOME.block('Net').source}\n\n"
            "model = Net()\nx = torch.randn(1, 3, 8, 8)\nprint(model(x).shape)\n"
            "if __name__ == '__main__':\n    print(Gate(3))\n"
        )
    )
    assert [node.name for node in ast.parse(code).body if isinstance(node, ast.ClassDef)] == ["Gate"]
    assert len(ast.parse(code).body) == 1


def test_imports_helpers_and_constants_that_the_block_needs_stay_with_it() -> None:
    needy = NEW.replace("torch.tanh(", "SLOPE * squash(").replace("x.mean", "math.e * x.mean")
    code = used(
        fenced(
            "from __future__ import annotations\nimport math\nimport os\n\nSLOPE = 0.5\nUNUSED = 3\n\n\n"
            f"def squash(x):\n    return torch.tanh(x)\n\n\n{needy}"
        )
    )
    assert "import math" in code
    assert "import os" not in code
    assert "SLOPE = 0.5" in code
    assert "UNUSED" not in code
    assert "def squash" in code
    assert "__future__" not in code


def test_helper_and_class_in_two_fences_are_taken_together() -> None:
    needy = NEW.replace("torch.tanh(", "squash(")
    code = used(fenced("def squash(x):\n    return torch.tanh(x)\n") + "and\n" + fenced(needy))
    assert "class Gate" in code


def test_new_arguments_need_a_default_and_old_ones_may_get_one() -> None:
    source = "def make_optimizer(model, lr=0.2, momentum=0.9):\n    return torch.optim.SGD(model, lr, momentum)\n"
    used(fenced(source), "make_optimizer")
    assert "signature" in refused(fenced(source.replace("lr=0.2, momentum=0.9", "lr, momentum")), "make_optimizer")
    assert "signature" in refused(fenced(source.replace("lr=0.2", "rate=0.2")), "make_optimizer")


def test_braces_dollars_and_format_signs_pass_through() -> None:
    odd = NEW.replace('"""A gate."""', '"""{gate} $gate %s %(gate)s {{}} \\\\n"""')
    assert "{gate} $gate %s %(gate)s {{}}" in used(fenced(odd))


def test_fault_07_the_new_code_is_found_behind_a_quoted_old_one_and_syntax_is_checked() -> None:
    assert "tanh" in used(f"The block was\n{fenced(GATE.source)}\nand becomes\n{fenced(NEW)}")
    assert "syntax error" in refused(fenced(NEW.replace("class Gate", "class class Gate")))


def test_a_region_without_definitions_must_still_bind_its_names() -> None:
    text = "# ge: block numbers\nlow = 1\nhigh = 2\n# ge: end\nprint(low, high)\n"
    genome = Genome.parse({"seed.py": text})
    block = genome.block("numbers")
    result = extract(fenced("low = 1\nhigh = 5\n"), block, genome)
    assert isinstance(result, Extracted)
    assert "high = 5" in genome.replace("numbers", result.source).text("seed.py")
    missing = extract(fenced("low = 3\n"), block, genome)
    assert isinstance(missing, Refused)
    assert "high" in missing.reason


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Lesson: a learnable scale helps.", "a learnable scale helps."),
        ("**Lesson:** Use GELU. It is smooth.", "Use GELU. It is smooth."),
        ("The change shows that wider kernels see more of the image. Then more.", None),
        ("", ""),
    ],
)
def test_a_lesson_is_one_sentence(reply: str, expected: str | None) -> None:
    found = lesson(reply)
    assert len(found) <= 300
    assert "\n" not in found
    if expected is not None:
        assert found == expected
    else:
        assert found == "The change shows that wider kernels see more of the image."


def test_the_keep_list_spells_out_names_and_signatures() -> None:
    kept = ["`class Gate(nn.Module)`", "`Gate.__init__(self, channels)`", "`Gate.forward(self, x)`"]
    assert list(keep_list(GATE)) == kept
    assert list(keep_list(GENOME.block("make_optimizer"))) == ["`def make_optimizer(model, lr=0.1)`"]


def test_helpers_constants_and_filled_tables_are_kept_wherever_they_stand() -> None:
    needy = NEW.replace("torch.tanh(", "SLOPE * TABLE[0] * squash(")
    code = used(
        fenced(
            f"TABLE = [0] * 4\nfor index in range(4):\n    TABLE[index] = index + 1\n\n\n{needy}\n\n"
            "def squash(x):\n    return bend(torch.tanh(x))\n\n\n"
            "def bend(x):\n    return squash(x) if x.ndim > 9 else x\n\n\n"
            "SLOPE = 0.5\nx = torch.randn(2)\n"
        )
    )
    for text in ("def squash", "def bend", "SLOPE = 0.5", "TABLE[index] = index + 1"):
        assert text in code
    assert "randn" not in code
    compile(code, "seed.py", "exec")


def test_helpers_that_a_mutation_added_may_go_again() -> None:
    grown = GENOME.replace(
        "Gate", "def squash(x):\n    return torch.tanh(x)\n\n\n" + NEW.replace("torch.tanh", "squash")
    )
    result = extract(fenced(NEW), grown.block("Gate"), grown, original=GATE)
    assert isinstance(result, Extracted)
    assert "squash" not in grown.replace("Gate", result.source).text("seed.py")


def test_imports_that_the_block_owns_come_back_when_the_reply_omits_them() -> None:
    owned = GENOME.replace("Gate", "import math\n\n\n" + NEW.replace("x.mean", "math.e * x.mean"))
    reply = fenced(NEW.replace("x.mean", "math.pi * x.mean"))
    result = extract(reply, owned.block("Gate"), owned, original=GATE)
    assert isinstance(result, Extracted)
    assert result.source.startswith("import math")


def test_what_a_marked_region_binds_for_the_rest_of_the_file_must_stay() -> None:
    text = (
        "# EVOLVE-BLOCK-START\nimport random\nSCALE = 2\nrandom.seed(0)\n\ndef build():\n    return SCALE\n"
        "# EVOLVE-BLOCK-END\nprint(build() * SCALE)\n"
    )
    genome = Genome.parse({"seed.py": text})
    (block,) = genome.blocks
    kept = extract(
        fenced("import random\nSCALE = 3\nrandom.seed(0)\n\ndef build():\n    return SCALE + 1\n"), block, genome
    )
    assert isinstance(kept, Extracted)
    assert "SCALE = 3" in kept.source
    assert "random.seed(0)" in kept.source
    lost = extract(fenced("def build():\n    return 7\n"), block, genome)
    assert isinstance(lost, Refused)
    assert "SCALE" in lost.reason


@pytest.mark.parametrize(
    "comment",
    ["# x: (batch, ..., channels)", "# the original code squared here", "# remaining channels pass", "# loading..."],
)
def test_a_comment_that_only_mentions_code_is_no_omission(comment: str) -> None:
    used(fenced(NEW.replace("        super", f"        {comment}\n        super")))


@pytest.mark.parametrize(
    ("old", "new", "fits"),
    [
        ("def f(*, k=1): ...", "def f(*, k): ...", False),
        ("def f(*, k): ...", "def f(*, k=2): ...", True),
        ("def f(a): ...", "async def f(a): ...", False),
        ("def f(a): ...", "def f(a: int, *rest) -> int: ...", True),
        ("def f(a, *rest): ...", "def f(a): ...", False),
        ("class A:\n    @property\n    def n(self): ...", "class A:\n    def n(self): ...", False),
        ("class A:\n    def n(self, x): ...", "class A:\n    def n(self, inputs): ...", True),
        ("class A:\n    def n(self): ...", "class A(Base):\n    pass", True),
    ],
)
def test_signatures_must_accept_every_call_that_fitted_before(old: str, new: str, fits: bool) -> None:
    (before,), (after,) = definitions(old).values(), definitions(new).values()
    assert (mismatch(before, after) == "") is fits


def test_prose_that_begins_like_code_is_prose() -> None:
    assert lesson("from the change we learn that wider kernels help. Good.") == (
        "from the change we learn that wider kernels help."
    )


REPLIES = Path(__file__).parent / "replies"
TABLE = json.loads((REPLIES / "table.json").read_text(encoding="utf-8"))["replies"]
REAL = Genome.parse({"seed.py": (REPLIES / "seed.py").read_text(encoding="utf-8")})


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row["file"])
def test_real_replies_of_the_local_model(row: dict[str, Any]) -> None:
    """Each was read by a person: `reason` is empty where the reply holds a usable new version of its block."""
    reply = (REPLIES / row["file"]).read_text(encoding="utf-8")
    block = REAL.block(row["block"])
    result = extract(reply, block, REAL, cut=row["cut"])
    if row["reason"]:
        assert isinstance(result, Refused)
        assert row["reason"] in result.reason
    else:
        assert isinstance(result, Extracted), result
        child = REAL.replace(block.name, result.source)
        assert child.changed(REAL) == (block.name,)
        assert [each.name for each in child.blocks] == [each.name for each in REAL.blocks]
