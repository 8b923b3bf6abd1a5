"""The loop below every attack: steps up the gradient of an objective, inside a threat."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from advfeat import inputs
from advfeat.engine import fused_steps, replay
from advfeat.evaluation_mode import check_eval
from advfeat.models import Classifier, FrozenClassifier
from advfeat.threats import Threat, check_step

Objective = Callable[[Tensor, Tensor], Tensor]
"""``objective(output, target)``: a sum over images, of the output of a network and the target of each image.

The function itself is the key under which its steps are recorded on a GPU, see ``maximize``.
"""
Output = Literal["logits", "representation"]


def maximize(
    model: nn.Module,
    objective: Objective,
    images: Float[Tensor, "n c h w"],
    target: Tensor,
    threat: Threat,
    *,
    on: Output = "logits",
    steps: int,
    step_size: float,
    start: Float[Tensor, "n c h w"] | None = None,
) -> Float[Tensor, "n c h w"]:
    """The loop below every attack: ``steps`` steps up the gradient of an objective, inside ``threat``.

    Everything happens in memory that is laid out once, and nothing is read back to the host before the end. A frozen
    classifier consists of known operations only, so its steps can be recorded (see ``replay``); and it is entered
    behind its normalisation, because a step normalises on the fly. Any other model simply runs. The same loop, without
    memory laid out and without recordings, is written in ``bench.reference.reference_pgd``.

    A recording is found again by the objective itself. So define it once, in a module: a function that is made anew,
    such as a lambda, is recorded anew. And let it depend on its two arguments only: any other value that it reads is
    recorded as it is at the time.

    Args:
        objective: ``objective(output, target)``, a sum over images. It must treat each image on its own, and read no
            value back.
        target: the objective's second argument, one for each image, first dimension n.
        threat: ``FREE`` if only the box is to hold the images.
        on: the output, the model's ``logits`` or its ``representation``.
        start: where to begin, if not at the images.

    Raises:
        TypeError: an argument of another type or dtype, an objective that cannot be a key, or one that is no number.
        ValueError: the model is in training mode, images or start are not in [0, 1], shapes disagree, ``steps`` is
            negative, ``step_size`` is not positive or too long, or nothing leads from the images to the objective.
        FloatingPointError: a gradient was not finite.
    """
    check_attack(model, images, threat, steps, step_size, start, on=on)
    inputs.function("objective", objective, "of a network's output and the target")
    inputs.instance("objective", objective, Hashable, "hashable, since its recordings are kept under it")
    inputs.instance("target", target, Tensor, "a tensor")
    if target.ndim == 0 or len(target) != len(images):
        raise ValueError(f"target must have a row for each of {len(images)} images, got shape {tuple(target.shape)}")
    begun = [] if start is None else [("start", start, inputs.BOX)]
    inputs.look(("images", images, inputs.BOX), *begun)
    return ascend(model, objective, images, target, threat, steps, step_size, on=on, start=start)


def check_attack(
    model: nn.Module, images: Tensor, threat: Threat, steps: int, step_size: float, start: Tensor | None, *,
    on: Output = "logits", name: str = "images",
) -> None:  # fmt: skip
    """Everything about the arguments of an attack that can be told without a look at values."""
    inputs.one_of("on", on, ("logits", "representation"))
    inputs.network(model, inside=on == "representation")
    check_eval(model)
    inputs.images(images, name, model=model)
    check_step(step_size, threat, images)
    inputs.whole("steps", steps, least=0)
    if start is not None:
        inputs.instance("start", start, Tensor, "a tensor")
        if start.shape != images.shape or start.dtype != images.dtype:
            got = f"{start.dtype} {tuple(start.shape)}"
            raise ValueError(f"start must be as the images are, float32 {tuple(images.shape)}, got {got}")
    inputs.gradients_possible(model)


def ascend(
    model: nn.Module, objective: Objective, images: Tensor, target: Tensor, threat: Threat, steps: int,
    step_size: float, *, on: Output = "logits", start: Tensor | None = None,
    check: Callable[[Tensor], None] | None = None,
) -> Tensor:  # fmt: skip
    """The work of ``maximize``; ``check`` refuses an output that does not fit the target, without a look at values."""
    # A subclass may compute something else.
    known = model if type(model) is FrozenClassifier else None
    answer: Callable[[Tensor], Tensor]
    if known is not None:
        answer = known.represent if on == "representation" else known.classify
    else:
        answer = cast("Classifier", model).representation if on == "representation" else model

    def buffers() -> dict[str, Tensor]:
        # Channels last, as the network reads and differentiates: then nothing is rearranged at every step.
        adv = torch.empty_like(images, memory_format=torch.channels_last)
        made = {"adv": adv, "origin": torch.empty_like(adv), "target": torch.empty_like(target)}
        return made if known is None else made | {"values": torch.empty_like(adv, dtype=known.dtype)}

    if known is None:
        recording, network = replay.Recording(buffers()), None
    else:
        # All that a step depends on besides buffers and weights. The objective counts as itself, not by a name of its.
        key = (objective, threat, step_size, on, images.shape, images.dtype, target.shape, target.dtype)
        recording = replay.recording(known, key, buffers)
        network = fused_steps.NetworkInput(recording.buffers["values"], known.mean, known.std)
    adv, origin, targets = (recording.buffers[name] for name in ("adv", "origin", "target"))
    with torch.no_grad():
        adv.copy_(images if start is None else start)
        origin.copy_(images)
        targets.copy_(target)
        if network is not None:
            network.set_from(adv)

    def step() -> None:
        inputs = (adv if network is None else network.values).detach().requires_grad_()
        with torch.enable_grad():
            output = answer(inputs)
            if check is not None:
                check(output)
            total = objective(output, targets)
        if not isinstance(total, Tensor) or total.ndim:
            raise TypeError(f"objective must return a sum over the images, one number, got {type(total).__name__}")
        if not total.requires_grad:
            raise ValueError("model has no gradient: nothing leads from the images to its answer")
        (gradient,) = torch.autograd.grad(total, inputs)
        threat.step(adv, origin, gradient, step_size, out=adv, network=network)

    recording.run(step, steps)
    # One look after the loop: a NaN, once there, stays (the steps never turn it into a valid pixel).
    broken = int((~adv.isfinite()).flatten(1).any(1).sum())
    if broken:
        raise FloatingPointError(f"model: the gradient was not finite for {broken} of {len(adv)} images")
    return torch.empty_like(images).copy_(adv)
