"""Long lists in pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
SIZE = 50


@dataclass(frozen=True)
class Paging(Generic[T]):
    """One page of a list.

    Attributes:
        items: What is on it.
        page: Its number, from 1; a number beyond the ends gives the nearest page.
        pages: How many there are, at least 1.
        total: How many items the whole list has.
        first, last: The places of its items in the list, from 1; both 0 for an empty list.
    """

    items: Sequence[T]
    page: int
    pages: int
    total: int
    first: int
    last: int

    @classmethod
    def of(cls, items: Sequence[T], page: int, size: int = SIZE) -> Paging[T]:
        """Cuts one page out of a list."""
        pages = max(1, -(-len(items) // size))
        page = min(max(1, page), pages)
        start = (page - 1) * size
        shown = items[start : start + size]
        return cls(shown, page, pages, len(items), start + 1 if shown else 0, start + len(shown))
