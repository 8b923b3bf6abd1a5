"""A wrong argument is refused by its name: a table of all public functions, and single inputs that once passed.

A cell of the table says that a bad value is refused in words that name the argument, or that it is meant to work.
Nothing else is allowed: no result from a senseless input, no error from deep inside a library.
"""

from __future__ import annotations

import ast
import inspect
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch
from filelock import FileLock
from torch import nn

from advfeat import inputs, robustness
from advfeat.attacks import fgsm, match_representation, pgd
from advfeat.autoattack import autoattacked_dataset
from advfeat.construct import deterministic_target_dataset
from advfeat.data import Dataset
from advfeat.features import usefulness
from advfeat.gradient_masking import check_gradient_masking
from advfeat.hyperparameters import TrainConfig
from advfeat.measures import accuracy, predictions
from advfeat.models import Classifier, build_model, freeze
from advfeat.representations import match_distance
from advfeat.robustness import VanishedGradients, robust_accuracy, withstands
from advfeat.threats import FREE, L2, FusedThreat, Linf, Threat, usual_step_size
from advfeat.transfer import other_classes, transfer

ROOT = Path(__file__).resolve().parent.parent
MODULES = (
    "attack_checks", "attacks", "authors_release", "autoattack", "comparisons", "confidence", "construct",
    "corruptions", "data", "engine/fused_steps", "evaluation_mode", "experiments/record_writing",
    "experiments/records", "fashion_mnist", "features", "filtration", "fourier", "gaussian", "gradient_ascent",
    "gradient_masking", "hyperparameters", "image_files", "imagenet", "linear_features", "measures", "minimum_norm",
    "models", "onednn", "optimization", "planted", "probe", "representations", "robustness", "shards", "shortcuts",
    "streamed", "streamed_folders", "superposition", "threats", "train", "transfer", "whitening",
)  # fmt: skip
# Public, but without a row of their own.
ELSEWHERE = {
    "shards.Shards.load": "a protocol",
    "shards.Shards.save": "a protocol",
    "shards.fill_in_pieces": "behind construct and autoattack, which have looked at everything",
    "gradient_ascent.check_attack": "every attack begins with it",
    "gradient_ascent.ascend": "behind maximize and the attacks, which have looked at everything",
    "train.Checkpoint.save": "a protocol",
    "data.Dataset.replace": "goes through Dataset",
    "fused_steps.NetworkInput.set_from": "runs inside a step: its input comes from the engine",
    "fused_steps.NetworkInput.pixel_gradient": "runs inside a step: its input comes from the engine",
    "fused_steps.fast_dtype": "takes the type of a torch.device, and answers float32 for all that it does not know",
    "hyperparameters.settings_of": "reads the fields of settings that have been checked",
    "hyperparameters.TrainConfig.on": "hands on to fused_steps.fast_dtype",
    "attack_checks.LinearModel.forward": "a network",
    "attack_checks.LinearModel.rise": "hands on to the threat",
    "train.resumed_elsewhere": "reads the rows that train has written",
    "data.Dataset.rows_of_images": "behind subset, which has looked at the index",
    "streamed.StreamedDataset.rows_of_images": "behind subset, which has looked at the index",
    "streamed.StreamedImages.to": "behind Dataset.to, which has looked at the device",
    "streamed.StreamedImages.split": "behind Dataset.fingerprint",
    "streamed.write_in_pieces": "behind construct and streamed_folder, which have looked at everything",
    "imagenet.RestrictedLogits.forward": "is asked through measures.predictions; test_imagenet",
    "image_files.pictures_in": "behind image_folder and streamed_folder, which have looked at everything",
    "image_files.cropped": "behind image_folder and streamed_folder, which have looked at everything",
    "image_files.is_hidden": "is given names of files",
    "planted.PlantedWorld.silhouettes": "counts on from the images of masks, which has looked at nothing either",
    "image_files.unit_range": "is given a reader's decoded images",
    "authors_release.Release.read": "hands on to authors_release.load_authors_set",
    "records.readable_records": "test_records",
    "onednn.narrow_strided": "behind check_trainable, which has looked at the network",
    "onednn.is_narrow_strided": "is given layers of an architecture",
    "onednn.with_strides_apart": "is given layers of an architecture",
    "optimization.WeightAverage.load_state_dict": "reads what state_dict has given",
    "measures.answers_of": "its input has passed predictions",
    "measures.check_answered": "its input comes from answers_of",
    "evaluation_mode.batch_statistics": "runs inside training, on a model that train has looked at",
    "models.Classifier.represent": "behind the normalisation: its input comes from the engine",
    "models.Classifier.classify": "behind the normalisation: its input comes from the engine",
    "records.Record.matching": "test_records",
    "records.Record.summary": "test_records",
    "records.engine_of": "test_records",
    "record_writing.join_record": "test_paper",
    "records.Record.sheet": "test_records",
    "records.results_in": "test_records",
} | {
    f"threats.{kind.__name__}.{method}": why
    for kind in (Threat, FusedThreat, L2, Linf)
    for method, why in (
        ("step", "is a step of kernels"), ("step_each", "is a step of kernels"),
        ("reach", "behind features.linear_responses, which has looked at everything"),
    )
} | {
    f"threats.Threat.{method}": "without a body"
    for method in sorted(Threat.__abstractmethods__ - {"step", "step_each", "reach"})
}  # fmt: skip


