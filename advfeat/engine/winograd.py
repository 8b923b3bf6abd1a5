"""3×3 convolutions with a quarter of the multiplications: Winograd's minimal filtering, F(4×4, 3×3), float32, on a CPU.

``conv2d`` computes what ``torch.nn.functional.conv2d`` computes, up to rounding, with bias, a residual sum and ReLU in
the same pass, and has all its first gradients. Where the C file beside this module cannot be compiled, on another
device or in another dtype, it is PyTorch's. An image gets the same bits alone, in any batch and with any number of
threads.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from advfeat import inputs
from advfeat.engine.compiled import UnavailableError, instructions, load

SOURCE = Path(__file__).with_name("winograd.c")
_KEPT = 16 * 2**20  # floats of scratch memory that a thread keeps between calls; larger ones are given back
_scratch = threading.local()


class Engine(NamedTuple):
    """Which code computes convolutions here, and why."""

    name: str
    """``"winograd"`` or ``"torch"``."""
    why: str
    """The instructions that it was compiled for, or the reason why it was not."""


def engine() -> Engine:
    """Which code ``conv2d`` uses for float32 images on the CPU; the first call compiles it unless that was done."""
    return _library()[1]


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
    down, across = (-(-(side + 2 * padding - 2) // 4) for side in (height, width))
    enough = 8 if gradient == "images" else 64
    return engine().name == "winograd" and min(channels, outputs) >= 16 and batch * down * across >= enough


class Kernel:
    """The weights of a 3×3 convolution with their transforms, which are made when they are first needed and kept.

    A change of the weights in place is noticed, and they are transformed again; an assignment to ``weight.data`` is
    not.

    Args:
        weight: (outputs, inputs, 3, 3).

    Raises:
        TypeError, ValueError: it is something else.
    """

    def __init__(self, weight: Tensor) -> None:
        inputs.tensor("weight", weight, "n c 3 3", inputs.FLOATS)
        self.weight = weight
        self._transforms: dict[bool, tuple[int, Tensor | None]] = {}

    def transformed(self, *, turned: bool = False) -> Tensor:
        """36 matrices as the C code reads them; ``turned`` those of the gradient with respect to the images."""
        weight = self.weight.detach()
        version = 0 if weight.is_inference() else weight._version
        seen, made = self._transforms.get(turned, (-1, None))
        if made is None or seen != version:
            made = _transform(weight, turned, made)
            self._transforms[turned] = version, made
        return made


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
    fits = images.device.type == "cpu" and images.dtype == torch.float32 and images.numel() > 0 and len(weight) > 0
    if fits and engine().name == "winograd":
        return _Convolution.apply(images, weight, bias, residual, kernel, padding, relu)
    outputs = F.conv2d(images, weight, bias, padding=padding)
    outputs = outputs if residual is None else outputs + residual
    return outputs.relu() if relu else outputs


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, kernel: Kernel,
        padding: int, relu: bool,
    ) -> Tensor:  # fmt: skip
        outputs = _convolve(images, kernel.transformed(), len(weight), padding, bias, residual, relu=relu)
        needed = ctx.needs_input_grad
        ctx.kernel, ctx.padding, ctx.size = kernel, padding, images.shape
        # The weights are kept so that a change before the gradient is asked for is an error, as everywhere in PyTorch.
        ctx.save_for_backward(weight, images if needed[1] else None, outputs if relu else None)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, images, gate = ctx.saved_tensors
        for_images, for_weight, for_bias, for_residual = ctx.needs_input_grad[:4]
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        if gate is not None and (for_bias or for_residual):
            gradient, gate = torch.ops.aten.threshold_backward(gradient, gate, 0), None
        of_images = of_weight = None
        if for_images:
            turned = ctx.kernel.transformed(turned=True)
            of_images = _convolve(gradient, turned, ctx.size[1], 2 - ctx.padding, gate=gate)
        if for_weight:
            of_weight = _weight_gradient(images, gradient, gate, weight, ctx.padding)
        of_bias = gradient.sum((0, 2, 3)) if for_bias else None
        return of_images, of_weight, of_bias, gradient if for_residual else None, None, None, None


def _convolve(
    images: Tensor, transformed: Tensor, outputs: int, padding: int, bias: Tensor | None = None,
    residual: Tensor | None = None, *, relu: bool = False, gate: Tensor | None = None,
) -> Tensor:  # fmt: skip
    library, threads = _compiled(), torch.get_num_threads()
    count, channels, height, width = images.shape
    images = images.contiguous(memory_format=torch.channels_last)
    residual = residual if residual is None else residual.contiguous(memory_format=torch.channels_last)
    bias = bias if bias is None else bias.contiguous()
    gate = gate if gate is None else gate.contiguous(memory_format=torch.channels_last)
    shape = (count, outputs, height + 2 * padding - 2, width + 2 * padding - 2)
    made = torch.empty(shape, memory_format=torch.channels_last)
    space = _space(library.winograd_space(count, height, width, channels, outputs, padding, threads))
    library.winograd_convolve(
        images.data_ptr(), _place(gate), transformed.data_ptr(), _place(bias), _place(residual), made.data_ptr(),
        space.data_ptr(), count, height, width, channels, outputs, padding, relu, threads, _team(),
    )  # fmt: skip
    return made


def _weight_gradient(images: Tensor, gradient: Tensor, gate: Tensor | None, weight: Tensor, padding: int) -> Tensor:
    library, threads = _compiled(), torch.get_num_threads()
    count, channels, height, width = images.shape
    images = images.contiguous(memory_format=torch.channels_last)
    gate = gate if gate is None else gate.contiguous(memory_format=torch.channels_last)
    made = torch.empty_like(weight, requires_grad=False)
    sizes = (count, height, width, channels, len(weight), padding)
    space = _space(library.winograd_gradient_space(*sizes, threads))
    library.winograd_weight_gradient(
        images.data_ptr(), gradient.data_ptr(), _place(gate), made.data_ptr(), space.data_ptr(), *sizes,
        *made.stride(), threads, _team(),
    )  # fmt: skip
    return made


def _transform(weight: Tensor, turned: bool, made: Tensor | None) -> Tensor:
    library = _compiled()
    outputs, channels, row, column = weight.stride()
    sizes = (len(weight), weight.shape[1]) if turned else (weight.shape[1], len(weight))
    outer, inner = (channels, outputs) if turned else (outputs, channels)
    made = torch.empty(library.winograd_weight_floats(*sizes)) if made is None else made  # new memory costs time
    library.winograd_weights(
        weight.data_ptr(), made.data_ptr(), *sizes, turned, outer, inner, row, column, torch.get_num_threads(), _team()
    )
    return made


@functools.cache
def _library() -> tuple[ctypes.CDLL | None, Engine]:
    try:
        return _declared(load(SOURCE)), Engine("winograd", f"compiled for {instructions()}")
    except UnavailableError as error:
        return None, Engine("torch", str(error))


def _compiled() -> ctypes.CDLL:
    library, found = _library()
    if library is None:
        raise RuntimeError(f"the compiled convolutions are not available: {found.why}")
    return library


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """``library`` with the types of its functions."""
    whole, size, place = ctypes.c_int, ctypes.c_long, ctypes.c_void_p
    image, strides, team = [size, *[whole] * 5], [size] * 4, [whole, place]
    for name, taken, given in (
        ("weight_floats", [whole, whole], size),
        ("space", [*image, whole], size),
        ("gradient_space", [*image, whole], size),
        ("weights", [place, place, whole, whole, whole, *strides, *team], None),
        ("convolve", [*[place] * 7, *image, whole, *team], None),
        ("weight_gradient", [*[place] * 5, *image, *strides, *team], None),
    ):
        function = getattr(library, f"winograd_{name}")
        function.argtypes, function.restype = taken, given
    return library


@functools.cache
def _team() -> int | None:
    """GOMP_parallel of the OpenMP that PyTorch has loaded: its threads do the work, and no second team beside them.

    Where there is none, the C code starts threads for the call and ends them.
    """
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except (AttributeError, OSError, TypeError):
        return None


def _space(floats: int) -> Tensor:
    """Scratch memory of this thread."""
    kept = getattr(_scratch, "kept", None)
    if kept is None or kept.numel() < floats:
        kept = torch.empty(floats)
        if floats <= _KEPT:
            _scratch.kept = kept
    return kept


def _place(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
