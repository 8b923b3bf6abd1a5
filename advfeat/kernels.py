"""One attack step: move along the gradient, project on the ball, clamp to valid pixels.

These few lines of PyTorch are the specification. All arithmetic is in the dtype of the images (float32 in practice);
every image is treated on its own, so a step does not depend on what else is in the batch.
"""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float
from torch import Tensor


def l2_step(
    adv: Float[Tensor, "n *shape"],
    origin: Float[Tensor, "n *shape"],
    gradient: Float[Tensor, "n *shape"],
    *,
    eps: float,
    step_size: float,
) -> Float[Tensor, "n *shape"]:
    """One projected gradient-ascent step in ℓ2: Π(adv + step_size · g / ‖g‖₂), all in [0, 1] pixel units.

    Π first scales adv − origin back to norm ``eps`` where it is longer, then clamps to [0, 1]. Because ``origin`` lies
    in the box, the clamp only shortens the perturbation, so the result satisfies both constraints. An image with a zero
    gradient keeps its place (and is still projected). A gradient with a NaN or an infinity gives NaN, never a pixel
    that looks valid.

    Source: section 3 and appendix C of Ilyas et al. 2019; robustness/attack_steps.py of its authors.
    """
    dims = tuple(range(1, adv.ndim))
    # The largest entry goes out first: squares of entries near 1e-24 or 1e20 would leave the range of float32, and
    # an image classified with confidence does have gradients that small.
    largest = gradient.abs().amax(dims, keepdim=True)
    scaled = gradient / torch.where(largest == 0, 1.0, largest)
    length = _norm(scaled, dims)
    moved = adv - origin + scaled * (step_size / torch.where(length == 0, 1.0, length))
    distance = _norm(moved, dims)
    # Compared, not clamped: 0 / 0 would spoil an image that has not moved, and a NaN distance must stay one.
    shrink = torch.where(distance <= eps, 1.0, eps / distance)
    return (origin + moved * shrink).clamp(0, 1)


def linf_step(
    adv: Float[Tensor, "n *shape"],
    origin: Float[Tensor, "n *shape"],
    gradient: Float[Tensor, "n *shape"],
    *,
    eps: float,
    step_size: float,
) -> Float[Tensor, "n *shape"]:
    """One projected gradient-ascent step in ℓ∞: clamp(adv + step_size · sign(g)) to origin ± eps and to [0, 1].

    A zero gradient entry leaves its pixel in place, a NaN or infinite entry makes it NaN.

    Source: Madry et al. 2018, section 2.
    """
    # sign(NaN) is 0 in PyTorch and sign(inf) is 1: both would hide the fault.
    direction = torch.where(gradient.isfinite(), gradient.sign(), torch.nan)
    moved = adv + step_size * direction
    return torch.minimum(torch.maximum(moved, origin - eps), origin + eps).clamp(0, 1)


def _norm(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    return values.square().sum(dims, keepdim=True).sqrt()


@functools.cache
def fast_dtype(device_type: str) -> torch.dtype:
    """The dtype in which networks run fastest on a device type: bfloat16 where its matrix units know it.

    A CPU without AVX-512-BF16 or AMX emulates bfloat16 more slowly than it computes in float32, so there the answer is
    float32.
    """
    if device_type == "cuda":
        return torch.bfloat16
    if device_type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return torch.bfloat16
    return torch.float32
