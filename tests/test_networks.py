"""Architectures against torchvision's own, layer by layer; the effect of width, depth and patch; their cost."""

from __future__ import annotations

import copy
import re
from collections import Counter

import pytest
import torch
import torchvision
from test_models import images, randomise_batch_norm, twin_logits
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from advfeat import networks, torchvision_networks
from advfeat.bench.scaling import plain_pgd
from advfeat.data import Dataset
from advfeat.experiments.profiles import PROFILES
from advfeat.hyperparameters import TrainConfig
from advfeat.models import Classifier, build_model, freeze
from advfeat.networks import SMALL_NETWORKS
from advfeat.onednn import check_trainable, narrow_strided
from advfeat.threats import L2
from advfeat.torchvision_networks import TORCHVISION, ArchitectureScale
from advfeat.train import train
from advfeat.whitening import whiten

pytestmark = pytest.mark.numbers

each_architecture = pytest.mark.parametrize("name", TORCHVISION)
# Full depth and all of the wiring, a 64th of the width or less, an eighth of the resolution or less.
SMALL = {"width": 4, "patch": 4}
WHITENED = {"width": 4, "depth": 1, "whitened": True}
COARSE = {**WHITENED, "patch": 2}
CONSTRUCTORS = {
    "resnet18": torchvision.models.resnet18,
    "resnet50": torchvision.models.resnet50,
    "inception_v3": lambda: torchvision.models.inception_v3(aux_logits=False, init_weights=False),
    "densenet": torchvision.models.densenet121,
    "vgg16": torchvision.models.vgg16_bn,
}


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]


def shapes(model: nn.Module, *, factor: float = 1) -> Counter[tuple[int, ...]]:
    """Shapes of all filters but the stem's, with channel counts times ``factor``."""
    found = (tuple(layer.weight.shape) for layer in convolutions(model)[1:])
    return Counter((int(outputs * factor), int(inputs * factor), *size) for outputs, inputs, *size in found)


def plan(name: str, **scale: int) -> nn.Module:
    """The network without memory: shapes and costs take no time."""
    with torch.device("meta"):
        return build_model(name, **scale).eval()


def multiply_adds(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, 32, 32, device="meta"))
    return counter.get_total_flops() // 2


def points(model: nn.Module) -> list[int]:
    """How many places each convolution but the stem's is applied to."""
    found: list[int] = []
    for layer in convolutions(model)[1:]:
        layer.register_forward_hook(lambda _, __, output: found.append(output[0, 0].numel()))
    with torch.no_grad():
        model(torch.empty(1, 3, 32, 32, device="meta"))
    return found


def test_the_documented_cost_is_the_counted_one():
    tables = networks.__doc__ + torchvision_networks.__doc__
    stated = dict(re.findall(r"^(\w+) .*\s([\d,.]+)$", tables, re.MULTILINE))
    assert stated.keys() == {*SMALL_NETWORKS, *TORCHVISION}
    for name, text in stated.items():
        millions = float(text.replace(",", ""))
        last_digit = 0.1 if "." in text else 1
        assert abs(multiply_adds(plan(name)) / 1e6 - millions) <= last_digit / 2 * (1 + 1e-9), name


@each_architecture
def test_at_full_scale_the_filters_are_those_of_torchvision(name):
    with torch.device("meta"):
        original = CONSTRUCTORS[name]()
    model = plan(name)
    assert shapes(model) == shapes(original)
    stem = convolutions(model)[0]
    assert (stem.in_channels, stem.kernel_size, stem.stride, stem.padding) == (3, (3, 3), (1, 1), (1, 1))


@each_architecture
def test_width_scales_every_channel_count_and_nothing_else(name):
    with torch.device("meta"):
        original = CONSTRUCTORS[name]()
    assert shapes(plan(name, width=4)) == shapes(original, factor=4 / 64)


