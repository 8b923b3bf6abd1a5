"""Chains of compiled convolutions: the bits of the layers one by one, whatever happens to layers and graphs."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from advfeat.engine import compiled, compiled_chains, convolution_code, folding
from advfeat.engine.compiled_chains import chain
from advfeat.engine.compiled_layers import CompiledConv2d, put_in
from advfeat.engine.graph_chains import join
from advfeat.models import build_model, freeze, refold

pytestmark = [pytest.mark.numbers, pytest.mark.usefixtures("compiled_convolutions", "restored_threads")]

SMALL = {"cnn4": {"width": 16}, "resnet18": {"width": 16}, "vgg16": {"width": 16}, "resnet50": {"width": 8, "depth": 1},
         "resnet9": {"width": 16}}  # fmt: skip
LENGTHS = {"cnn4": [5], "resnet18": [1] + 8 * [2], "vgg16": [2, 2, 3, 3, 3], "resnet50": [1] + 4 * [3], "resnet9": []}


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lengths(features):
    return [len(node.args[2]) for node in features.graph.nodes if node.target is chain]


def answer(network, images):
    """Outputs and a gradient, with gradients asked for, and outputs without."""
    leaf = images.clone().requires_grad_()
    outputs = network(leaf)
    direction = drawn(*outputs.shape, seed=7)
    with torch.no_grad():
        return [outputs.detach(), *torch.autograd.grad(outputs, leaf, direction), network(images)]


class Block(nn.Module):
    """Two or three convolutions with a sum, in the ways in which such blocks are written."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1 if kind == "direct" else 3, padding="same")
        self.b.padding = (0, 0) if kind == "direct" else (1, 1)
        self.side, self.relu = nn.Conv2d(6, 6, 1), nn.ReLU(inplace=True)

    def forward(self, images):
        if self.kind == "reused":
            inner = self.a(images)
            return self.relu(self.b(inner)) + inner
        if self.kind == "in place":
            first = self.a(images * 1)
            return self.b(first) + self.relu(images * 2)
        if self.kind == "own input in place":
            values = images * 1
            first = self.a(values)
            values = values.mul_(2)
            return self.relu(self.b(first)) + values
        first = self.relu(self.a(images))
        if self.kind == "side":
            return self.relu(self.b(first) + self.side(images))
        if self.kind == "into the side":
            side = self.side(images)
            side += self.b(first)
            return self.relu(side)
        if self.kind == "scaled":
            return torch.add(self.b(first), images, alpha=2)
        if self.kind == "bare":
            return self.b(first) + images
        return self.relu(self.b(first) + images)


EXPECTED = {"itself": [2], "side": [2], "direct": [2], "bare": [2], "reused": [1], "in place": [2], "scaled": [2],
            "own input in place": [1], "into the side": [2]}  # fmt: skip


def block(kind):
    torch.manual_seed(0)
    return both(Block(kind))


def both(network):
    """A network whose layers are compiled, and the same in chains."""
    plain = fx.symbolic_trace(network.eval().requires_grad_(False))
    put_in(plain)
    joined = copy.deepcopy(plain)
    join(joined)
    return plain, joined


@pytest.mark.parametrize("name", SMALL)
def test_a_network_in_chains_has_the_bits_of_its_layers(name, monkeypatch):
    model = build_model(name, seed=0, **SMALL[name]).eval()
    frozen = freeze(model, dtype=torch.float32)
    monkeypatch.setattr(folding, "join", lambda _: None)
    plain = freeze(model, dtype=torch.float32)
    assert lengths(frozen.features) == LENGTHS[name]
    assert list(frozen.state_dict()) == list(plain.state_dict())
    for count, threads in ((1, 1), (5, 2), (130, 1)):
        torch.set_num_threads(threads)
        images = torch.rand((count, 3, 32, 32), generator=torch.Generator().manual_seed(count))
        assert all(map(torch.equal, answer(frozen, images), answer(plain, images)))


def check_block(kind, images=None):
    plain, joined = block(kind)
    images = drawn(3, 6, 9, 7) if images is None else images
    for one, two in zip(answer(joined, images), answer(plain, images), strict=True):
        assert torch.equal(one, two)
    return joined


