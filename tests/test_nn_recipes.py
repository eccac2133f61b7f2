"""Recipes: what the schedules do, what the loop guarantees, what the check says."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from guided_evolution.errors import ProblemError
from guided_evolution.nn import recipes
from guided_evolution.nn.augment import Augmentation
from guided_evolution.nn.data import Dataset, TrainValidation
from guided_evolution.nn.recipes import OneCycle, Plateau, Recipe

NONE = Augmentation(0, 0, 0, 0, 0)
QUICK = Recipe("quick", epochs=4, batch=16, augmentation=NONE)


def stripes(count: int, seed: int = 0) -> Dataset:
    """Two classes that a linear model tells apart: bright on the left, bright on the right."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = torch.randint(0, 100, (count, 1, 4, 4), generator=generator)
    for row, label in enumerate(labels.tolist()):
        images[row, :, :, 2 * label : 2 * label + 2] += 100
    return Dataset(images.to(torch.uint8), labels, ("left", "right"))


DATA = TrainValidation(stripes(64), stripes(40, seed=1))


class Linear(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.dropout(x.flatten(1)))


def linear(**options: float) -> Linear:
    torch.manual_seed(0)
    return Linear(**options)


def sgd(model: nn.Module, lr: float = 0.5) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def test_training_learns_and_reports_each_epoch() -> None:
    model = linear()
    epochs = list(recipes.train(model, sgd(model), DATA, QUICK, seed=1))
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4]
    assert epochs[-1].accuracy > 0.95
    assert epochs[-1].loss < epochs[0].loss
    assert epochs[-1].logits.shape == (40, 2)
    assert all(epoch.seconds > 0 for epoch in epochs)
    assert recipes.evaluate_accuracy(model, DATA.validation, QUICK) == epochs[-1].accuracy


def test_accuracy_is_the_share_of_correct_answers() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([1.0, 0.0]).expand(len(x), 2)

    data = replace(stripes(10), labels=torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 1, 1]))
    assert recipes.evaluate_accuracy(Constant(), data, QUICK) == pytest.approx(0.3)


def test_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    def trained(seed: int) -> Tensor:
        model = linear(dropout=0.3)
        list(recipes.train(model, sgd(model), DATA, replace(QUICK, augmentation=Augmentation()), seed=seed))
        return weights(model)

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_each_group_keeps_its_own_peak_and_any_optimizer_works() -> None:
    model = linear()
    optimizer = torch.optim.Adam(
        [{"params": [model.linear.weight], "lr": 0.02}, {"params": [model.linear.bias], "lr": 0.001}]
    )
    seen = []
    for _ in recipes.train(model, optimizer, DATA, replace(QUICK, epochs=8), seed=1):
        seen.append([group["lr"] for group in optimizer.param_groups])
    assert all(first == pytest.approx(20 * second) for first, second in seen)
    assert max(first for first, _ in seen) > 5 * seen[-1][0]
    assert recipes.evaluate_accuracy(model, DATA.validation, QUICK) > 0.9


def test_the_optimizers_own_rate_changes_what_is_learned() -> None:
    results = []
    for lr in (0.5, 0.25):
        model = linear()
        list(recipes.train(model, sgd(model, lr), DATA, QUICK, seed=1))
        results.append(weights(model))
    assert not torch.equal(*results)


