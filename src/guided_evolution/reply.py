"""From a model's text to the source of one block, or the reason why it can't be used.

A reply is untrusted text of any shape. What is wanted from it: the new version of one block, with the names
and signatures the rest of the program relies on. Whatever else it holds (the old code quoted first, other
blocks repeated, a demonstration) is left behind; whatever the block needs and the file lacks (imports,
helpers, constants) stays in the block.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import lru_cache

from guided_evolution.genome import Block, Fixed, Genome, canonical
from guided_evolution.signatures import Definition, callables, definitions, mismatch
from guided_evolution.trimming import binds, trimmed

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+.#-]*)[^\n]*$", re.MULTILINE)
_CODE_START = re.compile(
    r"^(?:@\w|class \w+.*:|(?:async )?def \w+\(|import \w+(?:[.,]| as |$)|from [\w.]+ import )", re.MULTILINE
)
_ELIDED = re.compile(
    r"#\s*(?:(?:\.\.\.|…)(?:\W*\w+){0,6}\W*$"
    r"|.*\b(?:rest|remaining|other|existing)\b.*\b(?:same|unchanged|as before|\.\.\.)"
    r"|.*\bexisting code\b"
    r"|.*\b(?:same as|unchanged|as) (?:before|above|the original)\s*$)",
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


def extract(
    reply: str, block: Block, genome: Genome, *, original: Block | None = None, cut: bool = False
) -> Extracted | Refused:
    """Finds the new version of `block` in a model's reply.

    Args:
        reply: The model's text, as it came.
        block: The block that the model was asked to rewrite.
        genome: The program that holds it, for the names of its other blocks and what the file already imports.
        original: The seed's version of the block: its names and signatures must survive, while helpers that were
            added since may go again. None takes `block` itself.
        cut: Whether the reply ended at its token limit.
    """
    original = original or block
    codes, thought = _codes(reply)
    if not codes:
        return Refused("the reply was cut off before any code" if cut else "the reply holds no code")
    refusal: Refused | None = None
    for code in reversed(codes):
        result = _one(code, block, genome, original)
        if isinstance(result, Extracted):
            return Extracted(result.source, thought)
        # the last fence is the answer as a rule: its fault is the one to report, unless it held only a snippet
        if refusal is None or _rank(result) > _rank(refusal):
            refusal = result
    if len(codes) > 1 and isinstance(whole := _one("\n\n".join(codes), block, genome, original), Extracted):
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


def _one(code: str, block: Block, genome: Genome, original: Block) -> Extracted | Refused:
    code = textwrap.dedent(code.replace("\r\n", "\n").replace("\r", "\n").expandtabs(4)).strip("\n")
    parsed = _parse(code)
    if isinstance(parsed, str):
        return Refused(parsed, code)
    code, tree = parsed
    required = definitions(original.source)
    if isinstance(renamed := _renamed(code, required), str):
        code, tree = renamed, ast.parse(renamed)
    if problem := breaks(code, block, genome, original):
        return Refused(problem, code)
    source = _needed(code, tree, _names(original.source), genome, block)
    if _leaves_out(source) and not _leaves_out(block.source):
        return Refused("the code leaves parts out; the whole block is needed", code)
    return _changed(source, block)


def breaks(code: str, block: Block, genome: Genome, original: Block) -> str:
    """What the rest of the program relies on in a block and its new source lacks, in words; empty when nothing.

    Args:
        code: The new source.
        block: The block that it is to replace.
        genome: The program that holds the block.
        original: The seed's version of the block, whose names and signatures must survive.
    """
    required, found = definitions(original.source), definitions(code)
    for name, old in required.items():
        if name not in found:
            return f"the code does not define `{name}`"
        if problem := mismatch(old, found[name]):
            return problem
    bound = _names(original.source)
    missing = sorted((bound & _used_elsewhere(genome, block)) - _names(code) if bound - required.keys() else ())
    return f"the code does not define `{missing[0]}`" if missing else ""


def _used_elsewhere(genome: Genome, block: Block) -> set[str]:
    """The names that the program uses outside a block."""
    rest = (part.source for part in genome.parts if not (isinstance(part, Block) and part.name == block.name))
    return set().union(*(_uses(text) for text in rest))


@lru_cache(maxsize=256)
def _uses(source: str) -> frozenset[str]:
    nodes = ast.walk(_tree(textwrap.dedent(source)))
    return frozenset(node.id for node in nodes if isinstance(node, ast.Name))


def _changed(source: str, block: Block) -> Extracted | Refused:
    if canonical(source) == canonical(block.source):
        return Refused("the block came back unchanged", source)
    return Extracted(source.rstrip() + "\n")


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


def _renamed(code: str, required: Mapping[str, Definition]) -> str | None:
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


def _needed(code: str, tree: ast.Module, required: Set[str], genome: Genome, block: Block) -> str:
    """What the block needs of the code, without repeated blocks, known imports and demonstrations."""
    others = {name for other in genome.blocks if other.name != block.name for name in _names(other.source)}
    parts = (part for part in genome.parts if isinstance(part, Fixed) and part.file == block.file)
    available = _imports("".join(part.source for part in parts))
    old = textwrap.dedent(block.source)
    return trimmed(code, tree, required=required, others=others, available=available, old=old)


@lru_cache(maxsize=64)
def _imports(source: str) -> frozenset[str]:
    nodes = _tree(source).body
    return frozenset(ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))


@lru_cache(maxsize=256)
def _names(source: str) -> frozenset[str]:
    return frozenset().union(*(binds(node) for node in _tree(textwrap.dedent(source)).body))


def _tree(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return ast.Module([], [])


def _leaves_out(source: str) -> bool:
    """Whether a comment on a line of its own stands for code that was left out."""
    with contextlib.suppress(tokenize.TokenError, SyntaxError):
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            alone = token.type == tokenize.COMMENT and token.line.lstrip().startswith("#")
            if alone and _ELIDED.match(token.string):
                return True
    return False


def keep_list(block: Block) -> Iterator[str]:
    """The names and signatures of a block that must survive, one per line of the prompt."""
    for definition in definitions(block.source).values():
        yield f"`{definition.header}`"
        yield from (f"`{definition.name}.{signature}`" for signature in callables(definition))
