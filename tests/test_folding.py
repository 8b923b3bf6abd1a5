"""Folded networks: folded and unfolded layers, refusals by name, and copies that follow the weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advfeat.engine import batch_independence, folding
from advfeat.engine.convolution_code import Engine
from advfeat.engine.folding import fold, refold
from advfeat.models import Classifier, build_model, freeze
from advfeat.models import refold as refold_classifier
from advfeat.networks import SMALL_NETWORKS
from advfeat.torchvision_networks import TORCHVISION

pytestmark = pytest.mark.numbers

U = 2.0**-24

# Small, but with every kind of layer that the full network has.
NETWORKS = {name: {"width": 4} for name in SMALL_NETWORKS} | {name: {"width": 8, "depth": 1} for name in TORCHVISION}
NETWORKS["densenet"]["depth"] = 2
each_network = pytest.mark.parametrize("name", NETWORKS)


def images(n: int = 4, size: int = 32, seed: int = 0) -> Tensor:
    return torch.rand((n, 3, size, size), generator=torch.Generator().manual_seed(seed))


def lived_in(model: nn.Module, seed: int = 0) -> nn.Module:
    """As after training: statistics far from 0 and 1, scales of both signs."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            shape = layer.running_mean.shape
            layer.running_mean.copy_(torch.randn(shape, generator=generator) * 0.3)
            layer.running_var.copy_(0.5 + torch.rand(shape, generator=generator))
            if layer.affine:
                with torch.no_grad():
                    layer.weight.copy_(0.5 + torch.rand(shape, generator=generator))
                    layer.weight[::3] *= -1
                    layer.bias.copy_(torch.randn(shape, generator=generator) * 0.3)
    return model.eval()


def network(name: str, seed: int = 0) -> Classifier:
    return lived_in(build_model(name, seed=seed, **NETWORKS[name]), seed)


def layers(features: nn.Module) -> int:
    return sum(isinstance(layer, nn.Conv2d | nn.BatchNorm2d) for layer in features.modules())


@each_network
def test_a_frozen_network_answers_as_its_model_does(name):
    model = network(name)
    twin = copy.deepcopy(model.features).double()
    expected = twin(model.normalise(images()).double()).detach()
    frozen = freeze(model, dtype=torch.float32)
    # Roundings of a sum go both ways, as its terms do, so both grow with the root of their number: next to its largest
    # outputs a layer is off by some U. Every layer adds its own, for products, sum, scale and shift.
    off = float((frozen.representation(images()) - expected).abs().max() / expected.abs().max())
    assert off <= 4 * layers(model.features) * U
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


@each_network
def test_in_bfloat16_it_drifts_by_its_own_rounding(name):
    model = network(name)
    expected = freeze(model, dtype=torch.float32).representation(images())
    answer = freeze(model, dtype=torch.bfloat16).representation(images())
    # Weights and outputs have eight digits: each is off by 2**-8 at most, in a direction of its own. Sums are kept in
    # float32. So over the layers the drift of the whole grows with the root of their number.
    off = float((answer - expected).double().norm() / expected.double().norm())
    assert 0 < off <= layers(model.features) ** 0.5 * 2.0**-8


@each_network
def test_a_refolded_copy_is_a_fresh_one_to_the_bit(name):
    model, other = network(name, seed=0), network(name, seed=1)
    for dtype in (torch.float32, torch.bfloat16):
        frozen = freeze(model, dtype=dtype, refoldable=True)
        stale = frozen(images())
        places = [tensor.data_ptr() for tensor in (*frozen.parameters(), *frozen.buffers())]
        refold_classifier(frozen, other)
        fresh = freeze(other, dtype=dtype, refoldable=True)
        assert torch.equal(frozen(images()), fresh(images()))
        assert not torch.equal(frozen(images()), stale)
        # Written in place: whatever was recorded on this memory stays right.
        assert [tensor.data_ptr() for tensor in (*frozen.parameters(), *frozen.buffers())] == places
        assert {p.dtype for p in frozen.features.parameters()} == {dtype}


def test_refolding_follows_every_kind_of_weight():
    model = network("resnet9")
    frozen = freeze(model, dtype=torch.float32, refoldable=True)
    for key, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        before = frozen.represent(images(size=12)), frozen(images(size=12))
        with torch.no_grad():
            tensor.mul_(1.5).add_(0.01)
        refold_classifier(frozen, model)
        after = frozen.represent(images(size=12)), frozen(images(size=12))
        moved = not torch.equal(before[0], after[0]) or not torch.equal(before[1], after[1])
        assert moved, f"{key} is stale"
        expected = freeze(model, dtype=torch.float32, refoldable=True)
        assert torch.equal(frozen(images(size=12)), expected(images(size=12))), key


