"""Augmentation: what it does to a batch, and how often."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guided_evolution.nn import augment
from guided_evolution.nn.augment import Augmentation

MANY = 4000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_flip_mirrors_the_given_share_of_the_images() -> None:
    images = torch.rand(1, 3, 4, 6).expand(MANY, 3, 4, 6)
    flipped = augment.flip(images, 0.3, generator())
    mirrored = (flipped == images.flip(3)).flatten(1).all(dim=1)
    same = (flipped == images).flatten(1).all(dim=1)
    assert (mirrored ^ same).all()
    assert abs(mirrored.double().mean() - 0.3) < 0.03


def test_translation_is_uniform_over_whole_pixels_and_black_outside() -> None:
    images = torch.zeros(MANY, 1, 20, 20)
    images[:, :, 10, 10] = 1
    moved = augment.translate(images, 0.1, 1.0, generator())
    assert (moved.sum(dim=(1, 2, 3)) == 1).all()
    _, _, rows, columns = torch.nonzero(moved, as_tuple=True)
    counts = torch.bincount((rows - 8) * 5 + columns - 8, minlength=25)
    assert len(counts) == 25
    assert (abs(counts - MANY / 25) < 5 * (MANY / 25) ** 0.5).all()


def test_translation_leaves_the_unchosen_images_alone() -> None:
    images = torch.rand(1, 1, 20, 20).expand(MANY, 1, 20, 20)
    same = (augment.translate(images, 0.1, 0.5, generator()) == images).flatten(1).all(dim=1)
    # One of the 25 translations moves nothing.
    assert abs(same.double().mean() - (0.5 + 0.5 / 25)) < 0.03


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.floats(0, 0.5), st.integers(0, 99))
def test_translation_is_a_shift_of_the_padded_image(
    channels: int, height: int, width: int, share: float, seed: int
) -> None:
    images = torch.rand(3, channels, height, width)
    down, across = round(share * height), round(share * width)
    moved = augment.translate(images, share, 1.0, generator(seed))
    padded = torch.nn.functional.pad(images, (across, across, down, down))
    for before, after in zip(padded, moved, strict=True):
        windows = (before[:, y : y + height, x : x + width] for y in range(2 * down + 1) for x in range(2 * across + 1))
        assert any(torch.equal(window, after) for window in windows)


def test_jitter_scales_brightness_uniformly() -> None:
    images = torch.full((MANY, 3, 2, 2), 0.5)
    ratio = (augment.jitter(images, 0.2, 1.0, generator()) / 0.5)[:, 0, 0, 0]
    assert ratio.min() >= 0.8 - 1e-6 and ratio.max() <= 1.2 + 1e-6
    quarters = torch.histc(ratio, bins=4, min=0.8, max=1.2) / MANY
    assert (abs(quarters - 0.25) < 0.03).all()


def test_jitter_draws_the_three_factors_apart_and_uniformly() -> None:
    image = torch.tensor([[0.6, 0.5, 0.4], [0.3, 0.3, 0.3]]).T.reshape(1, 3, 1, 2)
    jittered = augment.jitter(image.expand(MANY, 3, 1, 2), 0.2, 1.0, generator())
    luma = torch.tensor(augment.LUMA)

    def grey_and_colour(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.einsum("nchw,c->nw", images, luma), images[:, 0, 0, 0] - images[:, 2, 0, 0]

    (grey_before, colour_before), (grey, colour) = grey_and_colour(image), grey_and_colour(jittered)
    brightness = grey.mean(dim=1) / grey_before.mean()
    contrast = (grey[:, 0] - grey[:, 1]) / (grey_before[0, 0] - grey_before[0, 1]) / brightness
    saturation = colour / colour_before / brightness / contrast
    factors = torch.stack([brightness, contrast, saturation])
    assert factors.min() > 0.8 - 1e-4 and factors.max() < 1.2 + 1e-4
    for factor in factors:
        quarters = torch.histc(factor, bins=4, min=0.8 - 1e-4, max=1.2 + 1e-4) / MANY
        assert (abs(quarters - 0.25) < 0.03).all()
    assert (abs(torch.corrcoef(factors) - torch.eye(3)) < 0.06).all()


def test_jitter_touches_the_given_share_and_stays_in_range() -> None:
    images = torch.rand(MANY, 3, 2, 2)
    jittered = augment.jitter(images, 0.5, 0.25, generator())
    changed = (abs(jittered - images) > 1e-5).flatten(1).any(dim=1)
    assert abs(changed.double().mean() - 0.25) < 0.03
    assert jittered.min() >= 0 and jittered.max() <= 1


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_augmentation_keeps_shapes_and_repeats_with_its_seed(channels: int) -> None:
    images = torch.rand(8, channels, 16, 16)
    once = Augmentation()(images, generator(3))
    assert once.shape == images.shape
    assert torch.equal(once, Augmentation()(images, generator(3)))
    assert not torch.equal(once, Augmentation()(images, generator(4)))


@pytest.mark.parametrize("off", [Augmentation(0, 0, 1, 0, 1), Augmentation(0, 0.5, 0, 0.5, 0)])
def test_augmentation_can_be_turned_off(off: Augmentation) -> None:
    images = torch.rand(8, 3, 16, 16)
    assert torch.allclose(off(images, generator()), images, atol=1e-6)