@each_architecture
@pytest.mark.parametrize(
    "scale", [SMALL, {"width": 8, "depth": 1, "patch": 4}, {"width": 4, "depth": 2, "patch": 2}, WHITENED, COARSE]
)
def test_logits_are_the_head_of_a_representation_at_every_scale(name, scale):
    model = build_model(name, classes=7, **scale).eval()
    pixels = images(n=2, size=32)
    with torch.no_grad():
        logits, representation = model(pixels), model.representation(pixels)
    assert logits.shape == (2, 7)
    assert representation.shape == (2, model.head.in_features)
    assert torch.equal(logits, model.head(representation))


@each_architecture
def test_the_gradient_reaches_every_parameter(name):
    model = build_model(name, **SMALL).train()
    # A sum of logits would leave the last BatchNorms without gradient: their outputs average to a constant.
    model(images(n=4, size=32)).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert bool((parameter.grad != 0).any()), key


@each_architecture
@pytest.mark.parametrize("negative", [False, True], ids=["positive scales", "scales of both signs"])
@pytest.mark.parametrize("scale", [SMALL, WHITENED], ids=["patches", "whitened"])
def test_freezing_changes_logits_by_rounding_only(name, scale, negative):
    model = randomise_batch_norm(build_model(name, **scale), negative=negative)
    pixels = images(n=8, size=32)
    expected, _ = twin_logits(model, pixels)
    frozen = freeze(model, dtype=torch.float32)
    with torch.no_grad():
        rounding = float((model(pixels) - expected).abs().max())
        off = float((frozen(pixels) - expected).abs().max())
    # Folding takes away roundings and adds one per filter: it may be as far from the float64 twin as the float32
    # network itself, by a small factor; a filtered convolution also rounds the sums of its transforms, which are up to
    # a hundred times as large as its results. A fold of the wrong sign, scale or epsilon is off by thousands of them.
    assert off <= (8 if frozen.engine == "torch" else 100) * rounding


def test_depth_keeps_at_most_so_many_blocks_of_each_stage():
    count = {name: [len(convolutions(plan(name, depth=depth))) for depth in (1, 2, None)] for name in TORCHVISION}
    # Stem, blocks, and for the ResNets one projection where a stage changes the number of channels.
    assert count["resnet18"] == [1 + 4 * 2 + 3, 1 + 8 * 2 + 3, 20]
    assert count["resnet50"] == [1 + 4 * 3 + 4, 1 + 8 * 3 + 4, 53]
    # Stem of 5; blocks A of 7 convolutions, C of 10 and E of 9; reductions of 4 and 6 begin the later two stages.
    assert count["inception_v3"] == [5 + 7 + 4 + 6, 5 + 14 + 4 + 10 + 6 + 9, 94]
    # Stem and three transitions; two convolutions a layer.
    assert count["densenet"] == [4 + 2 * 4, 4 + 2 * 8, 4 + 2 * 58]
    assert count["vgg16"] == [5, 10, 13]


@each_architecture
def test_a_patch_lowers_the_resolution_and_leaves_the_filters(name):
    fine, coarse = plan(name, depth=1), plan(name, depth=1, patch=4)
    assert shapes(coarse) == shapes(fine)
    assert convolutions(coarse)[0].in_channels == 16 * 3
    if name == "vgg16":  # the first two poolings are left out, so the third stage sees 8×8 points as before
        assert points(coarse) == [64, 64, 16, 4]
        assert points(fine) == [256, 64, 16, 4]
    elif name != "inception_v3":  # there, strided filters without padding round differently
        assert [16 * count for count in points(coarse)] == points(fine)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet50", "width": 6}, "width must be a positive multiple of 4, got 6"),
        ({"name": "vgg16", "width": 0}, "width must be a positive multiple of 4, got 0"),
        ({"name": "densenet", "depth": 0}, "depth must be 1 or more, got 0"),
        ({"name": "resnet18", "patch": 3}, "patch must be 1, 2 or 4, got 3"),
        ({"name": "resnet9", "patch": 2}, "resnet9 takes a positive width and no depth, patch, boost or .*patch=2"),
        ({"name": "resnet9", "whitened": True}, "resnet9 takes a positive width and no .*whitened=True"),
        ({"name": "vgg16", "patch": 4, "whitened": True}, "whitened takes a patch of 1 or 2 and no boost, got patch=4"),
        ({"name": "vgg16", "patch": 2, "boost": 2.0, "whitened": True}, "whitened takes .*, got patch=2, boost=2.0"),
        ({"name": "cnn4", "depth": 1}, "cnn4 takes .*depth=1"),
        ({"name": "vgg16", "boost": 2.0}, "boost must be positive, and 1 where patch is 1, got 2.0"),
        ({"name": "vgg16", "patch": 2, "boost": 0.0}, "boost must be positive, .*got 0.0"),
    ],
)
def test_a_scale_that_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model(**arguments)


