"""Image data sets as one tensor: found on this machine or on the Hub, decoded once, kept as uint8.

Training and held-out images are loaded by different functions, and neither opens the other's file.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guided_evolution.errors import ProblemError
from guided_evolution.locations import cache_folder, data_folder

Part = Literal["train", "test"]
Arrays = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images and their labels.

    Attributes:
        images: uint8, N x C x H x W.
        labels: int64, N, each from 0 to the number of classes - 1.
        classes: The classes' names, in the order of the labels.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Dataset:
        """Returns the same data on a device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def take(self, rows: Sequence[int]) -> Dataset:
        """Returns the rows with these numbers, in this order."""
        index = torch.as_tensor(rows, dtype=torch.int64, device=self.labels.device)
        return replace(self, images=self.images[index], labels=self.labels[index])

    def split(self, validation: float = 0.2, seed: int = 10) -> TrainValidation:
        """Cuts off a stratified validation set.

        The rule is the published one, with row numbers in place of sorted file names: the rows of each class
        are shuffled by one Python generator, and the first ⌊validation · n⌋ go to validation. The seed is
        fixed and has nothing to do with a run's seed, so every candidate of every run sees the same split.
        Rows keep their order.

        Args:
            validation: Share of each class, from 0 to 1.
            seed: Of the shuffle.
        """
        held: list[int] = []
        kept: list[int] = []
        for rows in self._shuffled_classes(seed):
            cut = int(validation * len(rows))
            held += rows[:cut]
            kept += rows[cut:]
        return TrainValidation(self.take(sorted(kept)), self.take(sorted(held)))

    def subset(self, size: int | None, seed: int = 10) -> Dataset:
        """Returns a stratified subset of about `size` images; all of them when size is None or larger.

        Each class gives its share of `size`, rounded, and at least one image. Rows keep their order.
        """
        if size is None or size >= len(self):
            return self
        rows: list[int] = []
        for candidates in self._shuffled_classes(seed):
            rows += candidates[: max(1, round(size * len(candidates) / len(self)))]
        return self.take(sorted(rows))

    def _shuffled_classes(self, seed: int) -> list[list[int]]:
        generator = random.Random(seed)
        classes = []
        for label in range(int(self.labels.max()) + 1 if len(self) else 0):
            rows = torch.nonzero(self.labels == label).flatten().tolist()
            generator.shuffle(rows)
            classes.append(rows)
        return classes


class TrainValidation(NamedTuple):
    """What a candidate is trained on, and what it is scored on."""

    train: Dataset
    validation: Dataset


def load_train(name: str, data: Path | str | None = None) -> Dataset:
    """Loads the training images of "digits", "cifar10" or "fashion_mnist"; never opens the held-out ones.

    They are looked for in the folder `name` of `data` (or of the folder that GUIDED_EVOLUTION_DATA names),
    then of the user's cache, then where Debian's package dataset-fashion-mnist puts them, then on the Hugging
    Face Hub. Decoded arrays are kept in the cache and mapped into memory the next time; a cache that can't be
    written is done without.

    Raises:
        ProblemError: If the data set is unknown, or is nowhere to be found.
    """
    return _load(name, "train", data)


def load_test(name: str, data: Path | str | None = None) -> Dataset:
    """Loads the held-out images, found as `load_train` says; never opens the training ones.

    Raises:
        ProblemError: If the data set is unknown, or is nowhere to be found.
    """
    return _load(name, "test", data)


@dataclass(frozen=True, slots=True)
class _Source:
    """A data set's classes, its Hub repository and folder there, and where a system package puts it."""

    classes: tuple[str, ...]
    hub: str = ""
    hub_folder: str = ""
    system: Path | None = None


_SOURCES = {
    "digits": _Source(tuple("0123456789")),
    "cifar10": _Source(
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        "uoft-cs/cifar10",
        "plain_text",
    ),
    "fashion_mnist": _Source(
        (
            "T-shirt",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle boot",
        ),
        "zalandoresearch/fashion_mnist",
        "fashion_mnist",
        Path("/usr/share/datasets/fashion-mnist"),
    ),
}


def fetch(name: str, data: Path | str | None = None) -> None:
    """Makes sure that both parts of a data set are on this machine, and decodes the training images.

    What scores candidates has no network, so this is for an evaluator's `prepare`. The held-out file is fetched, not
    opened.

    Raises:
        ProblemError: If the data set is unknown, or is nowhere to be found.
    """
    load_train(name, data)
    source = _SOURCES[name]
    if source.hub:
        _find(name, "test", source, data)


def _load(name: str, part: Part, data: Path | str | None) -> Dataset:
    source = _SOURCES.get(name)
    if source is None:
        raise ProblemError(f"no data set is called {name!r}: there are {', '.join(_SOURCES)}")
    files = _find(name, part, source, data) if source.hub else ()
    decode = _decoder(part, files)
    images, labels = _cached(cache_folder() / "decoded", _key(name, part, files), decode)
    return Dataset(torch.from_numpy(images), torch.from_numpy(labels), source.classes)