@pytest.mark.parametrize("kind", EXPECTED)
def test_sums_and_users_of_every_kind(kind):
    joined = check_block(kind)
    assert max(lengths(joined), default=0) <= max(EXPECTED[kind])
    if kind in ("itself", "side", "direct", "bare"):
        assert EXPECTED[kind][0] in lengths(joined)
        assert not any(node.target in (torch.add, F.relu) for node in joined.graph.nodes)


INDENT = 12 * " "
SUM = f"{INDENT}if (of->added) value += count == VL ? load(of->added + at) : load_part(of->added + at, count);"
GATE = f"{INDENT}if (of->open) value = gated(value, of->open + at, count);"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("if (of->relu) value = where(value <= 0.0f, (vec){0}, value);", ""),
        (
            f"{SUM}\n{INDENT}if (of->relu) value = where(value <= 0.0f",
            f"{INDENT}if (of->relu) value = where(value <= 0.0f",
        ),
        (f"{GATE}\n{INDENT}if (count == VL) store(to[i]", f"{INDENT}if (count == VL) store(to[i]"),
        (f"{GATE}\n{INDENT}if (count == VL) store(of->y", f"{INDENT}if (count == VL) store(of->y"),
        ("areas[place.area] + n * place.offset", "areas[place.area]"),
        ("of.relu = s->relu;", "of.relu = 0;"),
        ("of.added = added;\n            of.open", "of.open"),
    ],
    ids=["no ReLU, direct", "no sum, direct", "no gate, direct", "no gate", "all in one place", "no ReLU", "no sum"],
)
def test_a_wrong_chain_has_other_bits(old, new, tmp_path, monkeypatch):
    text = convolution_code.SOURCE.read_text()
    assert text.count(old) == 1
    wrong = tmp_path / "winograd.c"
    wrong.write_text(text.replace(old, new))
    monkeypatch.setattr(convolution_code, "SOURCE", wrong)
    monkeypatch.setattr(compiled, "FLAGS", tuple("-O0" if flag == "-O3" else flag for flag in compiled.FLAGS))
    monkeypatch.setenv("ADVFEAT_COMPILED", str(tmp_path / "cache"))
    convolution_code._library.cache_clear()
    try:
        with pytest.raises(AssertionError):
            check_all()
    finally:
        convolution_code._library.cache_clear()


def check_all():
    for kind in ("itself", "direct", "side"):
        check_block(kind)
    check_long()


def check_long():
    """Strides, layers without a ReLU, and more than two ReLUs whose outputs are kept."""
    torch.manual_seed(1)

    def layer(stride=1):
        return nn.Conv2d(6, 6, 3, padding=1, stride=stride)

    ends = [layer(), nn.ReLU(), layer(2), layer(), nn.ReLU(), layer(), nn.ReLU(), layer(2), nn.ReLU(), layer()]
    plain, joined = both(nn.Sequential(*ends))
    assert lengths(joined) == [6]
    assert all(map(torch.equal, answer(joined, drawn(3, 6, 9, 7)), answer(plain, drawn(3, 6, 9, 7))))


def test_a_long_chain_with_strides_and_without_some_relus():
    check_long()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_becomes_a_number(value):
    images = drawn(2, 6, 9, 7)
    images[1, 2, 4, 4] = value
    for kind in ("itself", "side", "direct"):
        _, joined = block(kind)
        torch.manual_seed(0)
        network = Block(kind).eval()
        found, expected = joined(images), network(images)
        assert torch.equal(found[:1], joined(images[:1]))
        lost = found.isfinite() & ~expected.isfinite()
        assert not lost.any()


def test_second_gradients_are_those_of_pytorch():
    for kind in ("itself", "side", "direct"):
        _, joined = block(kind)
        torch.manual_seed(0)
        network = Block(kind).eval().requires_grad_(False)

        def second(net):
            leaf = drawn(2, 6, 9, 7).requires_grad_()
            (first,) = torch.autograd.grad(net(leaf).pow(2).sum(), leaf, create_graph=True)
            return torch.autograd.grad(first.pow(2).sum(), leaf)[0]

        found, exact = second(joined), second(network)
        assert float((found - exact).abs().max()) <= 1e-4 * float(exact.abs().max())