@pytest.fixture(scope="session")
def table(tmp_path_factory) -> dict[str, list[list[str]]]:
    """How every call ended, in a process that checks no annotations; several workers share one."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    path = shared / "bad-input.json"
    with FileLock(shared / "bad-input.lock"):
        if not path.exists():
            command = [sys.executable, str(ROOT / "tests" / "input_table.py")]
            surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings)
            assert done.returncode == 0, done.stderr
            path.write_text(done.stdout)
    return json.loads(path.read_text())


@pytest.mark.parametrize("module", [*MODULES, "torchvision_networks"])
def test_what_is_no_argument_is_refused_by_name(table, module):
    pytest.importorskip("pyautoattack", reason="the extra autoattack is not installed")
    cells = [
        (title, cell, wanted, came)
        for title, found in table.items()
        for cell, wanted, came in found
        if title.startswith(f"{module.rpartition('/')[2]}.")
    ]
    wrong = [f"{title}, {cell}: wanted {wanted}, came {came}" for title, cell, wanted, came in cells if wanted != came]
    assert not wrong, "\n".join(wrong)
    assert len([cell for cell in cells if cell[2] == "refused"]) >= 5


def test_every_public_function_with_arguments_is_in_the_table(table):
    known = {title.split(",")[0] for title in table}
    missing = []
    for path in MODULES:
        module = path.rpartition("/")[2]
        for node in ast.parse((ROOT / "advfeat" / f"{path}.py").read_text()).body:
            inside = node.body if isinstance(node, ast.ClassDef) else []
            prefix = f"{module}.{node.name}." if isinstance(node, ast.ClassDef) else f"{module}."
            for item in [*([node] if isinstance(node, ast.FunctionDef) else []), *inside]:
                if (
                    not isinstance(item, ast.FunctionDef)
                    or item.name.startswith("_")
                    or prefix.split(".")[-2][0] == "_"
                ):
                    continue
                given = [a.arg for a in (*item.args.args, *item.args.kwonlyargs) if a.arg not in ("self", "cls")]
                if given and prefix + item.name not in known | ELSEWHERE.keys():
                    missing.append(prefix + item.name)
    assert not missing
    stale = [name for name in ELSEWHERE if name in known]
    assert not stale


# Single inputs


@pytest.fixture
def unchecked():
    """As users run it: nobody checks annotations."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def net() -> Classifier:
    return build_model("cnn4", width=8, seed=0).eval()


def pixels(n: int = 6, size: int = 32) -> torch.Tensor:
    return torch.rand((n, 3, size, size), generator=torch.Generator().manual_seed(0))


