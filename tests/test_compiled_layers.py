"""Frozen networks whose layers the compiled code computes: their bits, their twins, and the cases left to PyTorch."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from advfeat.data import Dataset
from advfeat.engine import convolution_code, folding, winograd
from advfeat.engine import direct as direct_module
from advfeat.engine.compiled_layers import CompiledConv2d, CompiledGELU, CompiledLinear, put_in, take_out, training
from advfeat.engine.convolution_code import Engine, Kept
from advfeat.engine.direct import DirectKernel, direct
from advfeat.hyperparameters import TrainConfig
from advfeat.models import Classifier, build_model, freeze, refold
from advfeat.threats import L2
from advfeat.train import train

pytestmark = [pytest.mark.numbers, pytest.mark.usefixtures("compiled_convolutions", "restored_threads")]

U = 2.0**-24
SMALL = {"cnn4": {"width": 16}, "resnet18": {"width": 16}, "vgg16": {"width": 16}, "resnet50": {"width": 8, "depth": 1},
         "resnet9": {"width": 16}}  # fmt: skip


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pixels(n, side=32):
    return torch.rand((n, 3, side, side), generator=torch.Generator().manual_seed(n))


def answer(model, images):
    """Logits, and the gradient of each image's own loss."""
    leaf = images.clone().requires_grad_()
    logits = model(leaf)
    loss = F.cross_entropy(logits, torch.zeros(len(leaf), dtype=torch.int64), reduction="sum")
    return logits.detach(), torch.autograd.grad(loss, leaf)[0]


def pickled(model):
    return pickle.loads(pickle.dumps(model))  # noqa: S301 (made here)


def compiled(model):
    return [layer for layer in model.modules() if isinstance(layer, CompiledConv2d | CompiledLinear)]


# ---- Direct convolutions

CASES = [  # images, inputs, outputs, kernel, stride, padding, height, width
    (2, 5, 7, (3, 3), 2, 1, 9, 8),
    (1, 1, 1, (1, 1), 1, 0, 1, 1),
    (3, 17, 33, (1, 1), 2, 0, 7, 6),
    (2, 3, 24, (2, 2), 1, 0, 5, 6),
    (2, 4, 6, (3, 3), 1, 1, 2, 2),
    (2, 4, 6, (5, 5), 3, 2, 11, 9),
    (2, 4, 6, (1, 1), 3, 0, 5, 4),  # residues that no tap meets
    (2, 3, 5, (4, 2), 4, 0, 9, 8),
    (1, 2, 3, (1, 7), 1, 3, 4, 6),
    (70, 40, 70, (3, 3), 2, 1, 6, 6),
]


