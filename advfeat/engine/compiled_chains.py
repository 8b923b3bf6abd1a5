"""Convolutions of a frozen network one after the other, with the sums and ReLUs between them, in one call of C.

Between small layers Python takes longer than the layers, and between large ones each ReLU and each sum is a way through
memory. The numbers are those that the layers compute one by one, to the bit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from advfeat.engine.chain_steps import (
    ADDED,
    EVEN,
    GATE,
    INPUT,
    NOWHERE,
    ODD,
    OUTPUT,
    SAVED,
    ChainStep,
    ChainSteps,
    Place,
)
from advfeat.engine.compiled_layers import CompiledConv2d
from advfeat.engine.convolution_code import applies, floats
from advfeat.engine.direct import DirectKernel, zeros
from advfeat.engine.winograd import Kernel

_MOST_SIZES = 8  # of images that one chain keeps its steps for


def chain(
    images: Tensor, added: Tensor | None, convolutions: Sequence[nn.Module], relus: Sequence[nn.Module | None]
) -> Tensor:
    """``images`` through convolutions, each with its ReLU if it has one; ``added`` is added to what the last one makes.

    It is one call of C where all are compiled layers with frozen weights; elsewhere one layer is called after another.
    """
    plan = _plan(images, added, convolutions, relus)
    if plan is not None:
        outputs: Tensor = _Chain.apply(images, None if added is images else added, plan, *plan.weights)
        return outputs
    last = len(convolutions) - 1
    for i, (convolution, relu) in enumerate(zip(convolutions, relus, strict=True)):
        images = convolution(images) if added is None or i < last else convolution(images) + added
        images = images if relu is None else relu(images)
    return images


def _plan(
    images: Tensor, added: Tensor | None, convolutions: Sequence[Any], relus: Sequence[nn.Module | None]
) -> _Plan | None:
    """What was worked out for layers and images like these, if the compiled code can compute all of them."""
    if not applies(images, added) or images.ndim != 4:
        return None
    state = [_state(layer) for layer in convolutions]
    if None in state or any(relu is not None and (type(relu) is not nn.ReLU or _watched(relu)) for relu in relus):
        return None
    key = (*images.shape[1:], 0 if added is None else 1 if added is images else 2)
    kept = convolutions[0].__dict__.setdefault("_chain", {})
    plan = kept.get(key)
    if plan is None or plan.state != state or plan.gates != [relu is not None for relu in relus]:
        kept.pop(key, None)
        try:
            plan = _Plan(convolutions, relus, state, images, added)
        except ValueError:
            return None
        if len(kept) == _MOST_SIZES:
            kept.clear()
        kept[key] = plan
    return plan if added is None or added.shape == (len(images), *plan.sizes[-1]) else None


def _state(layer: nn.Module) -> tuple[Any, ...] | None:
    """What a plan depends on in a layer; None where it has to be called itself."""
    if type(layer) is not CompiledConv2d or _watched(layer):
        return None
    weight, bias = layer._parameters["weight"], layer._parameters["bias"]
    if weight is None or weight.requires_grad or weight.is_inference():
        return None
    state = id(weight), weight._version, weight.data_ptr(), weight.shape, weight.stride()
    if bias is None:
        return state
    return None if bias.requires_grad or not bias.is_contiguous() else (*state, id(bias), bias.data_ptr(), bias.shape)


def _watched(layer: nn.Module) -> bool:
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks:
        return True
    return bool(torch.nn.modules.module._has_any_global_hook())


class _Plan:
    """The steps of a chain for images of one size, in whatever number."""

    def __init__(
        self, convolutions: Sequence[CompiledConv2d], relus: Sequence[nn.Module | None], state: list[Any],
        images: Tensor, added: Tensor | None,
    ) -> None:  # fmt: skip
        self.layers, self.state = list(convolutions), state
        self.gates = [relu is not None for relu in relus]
        self.weights = [layer.weight for layer in self.layers]
        self.biases = [layer.bias for layer in self.layers]
        self.adds_input = added is images
        self.adds = added is not None
        self.sizes = [tuple(images.shape[1:])]
        for layer in self.layers:
            channels, height, width = self.sizes[-1]
            if channels != layer.in_channels or not layer.has_its_shapes() or min(layer.size(height, width)) < 1:
                raise ValueError("PyTorch has to say what is wrong")
            self.sizes.append((layer.out_channels, *layer.size(height, width)))
        if not applies(*self.weights, *self.biases) or (self.adds_input and self.sizes[0] != self.sizes[-1]):
            raise ValueError("PyTorch has to compute it")
        inner = [_numel(size) for size in self.sizes[1:-1]]
        self.places = [sum(inner[:i][j] for j in range(i) if self.gates[j]) for i in range(len(inner) + 1)]
        self.inner, self.saved = max(inner, default=0), self.places[-1]
        self._steps: dict[str, ChainSteps] = {}

    def steps(self, name: str) -> ChainSteps:
        """The way ``forward``, the way there that leaves what ReLU's gradients need (``kept``), or the way ``back``."""
        if name not in self._steps:
            self._steps[name] = ChainSteps(
                self._back() if name == "back" else self._there(name == "kept"), name == "back"
            )
        return self._steps[name]

    def gated_at_once(self) -> bool:
        """Whether the first step back reads its gradient through the gate of the last ReLU."""
        return self._filtered(len(self.layers) - 1) and not self.adds

    def gate(self, i: int, saved: Tensor, count: int) -> Tensor:
        """What the i-th layer's ReLU made."""
        channels, height, width = self.sizes[i + 1]
        values = saved[count * self.places[i] :][: count * channels * height * width]
        return values.view(count, height, width, channels).permute(0, 3, 1, 2)

    def _filtered(self, i: int) -> bool:
        return self.layers[i].is_filtered_at(*self.sizes[i][1:])

    def _there(self, kept: bool) -> list[tuple[ChainStep, Any]]:
        made, last = [], len(self.layers) - 1
        at = Place(INPUT, 0)
        for i in range(last + 1):
            inner = Place(SAVED, self.places[i]) if kept and self.gates[i] else _inner(i)
            to = Place(OUTPUT, 0) if i == last else inner
            bias = self.biases[i]
            step = {
                "x": at, "y": to, "relu": self.gates[i], "bias": None if bias is None else bias.data_ptr(),
                "added": NOWHERE if i < last or not self.adds else Place(INPUT if self.adds_input else ADDED, 0),
            }  # fmt: skip
            made += self._layer(i, step, back=False)
            at = to
        return made

    def _back(self) -> list[tuple[ChainStep, Any]]:
        made, last = [], len(self.layers) - 1
        at = Place(INPUT, 0)
        for i in range(last, -1, -1):
            to = _inner(i - 1) if i else Place(OUTPUT, 0)
            step = {
                "x": at, "y": to, "open": Place(SAVED, self.places[i - 1]) if i and self.gates[i - 1] else NOWHERE,
                "gate": Place(GATE, 0) if i == last and self.gates[i] and self.gated_at_once() else NOWHERE,
                "added": Place(INPUT, 0) if i == 0 and self.adds_input else NOWHERE,
            }  # fmt: skip
            made += self._layer(i, step, back=True)
            at = to
        return made

    def _layer(self, i: int, step: dict[str, Any], *, back: bool) -> list[tuple[ChainStep, Any]]:
        layer, padding = self.layers[i], int(self.layers[i].padding[0])
        (inputs, height, width), (outputs, *size) = self.sizes[i : i + 2][:: -1 if back else 1]
        step = {"gate": NOWHERE, "open": NOWHERE, "height": height, "width": width, **step}
        step |= {"inputs": inputs, "outputs": outputs}
        if self._filtered(i):
            kernel = layer.kernel(Kernel)
            return [(ChainStep(**step, filtered=1, padding=2 - padding if back else padding), kernel)]
        kernel = layer.kernel(DirectKernel, layer.stride[0], padding)
        made: list[tuple[ChainStep, Any]] = []
        for part in kernel.backward() if back else kernel.forward():
            down, across = part.extent(*size)
            if down > 0 and across > 0:
                rows, columns = (ctypes.cast(array, ctypes.c_void_p) for array in part.taps)
                made.append((ChainStep(
                    **step, u=part.weights.data_ptr(), zeros=zeros(inputs).data_ptr(), row=rows, column=columns,
                    full_height=size[0], full_width=size[1], from_row=part.row, from_column=part.column, down=down,
                    across=across, apart=part.apart, stride=part.stride, taps=len(part.taps[0]),
                ), part))  # fmt: skip
        return made


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, added: Tensor | None, plan: _Plan, *weights: Tensor) -> Tensor:
        count = len(images)
        images = images.contiguous(memory_format=torch.channels_last)
        added = added if added is None else added.contiguous(memory_format=torch.channels_last)
        outputs = _empty(count, plan.sizes[-1])
        keeps = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        saved = floats(count * plan.saved) if keeps and plan.saved else None
        inner = _inner_areas(plan, count, needed=not keeps or not all(plan.gates[:-1]))
        areas = [images, outputs, saved, *inner, added]
        plan.steps("kept" if keeps else "forward").run(areas, count)
        if keeps:
            ctx.plan = plan
            # The weights are kept so that a change before the gradient is asked for is an error.
            ctx.save_for_backward(saved, outputs if plan.gates[-1] else None, *weights)
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved, gate, *weights = ctx.saved_tensors
        plan, count = ctx.plan, len(gradient)
        for_images, for_added = ctx.needs_input_grad[:2]
        rest = [None] * (1 + len(weights))
        by_pytorch = torch.is_grad_enabled() or not applies(gradient)
        if by_pytorch or gate is None or not plan.gated_at_once():
            gradient = gradient if gate is None else torch.ops.aten.threshold_backward(gradient, gate, 0)
            gate = None
        if not for_images:
            return None, gradient if for_added else None, *rest
        if by_pytorch:
            return _differentiable(plan, gradient, saved, weights), gradient if for_added else None, *rest
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_images = _empty(count, plan.sizes[0])
        areas = [gradient, of_images, saved, *_inner_areas(plan, count), None, gate]
        plan.steps("back").run(areas, count)
        return of_images, gradient if for_added else None, *rest


