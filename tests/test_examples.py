"""The two image examples: the seed network to the exact parameter, and the evaluators on real images."""

import ast
import os
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from torch import Tensor, nn

from guided_evolution.nn import data, loading, parameters, recipes
from test_nn_data import write_parquet

EXAMPLES = Path(__file__).parent.parent / "examples"
SEED = EXAMPLES / "digits" / "seed.py"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Sums in a fixed order, so that equal training gives equal bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDED_EVOLUTION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))


def evaluator(example: str) -> ModuleType:
    file = EXAMPLES / example / "evaluate.py"
    spec = spec_from_file_location(f"{example}_evaluate", file)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def context(folder: Path | None, seed: int = 1) -> SimpleNamespace:
    return SimpleNamespace(seed=seed, device="cpu", data=folder, scratch=None, stage="evaluate")


def network(channels: int = 3, classes: int = 10) -> nn.Module:
    return loading.load_program(SEED).ExquisiteNetV2(classes, channels)


def cifar_folder(folder: Path, part: str = "train", count: int = 600) -> Path:
    """Writes a folder with the first real images of one part, or with noise where CIFAR-10 isn't at hand."""
    file = folder / "cifar10" / f"{part}.parquet"
    known = os.environ.get("GUIDED_EVOLUTION_DATA")
    if known and (Path(known) / "cifar10").is_dir():
        file.parent.mkdir(parents=True, exist_ok=True)
        source = parquet.ParquetFile(Path(known) / "cifar10" / f"{part}.parquet")
        rows = pa.Table.from_batches([next(source.iter_batches(count))])
        parquet.write_table(rows, file)
    else:
        labels = [row % 10 for row in range(count)]
        noise = np.random.default_rng(0).integers(0, 60, (count, 32, 32, 3), dtype=np.uint8)
        bright = noise + np.array(labels, np.uint8)[:, None, None, None] * 19
        write_parquet(file, bright, labels)
    return folder