def check_direct(case):
    n, c, k, window, stride, padding, height, width = case
    images, weight, bias = drawn(n, c, height, width), drawn(k, c, *window, seed=1), drawn(k, seed=2)
    leaves = [images.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
    found = direct(images, DirectKernel(weight, stride, padding), bias)
    exact = F.conv2d(*(leaf.detach().double().requires_grad_() for leaf in leaves), stride=stride, padding=padding)
    size = F.conv2d(images.abs().double(), weight.abs().double(), bias.abs().double(), stride=stride, padding=padding)
    # A sum of c·h·w products and the bias: lemma 3.1 of Higham, as in tests/test_winograd.py.
    assert ((found.double() - exact).abs() <= (weight[0].numel() + 2) * U * size).all()
    gradient = drawn(*exact.shape, seed=3)
    (of_images,) = torch.autograd.grad(found, images, gradient, retain_graph=True)
    more = {"stride": stride, "padding": padding}
    twin = torch.nn.grad.conv2d_input(images.shape, weight.detach().double(), gradient.double(), **more)
    size = torch.nn.grad.conv2d_input(images.shape, weight.detach().double().abs(), gradient.double().abs(), **more)
    assert ((of_images.double() - twin).abs() <= (k * window[0] * window[1] + 2) * U * size).all()
    others = torch.autograd.grad(found, leaves[1:], gradient)
    twins = torch.autograd.grad(F.conv2d(*leaves, **more), leaves[1:], gradient)
    assert all(torch.allclose(one, two, rtol=1e-4, atol=1e-3) for one, two in zip(others, twins, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_direct_convolution_is_as_near_to_float64_as_derived(case):
    check_direct(case)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("i * of->stride + of->row[t]", "i * of->stride + of->row[0]"),  # one row of taps for all
        ("of->from_row + i * of->apart", "i * of->apart"),  # residues on top of each other
        ("inside ? of->x + ((image", "1 ? of->x + ((image"),  # no zeros outside
    ],
)
def test_a_wrong_direct_convolution_is_outside_the_bound(old, new, tmp_path, monkeypatch):
    text = convolution_code.SOURCE.read_text()
    assert text.count(old) == 1
    wrong = tmp_path / "winograd.c"
    wrong.write_text(text.replace(old, new))
    monkeypatch.setattr(convolution_code, "SOURCE", wrong)
    convolution_code._library.cache_clear()
    try:
        with pytest.raises(AssertionError):
            check_direct((2, 5, 7, (3, 3), 2, 1, 9, 8))
    finally:
        convolution_code._library.cache_clear()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_so(value):
    images = drawn(3, 6, 8, 8)
    images[1, 2, 4, 4] = value
    for stride, padding in ((1, 0), (2, 1)):
        found = direct(images, DirectKernel(drawn(9, 6, 3, 3, seed=1), stride, padding), None)
        expected = F.conv2d(images, drawn(9, 6, 3, 3, seed=1), stride=stride, padding=padding)
        assert torch.equal(found.isfinite(), expected.isfinite())
        assert torch.equal(found.isnan(), expected.isnan())


def test_gelu_is_as_near_to_float64_as_derived():
    values = torch.cat([torch.linspace(-12, 12, 100_003), torch.tensor([0.0, math.inf, -math.inf, math.nan, 1e30])])
    leaf, exact = values.clone().requires_grad_(), values.double().requires_grad_()
    found, expected = direct_module.gelu(leaf), F.gelu(exact)
    (slope,), (exact_slope,) = (torch.autograd.grad(out.sum(), at) for out, at in ((found, leaf), (expected, exact)))
    some = slice(0, 100_003)
    # 1 + erf is off by two units of the last place of 1, even where it is small, and the product rounds once more.
    assert ((found - expected)[some].abs() <= 3 * U * values[some].abs()).all()
    assert float((slope - exact_slope)[some].abs().max()) <= 8 * U
    assert found[100_003:].isnan().tolist() == [False, False, True, True, False]  # −∞ · 0 is no number
    assert found[[100_004, 100_007]].tolist() == [math.inf, values[-1].item()]


def test_the_gelu_with_tanh_is_left_alone():
    network = nn.Sequential(nn.GELU(approximate="tanh"), nn.GELU())
    put_in(network)
    assert [type(layer) for layer in network] == [nn.GELU, CompiledGELU]
    take_out(network)
    assert [type(layer) for layer in network] == [nn.GELU, nn.GELU]


@pytest.mark.parametrize("shape", [(1,), (2, 3, 5, 7), (70_001,), (3, 8, 6, 6)])
def test_gelu_gives_the_same_bits_wherever_a_value_lies(shape):
    values, gradient = drawn(*shape), drawn(*shape, seed=1)

    def both(some, slopes):
        leaf = some.clone().requires_grad_()
        return [outputs := direct_module.gelu(leaf), *torch.autograd.grad(outputs, leaf, slopes)]

    whole = both(values, gradient)
    if len(shape) == 4:
        last = [part.contiguous(memory_format=torch.channels_last) for part in (values, gradient)]
        assert all(map(torch.equal, both(*last), whole))
        assert all(map(torch.equal, both(last[0], gradient), whole))
    for first in (0, len(values) // 2):
        alone = both(values[first:], gradient[first:])
        assert all(torch.equal(one, two[first:]) for one, two in zip(alone, whole, strict=True))
    torch.set_num_threads(2)
    assert all(map(torch.equal, both(values, gradient), whole))


# ---- Networks


@pytest.mark.parametrize("name", SMALL)
def test_the_same_bits_alone_in_a_batch_and_with_any_threads(name):
    frozen = freeze(build_model(name, seed=0, **SMALL[name]), dtype=torch.float32)
    images = pixels(500 if name in ("cnn4", "resnet18") else 40)
    torch.set_num_threads(1)
    alone = [answer(frozen, images[i : i + 1]) for i in (0, 3, len(images) - 1)]
    for count in (1, 2):
        torch.set_num_threads(count)
        for some in (slice(0, len(images)), slice(0, 7)):
            together = answer(frozen, images[some])
            for row, (logits, gradient) in zip((0, 3, len(images) - 1), alone, strict=True):
                if row < len(together[0]):
                    assert torch.equal(together[0][row : row + 1], logits)
                    assert torch.equal(together[1][row : row + 1], gradient)


@pytest.mark.parametrize("name", SMALL)
def test_without_a_compiler_the_answers_are_the_same_to_rounding(name, monkeypatch):
    model = build_model(name, seed=0, **SMALL[name]).eval()
    frozen = freeze(model, dtype=torch.float32)
    assert frozen.engine.startswith("winograd, compiled for ")
    assert len(compiled(frozen)) > 3
    monkeypatch.setattr(folding, "engine", lambda: Engine("torch", "hidden"))
    plain = freeze(model, dtype=torch.float32)
    assert plain.engine == "torch"
    assert not compiled(plain)
    with torch.no_grad():
        found, expected = frozen(pixels(5)), plain(pixels(5))
    layers = sum(isinstance(layer, nn.Conv2d) for layer in model.modules())
    assert float((found - expected).abs().max()) <= 8 * layers * U * float(expected.abs().max())


def test_a_network_that_comes_to_a_machine_without_a_compiler_is_pytorchs(monkeypatch):
    frozen = freeze(build_model("resnet18", **SMALL["resnet18"]), dtype=torch.float32)
    monkeypatch.setattr(convolution_code, "engine", lambda: Engine("torch", "hidden"))
    monkeypatch.setattr(winograd, "compiled_code", lambda: pytest.fail("used"))
    assert frozen.engine == "torch"
    there = pickled(frozen)
    assert torch.equal(answer(there, pixels(3))[0], answer(frozen, pixels(3))[0])


def test_bfloat16_and_float64_stay_with_pytorch():
    model = build_model("resnet9", width=16).eval()
    for dtype in (torch.bfloat16, torch.float64):
        frozen = freeze(model, dtype=dtype)
        assert frozen.engine == "torch"
        assert not compiled(frozen)
    moved = copy.deepcopy(freeze(model, dtype=torch.float32))
    moved.features.double()
    assert moved.represent(moved.normalise(pixels(2))).isfinite().all()


def test_copies_files_and_state_dicts_hold_weights_only():
    frozen = freeze(build_model("resnet18", **SMALL["resnet18"]), dtype=torch.float32)
    expected = answer(frozen, pixels(2))
    size = len(pickle.dumps(frozen))
    assert size < 1.5 * sum(4 * parameter.numel() for parameter in frozen.parameters()) + 200_000
    for twin in (copy.deepcopy(frozen), pickled(frozen), freeze(frozen, dtype=torch.float32)):
        assert all(map(torch.equal, answer(twin, pixels(2)), expected))
        assert twin.state_dict().keys() == frozen.state_dict().keys()
    other = freeze(build_model("resnet18", seed=1, **SMALL["resnet18"]), dtype=torch.float32)
    other.load_state_dict(frozen.state_dict())
    assert all(map(torch.equal, answer(other, pixels(2)), expected))


def test_a_network_may_be_frozen_once_more_and_follows_its_model():
    model = build_model("resnet18", **SMALL["resnet18"]).eval()
    frozen = freeze(model, dtype=torch.float32, refoldable=True)
    answer(frozen, pixels(2))
    leaky = freeze(frozen, dtype=torch.float32, leak=0.1)
    assert len(compiled(leaky)) == len(compiled(frozen))
    assert torch.equal(leaky(pixels(2)), frozen(pixels(2)))
    back = freeze(frozen, dtype=torch.bfloat16)
    assert not compiled(back)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    refold(frozen, model)
    fresh = freeze(model, dtype=torch.float32, refoldable=True)
    assert all(map(torch.equal, answer(frozen, pixels(2)), answer(fresh, pixels(2))))


def test_a_layer_with_two_names_stays_one_layer():
    shared = nn.Conv2d(4, 4, 3, padding=1)
    network = nn.Sequential(shared, nn.ReLU(), shared, nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, dilation=2))
    put_in(network)
    assert network[0] is network[2]
    assert [type(layer) for layer in network[2:]] == [CompiledConv2d, nn.Conv2d, nn.Conv2d]
    assert network[0].weight is shared.weight
    take_out(network)
    assert type(network[0]) is nn.Conv2d
    assert network[0] is network[2]


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # PyTorch's own, in jvp
def test_whoever_looks_on_sees_pytorchs_operations(monkeypatch):
    """The compiled code is invisible to PyTorch's modes, so under each of them a layer computes as it did."""
    layer = nn.Conv2d(4, 6, 3, padding=1).requires_grad_(False)
    network, images = nn.Sequential(layer), drawn(2, 4, 6, 6)
    plain = copy.deepcopy(network)
    put_in(network)
    monkeypatch.setattr(winograd, "compiled_code", lambda: pytest.fail("used"))
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        network(images)
    assert counter.get_total_flops() == 2 * 2 * 36 * 6 * 4 * 9
    assert torch.equal(torch.func.vmap(network)(images[:, None])[:, 0], torch.func.vmap(plain)(images[:, None])[:, 0])
    total = lambda net: torch.func.grad(lambda values: net(values).pow(2).sum())(images)  # noqa: E731
    assert torch.equal(total(network), total(plain))
    assert torch.equal(*(torch.func.jvp(net, (images,), (images,))[1] for net in (network, plain)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(images).dtype == torch.bfloat16
    assert torch.equal(torch.compile(network, backend="eager", fullgraph=True)(images), plain(images))
    assert torch.equal(network(images[0]), plain(images[0]))
    assert network(images[:0]).shape == (0, 6, 6, 6)
    with pytest.raises(RuntimeError, match="channels"):
        network(images[:, :3])


def test_second_gradients_are_those_of_pytorch():
    network = nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1), nn.Sigmoid(), nn.Conv2d(6, 6, 3, stride=2), nn.Flatten(), nn.Linear(24, 3)
    )
    plain, images = copy.deepcopy(network), drawn(2, 4, 6, 6).requires_grad_()
    put_in(network)

    def second(net):
        (first,) = torch.autograd.grad(net(images).pow(2).sum(), images, create_graph=True)
        return torch.autograd.grad(first.pow(2).sum(), [images, *net.parameters()])

    for found, exact in zip(second(network), second(plain), strict=True):
        assert torch.allclose(found, exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()))


