"""The genome: a program as fixed text and named blocks, of which one can be replaced at a time.

`Genome.parse` cuts the seed; `Genome.replace` is the only way to a child. A child keeps the parts of its
parent, so a block may grow helper functions and is still one block.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath

from guided_evolution.blocks import Block, Fixed, Part, cut, find_markers
from guided_evolution.errors import GenomeError
from guided_evolution.source import (
    BOM,
    canonical,
    code_line,
    leading,
    parse_module,
    shifted,
    split_lines,
    unix,
)

__all__ = ["Block", "Fixed", "Genome", "Part", "canonical", "read_files", "write_files"]


@dataclass(frozen=True)
class Genome:
    """A whole program: the parts of its files, in order.

    Attributes:
        parts: Fixed text and blocks. Parts of one file are neighbours, and each file has at least one.
    """

    parts: tuple[Part, ...]

    @classmethod
    def parse(cls, files: Mapping[str, str]) -> Genome:
        """Cut seed files into blocks; `guided_evolution.blocks` says how.

        Args:
            files: Relative file name to text, line ends untouched; the first is the main file.

        Raises:
            GenomeError: With file and line, when a file isn't Python, its markers don't fit together,
                or there is no block in any of them.
        """
        if not files:
            raise GenomeError("a genome needs at least one seed file")
        for name in files:
            _check_name(name)
        genome = cls(cut(files))
        if not genome.blocks:
            raise GenomeError(
                f"{genome.main}:1: there is nothing to evolve: no marked block, and no top-level class or "
                "function that isn't frozen"
            )
        return genome

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks in the order of the files."""
        return tuple(part for part in self.parts if isinstance(part, Block))

    @property
    def files(self) -> dict[str, str]:
        """File name to text, a fresh dictionary in order; what was parsed comes back byte for byte."""
        texts: dict[str, list[str]] = {}
        for part in self.parts:
            texts.setdefault(part.file, []).append(part.source)
        return {name: "".join(pieces) for name, pieces in texts.items()}

    @property
    def main(self) -> str:
        """The name of the first file."""
        return self.parts[0].file

    def block(self, name: str) -> Block:
        """Give the block of that name.

        Raises:
            GenomeError: When there is none; the text lists those there are.
        """
        for block in self.blocks:
            if block.name == name:
                return block
        known = ", ".join(block.name for block in self.blocks)
        raise GenomeError(f"there is no block {name!r}; the blocks are: {known}")

    def text(self, name: str) -> str:
        """Give the text of one file.

        Raises:
            GenomeError: When the genome has no such file.
        """
        files = self.files
        if name not in files:
            raise GenomeError(f"there is no file {name!r}; the files are: {', '.join(files)}")
        return files[name]

    def replace(self, name: str, source: str) -> Genome:
        """Give a child in which one block has a new source and everything else is the same.

        The source is made to fit its place: the file's line ends, the old block's indentation (the
        content of strings is never shifted), no blank lines around it, a line end where the old block
        had one. It may hold helpers and imports beside the main definition; all of it is the block.

        Args:
            name: The block to rewrite.
            source: Its new text.

        Raises:
            GenomeError: When there is no such block, or the source isn't complete Python, holds a block
                marker, is empty, or doesn't fit its place. The text names the line of the source,
                counted from the first that isn't blank.
        """
        old = self.block(name)
        if source == old.source:
            return self
        text = self.text(old.file)
        fitted = _fitted(old, _tight(unix(source.removeprefix(BOM))), text)
        parts = tuple(replace(part, source=fitted) if part is old else part for part in self.parts)
        child = Genome(_renumbered(parts))
        try:
            parse_module(unix(child.text(old.file).removeprefix(BOM)), old.file, compiled=True)
        except SyntaxError as error:
            line = (error.lineno or 1) - old.line + 1
            if 1 <= line <= len(split_lines(fitted)):
                raise _refusal(name, fitted, line, error.msg) from error
            message = f"block {name!r} doesn't fit its place: {old.file}:{error.lineno or 1}: {error.msg}"
            raise GenomeError(message) from error
        return child

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of what the program says, in hexadecimal.

        File names, their order and the syntax trees count, docstrings included; comments, formatting,
        the spelling of literals and the borders of blocks don't.
        """
        content = [[name, canonical(text)] for name, text in self.files.items()]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def changed(self, other: Genome) -> tuple[str, ...]:
        """Name the blocks that say something else in the other genome, or that only one of them has."""
        mine = {block.name: block.source for block in self.blocks}
        theirs = {block.name: block.source for block in other.blocks}
        return tuple(
            name
            for name in {**mine, **theirs}
            if name not in mine
            or name not in theirs
            or (mine[name] != theirs[name] and canonical(mine[name]) != canonical(theirs[name]))
        )

    def diff(self, other: Genome, context: int = 3) -> str:
        """Give a unified diff that leads from the other genome to this one: `child.diff(parent)`.

        Args:
            other: The genome to compare with.
            context: Unchanged lines shown around a change.

        Returns:
            The diff of all files, empty when their lines are the same. Line ends are not compared.
        """
        new, old = self.files, other.files
        lines: list[str] = []
        for name in {**new, **old}:
            before = unix(old.get(name, "")).split("\n")
            after = unix(new.get(name, "")).split("\n")
            names = (f"a/{name}" if name in old else "/dev/null", f"b/{name}" if name in new else "/dev/null")
            lines += difflib.unified_diff(before, after, *names, n=context, lineterm="")
        return "".join(f"{line}\n" for line in lines)

    def to_json(self) -> dict[str, object]:
        """Give the parts as plain data, from which `from_json` makes an equal genome."""
        parts = []
        for part in self.parts:
            named = {"name": part.name} if isinstance(part, Block) else {}
            parts.append({**named, "file": part.file, "line": part.line, "source": part.source})
        return {"parts": parts}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Genome:
        """Make the genome that `to_json` wrote, without cutting it again.

        Raises:
            GenomeError: When the data have another form.
        """
        stored = data.get("parts")
        if not isinstance(stored, list) or not stored:
            raise GenomeError("a stored genome is damaged: it has no parts")
        return cls(tuple(_part(item) for item in stored))


def read_files(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Read seed files as UTF-8 without touching line ends or a byte order mark.

    Args:
        folder: Where they are.
        names: Relative names, as they will be called in the genome.

    Raises:
        GenomeError: When a name leaves the folder, or a file is missing, unreadable or not UTF-8.
    """
    texts = {}
    for name in names:
        try:
            content = _inside(folder, name).read_bytes()
            texts[name] = content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = len(split_lines(content[: error.start].decode("utf-8") + "?"))
            raise GenomeError(f"{name}:{line}: this is not UTF-8 text") from error
        except OSError as error:
            raise GenomeError(f"{name}: can't be read: {error.strerror or error}") from error
    return texts


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write a genome's files below a folder as UTF-8, byte for byte, and make the folders they need.

    Raises:
        GenomeError: When a name leaves the folder; nothing is written then.
    """
    for path, text in [(_inside(folder, name), text) for name, text in files.items()]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8"))


@lru_cache(maxsize=256)
def _check_name(name: str) -> None:
    windows = PureWindowsPath(name)
    plain = name == PurePosixPath(name).as_posix() and name not in ("", ".")
    if not plain or name.startswith("/") or windows.anchor or ".." in windows.parts:
        raise GenomeError(f"file name {name!r} must be relative and stay inside the folder")


def _inside(folder: Path, name: str) -> Path:
    _check_name(name)
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise GenomeError(f"file name {name!r} leads out of the folder")
    return path


def _part(item: object) -> Part:
    if isinstance(item, dict):
        name, file, line, source = (item.get(key) for key in ("name", "file", "line", "source"))
        if isinstance(file, str) and isinstance(line, int) and isinstance(source, str):
            _check_name(file)
            if name is None:
                return Fixed(source, file, line)
            if isinstance(name, str):
                return Block(name, source, file, line)
    raise GenomeError("a stored genome is damaged: a part lacks its file, line or source")


def _renumbered(parts: Sequence[Part]) -> tuple[Part, ...]:
    result: list[Part] = []
    line = 1
    for part in parts:
        if result and part.file != result[-1].file:
            line = 1
        result.append(replace(part, line=line))
        line += unix(part.source).count("\n")
    return tuple(result)


def _refusal(name: str, source: str, line: int, reason: str) -> GenomeError:
    lines = unix(source).split("\n")
    line = min(line, len(lines))  # An end that comes too early is reported one line further down.
    shown = lines[line - 1].strip()[:80]
    return GenomeError(f"block {name!r}, line {line}: {reason}" + (f" ({shown})" if shown else ""))


def _fitted(old: Block, source: str, text: str) -> str:
    try:
        # A block that is complete by itself must stay so: no open string or bare decorator may reach out.
        if _is_complete(old.source):
            parse_module(shifted(source, ""))
        markers = find_markers(source)
    except SyntaxError as error:
        raise _refusal(old.name, source, error.lineno or 1, error.msg) from error
    if markers:
        raise _refusal(old.name, source, markers[0].line, "a block can't hold a block marker")
    if code_line(old.source) is not None and code_line(source) is None:
        raise GenomeError(f"block {old.name!r}: the new source holds no code")
    source = shifted(source, _indentation(old, text))
    if source and (not old.source or old.source.endswith(("\n", "\r"))):
        source += "\n"
    return source.replace("\n", _line_end(text))


def _tight(source: str) -> str:
    """The source without blank lines at its edges and without a line end."""
    lines = source.split("\n")
    while lines and not lines[0].strip():
        lines.pop(0)
    while lines and not lines[-1].strip():
        lines.pop()
    return "\n".join(lines)


def _line_end(text: str) -> str:
    windows = text.count("\r\n")
    lone = text.count("\n") - windows
    if not windows and not lone and "\r" in text:
        return "\r"
    return "\r\n" if windows > lone else "\n"


def _is_complete(source: str) -> bool:
    try:
        parse_module(shifted(unix(source), ""))
    except SyntaxError:
        return False
    return True


def _indentation(old: Block, text: str) -> str:
    above = split_lines(text.removeprefix(BOM))[: old.line - 1]
    written = [line for line in (*reversed(above), "") if line.strip()][:1]
    sample = code_line(old.source) or (old.source if old.source.strip() else "".join(written))
    return leading(sample)
