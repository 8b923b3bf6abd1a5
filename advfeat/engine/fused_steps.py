"""One attack step: move along the gradient, project on the ball, clamp to valid pixels; and crop-and-flip.

The few lines of PyTorch here are the specification, and a CPU runs them. On a GPU ``triton_kernels`` does the same in
one trip through memory. All arithmetic is in the dtype of the images (float32 in practice); every image is treated on
its own, so a step does not depend on the others in the batch.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from advfeat import inputs


@dataclass(frozen=True)
class NetworkInput:
    """A network's input for some images, kept beside them: (pixels − mean) / std in its own dtype, channels last.

    A step that is given one takes gradients with respect to ``values``, and leaves in ``values`` the input for the
    images that it returns. So no normalisation is computed, cast or differentiated apart from the step.

    Attributes:
        values: (n, c, h, w), of any floating dtype.
        mean: (1, c, 1, 1), in pixel units.
        std: (1, c, 1, 1), in pixel units.
    """

    values: Tensor
    mean: Tensor
    std: Tensor

    def set_from(self, images: Float[Tensor, "n c h w"]) -> None:
        """Set ``values`` to the network's input for ``images``."""
        self.values.copy_((images - self.mean) / self.std)

    def pixel_gradient(self, gradient: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The gradient with respect to the pixels, by the chain rule."""
        return gradient.to(self.std.dtype) / self.std


@torch.no_grad()
def l2_step(
    adv: Float[Tensor, "n *shape"],
    origin: Float[Tensor, "n *shape"],
    gradient: Float[Tensor, "n *shape"],
    *,
    eps: float,
    step_size: float,
    out: Tensor | None = None,
    network: NetworkInput | None = None,
) -> Float[Tensor, "n *shape"]:
    """One projected gradient-ascent step in ℓ2: Π(adv + step_size · g / ‖g‖₂), all in [0, 1] pixel units.

    Π first scales adv − origin back to norm ``eps`` where it is longer, then clamps to [0, 1]. Because ``origin`` lies
    in the box, the clamp only shortens the perturbation, so the result satisfies both constraints. With an infinite
    ``eps`` the box alone holds the images, and ``origin`` is not read. An image with a zero gradient keeps its place
    (and is still projected). A gradient with a NaN or an infinity gives NaN in the whole image, never a pixel that
    looks valid.

    Args:
        out: where to write the result; it may be ``adv``.
        network: the gradient is with respect to this input, which is brought up to date.

    Raises:
        TypeError, ValueError: the three tensors differ in shape or are not floating, ``eps`` is negative or no number,
            or ``step_size`` not positive. Values are not looked at: that would stop a GPU at every step.

    Source: section 3 and appendix C of Ilyas et al. 2019; robustness/attack_steps.py of its authors.
    """
    _check_step(adv, origin, gradient, eps, step_size)
    if _fused(adv):
        from advfeat.engine import triton_steps  # late: not every platform has Triton

        return triton_steps.l2_step(adv, origin, gradient, eps, step_size, out, _parts(network))
    if network is not None:
        gradient = network.pixel_gradient(gradient)
    dims = tuple(range(1, adv.ndim))
    # The largest entry goes out first: squares of entries near 1e-24 or 1e20 would leave the range of float32, and
    # an image classified with confidence does have gradients that small.
    largest = torch.maximum(gradient.amax(dims, keepdim=True), -gradient.amin(dims, keepdim=True))
    unit = gradient / torch.where(largest == 0, 1.0, largest)
    length = _norm(unit, dims)
    scale = step_size / torch.where(length == 0, 1.0, length)
    if eps == math.inf:
        moved = torch.addcmul(adv, unit, scale, out=out)
    else:
        moved = torch.sub(adv, origin, out=out).addcmul_(unit, scale)
        distance = _norm(moved, dims)
        # Compared, not clamped: 0 / 0 would spoil an image that has not moved, and a NaN distance must stay one.
        shrink = torch.where(distance <= eps, 1.0, eps / distance)
        moved.mul_(shrink).add_(origin)
    moved.clamp_(0, 1)
    if network is not None:
        network.set_from(moved)
    return moved


@torch.no_grad()
def linf_step(
    adv: Float[Tensor, "n *shape"],
    origin: Float[Tensor, "n *shape"],
    gradient: Float[Tensor, "n *shape"],
    *,
    eps: float,
    step_size: float,
    out: Tensor | None = None,
    network: NetworkInput | None = None,
) -> Float[Tensor, "n *shape"]:
    """One projected gradient-ascent step in ℓ∞: clamp(adv + step_size · sign(g)) to origin ± eps and to [0, 1].

    A zero gradient entry leaves its pixel in place, a NaN or infinite entry makes it NaN. ``out``, ``network``
    and errors are those of ``l2_step``.

    Source: Madry et al. 2018, section 2.
    """
    _check_step(adv, origin, gradient, eps, step_size)
    if _fused(adv):
        from advfeat.engine import triton_steps

        return triton_steps.linf_step(adv, origin, gradient, eps, step_size, out, _parts(network))
    if network is not None:
        gradient = network.pixel_gradient(gradient)
    # sign(NaN) is 0 in PyTorch and sign(inf) is 1: both would hide the fault. g − g is 0, or NaN for just these.
    direction = gradient.sign().add_(gradient - gradient)
    moved = torch.add(adv, direction, alpha=step_size, out=out)
    torch.clamp(moved, origin - eps, origin + eps, out=moved).clamp_(0, 1)
    if network is not None:
        network.set_from(moved)
    return moved


def augment_step(
    images: Float[Tensor, "n c h w"],
    offsets: Int[Tensor, "2 n"],
    mirrored: Bool[Tensor, " n"],
    *,
    shift: int,
) -> Float[Tensor, "n c h w"]:
    """Each image moved and, where ``mirrored``, flipped left to right: out[y, x] = in[r(y + o₀ − s), r(x' + o₁ − s)].

    s is ``shift``, o an image's column of ``offsets`` in [0, 2s], x' = w − 1 − x where mirrored and x elsewhere, and r
    reflects a coordinate that has left the image about the middle of its border pixel. The result is channels last.

    Raises:
        TypeError, ValueError: shapes or dtypes other than these, or a shift that is negative or no smaller than the
            image.
    """
    sizes = inputs.tensor("images", images, "n c h w", inputs.FLOATS)
    inputs.tensor("offsets", offsets, "2 n", inputs.INT64, like="images", n=sizes["n"])
    inputs.tensor("mirrored", mirrored, "n", inputs.BOOL, like="images", n=sizes["n"])
    inputs.whole("shift", shift, least=0, most=max(0, min(sizes["h"], sizes["w"]) - 1))
    if _fused(images):
        from advfeat.engine import triton_steps

        return triton_steps.augment_step(images, offsets, mirrored, shift)
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) + offsets[0, :, None]
    columns = torch.arange(width, device=images.device) + offsets[1, :, None]
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    index = torch.arange(len(images), device=images.device)[:, None, None]
    rows, columns = _reflected(rows - shift, height), _reflected(columns - shift, width)
    # One gather does crop and mirror. Advanced indices on both sides of the channel slice put channels last; permute
    # brings them back (a view).
    return images[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _check_step(adv: Tensor, origin: Tensor, gradient: Tensor, eps: float, step_size: float) -> None:
    """The checks that need no values: a wrong shape would be broadcast."""
    for name, values in (("adv", adv), ("origin", origin), ("gradient", gradient)):
        if not isinstance(values, Tensor) or not values.is_floating_point():
            inputs.tensor(name, values, "n", inputs.FLOATS)
        if values.shape != adv.shape:
            raise ValueError(f"{name} must have the shape of adv, {tuple(adv.shape)}, got {tuple(values.shape)}")
    inputs.radius("eps", eps)
    inputs.number("step_size", step_size, above=0)


def _reflected(index: Tensor, size: int) -> Tensor:
    return (size - 1) - ((size - 1) - index.abs()).abs()


def _norm(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    # Not linalg.vector_norm: it adds up the entries of a large image one by one, this sums blocks of them.
    return values.square().sum(dims, keepdim=True).sqrt()


def _parts(network: NetworkInput | None) -> tuple[Tensor, Tensor, Tensor] | tuple[None, None, None]:
    return (None, None, None) if network is None else (network.values, network.mean, network.std)


@contextmanager
def twins_only() -> Iterator[None]:
    """Let the lines of PyTorch do the work on a GPU, too: for comparisons."""
    global _twins
    before, _twins = _twins, True
    try:
        yield
    finally:
        _twins = before


_twins = False


def _fused(images: Tensor) -> bool:
    """Whether the Triton kernels do the work: float32 on a GPU, where Triton is installed."""
    return images.is_cuda and images.dtype == torch.float32 and _has_triton() and not _twins


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def fast_dtype(device_type: str) -> torch.dtype:
    """The dtype in which networks run fastest on a device type: bfloat16 where its matrix units know it.

    A CPU without AVX-512-BF16 or AMX emulates bfloat16 more slowly than it computes in float32, so there the answer is
    float32; also where ``ONEDNN_MAX_CPU_ISA`` keeps oneDNN from such instructions.
    """
    if device_type == "cuda":
        return torch.bfloat16
    if device_type != "cpu" or not torch.backends.mkldnn.is_available():
        return torch.float32
    has_units = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_units and torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32
