"""Networks: seeds, normalisation inside, and the frozen copy against a float64 twin."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advfeat.attacks import pgd
from advfeat.evaluation_mode import batch_statistics, check_eval
from advfeat.models import CHANNEL_MEAN, CHANNEL_STD, Classifier, FrozenClassifier, build_model, freeze
from advfeat.threats import L2
from advfeat.whitening import whiten

pytestmark = pytest.mark.numbers

U = 2.0**-24


def images(n: int = 6, size: int = 12, seed: int = 0) -> Tensor:
    return torch.rand((n, 3, size, size), generator=torch.Generator().manual_seed(seed))


def randomise_batch_norm(model: nn.Module, *, negative: bool, seed: int = 0) -> Classifier:
    """Statistics as after training: means and variances away from 0 and 1; scales of both signs, if ``negative``."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            shape = layer.weight.shape
            layer.running_mean.copy_(torch.randn(shape, generator=generator) * 0.3)
            # From far below to far above 1: a wrong epsilon in the fold shows at the small end.
            layer.running_var.copy_(10 ** (torch.rand(shape, generator=generator) * 3 - 2.5))
            with torch.no_grad():
                layer.weight.copy_(0.3 + 0.4 * torch.rand(shape, generator=generator))
                layer.bias.copy_(torch.randn(shape, generator=generator) * 0.3)
                if negative:
                    layer.weight[::2] *= -1
    return model.eval()


def twin_logits(model: Classifier, pixels: Tensor) -> tuple[Tensor, float]:
    """Logits computed in float64 by the unfolded model, and the size of the terms that the head sums."""
    features = copy.deepcopy(model.features).double().eval()
    mean, std = (torch.tensor(values).double().view(1, 3, 1, 1) for values in (CHANNEL_MEAN, CHANNEL_STD))
    with torch.no_grad():
        representation = features((pixels.double() - mean) / std)
        head = model.head.weight.double()
        bias = 0 if model.head.bias is None else model.head.bias.double()
        logits = (representation @ head.T + bias) * model.logit_scale
        size = float((representation.abs() @ head.T.abs()).max()) * model.logit_scale
    return logits, size


def batch_norms(model: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())


@pytest.mark.parametrize(("name", "width", "size"), [("cnn4", 4, 16), ("resnet9", 4, 16), ("resnet18", None, 8)])
def test_networks_have_logits_and_a_representation(name, width, size):
    model = build_model(name, classes=7, width=width).eval()
    pixels = images(n=2, size=size)
    with torch.no_grad():
        logits, representation = model(pixels), model.representation(pixels)
        assert logits.shape == (2, 7)
        assert logits.dtype == representation.dtype == torch.float32
        assert torch.equal(logits, model.head(representation) * model.logit_scale)


def test_normalisation_is_inside():
    model = build_model("resnet9", width=4).eval()
    pixels = images(n=2)
    normalised = (pixels - torch.tensor(CHANNEL_MEAN).view(1, 3, 1, 1)) / torch.tensor(CHANNEL_STD).view(1, 3, 1, 1)
    with torch.no_grad():
        by_hand = model.features(normalised.to(memory_format=torch.channels_last))
        assert torch.equal(model.representation(pixels), by_hand)


def test_the_seed_draws_the_weights_and_global_randomness_stays():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = (build_model("resnet9", width=4, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet10"}, "unknown network 'resnet10'; there are cnn4, .*resnet9, vgg16"),
        ({"name": "resnet9", "classes": 0}, "got classes=0"),
        ({"name": "resnet9", "width": 0}, "width=0"),
    ],
)
def test_unknown_networks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model(**arguments)


def test_what_is_frozen_says_so_by_its_type_and_is_not_frozen_twice():
    model = build_model("resnet9", width=4)
    frozen = freeze(model, dtype=torch.float32)
    assert type(model) is Classifier
    assert type(frozen) is FrozenClassifier
    assert freeze(frozen, dtype=torch.float32) is frozen
    follower = freeze(model, dtype=torch.float32, refoldable=True)
    assert freeze(follower, dtype=torch.float32, refoldable=True) is follower
    others = [
        freeze(frozen, dtype=torch.bfloat16),
        freeze(frozen, dtype=torch.float32, refoldable=True),
        freeze(follower, dtype=torch.float32),  # it would change with the weights that it follows
        freeze(model, dtype=torch.float32),
        freeze(copy.deepcopy(frozen).train(), dtype=torch.float32),
    ]
    assert not any(other is frozen or other is follower for other in others)
    assert all(type(other) is FrozenClassifier and not other.training for other in others)
    assert [other.dtype for other in others] == [torch.bfloat16, *[torch.float32] * 4]
    for other in (frozen, *others[1:]):
        assert torch.allclose(other(images()), frozen(images()), atol=1e-5)