def test_gradients_of_what_is_added_alone():
    _, joined = block("side")
    target = next(node for node in joined.graph.nodes if node.target is chain)
    layers = dict(joined.named_modules())
    convolutions = [layers[str(node.target)] for node in target.args[2]]
    relus = [node and layers[str(node.target)] for node in target.args[3]]
    images, added = drawn(2, 6, 9, 7), drawn(2, 6, 9, 7, seed=1).requires_grad_()
    outputs = chain(images, added, convolutions, relus)
    (found,) = torch.autograd.grad(outputs.sum(), added)
    assert torch.equal(found, (outputs > 0).float())


def test_changes_of_layers_are_noticed():
    plain, joined = block("itself")
    images = drawn(3, 6, 9, 7)
    for change in (
        lambda net: net.a.weight.mul_(1.5),
        lambda net: net.b.bias.add_(1),
        lambda net: setattr(net.a, "bias", None),
        lambda net: setattr(net.b.weight, "data", drawn(6, 6, 3, 3, seed=3)),
        lambda net: setattr(net.a, "weight", nn.Parameter(drawn(6, 6, 3, 3, seed=4), requires_grad=False)),
        lambda net: (setattr(net.a, "dilation", (2, 2)), setattr(net.a, "padding", (2, 2))),
        lambda net: setattr(
            net, "b", nn.Conv2d(6, 6, 1).requires_grad_(False).apply(lambda one: one.weight.fill_(0.1))
        ),
    ):
        for net in (plain, joined):
            torch.manual_seed(5)
            change(net)
        assert all(map(torch.equal, answer(joined, images), answer(plain, images)))
    assert type(joined.a) is nn.Conv2d
    weight = plain.a.weight
    expected = F.conv2d(images, weight, padding=2, dilation=2)
    assert torch.equal(plain.a(images), expected)


def test_a_change_between_the_two_ways_is_an_error():
    _, joined = block("itself")
    leaf = drawn(3, 6, 9, 7).requires_grad_()
    outputs = joined(leaf)
    joined.a.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(outputs.sum(), leaf)


def test_hooks_are_called_and_trained_weights_get_gradients():
    plain, joined = block("itself")
    images, seen = drawn(2, 6, 9, 7), []
    handle = joined.a.register_forward_hook(lambda _, __, outputs: seen.append(outputs))
    assert torch.equal(joined(images), plain(images))
    assert torch.equal(seen[0].relu(), seen[0])  # as the ReLU in place left it
    handle.remove()
    joined.b.weight.requires_grad_()
    joined(images).sum().backward()
    assert joined.b.weight.grad is not None


def test_frozen_once_more_a_chain_is_layers_again():
    model = build_model("resnet18", seed=0, **SMALL["resnet18"]).eval()
    frozen = freeze(model, dtype=torch.float32, refoldable=True)
    images = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    expected = answer(frozen, images)
    assert lengths(copy.deepcopy(frozen).features) == LENGTHS["resnet18"]
    assert all(map(torch.equal, answer(copy.deepcopy(frozen), images), expected))
    leaky = freeze(frozen, dtype=torch.float32, leak=0.1)
    assert lengths(leaky.features)[:-1] == LENGTHS["resnet18"][:-1]
    assert torch.equal(leaky(images), frozen(images))
    assert lengths(freeze(frozen, dtype=torch.bfloat16).features) == []
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    refold(frozen, model)
    assert all(
        map(torch.equal, answer(frozen, images), answer(freeze(model, dtype=torch.float32, refoldable=True), images))
    )


def test_steps_are_kept_for_a_few_sizes_only():
    _, joined = block("itself")
    for side in range(8, 20):
        joined(drawn(1, 6, side, side))
    assert 1 <= len(joined.a.__dict__["_chain"]) <= compiled_chains._MOST_SIZES
    assert "_chain" not in copy.deepcopy(joined.a).__dict__
    assert type(joined.a) is CompiledConv2d


def test_images_that_do_not_fit_are_pytorchs_error():
    _, joined = block("itself")
    with pytest.raises(RuntimeError, match="channels"):
        joined(drawn(2, 5, 9, 7))
    assert joined(drawn(2, 6, 9, 7)[:0]).shape == (0, 6, 9, 7)
