"""How a candidate for CIFAR-10 is scored: accuracy on validation images, and number of parameters.

`recipe` under `[evaluation]` in problem.toml says how it is trained: "fast", "full" or "paper".
"""

import tomllib
from pathlib import Path

import torch

from guided_evolution.nn import data, loading, parameters, recipes

NAME, CLASSES, CHANNELS = "cifar10", 10, 3
SETTINGS = tomllib.loads((Path(__file__).parent / "problem.toml").read_text(encoding="utf-8"))
RECIPE = recipes.named(SETTINGS.get("evaluation", {}).get("recipe", "fast"))
PIXELS = RECIPE.image_size or 32


def prepare(context):
    """Fetches the images and decodes those for training once, before any candidate is scored."""
    data.fetch(NAME, context.data)


def check(program):
    """Builds the candidate and takes one training step on noise, so that a broken one costs no training.

    Its size is known then.
    """
    model, optimizer = build(program, seed=0)
    recipes.check_step(model, optimizer, (4, CHANNELS, PIXELS, PIXELS), CLASSES)
    return {"parameters": parameters.count(model, torch.zeros(1, CHANNELS, PIXELS, PIXELS))}


def evaluate(program, context):
    """Trains the candidate and yields its scores after every epoch; the held-out images stay closed."""
    split = RECIPE.select(data.load_train(NAME, context.data))
    model, optimizer = build(program, context.seed, context.device)
    image = torch.zeros(1, CHANNELS, PIXELS, PIXELS, device=context.device)
    for epoch in recipes.train(model, optimizer, split, RECIPE, seed=context.seed, device=context.device):
        yield {
            "accuracy": epoch.accuracy,
            "parameters": parameters.count(model, image),
            "macs": parameters.macs(model, image),
            "loss": epoch.loss,
            "epoch": epoch.number,
            "feedback": recipes.most_confused(epoch.logits, split.validation),
        }


def test(program, context):
    """Trains the candidate again and measures it on the held-out images, which nothing was selected on."""
    split = RECIPE.select(data.load_train(NAME, context.data))
    model, optimizer = build(program, context.seed, context.device)
    for _ in recipes.train(model, optimizer, split, RECIPE, seed=context.seed, device=context.device):
        pass
    held_out = data.load_test(NAME, context.data).to(context.device)
    image = torch.zeros(1, CHANNELS, PIXELS, PIXELS, device=context.device)
    return {
        "accuracy": recipes.evaluate_accuracy(model, held_out, RECIPE),
        "parameters": parameters.count(model, image),
    }


def build(program, seed, device="cpu"):
    """Returns the candidate's network, with weights drawn from the seed, and the optimizer it chose."""
    module = loading.load_program(program)
    torch.manual_seed(seed)
    model = loading.require(module, "ExquisiteNetV2")(CLASSES, CHANNELS).to(device)
    return model, loading.require(module, "make_optimizer")(model)
