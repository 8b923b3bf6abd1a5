"""Every convolution of a network alone: PyTorch's and the library's own, beside the rate of the machine.

Operations are those of a direct convolution, two per multiply-add, whoever computes it. So a rate of minimal filtering
may exceed that of the machine, by up to four times for F(4×4, 3×3); a direct convolution's cannot.

The rate of the machine is that of a product of large matrices or of a wide direct convolution, whichever is faster:
not every library multiplies matrices with all instructions that a processor has.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from advfeat.bench import timing
from advfeat.bench.timing import Ratio
from advfeat.engine.compiled_layers import put_in, training

PASSES = ("forward", "gradient", "training")
"""Outputs; the gradient of the images; outputs and both gradients, where the weights have changed before each."""


@dataclass(frozen=True)
class Shape:
    """A convolution with a square kernel, of square images."""

    inputs: int
    outputs: int
    side: int
    window: int
    stride: int
    padding: int

    def __str__(self) -> str:
        strided = f", stride {self.stride}" if self.stride > 1 else ""
        return f"{self.inputs}→{self.outputs}, {self.window}×{self.window}{strided}, {self.side}×{self.side}"

    @property
    def operations(self) -> float:
        """Of a direct convolution of one image: two per multiply-add, those with the padding included."""
        side = (self.side + 2 * self.padding - self.window) // self.stride + 1
        return 2.0 * side**2 * self.window**2 * self.inputs * self.outputs

    def layer(self) -> nn.Conv2d:
        """A layer of this shape, without bias, with seeded weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return nn.Conv2d(
                self.inputs, self.outputs, self.window, stride=self.stride, padding=self.padding, bias=False
            )


def shapes(network: nn.Module, *, side: int = 32) -> dict[Shape, int]:
    """The shapes of the convolutions that images of ``side`` pixels meet, in their order, and how many have each."""
    seen: Counter[Shape] = Counter()

    def note(layer: nn.Conv2d, given: tuple[Tensor, ...]) -> None:
        (images,) = given
        padding, stride = int(layer.padding[0]), layer.stride[0]
        seen[Shape(layer.in_channels, layer.out_channels, images.shape[-1], layer.kernel_size[0], stride, padding)] += 1

    hooks = [layer.register_forward_pre_hook(note) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        network(torch.zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    return dict(seen)


def measured(shape: Shape, *, batch: int, rounds: int, passes: Sequence[str] = PASSES) -> list[dict[str, Any]]:
    """One row for each of some passes: milliseconds of both, ratios of pairs, and rates beside the machine's.

    PyTorch's convolution has the faster of its two layouts in memory, for each pass. What gives the machine's rate
    takes turns like a contender, so a share of that rate is a ratio of pairs, too.
    """
    runs = {
        "contiguous": _passes(shape, batch, torch.contiguous_format, ours=False),
        "channels last": _passes(shape, batch, torch.channels_last, ours=False),
        "ours": _passes(shape, batch, torch.channels_last, ours=True),
    }
    yardsticks = _yardsticks()
    rows = []
    for name in passes:
        contenders: dict[str, Callable[[], object]] = {who: of[name] for who, of in runs.items()}
        contenders |= {what: call for what, (call, _) in yardsticks.items()}
        times = timing.interleaved(contenders, rounds=rounds, device=torch.device("cpu"))
        direct = min(("contiguous", "channels last"), key=lambda layout: median(times[layout]))
        ratio = Ratio.of(times[direct], times["ours"])
        operations = batch * shape.operations * (3 if name == "training" else 1)
        paces = {what: [taken / count for taken in times[what]] for what, (_, count) in yardsticks.items()}
        machine = min(paces.values(), key=median)
        rows.append(
            {
                **asdict(shape), "batch": batch, "pass": name, "layout": direct,
                "direct_ms": 1000 * median(times[direct]), "ours_ms": 1000 * median(times["ours"]),
                "ratio": ratio.median, "lower": ratio.lower, "upper": ratio.upper, "pairs": ratio.pairs,
                "gflops": operations / median(times["ours"]) / 1e9,
                "machine_gflops": 1e-9 / median(machine),
                "direct_share": operations * Ratio.of(machine, times[direct]).median,
                "ours_share": operations * Ratio.of(machine, times["ours"]).median,
            }
        )  # fmt: skip
    return rows


def rows_of(networks: Iterable[tuple[str, nn.Module]], *, batch: int, rounds: int) -> list[dict[str, Any]]:
    """``measured`` for every layer of some networks, with its ``network`` and how often it is there, ``count``.

    A shape that several networks have is measured once.
    """
    known = functools.cache(functools.partial(measured, batch=batch, rounds=rounds))
    return [
        {"network": name, "count": count, **row}
        for name, network in networks
        for shape, count in shapes(network).items()
        for row in known(shape)
    ]


def _yardsticks() -> dict[str, tuple[Callable[[], object], float]]:
    """What may run at the rate of the machine, with its operations: a product of matrices, and a wide convolution."""
    # Both take as little time as a layer, or other work on the machine would slow them down more than it does a layer.
    side, draw = 512, torch.Generator().manual_seed(2)
    matrix = torch.randn((side, side), generator=draw)
    wide = Shape(256, 256, 16, 3, 1, 1)
    layer = wide.layer().requires_grad_(False).to(memory_format=torch.channels_last)
    images = torch.randn((1, wide.inputs, wide.side, wide.side), generator=draw)
    images = images.contiguous(memory_format=torch.channels_last)
    return {
        "matrices": (lambda: torch.mm(matrix, matrix), 2.0 * side**3),
        "wide convolution": (lambda: layer(images), wide.operations),
    }


def _passes(shape: Shape, batch: int, layout: torch.memory_format, *, ours: bool) -> dict[str, Callable[[], object]]:
    draw = torch.Generator().manual_seed(1)
    images = torch.randn((batch, shape.inputs, shape.side, shape.side), generator=draw)
    images = images.contiguous(memory_format=layout).requires_grad_()
    frozen, trained = shape.layer().requires_grad_(False).to(memory_format=layout), shape.layer()
    trained = trained.to(memory_format=layout)
    if ours:
        put_in(frozen)
    outputs = frozen(images)
    gradient = torch.randn(outputs.shape, generator=draw).contiguous(memory_format=layout)

    def forward() -> None:
        with torch.no_grad():
            frozen(images)

    def train() -> None:
        with torch.no_grad():
            trained.weight.mul_(1.0)  # as after a step of the optimiser: what was made of the weights is out of date
        torch.autograd.grad(trained(images), (images, trained.weight), gradient)

    def train_ours() -> None:
        with training(trained):
            train()

    return {
        "forward": forward,
        "gradient": lambda: torch.autograd.grad(outputs, images, gradient, retain_graph=True),
        "training": train_ours if ours else train,
    }
