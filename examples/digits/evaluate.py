"""How a candidate for the handwritten digits is scored: validation accuracy, and number of parameters."""

from dataclasses import replace

import torch

from guided_evolution.nn import data, loading, parameters, recipes
from guided_evolution.nn.augment import Augmentation

NAME, CLASSES, CHANNELS, PIXELS = "digits", 10, 1, 32
# Scaled from 8 to 32 pixels, for a network that halves its maps five times; a mirrored digit is no digit.
RECIPE = replace(
    recipes.named("fast"),
    epochs=5,
    batch=32,
    images=None,
    validation_images=None,
    image_size=PIXELS,
    augmentation=Augmentation(flip=0.0),
)


def prepare(context):
    """Decodes the training images once, before any candidate is scored."""
    data.load_train(NAME, context.data)


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