def test_weights_may_be_trained_all_the_same():
    network = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 1, stride=2), nn.Flatten())
    plain, images = copy.deepcopy(network), drawn(2, 4, 6, 6)
    put_in(network)
    for net in (network, plain):
        net(images).pow(2).sum().backward()
    for one, two in zip(network.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, rtol=1e-4, atol=1e-5 * float(two.grad.abs().max()))


# ---- Training

WIDE = {"classes": 4, "width": 32}
CONFIG = TrainConfig(epochs=2, batch_size=16, lr=0.05, shift=1, flip=True, label_smoothing=0.1)


def noise():
    images = torch.rand((48, 3, 12, 12), generator=torch.Generator().manual_seed(0))
    return Dataset(images, torch.arange(48) % 4, tuple("abcd"), "noise")


def trained(config=CONFIG, **more):
    model = build_model("resnet9", seed=0, **WIDE)
    train(model, noise(), config, seed=1, **more)
    return model


def used(monkeypatch):
    """The calls of the compiled weight gradient so far."""
    calls, real = [], winograd._weight_gradient
    monkeypatch.setattr(winograd, "_weight_gradient", lambda *given: (calls.append(1), real(*given))[1])
    return calls


class Disk:
    """A checkpoint that survives as bytes, and pulls the plug after the first epoch."""

    def __init__(self):
        self.content = None

    def load(self):
        return pickle.loads(self.content) if self.content else None  # noqa: S301 (made here)

    def save(self, state):
        first, self.content = self.content is None, pickle.dumps(state)
        if first:
            raise KeyboardInterrupt