def _differentiable(plan: _Plan, gradient: Tensor, saved: Tensor | None, weights: Sequence[Tensor]) -> Tensor:
    count, of = len(gradient), gradient
    for i in range(len(weights) - 1, -1, -1):
        layer = plan.layers[i]
        size = torch.Size((count, *plan.sizes[i]))
        of = conv2d_input(size, weights[i], of, stride=layer.stride, padding=layer.padding)
        if i and plan.gates[i - 1] and saved is not None:
            of = torch.ops.aten.threshold_backward(of, plan.gate(i - 1, saved, count), 0)
    return of + gradient if plan.adds_input else of


def _inner(i: int) -> Place:
    """What lies between two layers, in one area while the next is filled."""
    return Place(ODD if i % 2 else EVEN, 0)


def _inner_areas(plan: _Plan, count: int, *, needed: bool = True) -> tuple[Tensor | None, ...]:
    between = len(plan.layers) - 1 if needed else 0
    return tuple(floats(count * plan.inner) if between > i else None for i in (0, 1))


def _numel(size: tuple[int, ...]) -> int:
    return size[0] * size[1] * size[2]


def _empty(count: int, size: tuple[int, ...]) -> Tensor:
    return torch.empty((count, *size), dtype=torch.float32, device="cpu", memory_format=torch.channels_last)