def test_a_leak_is_put_into_a_copy():
    frozen = freeze(build_model("cnn4", width=4), dtype=torch.float32)
    leaky = freeze(frozen, dtype=torch.float32, leak=0.1)
    assert leaky is not frozen
    assert torch.equal(leaky(images(size=16)), frozen(images(size=16)))
    assert freeze(leaky, dtype=torch.float32) is leaky


def test_a_frozen_copy_of_a_subclass_keeps_its_methods():
    class Doubled(Classifier):
        def forward(self, pixels: Tensor) -> Tensor:
            return 2 * super().forward(pixels)

    plain = build_model("resnet9", width=4).eval()
    frozen = freeze(Doubled(plain.features, plain.head, logit_scale=plain.logit_scale), dtype=torch.float32)
    assert isinstance(frozen, Doubled)
    assert isinstance(frozen, FrozenClassifier)
    assert type(frozen) is not FrozenClassifier
    assert torch.equal(frozen(images()), 2 * freeze(plain, dtype=torch.float32)(images()))
    assert freeze(frozen, dtype=torch.float32) is frozen


def test_the_dtype_is_that_of_the_features():
    model = build_model("resnet9", width=4).eval()
    assert model.dtype == torch.float32
    assert copy.deepcopy(model).double().dtype == torch.float64
    model.features.to(torch.bfloat16)
    assert model.dtype == model.normalise(images()).dtype == torch.bfloat16
    assert model(images()).dtype == torch.float32


@pytest.mark.parametrize("negative", [False, True], ids=["positive scales", "scales of both signs"])
@pytest.mark.parametrize("name", ["cnn4", "resnet9", "resnet18"])
def test_freezing_changes_logits_by_rounding_only(name, negative):
    model = randomise_batch_norm(build_model(name, width=None if name == "resnet18" else 4), negative=negative)
    pixels = images(n=4, size=8 if name == "resnet18" else 16)
    expected, size = twin_logits(model, pixels)
    frozen = freeze(model, dtype=torch.float32)
    # Sums over the fan-in are off by its root in U (roundings go both ways), once per layer: 9 layers of at most
    # 16 * 9 terms in resnet9 here, 20 layers of at most 512 * 9 in resnet18. A scale below 1 / sqrt(0.003), where the
    # variance is smallest, magnifies the error of the layer before: by at most 8 over the network, measured in the
    # size of the terms that the head sums.
    layers, terms = {"cnn4": (5, 72), "resnet9": (9, 144), "resnet18": (20, 4608)}[name]
    assert float((frozen(pixels) - expected).abs().max()) <= 8 * layers * terms**0.5 * U * size


def test_positive_scales_fold_all_batch_norm_and_negative_ones_stay_behind_the_pooling():
    positive = freeze(randomise_batch_norm(build_model("resnet9", width=4), negative=False))
    assert batch_norms(positive) == 0
    # Three of the seven follow a max-pooling, which does not commute with a sign; the other four fold.
    assert batch_norms(freeze(randomise_batch_norm(build_model("resnet9", width=4), negative=True))) == 3
    assert batch_norms(freeze(build_model("resnet18"))) == batch_norms(freeze(build_model("cnn4"))) == 0


def test_a_frozen_copy_needs_no_weight_gradients_and_leaves_the_original_alone():
    model = randomise_batch_norm(build_model("resnet9", width=4), negative=True).train()
    whiten(model, images(n=50, size=8))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    gradients = [parameter.requires_grad for parameter in model.parameters()]
    frozen = freeze(model)
    assert not frozen.training
    assert not any(layer.training for layer in frozen.modules() if not list(layer.children()))
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    frozen(images())
    assert all(layer.training for layer in model.modules())
    assert [parameter.requires_grad for parameter in model.parameters()] == gradients
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert model.dtype == torch.float32
    shared = {value.data_ptr() for value in before.values()} & {p.data_ptr() for p in frozen.parameters()}
    assert not shared


