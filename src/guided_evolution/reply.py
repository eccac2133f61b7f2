"""From a model's text to the source of one block, or the reason why it can't be used.

A reply is untrusted text of any shape. What is wanted from it: the new version of one block, with the names
and signatures the rest of the program relies on. Whatever else it holds (the old code quoted first, other
blocks repeated, a demonstration) is left behind; whatever the block needs and the file lacks (imports,
helpers, constants) stays in the block.
"""

from __future__ import annotations

import ast
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from guided_evolution.genome import Block, Fixed, Genome, canonical
from guided_evolution.signatures import Definition, callables, definitions, mismatch

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+.#-]*)[^\n]*$", re.MULTILINE)
_CODE_START = re.compile(r"^(?:@|class |def |async def |import |from )", re.MULTILINE)
_ELIDED = re.compile(
    r"#.*(?:\.\.\.|…|\b(?:rest|remaining|other|existing|previous|original)\b.*\b(?:same|unchanged|code|as before)\b"
    r"|\b(?:same as|unchanged|as) (?:before|above|the original)\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Extracted:
    """A usable new version of a block.

    Attributes:
        source: What `Genome.replace` is to be given.
        thought: The prose around the code: the model's own explanation.
    """

    source: str
    thought: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a reply can't be used, in words that a repair turn can carry.

    Attributes:
        code: The part of the reply that came closest; empty when it held no code.
    """

    reason: str
    code: str = ""


def extract(reply: str, block: Block, genome: Genome, *, cut: bool = False) -> Extracted | Refused:
    """Finds the new version of `block` in a model's reply.

    Args:
        reply: The model's text, as it came.
        block: The block that the model was asked to rewrite.
        genome: The program that holds it, for the names of its other blocks and what the file already imports.
        cut: Whether the reply ended at its token limit.
    """
    codes, thought = _codes(reply)
    if not codes:
        return Refused("the reply was cut off before any code" if cut else "the reply holds no code")
    refusal: Refused | None = None
    for code in reversed(codes):
        result = _one(code, block, genome)
        if isinstance(result, Extracted):
            return Extracted(result.source, thought)
        # the last fence is the answer as a rule: its fault is the one to report, unless it held only a snippet
        if refusal is None or _rank(result) > _rank(refusal):
            refusal = result
    if len(codes) > 1 and isinstance(whole := _one("\n\n".join(codes), block, genome), Extracted):
        return Extracted(whole.source, thought)
    assert refusal is not None
    if cut and refusal.reason.startswith("syntax error"):
        return Refused("the reply was cut off at its token limit: write a shorter version", refusal.code)
    return refusal


def lesson(reply: str) -> str:
    """The one-sentence lesson in a reply; empty when there is none.

    The line after "Lesson:" counts, else the first sentence of prose; code and markup are left out, and the
    result is at most 300 characters long.
    """
    prose = _codes(reply)[1]
    match = re.search(r"lesson\W*:\W*(.+)", prose, re.IGNORECASE | re.DOTALL)
    text = " ".join((match[1] if match else prose).split())
    text = re.sub(r"[*_`#]{2,}", "", text).strip()
    sentence = re.match(r".{15,}?[.!?](?= |$)", text)
    return (sentence[0] if sentence else text)[:300].strip()


def _rank(refusal: Refused) -> int:
    return 0 if refusal.reason.startswith("the code does not define") else 1


def _codes(reply: str) -> tuple[list[str], str]:
    """All pieces of code in a reply, in order, and the prose between them."""
    fences = list(_FENCE.finditer(reply))
    codes, prose, position, index = [], [], 0, 0
    while index < len(fences):
        opening = fences[index]
        closing = next((fence for fence in fences[index + 1 :] if fence[1][0] == opening[1][0] and not fence[2]), None)
        prose.append(reply[position : opening.start()])
        end = closing.start() if closing else len(reply)
        codes.append(reply[opening.end() + 1 : end])
        position = closing.end() if closing else len(reply)
        index = fences.index(closing) + 1 if closing else len(fences)
    prose.append(reply[position:])
    if not codes and (start := _CODE_START.search(reply)):
        codes, prose = [reply[start.start() :]], [reply[: start.start()]]
    return [code for code in codes if code.strip()], "".join(prose).strip()


def _one(code: str, block: Block, genome: Genome) -> Extracted | Refused:
    code = textwrap.dedent(code.replace("\r\n", "\n").replace("\r", "\n").expandtabs(4)).strip("\n")
    parsed = _parse(code)
    if isinstance(parsed, str):
        return Refused(parsed, code)
    code, tree = parsed
    required = definitions(block.source)
    if not required:
        return _statements(code, tree, block)
    if isinstance(renamed := _renamed(code, tree, required), str):
        code, tree = renamed, ast.parse(renamed)
    found = definitions(code)
    for name, old in required.items():
        if name not in found:
            return Refused(f"the code does not define `{name}`", code)
        if problem := mismatch(old, found[name]):
            return Refused(problem, code)
    source = _kept(code, tree, required, genome, block)
    if _ELIDED.search(source) and not _ELIDED.search(block.source):
        return Refused("the code leaves parts out; the whole block is needed", code)
    return _changed(source, block)


def _changed(source: str, block: Block) -> Extracted | Refused:
    if canonical(source) == canonical(block.source):
        return Refused("the block came back unchanged", source)
    return Extracted(source.rstrip() + "\n")


def _statements(code: str, tree: ast.Module, block: Block) -> Extracted | Refused:
    """A marked region without definitions: the names that it binds must still be bound."""
    names, old = _bound(tree), _parse(textwrap.dedent(block.source))
    missing = sorted(set() if isinstance(old, str) else _bound(old[1]) - names)
    if missing:
        return Refused(f"the code does not define `{missing[0]}`", code)
    return _changed(code, block)


def _parse(code: str) -> tuple[str, ast.Module] | str:
    """The code with its tree, prose before and after it cut away; or the syntax error."""
    first: SyntaxError | ValueError | RecursionError | None = None
    lines = code.split("\n")
    starts = [0, *[index for index, line in enumerate(lines) if index and _CODE_START.match(line)][:1]]
    for start in starts:
        for end in range(len(lines), max(start, len(lines) - 12), -1):
            text = "\n".join(lines[start:end])
            if end < len(lines) and not _prose(lines[end]):
                break
            try:
                return text, ast.parse(text)
            except (SyntaxError, ValueError, RecursionError) as error:
                first = first or error
    if isinstance(first, SyntaxError):
        line = (first.text or "").strip()
        return f"syntax error in line {first.lineno}: {first.msg}" + (f": `{line}`" if line else "")
    return f"syntax error: {first}"


def _prose(line: str) -> bool:
    return not line.strip() or (not line[:1].isspace() and not line.startswith(("#", "@", ")", "]", "}")))


def _renamed(code: str, tree: ast.Module, required: dict[str, Definition]) -> str | None:
    """The code with a renamed definition called as before, when it's clear which one that is."""
    found = definitions(code)
    missing = [name for name in required if name not in found]
    if len(missing) != 1:
        return None
    old = required[missing[0]]
    fresh = [name for name, new in found.items() if name not in required and new.kind == old.kind]
    alike = [name for name in fresh if missing[0].lower() in name.lower()]
    candidates = alike if len(alike) == 1 else fresh
    if len(candidates) != 1 or mismatch(old, found[candidates[0]]):
        return None
    return _rename(code, candidates[0], missing[0])


def _rename(code: str, old: str, new: str) -> str:
    lines = code.splitlines(keepends=True)
    tokens = [
        token
        for token in tokenize.generate_tokens(io.StringIO(code).readline)
        if token.type == tokenize.NAME and token.string == old
    ]
    for token in reversed(tokens):
        row, column = token.start
        line = lines[row - 1]
        lines[row - 1] = line[:column] + new + line[column + len(old) :]
    return "".join(lines)


def _kept(code: str, tree: ast.Module, required: dict[str, Definition], genome: Genome, block: Block) -> str:
    """The block's definitions and what they need, without repeated blocks and demonstrations."""
    others = {name for other in genome.blocks if other.name != block.name for name in definitions(other.source)}
    available = _available(genome, block)
    wanted: set[str] = set()
    keep: list[ast.stmt] = []
    for node in reversed(tree.body):
        names = _binds(node)
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            needed = node.name in required or (node.name in wanted and node.name not in others)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            needed = bool(names & wanted) and ast.unparse(node) not in available
        else:
            needed = bool(names & wanted) and isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign)
            needed = needed and not names <= others
        if needed:
            keep.append(node)
            wanted |= _uses(node)
    old = set(block.source.splitlines())
    return "\n".join(_segment(code, node, old) for node in reversed(keep))