def test_refolding_leaves_the_model_alone_and_needs_no_gradient():
    model = network("resnet9").train()
    frozen = freeze(model, dtype=torch.float32, refoldable=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    refold_classifier(frozen, model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert not frozen.training


def test_only_a_refoldable_copy_of_the_same_network_follows(unchecked_types):
    model = network("resnet9")
    with pytest.raises(ValueError, match="make it with freeze"):
        refold_classifier(freeze(model), model)
    with pytest.raises(TypeError, match="as freeze makes it, got a Classifier"):
        refold_classifier(model, model)
    with pytest.raises(ValueError, match="does not fit"):
        refold_classifier(freeze(model, refoldable=True), build_model("resnet9", width=8))
    with pytest.raises(ValueError, match="the original"):
        refold_classifier(freeze(model, refoldable=True), network("cnn4"))


def batch_norms(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())


def convolution(inputs: int = 3, outputs: int = 4, **options: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


class Both(nn.Module):
    """A convolution whose output is normalised, and used as it is as well."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = convolution(), nn.BatchNorm2d(4)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.convolution(inputs)
        return outputs + self.norm(outputs)


class Twice(nn.Module):
    """One convolution, called with and without a BatchNorm behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = convolution(3, 3), nn.BatchNorm2d(3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.convolution(self.norm(self.convolution(inputs)))


@pytest.mark.parametrize(
    ("network", "left"),
    [
        (nn.Sequential(convolution(bias=False), nn.BatchNorm2d(4)), 0),
        (nn.Sequential(convolution(bias=True), nn.BatchNorm2d(4)), 0),
        (nn.Sequential(convolution(), nn.BatchNorm2d(4, affine=False)), 0),
        (nn.Sequential(convolution(outputs=6, groups=3), nn.BatchNorm2d(6)), 0),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), convolution()), 1),  # before the convolution
        (nn.Sequential(convolution(), nn.ReLU(), nn.BatchNorm2d(4)), 1),
        (nn.Sequential(convolution(), nn.AvgPool2d(2), nn.BatchNorm2d(4)), 1),
        (nn.Sequential(convolution(), nn.MaxPool2d(2), nn.BatchNorm2d(4)), 1),  # scales of both signs
        (nn.Sequential(convolution(), nn.BatchNorm2d(4), nn.BatchNorm2d(4)), 0),
        (Both(), 1),
        (Twice(), 1),
    ],
    ids=["plain", "biased", "not affine", "grouped", "before", "after relu", "after mean", "after maximum", "two",
         "used twice", "called twice"],
)  # fmt: skip
def test_what_folds_and_what_stays(network, left):
    original = lived_in(network)
    result = fold(copy.deepcopy(original), through_pooling=True)
    assert batch_norms(result) == left
    pixels = images(size=8)
    expected = original.double()(pixels.double()).detach()
    # Two or three layers of at most 27 products of numbers below 4 in size, scaled by at most 1.5 / √0.5 each time.
    assert float((result(pixels).detach() - expected).abs().max()) <= 3 * 27**0.5 * 4 * 2 * 2 * U * float(
        expected.abs().max()
    )


def test_folding_through_a_maximum_asks_for_positive_scales_and_is_left_out_on_demand():
    pooled = nn.Sequential(convolution(), nn.MaxPool2d(2), nn.BatchNorm2d(4)).eval()
    assert batch_norms(fold(copy.deepcopy(pooled), through_pooling=True)) == 0
    assert batch_norms(fold(copy.deepcopy(pooled), through_pooling=False)) == 1
    pooled[2].weight.data[1] = 0.0
    assert batch_norms(fold(copy.deepcopy(pooled), through_pooling=True)) == 1


@pytest.mark.parametrize("mode", [True, False], ids=["training", "eval"])
def test_dropout_is_gone(mode):
    class Functional(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return F.dropout(inputs, 0.5, training=self.training)

    parts = [convolution(), nn.Dropout(0.5), nn.ReLU(), nn.Dropout2d(0.5), Functional(), nn.Flatten()]
    model = Classifier(nn.Sequential(*parts), nn.Linear(4 * 64, 2)).train(mode)
    frozen = freeze(model, dtype=torch.float32)
    pixels = images(size=8)
    assert torch.equal(frozen(pixels), frozen(pixels))
    expected = model.eval()(pixels).detach()
    # Sums of 27 and of 256 products; with a dropout left in, the difference would be about 1.
    assert float((frozen(pixels) - expected).abs().max() / expected.abs().max()) <= (27 + 256) ** 0.5 * 4 * U
    assert not any(isinstance(layer, nn.Dropout | nn.Dropout2d) for layer in frozen.modules())


class Calls(nn.Module):
    """One function, called on the images."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(inputs)


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (nn.BatchNorm2d(3, track_running_stats=False), r"1 \(BatchNorm2d\) keeps no running statistics"),
        (nn.RReLU(), r"1 \(RReLU\) is not known to treat each image on its own"),
        (nn.utils.parametrizations.weight_norm(convolution()), r"1 \(ParametrizedConv2d\) is not known"),
        (Calls(torch.randn_like), "randn_like draws at random"),
        (Calls(lambda x: x.bernoulli()), "bernoulli draws at random"),
        (Calls(lambda x: x + torch.randn(x.shape)), "randn draws at random"),
        (Calls(lambda x: x + torch.rand(1, 3, 1, 1)), "draws at random"),
        (nn.Softmax(dim=0), r"1 \(Softmax\) works across the images"),
        (Calls(lambda x: x.reshape(len(x), -1)), "cannot be traced"),
        (Calls(lambda x: F.dropout(x, 0.5)), "dropout is called as in training"),
        (Calls(lambda x: F.dropout(x, 0.5, True)), "dropout is called as in training"),
        (Calls(lambda x: F.batch_norm(x, None, None, training=True)), "batch_norm is called as in training"),
    ],
    ids=[
        "own statistics",
        "unknown",
        "parametrised",
        "noise",
        "method",
        "noise of a size",
        "noise as a constant",
        "across",
        "untraceable",
        "dropout",
        "dropout by place",
        "batch norm",
    ],
)
def test_what_cannot_be_trusted_is_refused_by_name(layer, named):
    with pytest.raises(TypeError, match=named):
        freeze(Classifier(nn.Sequential(convolution(3, 3), layer), nn.Linear(3, 2)))


def test_a_layer_with_hooks_is_refused_by_name():
    layer = nn.ReLU()
    layer.register_forward_hook(lambda *_: None)
    with pytest.raises(TypeError, match=r"layer 1 \(ReLU\) has hooks"):
        freeze(Classifier(nn.Sequential(convolution(), layer), nn.Linear(3, 2)))
    whole = nn.Sequential(convolution(), nn.ReLU())
    whole.register_forward_hook(lambda *_: None)
    with pytest.raises(TypeError, match="Sequential has hooks"):
        freeze(Classifier(whole, nn.Linear(3, 2)))


def test_a_weight_that_is_read_elsewhere_too_is_not_folded_into():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm, self.flat = convolution(3, 3), nn.BatchNorm2d(3), nn.Flatten()

        def forward(self, inputs: Tensor) -> Tensor:
            return self.flat(input=self.norm(input=self.convolution(inputs)) + self.convolution.weight.sum())

    model = lived_in(Classifier(Shared(), nn.Linear(3 * 64, 2)))
    pixels = images(size=8)
    assert torch.allclose(freeze(model, dtype=torch.float32)(pixels), model(pixels), rtol=0, atol=1e-5)


def test_refolding_a_network_that_was_not_folded_is_refused():
    with pytest.raises(ValueError, match="that the original has not"):
        refold(fold(lived_in(nn.Sequential(convolution(), nn.BatchNorm2d(4))), through_pooling=True), nn.ReLU())


def test_without_an_engine_wide_convolutions_on_small_maps_read_channel_by_channel_in_float32_alone(monkeypatch):
    monkeypatch.setattr(folding, "engine", lambda: Engine("torch", "hidden"))
    seen = {}

    def layout(name):
        def note(_, given):
            by_channel = given[0].is_contiguous() and not given[0].is_contiguous(memory_format=torch.channels_last)
            seen.setdefault(name, []).append((given[0].shape[2], by_channel))

        return note

    wide = nn.Sequential(
        nn.Conv2d(3, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1), nn.BatchNorm2d(256), nn.ReLU(),
        nn.Conv2d(256, 256, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    model = Classifier(wide, nn.Linear(256, 4, bias=False)).eval()
    for dtype in (torch.float32, torch.bfloat16):
        seen.clear()
        frozen = freeze(model, dtype=dtype)
        for name, layer in frozen.features.named_modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_pre_hook(layout(name))
        for side in (8, 12):
            images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(side))
            with torch.no_grad():
                logits, expected = frozen(images), model(images)
            if dtype == torch.float32:
                assert float((logits - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
        small_by_channel = dtype == torch.float32
        assert seen["2"] == [(8, small_by_channel), (12, False)]
        assert all(not by_channel for _, by_channel in seen["0"]), "few channels come in"


class Pooled(nn.Module):
    """A convolution, averaged to (n, 12), and a function on that."""

    def __init__(self, function) -> None:
        super().__init__()
        self.convolution, self.function = nn.Conv2d(3, 12, 3, padding=1), function

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(self.convolution(inputs).mean((2, 3)))


MIXING = {
    "mean": lambda z: z - z.mean(0),
    "faint mean": lambda z: z - 1e-3 * z.mean(0),
    "mean by name": lambda z: z - z.mean(dim=0, keepdim=True),
    "method": lambda z: z.sub(torch.mean(z, 0)),
    "spread": lambda z: z / z.std(0),
    "largest": lambda z: z / z.abs().amax(0),
    "largest of all": lambda z: z / z.abs().max(),
    "softmax": lambda z: z.softmax(0),
    "softmax from the end": lambda z: F.softmax(z, dim=-2),
    "unit length": lambda z: F.normalize(z, dim=0),
    "running sum": lambda z: z.cumsum(0),
    "sorted": lambda z: z.sort(0)[0],
    "sorted by length": lambda z: z[z.norm(dim=1).argsort()],
    "rolled": lambda z: z.roll(1, 0),
    "rolled far": lambda z: torch.roll(z, -3, 0),
    "flipped": lambda z: z.flip(0),
    "beside the first": lambda z: z - z[:1],
    "beside the last": lambda z: z - z[-1],
    "beside the third": lambda z: z - z[2],
    "attention": lambda z: (z @ z.t()).softmax(1) @ z,
    "transposed": lambda z: (z.t() - z.t().mean(1, True)).t(),
    "by the size of the batch": lambda z: z * z.size(0),
    "reshaped": lambda z: z.view(12, -1).t().contiguous(),
    "median": lambda z: z - z.median(0)[0],
}


@pytest.mark.parametrize("function", MIXING.values(), ids=MIXING)
def test_a_function_that_mixes_images_is_found(function):
    model = Classifier(Pooled(function), nn.Linear(12, 2)).eval()
    state = torch.get_rng_state()
    for refoldable in (False, True):
        with pytest.raises(TypeError, match="Pooled mixes the images of a batch"):
            freeze(model, dtype=torch.float32, refoldable=refoldable)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "layer", [nn.Softmax(dim=-2), nn.Sequential(nn.Unflatten(1, (3, 4)), nn.Softmax(dim=-3))], ids=["2", "3"]
)
def test_a_layer_that_counts_dimensions_from_the_end_is_tried(layer):
    with pytest.raises(TypeError, match="mixes the images of a batch"):
        freeze(Classifier(nn.Sequential(Pooled(lambda z: z), layer, nn.Flatten()), nn.Linear(12, 2)))


EACH_ALONE = {
    "centred": lambda z: z - z.mean(1, keepdim=True),
    "softmax": lambda z: z.softmax(1),
    "unit length": lambda z: F.normalize(z),
    "sorted": lambda z: z.sort(1)[0],
    "by the number of channels": lambda z: z * z.size(1),
    "reshaped": lambda z: z.view(-1, 3, 4).flatten(1),
    "large": lambda z: 1e30 * z,
    "overflow": lambda z: (1e30 * z) * 1e30,
    "nothing": lambda z: 0 * z,
    "not a number": lambda z: z / 0 - z / 0,
}


@pytest.mark.parametrize("function", EACH_ALONE.values(), ids=EACH_ALONE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_function_on_each_image_alone_is_none_that_mixes(function, dtype):
    model = Classifier(Pooled(function), nn.Linear(12, 2))
    state = torch.get_rng_state()
    freeze(model, dtype=dtype)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("side", [8, 28, 32, 64, 224])
def test_a_network_of_one_size_is_tried_at_that_size(side):
    def features(function) -> nn.Module:
        return nn.Sequential(Calls(function), nn.AvgPool2d(side // 4), nn.Flatten(), nn.Linear(48, 5))

    freeze(Classifier(features(lambda x: x - x.amax(1, keepdim=True)), nn.Linear(5, 2)))
    with pytest.raises(TypeError, match="mixes the images of a batch"):
        freeze(Classifier(features(lambda x: x - x.amax(0)), nn.Linear(5, 2)))


def test_a_network_that_cannot_be_tried_is_frozen_with_a_warning():
    odd = nn.Sequential(Calls(lambda x: x - x.amax(1, keepdim=True)), nn.Flatten(), nn.Linear(3 * 5 * 7, 5))
    with pytest.warns(UserWarning, match="takes no square images of side 8, .* 299, so whether it treats each"):
        freeze(Classifier(odd, nn.Linear(5, 2)))


@each_network
def test_networks_of_the_library_need_no_trial(name, monkeypatch):
    """Freezing costs as much as before: every layer and function is known to treat each image on its own."""
    model = network(name)
    monkeypatch.setattr(batch_independence, "SIDES", ())  # a trial would warn that there is no size
    freeze(model)
    freeze(model, refoldable=True)
    freeze(freeze(model))