def dataset(n: int = 6) -> Dataset:
    return Dataset(pixels(n), torch.arange(n) % 10, tuple("abcdefghij"), "noise")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (x - 0.48) / 0.25, r"images must lie in \[0, 1\], got values from -1\.9.* to 2\.0.*normalisation"),
        (lambda x: x * 255, r"images must lie in \[0, 1\], got values from .* to 25\d.*divide levels of 255 by 255"),
        (lambda x: (x * 255).byte(), "images must be float32, got torch.uint8"),
        (lambda x: x[:, :1], r"images must have shape \(n, 3, height, width\), got \(6, 1, 32, 32\)"),
    ],
    ids=["normalised", "levels", "bytes", "one channel"],
)
@pytest.mark.parametrize("freezing", [True, False])
def test_images_in_other_units_are_refused(net, unchecked, change, message, freezing):
    model = freeze(net) if freezing else net
    labels = torch.arange(6)
    for attack in (
        lambda x: pgd(model, x, labels, Linf(8 / 255), steps=5, step_size=0.01),
        lambda x: fgsm(model, x, labels, L2(0.5)),
        lambda x: fgsm(model, x, labels, L2(0.0)),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            attack(change(pixels()))


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.full((6,), -100), ValueError, r"labels must lie in \[0, 10\), got -100 to -100"),
        (torch.arange(6) + 5, ValueError, r"labels must lie in \[0, 10\), got 5 to 10"),
        (torch.arange(6).int(), TypeError, r"labels must be int64, got torch.int32 \(6,\)"),
        (nn.functional.one_hot(torch.arange(6), 10), ValueError, r"labels must be of shape \(n,\).*one-hot"),
        (nn.functional.one_hot(torch.arange(6), 10).float(), TypeError, "labels must be int64.*one-hot"),
        (torch.arange(1), ValueError, "6 images but 1 labels"),
    ],
    ids=["ignored by the loss", "too large", "int32", "one-hot", "one-hot floats", "one"],
)
def test_labels_that_are_no_classes_are_refused(net, unchecked, labels, error, message):
    with pytest.raises(error, match=message):
        pgd(net, pixels(), labels, L2(0.5), steps=1, step_size=0.1)


def test_a_network_of_ones_own_is_asked_how_many_classes_it_knows():
    own = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4)).eval()
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 4\), got up to 5"):
        pgd(own, pixels(), torch.arange(6), L2(0.5), steps=1, step_size=0.1)
    with pytest.raises(ValueError, match="model knows 4 classes, but labels go up to 9"):
        accuracy(own, dataset())


def test_nothing_is_broadcast(net, unchecked):
    images, labels = pixels(), torch.arange(6)
    with pytest.raises(ValueError, match=r"start must be as the images are, float32 \(6, 3, 32, 32\), got .* \(1, 3"):
        pgd(net, images, labels, L2(0.5), steps=1, step_size=0.1, start=images[:1])
    width = net.head.in_features
    with pytest.raises(
        ValueError, match=rf"target must have the shape of the representation, \(6, {width}\), got .6, 1"
    ):
        match_representation(net, images, torch.zeros(6, 1), steps=1, step_size=0.1)


@pytest.mark.parametrize(
    ("threat", "limit"),
    [(L2(0.5), 1.0), (Linf(8 / 255), 16 / 255), (FREE, math.sqrt(3072)), (L2(0.0), math.sqrt(3072))],
)
def test_a_step_is_no_longer_than_the_diameter(net, threat, limit):
    images, labels = pixels(), torch.arange(6)
    pgd(net, images, labels, threat, steps=1, step_size=limit)
    for length in (1.01 * limit, 1e6):
        with pytest.raises(ValueError, match=r"step_size must be at most .*, the diameter of "):
            pgd(net, images, labels, threat, steps=1, step_size=length)
    with pytest.raises(ValueError, match="step_size must be positive and finite, got inf"):
        pgd(net, images, labels, threat, steps=1, step_size=math.inf)


def test_one_usual_step_is_the_diameter_and_gives_the_image_of_a_longer_one(net):
    # From the image itself the ball cuts both off at the same place.
    assert usual_step_size(L2(0.5), 1) == 1.0
    assert usual_step_size(L2(0.5), 2) == 0.625
    assert robust_accuracy(net, dataset(), L2(0.5), steps=1).n == 6


def test_training_with_a_step_longer_than_the_ball_is_refused():
    with pytest.raises(ValueError, match=r"attack_step_size must be at most 0\.02, the diameter of .*, got 0\.1"):
        TrainConfig(epochs=1, batch_size=8, lr=0.1, threat=L2(0.01))
    assert TrainConfig(epochs=1, batch_size=8, lr=0.1, threat=L2(0.01), attack_step_size=0.02).attack_steps == 7


def test_a_mask_of_bytes_does_not_halve_a_usefulness(unchecked):
    values = torch.tensor([[1.0], [1.1], [-1.0], [-1.1]])
    positive = torch.tensor([True, True, False, False])
    assert usefulness(values, positive)[0].value > 0.99
    with pytest.raises(TypeError, match=r"positive must be bool, got torch\.uint8"):
        usefulness(values, positive.byte())
    with pytest.raises(TypeError, match=r"values must be float32 .*, got torch\.uint8"):
        usefulness((values + 2).byte(), positive)


