"""What the rest of a program may rely on in a block: its definitions and how they are called."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Definition:
    """A top-level class or function.

    Attributes:
        kind: "class" or "function".
        header: Its first line without the colon, e.g. "class ME(nn.Module)".
        arguments: A function's own; None for a class.
        methods: A class's public methods and its `__init__` and `__call__`.
        manners: How each is called beside its arguments: "async", "staticmethod", "classmethod", "property".
    """

    name: str
    kind: str
    header: str
    arguments: ast.arguments | None = None
    methods: Mapping[str, ast.arguments] = field(default_factory=dict)
    manners: Mapping[str, frozenset[str]] = field(default_factory=dict)


@lru_cache(maxsize=256)
def definitions(source: str) -> Mapping[str, Definition]:
    """The top-level classes and functions of a source, by name; empty when it does not parse."""
    try:
        tree = ast.parse(textwrap.dedent(source))
    except (SyntaxError, ValueError, RecursionError):
        return MappingProxyType({})
    found = {}
    for node in tree.body:
        if isinstance(node, _Function):
            header = f"def {node.name}({ast.unparse(node.args)})"
            manners = {node.name: _manner(node)}
            found[node.name] = Definition(node.name, "function", header, arguments=node.args, manners=manners)
        elif isinstance(node, ast.ClassDef):
            bases = ", ".join(map(ast.unparse, [*node.bases, *node.keywords]))
            header = f"class {node.name}({bases})" if bases else f"class {node.name}"
            public = [
                item
                for item in node.body
                if isinstance(item, _Function) and (item.name in _SPECIAL or not item.name.startswith("_"))
            ]
            methods = {item.name: item.args for item in public}
            manners = {item.name: _manner(item) for item in public}
            found[node.name] = Definition(node.name, "class", header, methods=methods, manners=manners)
    return MappingProxyType(found)


_SPECIAL = ("__init__", "__call__")
_MANNERS = {"staticmethod", "classmethod", "property"}


def _manner(node: _Function) -> frozenset[str]:
    found = {ast.unparse(decorator) for decorator in node.decorator_list} & _MANNERS
    return frozenset(found | ({"async"} if isinstance(node, ast.AsyncFunctionDef) else set()))


def callables(definition: Definition) -> Iterator[str]:
    """The signatures of a class's methods, as they are written."""
    for name, arguments in definition.methods.items():
        yield f"{name}({ast.unparse(arguments)})"


def mismatch(old: Definition, new: Definition) -> str:
    """Why calls that fit the old definition may not fit the new one; empty when they do."""
    if old.kind != new.kind:
        return f"`{old.name}` was a {old.kind} and must stay one"
    if old.arguments and new.arguments and not accepts(old.arguments, new.arguments):
        return f"the signature of `{old.name}` changed: it must stay `{old.header}`"
    changed = [name for name, manner in old.manners.items() if new.manners.get(name, manner) != manner]
    if changed:
        return f"`{changed[0]}` in `{old.name}` must stay {' '.join(sorted(old.manners[changed[0]])) or 'a plain one'}"
    for name, arguments in old.methods.items():
        if name not in new.methods and new.header != old.header:
            continue  # it may come from another base; the check decides
        if name not in new.methods:
            return f"`{old.name}` lost its method `{name}({ast.unparse(arguments)})`"
        if not accepts(arguments, new.methods[name]):
            return f"the signature of `{old.name}.{name}` changed: it must stay `{name}({ast.unparse(arguments)})`"
    return ""


def accepts(old: ast.arguments, new: ast.arguments) -> bool:
    """Whether every call that fits `old` also fits `new`.

    Arguments keep name and place; what is added needs a default; a default may change but not vanish.
    """
    old_names, new_names = _positional(old), _positional(new)
    swallowed = new.vararg is not None and old_names[: len(new_names)] == new_names
    # the name of a sole argument that is only ever passed by place may change: forward(x) to forward(inputs)
    renamed = len(old_names) == len(new_names) == 2 and old_names[0] == new_names[0] == "self"
    if not (swallowed or renamed or old_names == new_names[: len(old_names)]):
        return False
    required_old = len(old_names) - len(old.defaults)
    required_new = len(new_names) - len(new.defaults)
    if required_new > required_old:
        return False
    keywords_old = [argument.arg for argument in old.kwonlyargs]
    keywords_new = {argument.arg: default for argument, default in zip(new.kwonlyargs, new.kw_defaults, strict=True)}
    if not set(keywords_old) <= keywords_new.keys() | set(new_names) and not new.kwarg:
        return False
    required_keywords = {name for name, default in zip(keywords_old, old.kw_defaults, strict=True) if default is None}
    if any(default is None and name not in required_keywords for name, default in keywords_new.items()):
        return False
    return not (old.vararg and not new.vararg) and not (old.kwarg and not new.kwarg)


def _positional(arguments: ast.arguments) -> list[str]:
    return [argument.arg for argument in [*arguments.posonlyargs, *arguments.args]]