@pytest.mark.parametrize("width", [4, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_freezing_twice_is_freezing_once(width, dtype):
    """At width 64 some layers are laid out by a hook of ours, in float32, which a second copy must get over."""
    model = randomise_batch_norm(build_model("resnet9", width=width), negative=True)
    once = freeze(model, dtype=torch.float32)
    pixels = images(n=2)
    assert torch.equal(freeze(once, dtype=dtype)(pixels), freeze(model, dtype=dtype)(pixels))


@pytest.mark.parametrize("negative", [False, True])
def test_bfloat16_drifts_by_its_own_rounding_only(negative):
    model = randomise_batch_norm(build_model("resnet9", width=4), negative=negative)
    expected, size = twin_logits(model, images())
    frozen = freeze(model, dtype=torch.bfloat16)
    logits = frozen(images())
    assert logits.dtype == torch.float32
    assert frozen.head.weight.dtype == torch.float32
    assert next(frozen.features.parameters()).dtype == torch.bfloat16
    # bfloat16 rounds by 2**-9. Nine layers round weights and outputs, and the same factor 8 as above.
    drift = float((logits - expected).abs().max())
    assert 0 < drift <= 8 * 9 * 2 * 2**-9 * size


def test_a_network_that_cannot_be_traced_is_refused_with_the_reason():
    class Branching(nn.Module):
        def forward(self, inputs):
            return inputs.flatten(1) if inputs.sum() > 0 else -inputs.flatten(1)

    with pytest.raises(TypeError, match="Branching cannot be traced"):
        freeze(Classifier(Branching(), nn.Linear(12, 2)))


def test_whitening_gives_patches_of_identity_covariance():
    model = build_model("resnet9", width=4)
    pixels = images(n=200, size=9)
    assert whiten(model, pixels, floor=0.0) is model
    stem = next(model.features.children())
    with torch.no_grad():
        normalised = (pixels - model.mean) / model.std
        out = F.conv2d(normalised, stem.weight, stem.bias)
        patches = out.transpose(0, 1).flatten(1).double()
        covariance = torch.cov(patches[:12])
    # Noise has patches of nearly equal variance, so a filter is twelve float32 products of size 1 each, off by
    # 12 U; a covariance doubles that. The mean of 12,800 values is subtracted in float64.
    assert float((covariance - torch.eye(12)).abs().max()) <= 10 * 24 * U
    assert float((patches[12:] + patches[:12]).abs().max()) <= 10 * 24 * U
    assert not stem.weight.requires_grad
    assert all(p.requires_grad for key, p in model.named_parameters() if not key.startswith("features.0."))


def test_the_floor_keeps_flat_directions_small():
    # A constant image has no variance at all: without a floor the filters would be infinite.
    model = whiten(build_model("resnet9", width=4), torch.full((20, 3, 8, 8), 0.5), floor=0.25)
    stem = next(model.features.children())
    # Orthonormal vectors divided by sqrt(0 + 0.25).
    gram = stem.weight[:12].flatten(1).double() @ stem.weight[:12].flatten(1).double().T
    assert float((gram - 4 * torch.eye(12)).abs().max()) <= 4 * 12 * 4 * U


def test_whitening_passes_other_networks_through():
    model = build_model("resnet18")
    before = model.features.conv1.weight.clone()
    whiten(model, images())
    assert torch.equal(model.features.conv1.weight, before)
    assert model.features.conv1.weight.requires_grad


def test_cnn4_starts_with_a_fixed_transform_that_keeps_directions_apart():
    model = build_model("cnn4")
    (layer,) = (layer for layer in model.features.children() if isinstance(layer, nn.Conv2d) and layer.bias is None
                and not layer.weight.requires_grad)  # fmt: skip
    matrix = layer.weight.detach().flatten(1).double()
    gram = matrix @ matrix.T
    lengths = gram.diagonal().sqrt()
    # Orthogonal rows: an orthonormal transform, its high frequencies longer by a stated factor; the mean of a patch
    # (row 0 of each channel) keeps its length. Entries are below 1.7 and rounded a few times, 48 products a sum.
    assert float((gram - torch.diag(gram.diagonal())).abs().max()) <= 48 * 4 * U
    assert torch.allclose(lengths[::16], torch.ones(3, dtype=torch.float64), atol=16 * U, rtol=0)
    assert 1 - 16 * U <= float(lengths.min()) < float(lengths.max()) <= 1.7 + 16 * U


# The leak of the last ReLU


@pytest.mark.parametrize(("name", "width", "size"), [("cnn4", 4, 16), ("resnet18", None, 4)])
def test_a_leak_changes_gradients_and_no_output(name, width, size):
    """Fails for a leaky ReLU. Which layer leaks, and how much, the next test asks."""
    model = randomise_batch_norm(build_model(name, width=width), negative=False)
    pixels = images(size=size)
    closed, leaky = (freeze(model, dtype=torch.float32, leak=leak) for leak in (0.0, 0.1))
    assert torch.equal(closed.representation(pixels), leaky.representation(pixels))
    activation: dict[str, Tensor] = {}
    for key, network in (("closed", closed), ("leaky", leaky)):
        wanted = pixels.clone().requires_grad_()
        network.representation(wanted).sum().backward()
        activation[key] = wanted.grad
    assert not torch.equal(activation["closed"], activation["leaky"])


class Method(nn.Module):
    """A ReLU in another spelling."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, inputs: Tensor) -> Tensor:
        return getattr(inputs, self.name)()


@pytest.mark.parametrize("relu", [nn.ReLU(), Method("relu"), Method("relu_")], ids=["layer", "method", "in place"])
def test_a_silent_unit_gets_the_share_of_the_gradient_that_the_leak_says(relu):
    model = Classifier(nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(48, 5), relu), nn.Linear(5, 2)).eval()
    linear = model.features[2]
    with torch.no_grad():
        linear.bias.copy_(torch.tensor([50.0, -50.0, 50.0, -50.0, -50.0]))  # units 1, 3 and 4 are silent
    pixels = images(n=2, size=4)

    def gradient(unit: int, leak: float) -> Tensor:
        wanted = pixels.clone().requires_grad_()
        freeze(model, dtype=torch.float32, leak=leak).representation(wanted)[:, unit].sum().backward()
        return wanted.grad.flatten(1)

    spread = model.std.expand(1, 3, 4, 4).flatten()
    first = ((pixels - model.mean) / model.std).flatten(1) > 0
    for unit, factor in ((0, 1.0), (1, 0.25), (4, 0.25)):
        expected = factor * first * linear.weight[unit] / spread
        assert (gradient(unit, 0.25) - expected).abs().max() <= 8 * U * expected.abs().max()
    assert gradient(1, 0.0).abs().max() == 0


@pytest.mark.parametrize("leak", [-0.1, 1.5])
def test_a_leak_outside_its_range_is_refused(leak):
    with pytest.raises(ValueError, match=f"leak must be in \\[0, 1\\], got {leak}"):
        freeze(build_model("cnn4", width=4), leak=leak)


def test_a_layer_in_training_mode_is_found_wherever_it_is():
    model = build_model("cnn4", width=8).eval()
    check_eval(model)
    check_eval(freeze(model))
    model.features.train()
    with pytest.raises(ValueError, match=r"its layer features \(Sequential\) is in training mode.*call model.eval\(\)"):
        check_eval(model)
    model.eval()
    next(layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)).train()
    with pytest.raises(ValueError, match=r"its layer features\.\d \(BatchNorm2d\) is in training mode"):
        pgd(model, images(size=16), torch.zeros(6, dtype=torch.long), L2(0.5), steps=1, step_size=0.1)
    model.eval()
    model.features.append(nn.Dropout(0.5))
    with pytest.raises(ValueError, match=r"its layer features\.\d+ \(Dropout\) is in training mode"):
        check_eval(model)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d])
def test_a_batch_norm_without_running_statistics_mixes_in_eval_mode_too(norm):
    wrapped = nn.Sequential(nn.Identity(), nn.Sequential(norm(3, track_running_stats=False))).eval()
    with pytest.raises(ValueError, match=r"layer 1\.0 of model \(BatchNorm\dd\) keeps no running statistics"):
        check_eval(wrapped)
    check_eval(nn.Sequential(norm(3), nn.InstanceNorm2d(3), nn.GroupNorm(1, 3)).eval())


def test_batch_statistics_that_are_asked_for_pass_and_leave_nothing_behind():
    model = build_model("cnn4", width=8).eval()
    with batch_statistics(model):
        check_eval(model)
    assert not hasattr(model, "on_batch_statistics")
    assert not any(layer.training for layer in model.modules())
    check_eval(model)
    with pytest.raises(KeyError), batch_statistics(model):
        raise KeyError
    assert not hasattr(model, "on_batch_statistics")
    check_eval(model)