ROBUST = dataclasses.replace(CONFIG, threat=L2(0.5), attack_steps=2, attack_step_size=0.2)


@pytest.mark.parametrize(
    "config", [CONFIG, ROBUST, dataclasses.replace(ROBUST, attack_mode="train")], ids=["plain", "eval", "train"]
)
def test_training_gives_the_same_bits_again_and_after_a_stop(config, monkeypatch):
    calls = used(monkeypatch)
    once = trained(config)
    assert len(calls) == 2 * 3 * 2, "the layers with tiles enough in three steps of two epochs, and none in an attack"
    assert {type(layer) for layer in once.modules() if isinstance(layer, nn.Conv2d)} == {nn.Conv2d}
    disk = Disk()
    with pytest.raises(KeyboardInterrupt):
        trained(config, checkpoint=disk)
    for other in (trained(config), trained(config, checkpoint=disk)):
        assert all(map(torch.equal, other.state_dict().values(), once.state_dict().values()))


def test_one_step_of_training_is_pytorchs_to_rounding(monkeypatch):
    config = dataclasses.replace(CONFIG, epochs=1, batch_size=48, warmup=0.0, momentum=0.0)
    model = trained(config)
    monkeypatch.setattr(convolution_code, "engine", lambda: Engine("torch", "hidden"))
    plain = trained(config)
    before = build_model("resnet9", seed=0, **WIDE)
    for name, value in plain.named_parameters():
        moved = (value - before.get_parameter(name)).abs().max()
        assert float((model.get_parameter(name) - value).detach().abs().max()) <= 1e-3 * float(moved.detach()), name


