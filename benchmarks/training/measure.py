"""How fast each recipe trains the CIFAR-10 seed, in what memory, and whether a GPU's data path gives what a CPU's does.

    python benchmarks/training/measure.py [--device cpu|cuda] [--recipes fast full paper] [--batches N] [--batch N]
        [--json FILE]
    python benchmarks/training/measure.py --train full|paper [--images N] [--epochs N] [--seed N] [--json FILE]

Speeds are of the recipe's own training step and of prediction, on images of noise: their content changes nothing. With
--train the seed is trained on CIFAR-10 and measured on validation and test images, beside the published accuracy; how
long that takes is estimated first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from guided_evolution.nn import augment, data, loading, recipes
from guided_evolution.nn.data import Dataset, TrainValidation
from guided_evolution.nn.recipes import Recipe

SEED = Path(__file__).parents[2] / "examples" / "cifar10" / "seed.py"
NAME, CLASSES, TRAIN = "cifar10", 10, 40_000
# images per batch of `recipes.predict`
PREDICTED = 500
PUBLISHED = 0.9252
# the smallest number of epochs after which the plateau rule can stop: one, and thirteen cuts of five each
PLATEAU_FLOOR = 66
# float32 sums differ by rounding between devices; a byte's step is 1/255
TOLERANCE = 1e-4


def built(device: str, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The seed network with weights drawn from a seed, and its optimizer."""
    module = loading.load_program(str(SEED))
    torch.manual_seed(seed)
    model = loading.require(module, "ExquisiteNetV2")(CLASSES, 3).to(device)
    return model, loading.require(module, "make_optimizer")(model)


def noise(count: int) -> Dataset:
    """Images of noise with as many of each class as there can be."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Dataset(images, torch.arange(count) % CLASSES, tuple("0123456789"))


def timed(work: Callable[[], object], device: str) -> float:
    """Seconds that some work takes, to its end on the device."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_mb(device: str) -> float:
    """The most memory held so far, in MiB: of the device, or of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / (2**20 if sys.platform == "darwin" else 2**10)


def speed(recipe: Recipe, device: str, batches: int, batch: int | None) -> dict[str, Any]:
    """Images per second of a recipe, in training and in prediction: medians, the first two batches left out."""
    recipe = replace(recipe, batch=batch or recipe.batch, epochs=batches + 2)
    size, predicted = recipe.batch, batch or PREDICTED
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model, optimizer = built(device)
    # an epoch is one batch; the two validation images that `train` insists on weigh nothing
    split = TrainValidation(noise(size), noise(2))
    epochs = list(recipes.train(model, optimizer, split, recipe, seed=0, device=device))[: batches + 2]
    training = [epoch.seconds for epoch in epochs[2:]]
    images = noise(predicted).to(device)
    predicting = [timed(lambda: recipes.predict(model, images, recipe), device) for _ in range(min(batches, 3) + 1)][1:]
    return {
        "recipe": recipe.name,
        "batch": size,
        "batches": batches,
        "train_images_per_second": size / statistics.median(training),
        "train_spread": [size / max(training), size / min(training)],
        "predict_images_per_second": predicted / statistics.median(predicting),
        "peak_mb": peak_mb(device),
    }


def epoch_seconds(measured: dict[str, Any], train: int, validation: int) -> float:
    """Seconds of one epoch at the measured speeds."""
    return train / measured["train_images_per_second"] + validation / measured["predict_images_per_second"]


def least_epochs(recipe: Recipe) -> int:
    """How many epochs a training has: all of them, or the fewest after which its plateau rule can stop."""
    return min(recipe.epochs, PLATEAU_FLOOR) if recipe.schedule == "plateau" else recipe.epochs


class Drawn:
    """A generator's place in the augmentation, filled with values that were drawn once, on the CPU."""

    def __init__(self, count: int, height: int, width: int, share: float) -> None:
        generator = torch.Generator().manual_seed(1)
        self.uniform = [torch.rand(count, generator=generator) for _ in range(6)]
        largest = [round(share * size) for size in (height, width)]
        self.offsets = [torch.randint(-each, each + 1, (count,), generator=generator) for each in largest]

    def augmented(self, recipe: Recipe, images: Tensor) -> Tensor:
        """The recipe's own augmentation of a batch, with these values in place of fresh draws."""
        uniform, offsets = iter(self.uniform), iter(self.offsets)
        kept = augment._uniform, augment._offsets
        augment._uniform = lambda batch, generator: next(uniform).to(batch.device)
        augment._offsets = lambda batch, largest, generator: next(offsets).to(batch.device)
        try:
            return recipe.augmentation(recipe.prepare(images), torch.Generator(images.device))
        finally:
            augment._uniform, augment._offsets = kept