def test_two_seeds_are_two_seeds():
    drawn = [torch.rand(1, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2**32 + 1)]
    assert torch.equal(*drawn), "PyTorch keeps 32 bits of a seed; if that ends, so may the bound"
    for seed in (2**32, 2**32 + 1, -1):
        with pytest.raises(ValueError, match=rf"seed must be an integer in \[0, 2\*\*32\), got {seed}"):
            build_model("cnn4", seed=seed)
        with pytest.raises(ValueError, match="seed must be"):
            other_classes(torch.arange(4), 4, seed=seed)
    inputs.seed(2**32 - 1)


# Networks without an answer


def broken(value: float) -> Classifier:
    model = build_model("cnn4", width=8, seed=0).eval()
    with torch.no_grad():
        model.head.weight[3] = value
    return model


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_no_answers(value):
    model, data = broken(value), dataset()
    for ask in (
        lambda: predictions(model, data),
        lambda: accuracy(model, data),
        lambda: robust_accuracy(model, data, L2(0.5), steps=2),
        lambda: withstands(model, data, L2(0.0), steps=2),
        lambda: transfer({"broken": model, "whole": build_model("cnn4", width=8).eval()}, data, L2(0.5), steps=1),
        lambda: check_gradient_masking(model, data, L2(0.5), steps=1, pairs=1),
    ):
        with pytest.raises(ValueError, match="logits are not finite for 6 of 6 images"):
            ask()
    with pytest.raises(FloatingPointError, match="model: the gradient was not finite"):
        deterministic_target_dataset(model, data, L2(0.5), steps=1, step_size=0.1)


def test_a_network_that_breaks_on_the_way_is_refused(net):
    # Finite on the images, NaN on the attacked ones: NaN must not count as the image being fooled.
    class Fragile(nn.Module):
        def forward(self, images):
            total = images.mean((1, 2, 3))
            return torch.stack([total, torch.where(total == 0.5, 0.0, math.nan) - total], 1)

    class Judge(Fragile):
        calls = 0

    grey = Dataset(torch.full((2, 3, 4, 4), 0.5), torch.zeros(2).long(), ("a", "b"), "grey")
    with pytest.raises((ValueError, FloatingPointError), match="not finite for 2 of 2 images"):
        withstands(Judge().eval(), grey, Linf(0.1), steps=1)


def test_a_representation_that_is_not_finite_has_no_distance():
    model = build_model("cnn4", width=8).eval()
    with torch.no_grad():
        model.features[2].weight.fill_(math.nan)
    with pytest.raises(ValueError, match="model: the distance of its representations must be finite"):
        match_distance(model, pixels(), pixels().flip(0))


# Gradients that vanish


def flat_network(scale: float) -> Classifier:
    """Linear in the pixels; with a large scale the loss of most images is exactly 0, and so is its gradient."""
    head = nn.Linear(48, 5, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.randn(5, 48, generator=torch.Generator().manual_seed(0)))
    return Classifier(nn.Flatten(), head, logit_scale=scale).eval()


def right_images(model: Classifier) -> Dataset:
    images = pixels(40, 4)
    with torch.no_grad():
        labels = model(images).argmax(1)
    return Dataset(images, labels, tuple("abcde"), "right")


def test_where_gradients_vanish_the_number_comes_with_a_warning_that_names_the_share(recwarn):
    model = flat_network(1e4)
    data = right_images(model)
    images = data.images.clone().requires_grad_()
    loss = nn.functional.cross_entropy(model(images), data.labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, images)
    count = int((gradient == 0).flatten(1).all(1).sum())
    assert 30 <= count <= 40
    for measure in (withstands, robust_accuracy):
        with pytest.warns(VanishedGradients, match=rf"vanishes at {count} of 40 images \({count / 40:.1%}\)"):
            found = measure(model, data, L2(2.0), steps=10)
    # The same function of the images, in other units: every one of them can be fooled.
    assert robust_accuracy(flat_network(1.0), data, L2(2.0), steps=10).value == 0
    assert found.value >= count / 40
    assert not recwarn.list, "and no warning where gradients lead somewhere"
    # The checks say it themselves.
    assert not check_gradient_masking(model, data, L2(0.5), steps=10, pairs=10)[3].passed


def test_an_image_that_cannot_move_for_the_box_is_no_lost_gradient(recwarn):
    head = nn.Linear(48, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.stack([torch.full((48,), 0.02), torch.zeros(48)]))
    model = Classifier(nn.Flatten(), head).eval()
    model.mean.fill_(-1)  # so that black, too, is classified as bright
    black = Dataset(torch.zeros(3, 3, 4, 4), torch.zeros(3).long(), ("bright", "dark"), "black")
    assert withstands(model, black, L2(0.5), steps=3).all()
    assert not recwarn.list