@each_architecture
@pytest.mark.parametrize("scale", [WHITENED, COARSE], ids=["every pixel", "patches"])
def test_a_whitened_stem_is_that_of_resnet9_and_the_network_behind_it_is_torchvision_s(name, scale):
    pixels = images(n=64, size=32)
    stem, first, *others = convolutions(whiten(build_model(name, **scale), pixels))
    side = scale.get("patch", 1)
    assert (stem.stride, stem(torch.zeros(1, 3, 32, 32)).shape[-1]) == ((side, side), 33 if side == 1 else 16)
    resnet9 = whiten(build_model("resnet9", width=4), pixels)
    assert torch.equal(stem.weight, convolutions(resnet9)[0].weight)
    assert not any(parameter.requires_grad for parameter in stem.parameters())
    assert (first.in_channels, first.kernel_size) == (24, (3, 3))
    plain = convolutions(build_model(name, width=4, depth=1, patch=side))
    assert [layer.weight.shape for layer in others] == [layer.weight.shape for layer in plain[1:]]


@pytest.mark.parametrize("patch", [2, 4])
def test_a_boosted_stem_enlarges_high_frequencies_and_keeps_the_mean(patch):
    """Gain at the wrong end, or cosines that are not orthonormal, would show."""
    boost = 3.0
    features = build_model("vgg16", width=4, depth=1, patch=patch, boost=boost).features
    unshuffle, transform = features[0], features[1]
    rows = torch.arange(8.0)
    flat, fastest = torch.ones(1, 3, 8, 8), torch.ones(1, 3, 8, 8) * (-1) ** rows * (-1) ** rows[:, None]
    seen = transform(unshuffle(torch.cat([flat, fastest])))
    # Per patch and channel: the mean keeps its length p; the board of ±1 has length p and is no pure cosine for p = 4,
    # but all of it lies where u + v >= p − 1, since its rows have no even frequencies.
    per_channel = seen.unflatten(1, (3, patch**2)).norm(dim=2)
    assert float((per_channel[0] - patch).abs().max()) <= 1e-5
    if patch == 2:
        assert float((per_channel[1] - boost * patch).abs().max()) <= 1e-5
    else:
        assert patch * (1 + (boost - 1) * 2 / 3) < float(per_channel[1].min()) < boost * patch
    assert not transform.weight.requires_grad


def test_a_scale_counts_blocks():
    assert [ArchitectureScale(depth=2).blocks(count) for count in (1, 2, 3)] == [1, 2, 2]
    assert ArchitectureScale().blocks(24) == 24


def strided_points(model: nn.Module) -> list[nn.MaxPool2d]:
    """The layers that pick every other point."""
    return [layer for layer in model.modules() if isinstance(layer, nn.MaxPool2d) and layer.kernel_size == 1]


def narrow() -> Classifier:
    """A network of one's own with a layer whose weight gradient cannot be trusted on a CPU. It is never run here."""
    features = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 1, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    return Classifier(features, nn.Linear(16, 2))