def _decoder(part: Part, files: Sequence[Path]) -> Callable[[], Arrays]:
    if not files:
        return lambda: _decode_digits(part)
    if files[0].suffix == ".parquet":
        return lambda: _decode_parquet(files)
    return lambda: _decode_idx(files)


def _find(name: str, part: Part, source: _Source, data: Path | str | None) -> tuple[Path, ...]:
    """Returns the files that hold one part: Parquet files, or the images and the labels as IDX."""
    root = data or data_folder()
    folders = [Path(root) / name] if root else []
    folders.append(cache_folder() / name)
    if source.system is not None:
        folders.append(source.system)
    for folder in folders:
        if files := _files_in(folder, part):
            return files
    return (_fetch(name, part, source, folders[0]),)


def _files_in(folder: Path, part: Part) -> tuple[Path, ...]:
    if parquet := sorted(folder.rglob(f"{part}*.parquet")):
        return tuple(parquet)
    prefix = "train" if part == "train" else "t10k"
    idx = [sorted(folder.glob(f"{prefix}-{kind}-ubyte*"))[:1] for kind in ("images-idx3", "labels-idx1")]
    return tuple(file for files in idx for file in files) if all(idx) else ()


def _fetch(name: str, part: Part, source: _Source, wanted: Path) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        found = hf_hub_download(
            source.hub,
            f"{source.hub_folder}/{part}-00000-of-00001.parquet",
            repo_type="dataset",
            local_dir=cache_folder() / name,
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ProblemError(
            f"{name} is not in {wanted}, and {source.hub} can't be fetched from the Hugging Face Hub: put "
            f"{part}.parquet into a folder {name} and name the folder above it in GUIDED_EVOLUTION_DATA"
        ) from error
    return Path(found)


def _decode_digits(part: Part) -> Arrays:
    """Scikit-learn's 1,797 digits of 8 x 8; a fixed stratified 20 % of them are held out."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images[:, None] * (255 / 16)).astype(np.uint8)
    whole = Dataset(torch.from_numpy(images), torch.from_numpy(bunch.target.astype(np.int64)), ())
    train, test = whole.split(validation=0.2, seed=1)
    chosen = train if part == "train" else test
    return chosen.images.numpy(), chosen.labels.numpy()


def _decode_parquet(files: Sequence[Path]) -> Arrays:
    """Reads a column of encoded images (img or image: a struct with bytes) and the column label."""
    import pyarrow as pa
    import pyarrow.parquet as parquet
    from PIL import Image

    table = pa.concat_tables([parquet.read_table(file) for file in files])
    column = next((name for name in ("img", "image") if name in table.column_names), None)
    if column is None or "label" not in table.column_names:
        raise ProblemError(f"{files[0]} needs the columns img (or image) and label, has {table.column_names}")
    images = []
    for cell in table.column(column).combine_chunks().field("bytes"):
        with Image.open(io.BytesIO(cell.as_buffer())) as image:
            images.append(np.asarray(image if image.mode == "L" else image.convert("RGB")))
    pixels = np.stack(images)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pixels), table.column("label").to_numpy().astype(np.int64)


def _decode_idx(files: Sequence[Path]) -> Arrays:
    """Reads the images and the labels in the IDX format of MNIST, gzipped or not."""
    images, labels = (_read_idx(file) for file in files)
    return images[:, None].copy(), labels.astype(np.int64)


def _read_idx(file: Path) -> NDArray[np.uint8]:
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    # Four bytes say the type (8 = unsigned byte) and the number of dimensions; each size follows, big-endian.
    if content[:3] != b"\0\0\x08":
        raise ProblemError(f"{file} is not an IDX file of unsigned bytes")
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape([int(size) for size in shape])


def _key(name: str, part: Part, files: Sequence[Path]) -> str:
    """A name that changes when the files do; not with their place, which differs inside a sandbox."""
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return f"{name}-{part}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:12]}"


def _cached(folder: Path, key: str, decode: Callable[[], Arrays]) -> Arrays:
    images, labels = folder / f"{key}-images.npy", folder / f"{key}-labels.npy"
    # Copy-on-write maps: torch wants writable memory, and nothing may change the file.
    with suppress(OSError, ValueError, EOFError):
        return np.load(images, mmap_mode="c"), np.load(labels, mmap_mode="c")
    arrays = decode()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        _write(images, arrays[0])
        _write(labels, arrays[1])
    return arrays


def _write(path: Path, array: NDArray[Any]) -> None:
    """Writes under another name first, so that nobody ever reads half a file."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            np.save(stream, array)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
