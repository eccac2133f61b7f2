"""The runs below one folder: found by listing it, never by a name in a request, and kept open between pages."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guided_evolution.errors import GuidedEvolutionError, RunError
from guided_evolution.run import list_runs, open_run
from guided_evolution.store import FILE
from guided_evolution.ui.border import border
from guided_evolution.ui.reading import Reading, row_of

OPEN = 8  # runs kept in memory; ten thousand individuals take some 60 MB


class NoSuchRunError(RunError):
    """Raised when a name isn't that of a run below the folder (any more)."""


@dataclass
class _Kept:
    """One run between requests: its reading, and what tells whether that is still true."""

    reading: Reading
    file: tuple[int, int]
    seen: int
    lock: threading.Lock = field(default_factory=threading.Lock)


class Library:
    """Finds the runs below a folder and reads them; a run that changed is read again.

    Attributes:
        folder: Where runs are looked for; a run's own folder serves that run alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._rows: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._nonce = secrets.token_hex(4)
        self._count = itertools.count(1)

    def paths(self) -> dict[str, Path]:
        """The name and folder of each run, newest first; links that lead out of the folder are left out."""
        if (self.folder / FILE).is_file():
            return {self.folder.name: self.folder}
        root = self.folder.resolve()
        return {path.name: path for path in list_runs(self.folder) if (path / FILE).resolve().is_relative_to(root)}

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[Reading]:
        """A run as it is now, for one request at a time.

        Raises:
            NoSuchRunError: When there is no such run below the folder.
            RunError: When its record can't be read.
        """
        kept = self._open(name)
        with kept.lock:
            if kept.reading.run.revision != kept.seen:
                self._renew(name, kept)
            yield kept.reading

    def rows(self, names: list[str]) -> list[dict[str, Any]]:
        """What the list of runs shows of each; a run that can't be read gives its name and the reason."""
        return [self._row(name) for name in names]

    def close(self) -> None:
        """Closes every record."""
        with self._lock:
            for kept in self._kept.values():
                kept.reading.run.close()
            self._kept.clear()

    def _row(self, name: str) -> dict[str, Any]:
        try:
            stamp = _stamp(self._path(name))
            known = self._rows.get(name)
            if known is not None and known[0] == stamp and known[1]["status"] != "running":
                return known[1]
            # one damaged record must not hide the rest
            with border(), self.reading(name) as reading:
                row = row_of(reading)
        except GuidedEvolutionError as error:
            return {"name": name, "error": str(error)}
        self._rows[name] = (stamp, row)
        return row

    def _path(self, name: str) -> Path:
        path = self.paths().get(name)
        if path is None:
            raise NoSuchRunError(f"There is no run {name} in {self.folder}; it may have been moved or removed.")
        return path

    def _open(self, name: str) -> _Kept:
        path = self._path(name)
        file = _identity(path)
        with self._lock:
            kept = self._kept.get(name)
            if kept is None or kept.file != file:
                run = open_run(path)
                kept = _Kept(Reading(name, run, self._revision()), file, run.revision)
                self._kept[name] = kept
            self._kept.move_to_end(name)
            if len(self._kept) > OPEN:
                self._kept.popitem(last=False)  # closed with its last reference: a request may still be reading it
        return kept

    def _renew(self, name: str, kept: _Kept) -> None:
        kept.seen = kept.reading.run.revision
        kept.reading = Reading(name, kept.reading.run.fresh(), self._revision())

    def _revision(self) -> str:
        return f"{self._nonce}-{next(self._count)}"


def _identity(path: Path) -> tuple[int, int]:
    try:
        stat = (path / FILE).stat()
    except OSError as error:
        raise RunError(f"{path}: can't be read: {error.strerror}") from None
    return stat.st_dev, stat.st_ino


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes whenever a record does: for runs that nobody is looking at, and that are not kept open."""
    values: list[int] = []
    for file in (path / FILE, path / f"{FILE}-wal", path / "lock"):
        with contextlib.suppress(OSError):
            stat = file.stat()
            values += (stat.st_ino, stat.st_mtime_ns, stat.st_size)
    return tuple(values)