@pytest.mark.parametrize("width", [4, 8, 12, 16, 64])
@pytest.mark.parametrize("name", [*SMALL_NETWORKS, *TORCHVISION])
def test_no_network_has_a_layer_that_cannot_be_trained_at_any_width(name, width):
    model = plan(name, width=width)
    assert narrow_strided(model) == []
    # ResNet-18 takes as many channels as its first stage has to the second, 1x1 with stride 2; ResNet-50 four times.
    expected = {("resnet18", 4): 2, ("resnet18", 8): 1, ("resnet18", 12): 1}.get((name, width), 0)
    assert len(strided_points(model)) == expected


def test_networks_of_the_profiles_are_those_that_they_were():
    for profile in PROFILES.values():
        for name, scale in profile.transfer.architectures.items():
            with torch.device("meta"):
                features, _ = TORCHVISION[name](scale)
            assert strided_points(features) == []


@pytest.mark.parametrize("patch", [1, 4])
def test_picking_points_before_a_narrow_convolution_changes_neither_function_nor_names(patch):
    model = build_model("resnet18", width=4, patch=patch).double()
    original = copy.deepcopy(model)
    for stack in [layer for layer in original.modules() if hasattr(layer, "stride_of_0")]:
        stack.get_submodule("0").stride = stack.stride_of_0.stride
        stack.stride_of_0 = nn.Identity()
    assert narrow_strided(original) == [
        name for name, layer in original.named_modules() if name.endswith("downsample.0") and layer.in_channels < 16
    ]
    assert len(narrow_strided(original)) == 2
    assert original.state_dict().keys() == model.state_dict().keys()
    pixels = images(n=4, size=32)
    outputs, gradients = [], []
    # In float64 PyTorch's own kernels compute both.
    for network in (model, original):
        network.head.float()
        output = network.train()(pixels)
        output.square().sum().backward()
        outputs.append(output)
        gradients.append(torch.cat([parameter.grad.flatten().double() for parameter in network.parameters()]))
    assert torch.equal(*outputs)
    # Summed over the points in another order, at most 32 x 32 x 4 of them.
    assert float((gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max()) <= 2.0**-40


def test_a_narrow_strided_layer_of_one_s_own_is_refused_by_name():
    model = narrow()
    message = r"1×1 convolutions with a stride on fewer than 16 channels: features\.1\. .*MaxPool2d.*same function"
    with pytest.raises(ValueError, match=message):
        check_trainable(model)
    noise = Dataset(torch.rand(4, 3, 12, 12), torch.tensor([0, 1, 0, 1]), ("a", "b"), "noise")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        train(model, noise, TrainConfig(epochs=1, batch_size=2, lr=0.1), seed=0)
    with pytest.raises(ValueError, match=message):
        plain_pgd(model, noise.images, noise.labels, L2(0.5), steps=1, step_size=0.1)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        ({}, True),
        ({"in_channels": 15}, True),
        ({"in_channels": 16}, False),
        ({"stride": 1}, False),
        ({"stride": (1, 2)}, True),
        ({"kernel_size": 3}, False),
        ({"padding": 1}, False),
        ({"padding": "valid"}, True),
        ({"groups": 2}, False),
    ],
    ids=str,
)
def test_only_narrow_strided_layers_are_listed(change, listed):
    layer = nn.Conv2d(**({"in_channels": 4, "out_channels": 8, "kernel_size": 1, "stride": 2} | change))
    assert narrow_strided(nn.Sequential(layer)) == (["0"] if listed else [])
    assert narrow_strided(nn.Sequential(layer).requires_grad_(False)) == []


def test_narrow_strided_layers_are_refused_where_the_fault_is_only(monkeypatch):
    check_trainable(narrow().requires_grad_(False))
    check_trainable(narrow().to("meta"))
    check_trainable(nn.Identity())
    with pytest.raises(ValueError, match=r"features\.1"):
        check_trainable(narrow())
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)  # then PyTorch's own kernels compute
    check_trainable(narrow())


def test_the_fault_is_told_where_networks_are_made():
    told = " ".join(build_model.__doc__.split())
    assert "writes beyond its memory in the weight gradient of a 1×1 convolution with a stride on fewer than 16" in told
    assert "check_trainable" in told