def test_an_error_in_the_middle_leaves_no_layer_behind(monkeypatch):
    model = build_model("resnet9", seed=0, **WIDE)
    with pytest.raises(FloatingPointError):
        train(model, noise(), dataclasses.replace(CONFIG, lr=1e30), seed=0)
    assert {type(layer) for layer in model.modules() if isinstance(layer, nn.Conv2d)} == {nn.Conv2d}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_few_channels_or_tiles_stay_with_pytorch(monkeypatch):
    calls = used(monkeypatch)
    for channels, count, side in ((16, 32, 12), (32, 1, 8), (32, 32, 12)):
        network, images = nn.Sequential(nn.Conv2d(channels, 32, 3, padding=1)), drawn(count, channels, side, side)
        with training(network):
            network(images).sum().backward()
        assert len(calls) == (1 if (channels, count) == (32, 32) else 0)


def test_an_optimizer_that_counts_no_change_trains_all_the_same():
    def losses(around):
        torch.manual_seed(0)
        network, images = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1)), drawn(32, 32, 12, 12)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.5, fused=True)
        found = []
        with around(network):
            for _ in range(3):
                loss = network(images).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                found.append(loss.item())
        return found

    expected = losses(lambda _: contextlib.nullcontext())
    assert losses(training) == pytest.approx(expected, rel=1e-4)
    assert expected[0] > 1.01 * expected[2]


def test_a_frozen_part_of_what_is_trained_stays_compiled():
    frozen = freeze(build_model("cnn4", width=8, seed=0), dtype=torch.float32)
    before = frozen.engine
    whole = nn.Sequential(frozen, nn.Linear(10, 2))
    with training(whole):
        assert frozen.engine == before
    assert frozen.engine == before
    assert frozen.double().engine == "torch"


# ---- Who looks on


def test_gradients_in_batches_and_tensors_with_a_pending_sign_are_pytorchs():
    layer, images = nn.Conv2d(16, 16, 3, padding=1), drawn(2, 16, 8, 8)
    put_in(layer)
    expected = F.conv2d(images, layer.weight, layer.bias, padding=1)
    with torch.no_grad():
        assert float((layer(torch._neg_view(images)) - layer(-images)).abs().max()) < 1e-4
        assert float((layer(images) - expected).abs().max()) < 1e-4
    leaf = images.clone().requires_grad_()
    outputs = layer(leaf)
    directions = drawn(3, *outputs.shape)
    (together,) = torch.autograd.grad(outputs, leaf, directions, is_grads_batched=True, retain_graph=True)
    alone = [torch.autograd.grad(outputs, leaf, one, retain_graph=True)[0] for one in directions]
    assert float((together - torch.stack(alone)).abs().max()) < 1e-3


def test_compiled_layers_can_be_traced_by_fx():
    layer = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(16 * 64, 3))
    put_in(layer)
    images = drawn(2, 16, 8, 8)
    traced = torch.fx.symbolic_trace(layer)
    with torch.no_grad():
        assert float((traced(images) - layer(images)).abs().max()) < 1e-4


# ---- Kept results


def test_what_was_made_of_a_tensor_is_made_anew_when_that_changes():
    tensor, made = torch.zeros(3), []
    kept = Kept(tensor)

    def make(values, _):
        made.append(values.clone())
        return len(made)

    assert [kept.get("a", make), kept.get("a", make), kept.get("b", make)] == [1, 1, 2]
    tensor.add_(1)
    assert kept.get("a", make) == 3
    tensor.data = torch.ones(3)
    assert kept.get("a", make) == 4
    with torch.inference_mode():
        tensor = torch.zeros(3)
    kept = Kept(tensor)
    assert [kept.get("a", make), kept.get("a", make)] == [5, 6]


def test_defaults_of_pytorch_do_not_reach_the_compiled_code():
    frozen = freeze(build_model("cnn4", width=16), dtype=torch.float32)
    expected = answer(frozen, pixels(2))
    frozen = freeze(build_model("cnn4", width=16), dtype=torch.float32)
    images = pixels(2)
    torch.set_default_dtype(torch.float64)
    try:
        assert all(map(torch.equal, answer(frozen, images), expected))
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_subclass_of_a_layer_is_left_alone():
    class Other(nn.Conv2d):
        def forward(self, images):
            return -super().forward(images)

    network = nn.Sequential(Other(4, 4, 3))
    put_in(network)
    assert type(network[0]) is Other


def test_a_classifier_that_is_not_frozen_is_not_touched():
    model = Classifier(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten()), nn.Linear(8 * 36, 2)).eval()
    freeze(model, dtype=torch.float32)
    assert not compiled(model)
