"""Data sets: found where they are said to be, decoded once, split in a fixed and stratified way."""

import gzip
import io
from collections import Counter
from pathlib import Path

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from guided_evolution.errors import ProblemError
from guided_evolution.nn import data
from guided_evolution.nn.data import Dataset


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv("GUIDED_EVOLUTION_CACHE", str(cache))
    monkeypatch.delenv("GUIDED_EVOLUTION_DATA", raising=False)
    return cache


def encoded(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write_parquet(file: Path, pixels: np.ndarray, labels: list[int], column: str = "img") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": encoded(image), "path": f"{i}.png"} for i, image in enumerate(pixels)]
    parquet.write_table(pa.table({column: images, "label": labels}), file)


def random_pixels(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)


def write_idx(file: Path, array: np.ndarray) -> None:
    header = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes()
    content = header + array.tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


def test_digits_are_scaled_to_a_byte_and_held_out_by_class() -> None:
    train, test = data.load_train("digits"), data.load_test("digits")
    assert len(train) + len(test) == 1797
    assert train.images.shape[1:] == (1, 8, 8)
    assert train.images.dtype == torch.uint8 and train.labels.dtype == torch.int64
    assert train.images.max() == 255
    shares = [Counter(part.labels.tolist()) for part in (train, test)]
    for label in range(10):
        assert shares[1][label] == int(0.2 * (shares[0][label] + shares[1][label]))


def test_digits_training_and_test_are_what_scikit_learn_has() -> None:
    from sklearn.datasets import load_digits

    parts = [data.load_train("digits"), data.load_test("digits")]
    ours = sorted(image.flatten().tolist() for part in parts for image in part.images)
    theirs = sorted(np.rint(image * 255 / 16).astype(int).tolist() for image in load_digits().data)
    assert ours == theirs


def test_parquet_gives_the_pixels_that_were_encoded(tmp_path: Path) -> None:
    pixels = random_pixels(6, 32, 32, 3)
    write_parquet(tmp_path / "d/cifar10/train.parquet", pixels, [0, 1, 2, 3, 4, 5])
    loaded = data.load_train("cifar10", tmp_path / "d")
    assert torch.equal(loaded.images, torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert loaded.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert loaded.classes[3] == "cat"


def test_parquet_shards_as_the_hub_names_them_are_joined_in_order(tmp_path: Path) -> None:
    pixels = random_pixels(5, 28, 28)
    folder = tmp_path / "d/fashion_mnist/fashion_mnist"
    write_parquet(folder / "train-00000-of-00002.parquet", pixels[:2], [7, 8], "image")
    write_parquet(folder / "train-00001-of-00002.parquet", pixels[2:], [1, 2, 3], "image")
    loaded = data.load_train("fashion_mnist", tmp_path / "d")
    assert torch.equal(loaded.images[:, 0], torch.from_numpy(pixels))
    assert loaded.labels.tolist() == [7, 8, 1, 2, 3]


def test_parquet_without_the_columns_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "cifar10/train.parquet", random_pixels(1, 32, 32, 3), [0], "picture")
    with pytest.raises(ProblemError, match=r"train\.parquet needs the columns img .* has \['picture', 'label'\]"):
        data.load_train("cifar10", tmp_path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_read_gzipped_or_not(tmp_path: Path, suffix: str) -> None:
    pixels, labels = random_pixels(7, 28, 28), np.arange(7, dtype=np.uint8)
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"fashion_mnist/{part}-images-idx3-ubyte{suffix}", pixels)
        write_idx(tmp_path / f"fashion_mnist/{part}-labels-idx1-ubyte{suffix}", labels)
    for load in (data.load_train, data.load_test):
        loaded = load("fashion_mnist", tmp_path)
        assert torch.equal(loaded.images[:, 0], torch.from_numpy(pixels))
        assert loaded.labels.tolist() == list(range(7))


def test_something_else_than_idx_is_refused(tmp_path: Path) -> None:
    for kind in ("images-idx3", "labels-idx1"):
        (tmp_path / "fashion_mnist").mkdir(exist_ok=True)
        (tmp_path / f"fashion_mnist/train-{kind}-ubyte").write_bytes(b"<html>")
    with pytest.raises(ProblemError, match="not an IDX file"):
        data.load_train("fashion_mnist", tmp_path)


def test_fault_02_training_data_never_needs_the_test_file_and_back(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a/cifar10/train.parquet", random_pixels(3, 32, 32, 3), [0, 1, 2])
    (tmp_path / "a/cifar10/test.parquet").write_bytes(b"whoever opens this fails")
    assert len(data.load_train("cifar10", tmp_path / "a")) == 3
    write_parquet(tmp_path / "b/cifar10/test.parquet", random_pixels(2, 32, 32, 3), [0, 1])
    (tmp_path / "b/cifar10/train.parquet").write_bytes(b"whoever opens this fails")
    assert len(data.load_test("cifar10", tmp_path / "b")) == 2


def test_fault_16_images_stay_32_pixels_and_no_file_per_sample(tmp_path: Path, own_cache: Path) -> None:
    write_parquet(tmp_path / "cifar10/train.parquet", random_pixels(50, 32, 32, 3), [i % 10 for i in range(50)])
    assert data.load_train("cifar10", tmp_path).images.shape == (50, 3, 32, 32)
    files = [file for file in own_cache.rglob("*") if file.is_file()]
    assert sorted(file.name.rpartition("-")[2] for file in files) == ["images.npy", "labels.npy"]


def test_second_load_reads_the_cache_and_not_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "cifar10/train.parquet", random_pixels(4, 32, 32, 3), [3, 2, 1, 0])
    first = data.load_train("cifar10", tmp_path)
    monkeypatch.setattr(parquet, "read_table", lambda *_: pytest.fail("decoded twice"))
    second = data.load_train("cifar10", tmp_path)
    assert torch.equal(first.images, second.images) and torch.equal(first.labels, second.labels)


def test_changed_files_are_decoded_anew(tmp_path: Path) -> None:
    file = tmp_path / "cifar10/train.parquet"
    write_parquet(file, random_pixels(4, 32, 32, 3), [3, 2, 1, 0])
    data.load_train("cifar10", tmp_path)
    write_parquet(file, random_pixels(5, 32, 32, 3), [3, 2, 1, 0, 9])
    assert data.load_train("cifar10", tmp_path).labels.tolist() == [3, 2, 1, 0, 9]


def test_changing_a_loaded_tensor_leaves_the_cache_as_it_was(tmp_path: Path) -> None:
    write_parquet(tmp_path / "cifar10/train.parquet", random_pixels(4, 32, 32, 3), [3, 2, 1, 0])
    data.load_train("cifar10", tmp_path)
    data.load_train("cifar10", tmp_path).labels.zero_()
    assert data.load_train("cifar10", tmp_path).labels.tolist() == [3, 2, 1, 0]


def test_torn_cache_is_written_again(tmp_path: Path, own_cache: Path) -> None:
    write_parquet(tmp_path / "cifar10/train.parquet", random_pixels(4, 32, 32, 3), [3, 2, 1, 0])
    first = data.load_train("cifar10", tmp_path)
    for file in own_cache.rglob("*.npy"):
        file.write_bytes(file.read_bytes()[:90])
    assert torch.equal(data.load_train("cifar10", tmp_path).images, first.images)
    assert all(file.stat().st_size > 90 for file in own_cache.rglob("*.npy"))


def test_cache_that_cannot_be_written_is_done_without(tmp_path: Path, own_cache: Path) -> None:
    own_cache.write_text("a file where the folder should be")
    write_parquet(tmp_path / "cifar10/train.parquet", random_pixels(4, 32, 32, 3), [3, 2, 1, 0])
    assert len(data.load_train("cifar10", tmp_path)) == 4


def test_full_disk_leaves_no_half_file(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(data.np, "save", no_space)
    write_parquet(tmp_path / "cifar10/train.parquet", random_pixels(4, 32, 32, 3), [3, 2, 1, 0])
    assert len(data.load_train("cifar10", tmp_path)) == 4
    assert not [file for file in own_cache.rglob("*") if file.is_file()]


def test_folder_is_taken_from_the_environment_then_the_cache(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(own_cache / "cifar10/train.parquet", random_pixels(1, 32, 32, 3), [9])
    write_parquet(tmp_path / "there/cifar10/train.parquet", random_pixels(2, 32, 32, 3), [4, 5])
    assert data.load_train("cifar10").labels.tolist() == [9]
    monkeypatch.setenv("GUIDED_EVOLUTION_DATA", str(tmp_path / "there"))
    assert data.load_train("cifar10").labels.tolist() == [4, 5]


def test_hub_is_the_last_resort(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repo: str, file: str, *, repo_type: str, local_dir: Path) -> str:
        asked.append((repo, file, repo_type))
        write_parquet(local_dir / file, random_pixels(2, 32, 32, 3), [4, 5])
        return str(local_dir / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert data.load_test("cifar10", tmp_path).labels.tolist() == [4, 5]
    assert data.load_test("cifar10", tmp_path).labels.tolist() == [4, 5]
    assert asked == [("uoft-cs/cifar10", "plain_text/test-00000-of-00001.parquet", "dataset")]


def test_unreachable_hub_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(ProblemError, match=r"put train\.parquet .* GUIDED_EVOLUTION_DATA"):
        data.load_train("cifar10", tmp_path)


def test_unknown_data_set_names_the_known_ones() -> None:
    with pytest.raises(ProblemError, match="'mnist': there are digits, cifar10, fashion_mnist"):
        data.load_train("mnist")


def numbered(labels: list[int]) -> Dataset:
    """A data set whose images carry their own row number."""
    rows = torch.arange(len(labels), dtype=torch.int32).view(torch.uint8).view(-1, 1, 2, 2)
    return Dataset(rows, torch.tensor(labels, dtype=torch.int64), tuple("0123456789"))


def rows_of(part: Dataset) -> list[int]:
    return part.images.reshape(-1, 4).contiguous().view(torch.int32).flatten().tolist()


labels = st.lists(st.integers(0, 9), min_size=1, max_size=120)


@settings(max_examples=40, deadline=None)
@given(labels, st.floats(0, 1), st.integers(0, 5))
def test_split_keeps_every_row_once_and_every_class_in_proportion(labels: list[int], share: float, seed: int) -> None:
    train, validation = numbered(labels).split(share, seed)
    assert sorted(rows_of(train) + rows_of(validation)) == list(range(len(labels)))
    assert rows_of(train) == sorted(rows_of(train))
    counts = Counter(labels)
    held = Counter(validation.labels.tolist())
    assert all(held[label] == int(share * counts[label]) for label in counts)
    for part in (train, validation):
        assert [labels[row] for row in rows_of(part)] == part.labels.tolist()


@settings(max_examples=40, deadline=None)
@given(labels, st.integers(1, 150))
def test_subset_keeps_classes_in_proportion(labels: list[int], size: int) -> None:
    whole = numbered(labels)
    part = whole.subset(size)
    if size >= len(labels):
        assert part is whole
        return
    counts, kept = Counter(labels), Counter(part.labels.tolist())
    assert all(abs(kept[label] - max(1, size * counts[label] / len(labels))) <= 0.5 for label in counts)
    assert len(set(rows_of(part))) == len(part)


def test_split_is_the_same_each_time_and_another_with_another_seed() -> None:
    whole = numbered([i % 3 for i in range(90)])
    torch.manual_seed(1)
    first = rows_of(whole.split().validation)
    torch.manual_seed(2)
    assert rows_of(whole.split().validation) == first
    assert rows_of(whole.split(seed=11).validation) != first
