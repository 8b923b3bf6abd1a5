"""Timing: interleaved measurements, ratios of pairs, rates of the machine, and the parts of an attack step.

A single time says little, because other work on the machine changes it. So contenders take turns within each round,
the order is reversed from one round to the next (A B, B A, ...), and the reported number is the ratio of two times of
the same round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from advfeat.engine import fused_steps
from advfeat.estimates import Estimate


@dataclass(frozen=True)
class Ratio:
    """Time of one contender over that of another, over pairs of runs: median, quartiles, and the whole range.

    All n pairs lie on one side of the true median with probability 2 · (1/2)^n: the range of seven pairs contains the
    true median with probability 98 %.
    """

    median: float
    lower: float
    upper: float
    least: float
    most: float
    pairs: int

    @classmethod
    def of(cls, times: list[float], base: list[float]) -> Ratio:
        """``times[i] / base[i]``, both of round i.

        Raises:
            ValueError: the numbers of runs differ, or are 0.
        """
        if len(times) != len(base) or not times:
            raise ValueError(f"pairs need as many runs of both, got {len(times)} and {len(base)}")
        values = sorted(a / b for a, b in zip(times, base, strict=True))
        lower, _, upper = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
        return cls(statistics.median(values), lower, upper, values[0], values[-1], len(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.lower:.2f}, {self.upper:.2f}]"

    def estimate(self) -> Estimate:
        """The median with the smallest and the largest pair for its interval, as a record takes it."""
        return Estimate(self.median, self.least, self.most, self.pairs, rate=False)


def clock(call: Callable[[], object], device: torch.device) -> float:
    """Seconds from the start of ``call`` until the device has finished."""
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - start


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    device: torch.device,
    deadline: float = float("inf"),
    warm_up: bool = True,
) -> dict[str, list[float]]:
    """Seconds of every contender in every round, taking turns; after ``deadline`` no round but the first begins.

    Args:
        deadline: a value of ``time.monotonic``.
        warm_up: whether to call each contender once before, untimed, because first use may compile, record or allocate.
    """
    if warm_up:
        for call in contenders.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for count in range(rounds):
        if count and time.monotonic() > deadline:
            break
        for name in order:
            times[name].append(clock(contenders[name], device))
        order.reverse()
    return times


def bare(
    model: nn.Module, images: Float[Tensor, "n 3 h w"], labels: Int[Tensor, " n"], *, steps: int
) -> Callable[[], None]:
    """The minimum work of ``steps`` attack steps: forward pass and gradient with respect to the images."""
    inputs = images.clone().requires_grad_()

    def run() -> None:
        for _ in range(steps):
            loss = F.cross_entropy(model(inputs), labels, reduction="sum")
            torch.autograd.grad(loss, inputs)

    return run


def from_a_line(x: list[float], y: list[float]) -> float:
    """The largest distance of y from the line through (x, y) by least squares, as a share of the line's value there."""
    slope, intercept = statistics.linear_regression(x, y)
    return max(abs(value / (intercept + slope * at) - 1) for at, value in zip(x, y, strict=True))


def peak_memory(call: Callable[[], object], device: torch.device) -> float:
    """The most bytes of memory in use while ``call`` ran: of the device on CUDA, of the process on a CPU (Linux).

    Raises:
        OSError: the system does not report it.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        clock(call, device)
        return float(torch.cuda.max_memory_allocated(device))
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    call()
    marks = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return 1024.0 * int(marks["VmHWM"].split()[0])


@dataclass(frozen=True)
class Rates:
    """Rates of the machine: products of large matrices (FLOP/s, a multiply-add is two) and copies (bytes/s)."""

    matrix: float
    copy: float


def machine_rates(device: torch.device, dtype: torch.dtype, *, rounds: int = 5) -> Rates:
    """Both rates, each the best of ``rounds`` measurements."""
    side = 8192 if device.type == "cuda" else 1536
    generator = torch.Generator(device).manual_seed(0)
    left = torch.randn(side, side, generator=generator, device=device, dtype=dtype)
    memory = torch.empty(2**28 if device.type == "cuda" else 2**25, device=device)
    other = torch.empty_like(memory).copy_(memory)
    torch.mm(left, left)
    matrix = min(clock(lambda: torch.mm(left, left), device) for _ in range(rounds))
    copy = min(clock(lambda: other.copy_(memory), device) for _ in range(rounds))
    return Rates(2 * side**3 / matrix, 2 * memory.numel() * memory.element_size() / copy)


@dataclass(frozen=True)
class Breakdown:
    """The parts of one attack step in seconds, with the arithmetic and the minimum memory traffic of the parts.

    ``convolutions``: all convolutions and matrix products alone, forward and with gradients of the input. ``step``: the
    update of the images alone. ``network``: forward pass and gradient. ``total``: the whole step of the attack.
    """

    total: float
    network: float
    convolutions: float
    step: float
    operations: float
    bytes: float
    step_operations: float
    step_bytes: float


def breakdown(
    model: nn.Module,
    images: Float[Tensor, "n 3 h w"],
    labels: Int[Tensor, " n"],
    attack: Callable[[int], object],
    *,
    steps: int,
    rounds: int = 3,
) -> Breakdown:
    """Measure ``attack(steps)``, a ``pgd`` on ``model``, and its parts, taking turns: medians over ``rounds``.

    ``operations`` counts two per multiply-add of the convolutions, once forward and once backward. ``bytes`` counts
    their inputs, weights and outputs, each moved once. An update reads image, origin and gradient and writes the image
    (``step_bytes``); it does a dozen operations a pixel (``step_operations``).
    """
    layers = _layers(model, images)
    device = images.device
    gradient = images - 0.5

    def convolutions() -> None:
        for layer, given in layers:
            inputs = given.requires_grad_()
            outputs = layer(inputs)
            torch.autograd.grad(outputs, inputs, torch.ones_like(outputs))

    times = interleaved(
        {
            "total": lambda: attack(steps),
            "network": bare(model, images, labels, steps=steps),
            "convolutions": convolutions,
            "step": lambda: fused_steps.l2_step(images, images, gradient, eps=0.5, step_size=0.1),
        },
        rounds=rounds,
        device=device,
    )
    middle = {name: statistics.median(values) for name, values in times.items()}
    return Breakdown(
        total=middle["total"] / steps,
        network=middle["network"] / steps,
        convolutions=middle["convolutions"],
        step=middle["step"],
        operations=_operations(layers),
        bytes=sum(_bytes(layer, given) for layer, given in layers),
        step_operations=12.0 * images.numel(),
        step_bytes=4.0 * images.numel() * images.element_size(),
    )


def _layers(model: nn.Module, images: Tensor) -> list[tuple[nn.Module, Tensor]]:
    """Every convolution and linear layer of the network, with its input."""
    found: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        layer.register_forward_pre_hook(lambda at, given: found.append((at, given[0].detach().clone())))
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return found


def _operations(layers: list[tuple[nn.Module, Tensor]]) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for layer, given in layers:
            layer(given)
    flops: float = 2.0 * counter.get_total_flops()  # the way back to the input takes as many
    return flops


def _bytes(layer: nn.Module, given: Tensor) -> float:
    with torch.no_grad():
        outputs = layer(given)
    weights = sum(parameter.numel() for parameter in layer.parameters())
    moved: float = 2.0 * given.element_size() * (given.numel() + outputs.numel() + weights)
    return moved


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
