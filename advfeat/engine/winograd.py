"""3×3 convolutions with a quarter of the multiplications: Winograd's minimal filtering, F(4×4, 3×3), float32, on a CPU.

``conv2d`` computes ``torch.nn.functional.conv2d``, up to rounding, with bias, a residual sum and ReLU in
the same pass, and has all its gradients; second ones are PyTorch's. Where the C file beside this module cannot be
compiled, on another device or in another dtype, it is PyTorch's. An image gets the same bits alone, in any batch and
with any number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight

from advfeat import inputs
from advfeat.engine import convolution_code
from advfeat.engine.convolution_code import Kept, applies, compiled_code, floats, place, scratch, team

ENOUGH_TILES, LARGE = 128, 2**18
"""Transforms of at least ``LARGE`` floats are not kept for calls with ``ENOUGH_TILES`` tiles or more: making them takes
at most a seventh of such a call."""


def pays(
    channels: int,
    outputs: int,
    height: int,
    width: int,
    *,
    gradient: str = "images",
    batch: int = 128,
    padding: int = 1,
) -> bool:
    """Whether ``conv2d`` is expected to be faster here than PyTorch's convolution, for a layer of this shape.

    It is a rule, not a measurement, so the same layer gets the same code in each run. It comes from measurements with
    AVX2 and AVX-512: 8 channels win with one of the two and lose with the other; 3 lose with both. The transformed
    weights are four times as many, and must be read whatever the batch, so a handful of tiles does not pay for them;
    where they change at every step, they must be made, too.

    Args:
        gradient: ``"images"`` if only outputs and gradients with respect to the images are asked for; ``"weight"`` if
            the network is trained, so that weights are transformed at every step and their gradient is computed.
        batch: images at a time.
    """
    inputs.one_of("gradient", gradient, ("images", "weight"))
    least, enough = (16, 8) if gradient == "images" else (24, 64)
    return (
        convolution_code.engine().name == "winograd"
        and min(channels, outputs) >= least
        and batch * tiles(height + 2 * padding - 2, width + 2 * padding - 2) >= enough
    )


def tiles(height: int, width: int) -> int:
    """How many tiles of 4×4 outputs it takes."""
    return -(-height // 4) * -(-width // 4)


class Kernel:
    """The weights of a 3×3 convolution with their transforms, which are made when they are first needed.

    They are kept until the weights change, see ``Kept``. But they are four times as many as the weights, and the work
    on enough tiles takes so much longer than a transform that large ones are then made for one call only: memory
    matters where there are many images, and time where there are few. The bits are the same.

    Args:
        weight: (outputs, inputs, 3, 3).

    Raises:
        TypeError, ValueError: it is something else.
    """

    def __init__(self, weight: Tensor) -> None:
        inputs.tensor("weight", weight, "n c 3 3", inputs.FLOATS)
        self.weight = weight
        self._kept = Kept(weight)

    def transformed(self, *, turned: bool = False, count: int = 1) -> Tensor:
        """36 matrices as the C code reads them; ``turned`` those of the gradient with respect to the images.

        Args:
            count: tiles that they are needed for. The next call of this thread may write over those not kept.
        """
        size = 36 * self.weight.shape[0] * self.weight.shape[1]
        if count >= ENOUGH_TILES and size >= LARGE and not self._kept.holds(turned):
            return _transform(self.weight.detach(), turned, None, once=True)
        transformed: Tensor = self._kept.get(turned, lambda weight, made: _transform(weight, turned, made))
        return transformed


def conv2d(
    images: Float[Tensor, "n c h w"],
    kernel: Kernel | Float[Tensor, "k c 3 3"],
    bias: Float[Tensor, " k"] | None = None,
    *,
    padding: int = 1,
    residual: Float[Tensor, "n k h2 w2"] | None = None,
    relu: bool = False,
) -> Float[Tensor, "n k h2 w2"]:
    """``images`` convolved with a 3×3 kernel at stride 1; then + ``bias``, + ``residual``, and ReLU if asked for.

    The result has channels last. With ``relu`` an output that would be minus infinity is NaN: behind the transforms the
    sign of an infinity means nothing. It can be differentiated once, in everything that is a tensor here.

    Args:
        images: of any size, contiguous or with channels last (which saves a copy).
        kernel: a ``Kernel``, whose transforms are kept, or weights, which are transformed for this call.
        padding: 0 or 1 pixels of zeros on each side.
        residual: of the output's shape.

    Raises:
        TypeError, ValueError: an argument of another type, dtype or shape.
    """
    kernel = kernel if isinstance(kernel, Kernel) else Kernel(kernel)
    weight = kernel.weight
    inputs.whole("padding", padding, least=0, most=1)
    inputs.flag("relu", relu)
    dtypes = (weight.dtype,)
    sizes = inputs.tensor("images", images, "n c h w", dtypes, like="kernel", c=weight.shape[1])
    height, width = sizes["h"] + 2 * padding - 2, sizes["w"] + 2 * padding - 2
    if height < 1 or width < 1:
        raise ValueError(f"images must be at least 3 pixels high and wide without padding, got {tuple(images.shape)}")
    if bias is not None:
        inputs.tensor("bias", bias, "k", dtypes, like="kernel", k=len(weight))
    if residual is not None:
        inputs.tensor("residual", residual, "n k h w", dtypes, like="the output", n=len(images), k=len(weight),
                      h=height, w=width)  # fmt: skip
    if applies(images, weight, bias, residual):
        return convolution(images, kernel, bias, padding=padding, residual=residual, relu=relu)
    outputs = F.conv2d(images, weight, bias, padding=padding)
    outputs = outputs if residual is None else outputs + residual
    return outputs.relu() if relu else outputs


def convolution(
    images: Tensor, kernel: Kernel, bias: Tensor | None, *, padding: int, residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:  # fmt: skip
    """``conv2d`` without its checks, where the compiled code ``applies``."""
    outputs: Tensor = _Convolution.apply(images, kernel.weight, bias, residual, kernel, padding, relu)
    return outputs


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, kernel: Kernel,
        padding: int, relu: bool,
    ) -> Tensor:  # fmt: skip
        outputs = _convolve(
            images,
            kernel.transformed(count=_tiles_of(images, padding)),
            len(weight),
            padding,
            bias,
            residual,
            relu=relu,
        )
        needed = ctx.needs_input_grad
        ctx.kernel, ctx.padding, ctx.size = kernel, padding, images.shape
        # The weights are kept so that a change before the gradient is asked for is an error, as everywhere in PyTorch.
        ctx.save_for_backward(weight, images if needed[1] else None, outputs if relu else None)
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, images, gate = ctx.saved_tensors
        for_images, for_weight, for_bias, for_residual = ctx.needs_input_grad[:4]
        if torch.is_grad_enabled() or not applies(gradient):  # somebody differentiates the gradient, or looks on
            gradient = gradient if gate is None else torch.ops.aten.threshold_backward(gradient, gate, 0)
            of = differentiable_gradients(gradient, images, weight, ctx.size, 1, ctx.padding, ctx.needs_input_grad)
            return *of, gradient if for_residual else None, None, None, None
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        if gate is not None and (for_bias or for_residual):
            gradient, gate = torch.ops.aten.threshold_backward(gradient, gate, 0), None
        of_images = of_weight = None
        if for_images:
            turned = ctx.kernel.transformed(turned=True, count=_tiles_of(gradient, 2 - ctx.padding))
            of_images = _convolve(gradient, turned, ctx.size[1], 2 - ctx.padding, gate=gate)
        if for_weight:
            of_weight = _weight_gradient(images, gradient, gate, weight, ctx.padding)
        of_bias = gradient.sum((0, 2, 3)) if for_bias else None
        return of_images, of_weight, of_bias, gradient if for_residual else None, None, None, None


def differentiable_gradients(
    gradient: Tensor, images: Tensor | None, weight: Tensor, size: torch.Size, stride: int, padding: int,
    needed: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of a convolution in its images, weight and bias, as far as ``needed``, by PyTorch's operations."""
    more: dict[str, Any] = {"stride": stride, "padding": padding}
    of_images = conv2d_input(size, weight, gradient, **more) if needed[0] else None
    of_weight = conv2d_weight(images, weight.shape, gradient, **more) if needed[1] else None
    return of_images, of_weight, gradient.sum((0, 2, 3)) if needed[2] else None