class Watching(Linear):
    """Records the shape of each batch and the mode it came in."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[int, ...]] = []
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(tuple(x.shape))
        self.modes.append(self.training)
        return super().forward(x[:, :, :4, :4])


@pytest.mark.parametrize(("count", "expected"), [(32, [16, 16]), (33, [16, 16]), (34, [16, 16, 2])])
def test_last_batch_of_one_image_is_dropped(count: int, expected: list[int]) -> None:
    model = Watching()
    data = TrainValidation(DATA.train.take(range(count)), DATA.validation)
    list(recipes.train(model, sgd(model), data, replace(QUICK, epochs=1), seed=1))
    assert [batch[0] for batch, mode in zip(model.batches, model.modes, strict=True) if mode] == expected


def test_images_are_scaled_to_the_size_that_the_recipe_asks_for() -> None:
    model = Watching()
    list(recipes.train(model, sgd(model), DATA, replace(QUICK, epochs=1, image_size=12), seed=1))
    assert {batch[1:] for batch in model.batches} == {(1, 12, 12)}
    assert set(model.modes) == {True, False}


def test_prepare_scales_to_one_and_leaves_the_mean_alone() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)
    assert QUICK.prepare(images).flatten().tolist() == [0.0, 1.0]
    larger = replace(QUICK, image_size=8).prepare(images)
    assert larger.shape == (1, 1, 8, 8)
    assert larger.mean().item() == pytest.approx(0.5)


def test_loss_that_is_not_finite_is_a_clear_failure() -> None:
    model = linear()
    with torch.no_grad():
        model.linear.bias[0] = math.nan
    with pytest.raises(FloatingPointError, match="the loss became nan in epoch 1"):
        list(recipes.train(model, sgd(model), DATA, QUICK, seed=1))


def test_best_epoch_is_yielded_again_and_its_weights_are_kept() -> None:
    model = linear()
    optimizer = sgd(model, 0.3)
    recipe = replace(QUICK, keep_best=True, epochs=6)
    kept = []
    for epoch in recipes.train(model, optimizer, DATA, recipe, seed=1):
        kept.append((epoch, weights(model).clone()))
        if epoch.number == 3:
            # From here on every step makes the model worse.
            optimizer.param_groups[0]["maximize"] = True
    *run, (last, final) = kept
    assert [epoch.number for epoch, _ in run] == [1, 2, 3, 4, 5, 6]
    best, expected = max(run, key=lambda pair: (pair[0].accuracy, -pair[0].validation_loss))
    assert last is best and best.number < 6
    assert torch.equal(final, expected)
    assert recipes.evaluate_accuracy(model, DATA.validation, recipe) == best.accuracy


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400))
def test_one_cycle_rises_once_and_falls_once_to_almost_nothing(steps: int) -> None:
    schedule = OneCycle(steps)
    rates = [schedule.step() for _ in range(steps)]
    top = rates.index(max(rates))
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if steps >= 20:
        assert rates[0] < 0.15 and rates[-1] < 0.01 and max(rates) > 0.95
        assert 0.2 < top / steps < 0.3
    assert not schedule.over(1.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.001, 5), min_size=1, max_size=60))
def test_plateau_cuts_where_torchs_own_scheduler_cuts(losses: list[float]) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.7, patience=4, threshold=1e-4)
    ours = Plateau()
    for _ in range(Plateau.warmup):
        ours.step()
    for loss in losses:
        oracle.step(loss)
        over = ours.over(loss)
        rate = ours.step()
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"])
        assert over == (rate < 0.01)


def test_plateau_warms_up_for_40_steps_and_stops_after_13_cuts() -> None:
    schedule = Plateau()
    rates = [schedule.step() for _ in range(42)]
    assert rates[0] == pytest.approx(0.001)
    assert rates[1] - rates[0] == pytest.approx(0.999 / 40)
    assert rates[40:] == [1.0, 1.0]
    epochs = 1
    while not schedule.over(1.0):
        epochs += 1
    # One epoch sets the lowest loss, then each of 13 cuts takes five.
    assert epochs == 1 + 13 * 5


def test_plateau_never_stops_before_the_warm_up_is_over() -> None:
    schedule = Plateau()
    assert not any(schedule.over(1.0) for _ in range(100))


def test_paper_recipe_is_the_published_one() -> None:
    paper = recipes.named("paper")
    assert (paper.batch, paper.image_size, paper.schedule) == (216, 224, "plateau")
    assert paper.half and paper.keep_best and paper.epochs >= 1000 and paper.images is None
    assert paper.augmentation == Augmentation(0.5, 0.05, 0.5, 0.05, 0.5)


def test_plateau_recipe_trains_to_its_end() -> None:
    model = linear()
    recipe = Recipe("p", epochs=500, batch=8, schedule="plateau", keep_best=True, augmentation=NONE)
    black = replace(DATA.train, images=DATA.train.images * 0).take(range(16))
    data = TrainValidation(black, DATA.validation)
    epochs = list(recipes.train(model, sgd(model, 0.01), data, recipe, seed=1))
    assert 65 <= len(epochs) - 1 < 500


def test_fast_recipe_takes_stratified_subsets_of_a_split() -> None:
    whole = Dataset(torch.zeros(10_000, 1, 1, 1), torch.arange(10_000) % 10, tuple("0123456789"))
    train, validation = replace(recipes.named("fast"), images=500, validation_images=200).select(whole)
    assert torch.bincount(train.labels).tolist() == [50] * 10
    assert torch.bincount(validation.labels).tolist() == [20] * 10
    assert [len(part) for part in recipes.named("full").select(whole)] == [8000, 2000]


def test_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(ProblemError, match="'slow': there are fast, full, paper"):
        recipes.named("slow")


def test_confusion_names_the_two_classes_and_both_shares() -> None:
    data = Dataset(torch.zeros(8, 1, 1, 1), torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]), ("cat", "dog", "ship"))
    guesses = torch.eye(3)[torch.tensor([0, 0, 0, 1, 0, 1, 2, 2])]
    assert recipes.most_confused(guesses, data) == (
        "Most confused: cat and dog (25% of cat taken for dog, 50% of dog for cat)."
    )
    assert recipes.most_confused(torch.eye(3)[data.labels], data) == ""


class Returns(Linear):
    """Gives whatever it is told to, computed from its one layer."""

    def __init__(self, change: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> object:
        return self.change(super().forward(x))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda y: y[:, :1], ValueError, "Returns on a 4x1x4x4 batch gave 4x1, expected 4x2"),
        (lambda y: y.sum(), ValueError, "Returns on a 4x1x4x4 batch gave , expected 4x2"),
        (lambda y: (y, y), ValueError, "Returns on a 4x1x4x4 batch gave tuple, expected a float tensor"),
        (lambda y: y.argmax(1), ValueError, "gave Tensor, expected a float tensor"),
        (lambda y: y / 0, FloatingPointError, "4x1x4x4 batch gave logits that are not finite"),
        (lambda y: y.detach(), ValueError, "no weight of Returns takes part in its output"),
    ],
)
def test_check_says_what_is_wrong(change: Callable[[Tensor], object], error: type[Exception], message: str) -> None:
    model = Returns(change)
    with pytest.raises(error, match=message):
        recipes.check_step(model, sgd(model), (4, 1, 4, 4), 2)


def test_check_looks_at_evaluation_mode_too() -> None:
    model = Returns(lambda y: y if model.training else y[:, :1])
    with pytest.raises(ValueError, match="gave 4x1, expected 4x2"):
        recipes.check_step(model, sgd(model), (4, 1, 4, 4), 2)


def test_check_refuses_an_optimizer_that_is_none_or_does_nothing() -> None:
    model = linear()
    with pytest.raises(TypeError, match=r"make_optimizer gave NoneType, expected a torch\.optim\.Optimizer"):
        recipes.check_step(model, None, (4, 1, 4, 4), 2)
    with pytest.raises(ValueError, match="one step of the optimizer changes no weight of Linear"):
        recipes.check_step(model, sgd(linear()), (4, 1, 4, 4), 2)
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module as the model, got int"):
        recipes.check_step(3, sgd(model), (4, 1, 4, 4), 2)


def test_check_accepts_a_sound_model_after_one_step() -> None:
    model = linear()
    before = weights(model).clone()
    recipes.check_step(model, sgd(model), (4, 1, 4, 4), 2)
    assert not torch.equal(weights(model), before)