def same_path(recipe: Recipe, count: int = 16) -> dict[str, Any]:
    """Prepares and augments one batch on the CPU and on CUDA with the same drawn values, and compares the two."""
    images = noise(count).images
    size = recipe.image_size or images.shape[-1]
    drawn = Drawn(count, size, size, recipe.augmentation.shift)
    here = drawn.augmented(recipe, images)
    if not torch.cuda.is_available():
        # what can be checked without: that the same values give the same batch, and that they change it
        assert torch.equal(here, drawn.augmented(recipe, images))
        assert not torch.equal(here, recipe.prepare(images))
        return {
            "recipe": recipe.name,
            "checked": False,
            "reason": "no CUDA device: the GPU's data path was not checked",
        }
    there = drawn.augmented(recipe, images.to("cuda")).cpu()
    gap = (here - there).abs().max().item()
    return {"recipe": recipe.name, "checked": True, "largest_difference": gap, "same": gap <= TOLERANCE}


def trained(recipe: Recipe, device: str, seed: int) -> dict[str, Any]:
    """Trains the seed with a recipe on CIFAR-10; accuracies on validation and test images."""
    split = recipe.select(data.load_train(NAME))
    print(f"{len(split.train):,} training and {len(split.validation):,} validation images on {device}", flush=True)
    measured = speed(recipe, device, batches=3, batch=None)
    once = epoch_seconds(measured, len(split.train), len(split.validation))
    epochs = least_epochs(recipe)
    more = " at least" if recipe.schedule == "plateau" else ""
    print(f"estimated{more}: {epochs} epochs of {once:,.0f} s, {epochs * once / 3600:.2f} h", flush=True)
    model, optimizer = built(device, seed)
    start = time.perf_counter()
    for epoch in recipes.train(model, optimizer, split, recipe, seed=seed, device=device):
        print(f"epoch {epoch.number}: validation {epoch.accuracy:.2%}, {epoch.seconds:.1f} s", flush=True)
    seconds = time.perf_counter() - start
    test = data.load_test(NAME).to(device)
    return {
        "recipe": asdict(recipe),
        "seed": seed,
        "train_images": len(split.train),
        "validation_images": len(split.validation),
        "test_images": len(test),
        "estimated_seconds": epochs * once,
        "seconds": seconds,
        "validation_accuracy": epoch.accuracy,
        "test_accuracy": recipes.evaluate_accuracy(model, test, recipe),
        "published_test_accuracy": PUBLISHED,
        "reduced": len(split.train) < TRAIN or recipe.epochs < recipes.named(recipe.name).epochs,
    }


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def table(speeds: list[dict[str, Any]]) -> str:
    """The speeds as Markdown."""
    lines = [
        "| recipe | batch | training, images/s (slowest to fastest batch) | prediction, images/s | peak MiB |",
        "|---|---|---|---|---|",
    ]
    for each in speeds:
        low, high = each["train_spread"]
        rate = f"{each['train_images_per_second']:,.1f} ({low:,.1f} to {high:,.1f})"
        lines.append(
            f"| `{each['recipe']}` | {each['batch']} | {rate} | {each['predict_images_per_second']:,.1f} "
            f"| {each['peak_mb']:,.0f} |"
        )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--recipes", nargs="+", choices=list(recipes.RECIPES), default=list(recipes.RECIPES))
    parser.add_argument("--batches", type=int, default=20, help="timed, after two that are not")
    parser.add_argument("--batch", type=int, help="images per batch in place of the recipe's; labelled so")
    parser.add_argument("--train", choices=["full", "paper"])
    parser.add_argument("--images", type=int, help="with --train: a subset of as many training and validation images")
    parser.add_argument("--epochs", type=int, help="with --train: at most as many epochs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    torch.set_num_threads(chosen.threads)
    document: dict[str, Any] = {"machine": machine(chosen.device)}
    if chosen.train:
        recipe = recipes.named(chosen.train)
        if chosen.images:
            recipe = replace(recipe, images=chosen.images, validation_images=chosen.images)
        document["trained"] = trained(
            replace(recipe, epochs=chosen.epochs or recipe.epochs), chosen.device, chosen.seed
        )
        result = document["trained"]
        print(
            f"validation {result['validation_accuracy']:.2%}, test {result['test_accuracy']:.2%}; "
            f"published test accuracy {PUBLISHED:.2%}{' (a reduced training)' if result['reduced'] else ''}"
        )
    else:
        named = [recipes.named(name) for name in chosen.recipes]
        document["speeds"] = [speed(each, chosen.device, chosen.batches, chosen.batch) for each in named]
        document["paths"] = [same_path(each) for each in named]
        print(table(document["speeds"]))
        for path in document["paths"]:
            print(
                f"{path['recipe']}: "
                + (path.get("reason") or f"GPU and CPU differ by {path['largest_difference']:.1e}")
            )
    if chosen.json:
        chosen.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if any(not path.get("same", True) for path in document.get("paths", [])):
        sys.exit("the GPU's data path does not give what the CPU's does")


if __name__ == "__main__":
    main()
