"""Augmentation of whole batches on the device that holds them; nothing is done image by image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey value of a pixel (ITU-R BT.601)."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What may happen to a training image, in this order: flip, colour jitter, translation.

    Attributes:
        flip: Probability of a horizontal flip.
        jitter: Brightness, contrast and saturation are each scaled by a factor in 1 ± jitter.
        jitter_probability: Share of the images that get it.
        shift: Largest translation, as a share of width and height.
        shift_probability: Share of the images that get it.
    """

    flip: float = 0.5
    jitter: float = 0.05
    jitter_probability: float = 0.5
    shift: float = 0.05
    shift_probability: float = 0.5

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augments float images in [0, 1], N x C x H x W, with a generator of the same device."""
        images = flip(images, self.flip, generator)
        images = jitter(images, self.jitter, self.jitter_probability, generator)
        return translate(images, self.shift, self.shift_probability, generator)


def flip(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Mirrors each image left to right with the given probability; N x C x H x W in and out."""
    chosen = _chosen(images, probability, generator)
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


def translate(images: Tensor, share: float, probability: float, generator: torch.Generator) -> Tensor:
    """Moves each chosen image by whole pixels, uniform within ± share of its width and height.

    What comes in from outside is black (0). N x C x H x W in and out; the result is channels-last in memory.
    """
    count, _, height, width = images.shape
    chosen = _chosen(images, probability, generator)
    down, across = (_offsets(images, round(share * size), generator) * chosen for size in (height, width))
    rows = torch.arange(height, device=images.device) - down[:, None]
    columns = torch.arange(width, device=images.device) - across[:, None]
    inside = _within(rows, height)[:, :, None] & _within(columns, width)[:, None, :]
    index = torch.arange(count, device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[
        index, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]
    ]
    return (moved * inside[..., None]).permute(0, 3, 1, 2)


def jitter(images: Tensor, amount: float, probability: float, generator: torch.Generator) -> Tensor:
    """Scales brightness, then contrast, then saturation of each chosen image, each by a factor in 1 ± amount.

    Contrast is the distance from the image's mean grey value, saturation the distance of a pixel from its own
    grey value; images of other than 3 channels have no saturation. Values stay in [0, 1]. N x C x H x W in
    and out.
    """
    chosen = _chosen(images, probability, generator)[:, None, None, None]
    brightness, contrast, saturation = (
        torch.where(chosen, 1 + amount * (2 * _uniform(images, generator)[:, None, None, None] - 1), 1.0)
        for _ in range(3)
    )
    images = (images * brightness).clamp(0, 1)
    mean = _grey(images).mean(dim=(2, 3), keepdim=True)
    images = (mean + (images - mean) * contrast).clamp(0, 1)
    if images.shape[1] != len(LUMA):
        return images
    grey = _grey(images)
    return (grey + (images - grey) * saturation).clamp(0, 1)


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] != len(LUMA):
        return images.mean(dim=1, keepdim=True)
    weights = images.new_tensor(LUMA)[None, :, None, None]
    return (images * weights).sum(dim=1, keepdim=True)


def _uniform(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(len(images), device=images.device, generator=generator)


def _chosen(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    return _uniform(images, generator) < probability


def _offsets(images: Tensor, largest: int, generator: torch.Generator) -> Tensor:
    return torch.randint(-largest, largest + 1, (len(images),), device=images.device, generator=generator)


def _within(positions: Tensor, size: int) -> Tensor:
    return (positions >= 0) & (positions < size)