def test_both_examples_evolve_the_same_seed_of_nine_blocks() -> None:
    sources = [(EXAMPLES / name / "seed.py").read_text() for name in ("digits", "cifar10")]
    assert sources[0] == sources[1]
    blocks = [node for node in ast.parse(sources[0]).body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    assert len(blocks) == 9
    assert all(ast.get_docstring(block) for block in blocks)


def test_parameters_are_those_of_the_specification_stage_by_stage() -> None:
    model = network()
    stages = [parameters.count(stage) for stage in [*model.features, model.classifier]]
    assert stages == [180, 600, 1248, 5856, 4800, 20928, 18816, 78720, 74496, 304896, 3840, 3850]
    assert parameters.count(model) == sum(stages) == 518_230
    assert parameters.count(network(channels=1)) == 518_126
    assert sum(buffer.numel() for buffer in model.buffers()) == 4407


def test_parameters_are_those_of_the_specification_kind_by_kind() -> None:
    scales, weights, biases = 0, 0, 0
    for module in network().modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias":
                biases += parameter.numel()
            elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                scales += parameter.numel()
            else:
                weights += parameter.numel()
    assert (scales, weights, biases) == (2928, 510_516, 4786)


@pytest.mark.parametrize("channels", [12, 48, 96])
def test_parameters_of_a_dfseb_block_follow_its_formula(channels: int) -> None:
    block = loading.load_program(SEED).DFSEB(channels)
    assert parameters.count(block) == 2 * channels**2 + 26 * channels


@pytest.mark.parametrize(("channels", "size", "macs"), [(3, 32, 1_754_496), (1, 28, 1_595_152)])
def test_multiply_accumulates_are_those_of_the_specification(channels: int, size: int, macs: int) -> None:
    assert parameters.macs(network(channels), torch.zeros(1, channels, size, size)) == macs


def test_each_stage_halves_the_image_as_specified() -> None:
    x = torch.rand(2, 3, 32, 32)
    shapes = []
    model = network().eval()
    for stage in model.features:
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    sizes = [(12, 16), (12, 16), (48, 8), (48, 8), (96, 4), (96, 4), (192, 2), (192, 2)] + [(384, 1)] * 3
    assert shapes == [(channels, size, size) for channels, size in sizes]
    assert model.classifier(x).shape == (2, 10)


@pytest.mark.parametrize("size", [8, 16, 28, 64])
def test_even_sizes_work(size: int) -> None:
    assert network(classes=7)(torch.rand(2, 3, size, size)).shape == (2, 7)


@pytest.mark.parametrize("size", [31, 33])
def test_odd_sizes_are_refused(size: int) -> None:
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        network()(torch.rand(2, 3, size, size))


def test_training_on_one_image_is_refused_by_the_last_stage() -> None:
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        network().train()(torch.rand(1, 3, 32, 32))


def test_gate_scales_each_channel_by_less_than_one() -> None:
    module = loading.load_program(SEED)
    x = torch.rand(2, 5, 3, 3) + 1
    ratio = (module.SELayer(5)(x) / x).detach()
    assert ratio.min() > 0 and ratio.max() < 1
    assert torch.allclose(ratio, ratio.mean(dim=(2, 3), keepdim=True).expand_as(ratio))


def test_both_residuals_of_a_dfseb_block_add_its_input() -> None:
    block = loading.load_program(SEED).DFSEB(4)
    seen: list[Tensor] = []
    block.pointwise2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        for convolution in (block.depthwise1, block.depthwise2):
            convolution.weight.zero_()
            convolution.bias.zero_()
        x = torch.rand(2, 4, 6, 6)
        assert torch.equal(block(x), x)
    assert torch.equal(seen[0], x)


MUTATIONS = {
    "make_optimizer": ("momentum=0.9", "momentum=0.8"),
    "SELayer": ("torch.sigmoid", "torch.tanh"),
    "FCT": ("-F.max_pool2d(-x, 2", "F.max_pool2d(-x, 2"),
    "DFSEB": ("F.silu", "F.relu"),
    "EVE": ("-F.max_pool2d(-x, 2", "F.max_pool2d(-x, 2"),
    "ME": ("F.max_pool2d", "F.avg_pool2d"),
    "DW": ("F.hardswish", "F.relu"),
    "Classifier": ("nn.Dropout(0.5)", "nn.Dropout(0.1)"),
    "ExquisiteNetV2": ("self.classifier(self.features(x))", "2 * self.classifier(self.features(x))"),
}


def trained_logits(program: Path) -> Tensor:
    """What the program's network says of a few digits after one epoch on a hundred of them."""
    module = evaluator("digits")
    recipe = replace(module.RECIPE, epochs=1, images=100, validation_images=50)
    split = recipe.select(data.load_train("digits"))
    model, optimizer = module.build(program, seed=1)
    *_, last = recipes.train(model, optimizer, split, recipe, seed=1)
    return last.logits


@pytest.fixture(scope="module")
def seed_logits(tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDED_EVOLUTION_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(sys, "path", list(sys.path))
        return trained_logits(SEED)


@pytest.mark.parametrize("name", MUTATIONS)
def test_fault_15_every_block_is_live(name: str, tmp_path: Path, seed_logits: Tensor) -> None:
    source = SEED.read_text()
    blocks = {
        node.name: ast.get_source_segment(source, node) or ""
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    assert set(blocks) == set(MUTATIONS)
    old, new = MUTATIONS[name]
    assert old in blocks[name]
    program = tmp_path / "seed.py"
    program.write_text(source.replace(blocks[name], blocks[name].replace(old, new)))
    mutated = trained_logits(program)
    assert mutated.shape == seed_logits.shape
    assert not torch.allclose(mutated, seed_logits, atol=1e-3)


def test_a_program_that_changes_nothing_trains_to_the_same_logits(seed_logits: Tensor) -> None:
    assert torch.equal(trained_logits(SEED), seed_logits)


@pytest.mark.parametrize("example", ["digits", "cifar10"])
def test_problem_files_name_what_the_evaluators_give(example: str) -> None:
    problem = tomllib.loads((EXAMPLES / example / "problem.toml").read_text())
    assert problem["name"] == example
    goals = {objective["name"]: objective["goal"] for objective in problem["objective"]}
    assert goals == {"accuracy": "max", "parameters": "min"}
    assert all((EXAMPLES / example / file).is_file() for file in problem["seed"])
    recipes.named(problem.get("evaluation", {}).get("recipe", "fast"))


@pytest.mark.parametrize("example", ["digits", "cifar10"])
def test_check_accepts_the_seed_and_names_a_wrong_shape(example: str, tmp_path: Path) -> None:
    module = evaluator(example)
    module.check(SEED)
    program = tmp_path / "seed.py"
    program.write_text(SEED.read_text().replace("nn.Linear(channels, classes)", "nn.Linear(channels, 12)"))
    batch = f"4x{module.CHANNELS}x{module.PIXELS}x{module.PIXELS}"
    with pytest.raises(ValueError, match=f"ExquisiteNetV2 on a {batch} batch gave 4x12, expected 4x10"):
        module.check(program)
    program.write_text(SEED.read_text().replace("def make_optimizer", "def optimizer"))
    with pytest.raises(AttributeError, match="no longer defines make_optimizer"):
        module.check(program)


def test_digits_are_learned_and_each_epoch_is_a_partial_result() -> None:
    module = evaluator("digits")
    module.prepare(context(None))
    results = list(module.evaluate(SEED, context(None)))
    assert [result["epoch"] for result in results] == [1, 2, 3, 4, 5]
    assert results[-1]["accuracy"] > 0.9
    assert results[-1]["parameters"] == 518_126
    assert results[-1]["feedback"].startswith("Most confused: ")


def test_fault_02_evaluate_and_check_never_open_the_test_file(tmp_path: Path) -> None:
    module = evaluator("cifar10")
    module.RECIPE = replace(module.RECIPE, epochs=2, images=None, batch=32)
    folder = cifar_folder(tmp_path)
    (folder / "cifar10" / "test.parquet").write_bytes(b"whoever opens this fails")
    module.prepare(context(folder))
    module.check(SEED)
    *_, last = module.evaluate(SEED, context(folder))
    assert last["parameters"] == 518_230 and last["macs"] == 1_754_496
    assert 0 < last["accuracy"] <= 1
    with pytest.raises(pa.ArrowInvalid):
        module.test(SEED, context(folder))


def test_held_out_images_are_what_test_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = evaluator("cifar10")
    module.RECIPE = replace(module.RECIPE, epochs=1, images=64, validation_images=20, batch=32)
    folder = cifar_folder(cifar_folder(tmp_path, count=200), "test", count=100)
    measured = []
    accuracy = recipes.evaluate_accuracy

    def watched(model: nn.Module, images: data.Dataset, recipe: recipes.Recipe) -> float:
        measured.append(images.labels.tolist())
        return accuracy(model, images, recipe)

    monkeypatch.setattr(recipes, "evaluate_accuracy", watched)
    result = module.test(SEED, context(folder))
    held_out = parquet.read_table(folder / "cifar10" / "test.parquet").column("label").to_pylist()
    assert measured == [held_out]
    assert result["parameters"] == 518_230 and 0 <= result["accuracy"] <= 1
