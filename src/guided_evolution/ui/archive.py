"""An evolved program as one file to download: what `ge export` writes, zipped."""

from __future__ import annotations

import io
import re
import tempfile
import time
import zipfile
from pathlib import Path

from guided_evolution.export import export_individual
from guided_evolution.run import Run


def zipped(run: Run, number: int) -> bytes:
    """The program's files and its PROVENANCE.md in a folder of their own.

    Raises:
        RunError: When there is no such individual, or it was rejected and has no program.
    """
    stem = archive_stem(run, number)
    moment = max(time.localtime(run.created)[:6], (1980, 1, 1, 0, 0, 0))
    content = io.BytesIO()
    with tempfile.TemporaryDirectory(prefix="ge-export-") as place:
        written = export_individual(run, number, Path(place) / stem)
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(written):
                entry = zipfile.ZipInfo(path.relative_to(place).as_posix(), moment)
                archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return content.getvalue()


def archive_stem(run: Run, number: int) -> str:
    """A name for the archive that every file system and header takes."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", run.folder.name).strip("-.") or "run"
    return f"{name}-{number}"