def _convolve(
    images: Tensor, transformed: Tensor, outputs: int, padding: int, bias: Tensor | None = None,
    residual: Tensor | None = None, *, relu: bool = False, gate: Tensor | None = None,
) -> Tensor:  # fmt: skip
    library, threads = compiled_code(), torch.get_num_threads()
    count, channels, height, width = images.shape
    images = images.contiguous(memory_format=torch.channels_last)
    residual = residual if residual is None else residual.contiguous(memory_format=torch.channels_last)
    bias = bias if bias is None else bias.contiguous()
    gate = gate if gate is None else gate.contiguous(memory_format=torch.channels_last)
    shape = (count, outputs, height + 2 * padding - 2, width + 2 * padding - 2)
    made = torch.empty(shape, dtype=torch.float32, device="cpu", memory_format=torch.channels_last)
    space = scratch(library.winograd_space(count, height, width, channels, outputs, padding, threads))
    library.winograd_convolve(
        images.data_ptr(), place(gate), transformed.data_ptr(), place(bias), place(residual), made.data_ptr(),
        space.data_ptr(), count, height, width, channels, outputs, padding, relu, threads, team(),
    )  # fmt: skip
    return made


def _tiles_of(images: Tensor, padding: int) -> int:
    height, width = (side + 2 * padding - 2 for side in images.shape[2:])
    return len(images) * tiles(height, width)


def _weight_gradient(images: Tensor, gradient: Tensor, gate: Tensor | None, weight: Tensor, padding: int) -> Tensor:
    library, threads = compiled_code(), torch.get_num_threads()
    count, channels, height, width = images.shape
    images = images.contiguous(memory_format=torch.channels_last)
    gate = gate if gate is None else gate.contiguous(memory_format=torch.channels_last)
    made = torch.empty_like(weight, requires_grad=False)
    sizes = (count, height, width, channels, len(weight), padding)
    space = scratch(library.winograd_gradient_space(*sizes, threads))
    library.winograd_weight_gradient(
        images.data_ptr(), gradient.data_ptr(), place(gate), made.data_ptr(), space.data_ptr(), *sizes,
        *made.stride(), threads, team(),
    )  # fmt: skip
    return made


def _transform(weight: Tensor, turned: bool, made: Tensor | None, *, once: bool = False) -> Tensor:
    library = compiled_code()
    outputs, channels, row, column = weight.stride()
    sizes = (len(weight), weight.shape[1]) if turned else (weight.shape[1], len(weight))
    outer, inner = (channels, outputs) if turned else (outputs, channels)
    if made is None:  # new memory costs time
        size = library.winograd_weight_floats(*sizes)
        made = scratch(size, "transforms") if once else floats(size)
    library.winograd_weights(
        weight.data_ptr(), made.data_ptr(), *sizes, turned, outer, inner, row, column, torch.get_num_threads(), team()
    )
    return made