@pytest.mark.parametrize("pairs", [0, -1])
def test_no_query_is_no_check(net, pairs):
    with pytest.raises(ValueError, match=f"pairs must be 1 or more, got {pairs}"):
        check_gradient_masking(net, dataset(), L2(0.5), steps=1, pairs=pairs)


# Networks that the library did not make


def test_a_network_of_torchvision_is_judged_as_it_is_in_eval_mode(unchecked):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model, data = resnet18(num_classes=10), dataset()  # as it comes, in training mode
    model.eval()
    with torch.no_grad():
        answers = model(data.images).argmax(1)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert accuracy(model, data).value == float((answers == data.labels).float().mean())
    found = robust_accuracy(model, data.replace(labels=answers), Linf(8 / 255), steps=2)
    assert found.value < 1, "the attack goes through it, too"
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="training mode"):
        predictions(model, data)
    with pytest.raises(TypeError, match=r"model must be a models.Classifier .*got ResNet"):
        match_representation(model, data.images, torch.zeros(6, 5), steps=1, step_size=0.1)


@pytest.mark.parametrize("measure", [accuracy, predictions])
def test_what_is_no_network_is_named(unchecked, measure):
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module .*, got 'resnet18'"):
        measure("resnet18", dataset())
    with pytest.raises(TypeError, match=r"model must answer 6 images with logits \(6, classes\)"):
        measure(nn.Flatten(0).eval(), dataset())


# AutoAttack's batches, and modes of PyTorch


def test_a_set_made_with_autoattack_names_the_size_of_its_batches(monkeypatch):
    monkeypatch.setattr("advfeat.autoattack.autoattack", lambda _, images, *__, **___: images)
    made = autoattacked_dataset(build_model("cnn4", width=8).eval(), dataset(), L2(0.25), seed=4, batch_size=3)
    assert made.info == {"from": {}, "threat": "l2 eps=0.25", "seed": 4, "batch_size": 3}
    for function in (withstands, autoattacked_dataset):
        assert "batch_size" in inspect.getdoc(function)


def test_an_attack_in_inference_mode_says_so(net):
    images, labels = pixels(), torch.arange(6)
    with torch.inference_mode(), pytest.raises(ValueError, match=r"torch\.inference_mode is on.*torch\.no_grad"):
        pgd(net, images, labels, L2(0.5), steps=1, step_size=0.1)
    with torch.inference_mode():
        inner = freeze(net)
        made = images + 0
    with pytest.raises(ValueError, match=r"model was made inside torch\.inference_mode"):
        pgd(inner, images, labels, L2(0.5), steps=1, step_size=0.1)
    # Images from there are fine.
    adv = pgd(net, made, labels, L2(0.5), steps=1, step_size=0.1)
    assert torch.equal(adv, pgd(net, images, labels, L2(0.5), steps=1, step_size=0.1))


# The cost


def test_there_is_one_look_for_a_call_and_none_for_a_step(net, monkeypatch):
    looks, data, real = [], dataset(), torch.aminmax

    def counted(values):
        looks.append(values.shape)
        return real(values)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "aminmax", counted)
        pgd(net, data.images, data.labels, L2(0.5), steps=20, step_size=0.1)
        assert looks == [data.images.shape, data.labels.shape]
        looks.clear()
        withstands(net, data, L2(0.5), steps=20, restarts=2, batch_size=2, early_drop=False)
        assert looks == [], "a dataset was looked at when it was made"
        pgd(net, data.images, data.labels, L2(0.5), steps=1, step_size=0.1)
        assert len(looks) == 2, "and outside of such a loop everything is looked at again"


def test_trust_ends_with_its_block():
    outside = torch.full((1,), 2.0)

    def fails() -> None:
        with inputs.trusted():
            inputs.look(("values", outside, inputs.BOX))
            raise RuntimeError("inner")

    with pytest.raises(RuntimeError, match="inner"):
        fails()
    with pytest.raises(ValueError, match=r"values must lie in \[0, 1\], got values from 2 to 2"):
        inputs.look(("values", outside, inputs.BOX))


def test_measures_say_what_they_warn_of():
    assert issubclass(VanishedGradients, UserWarning)
    assert "VanishedGradients" in inspect.getdoc(robustness.robust_accuracy)