def _available(genome: Genome, block: Block) -> set[str]:
    """The import statements that the block's file holds outside its blocks."""
    parts = (part for part in genome.parts if isinstance(part, Fixed) and part.file == block.file)
    fixed = "".join(part.source for part in parts)
    try:
        return {ast.unparse(node) for node in ast.parse(fixed).body if isinstance(node, ast.Import | ast.ImportFrom)}
    except SyntaxError:
        return set()


def _segment(code: str, node: ast.stmt, old: Set[str]) -> str:
    lines = code.split("\n")
    decorators: Sequence[ast.expr] = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)]) - 1
    last = node.end_lineno or node.lineno
    alone = not node.col_offset and not lines[last - 1].encode()[node.end_col_offset :].strip().startswith(b";")
    if not alone:
        return ast.unparse(node)
    # the prompt asks for a comment that says what changed; it would be stale after the next change
    while first and lines[first - 1].startswith("#") and lines[first - 1] in old:
        first -= 1
    text = "\n".join(lines[first:last])
    spaced = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    return text + ("\n" if spaced else "")


def _binds(node: ast.AST) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}


def _bound(tree: ast.Module) -> set[str]:
    return set().union(*(_binds(node) for node in tree.body))


def _uses(node: ast.AST) -> set[str]:
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}


def keep_list(block: Block) -> Iterator[str]:
    """The names and signatures of a block that must survive, one per line of the prompt."""
    for definition in definitions(block.source).values():
        yield f"`{definition.header}`"
        yield from (f"`{definition.name}.{signature}`" for signature in callables(definition))
