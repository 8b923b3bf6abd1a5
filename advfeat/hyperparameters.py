"""The hyperparameters of a training run: every number but the seed that decides how it goes."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from advfeat import inputs
from advfeat.engine import fused_steps
from advfeat.threats import Threat, check_threat

ADDED_LATER = {"added_later": True}
"""Metadata of a field of settings that was added when things had already been made and recorded without it: keys and
records leave it out where it has its default, which is what was done before."""


def settings_of(settings: Any) -> Mapping[str, Any]:
    """Name → value of the settings of a dataclass, but for those ``ADDED_LATER`` that have their default."""
    values = {one.name: (one, getattr(settings, one.name)) for one in dataclasses.fields(settings)}
    return {name: value for name, (one, value) in values.items() if one.metadata != ADDED_LATER or value != one.default}


@dataclass(frozen=True)
class TrainConfig:
    """Every number of a training run.

    Attributes:
        epochs: passes over the data.
        batch_size: images per step; the rest of an epoch that fills no batch is left out.
        lr: peak learning rate of SGD with Nesterov momentum. It rises linearly for the first ``warmup`` of all steps
            and falls linearly to zero after that.
        warmup: share of the steps, in [0, 1).
        momentum: of SGD.
        weight_decay: on weight matrices and filters; not on biases and BatchNorm.
        label_smoothing: share of the label spread evenly over all classes.
        shift: random moves by up to so many pixels.
        flip: mirror half of the images.
        threat: train on images attacked within this threat (adversarial training), or None.
        attack_steps: PGD steps per batch.
        attack_step_size: length of each, in pixel units.
        attack_mode: the statistics of BatchNorm during the attack. ``eval``: its running statistics, so that images
            do not depend on each other. ``train``: the statistics of the batch, as in the training step that follows.
            Where weights change fast the running statistics lag behind them, and with few steps the network can then
            learn to withstand the attack on its lagging copy alone.
        precision: ``float32``, ``bfloat16`` for autocast, or ``fast``: the one of them that the device computes faster.
        drops: shares of the steps, in (0, 1) and rising, after which the rate is a tenth of what it was. It then stays
            level between them; the straight fall to zero is what happens without any.
        logit_factor: factor of the logits in the loss, beside the network's own; below 1 it softens the training. The
            attack of adversarial training sees the logits without it.
        whitening: set a 2×2 stem to whitening filters before the first step, see ``whitening.whiten``; otherwise it is
            trained from random weights as every other layer is. This is done where a network is made
            (``experiments.making.train_network``), not in ``train``.
        average: share of the steps, in [0, 1), the last ones, over which the weights are averaged; the averages of the
            statistics of BatchNorm go with them. 0: the last weights.

    Raises:
        TypeError: a value of another type, named.
        ValueError: a value outside its range, named.
    """

    epochs: int
    batch_size: int
    lr: float
    warmup: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    shift: int = 0
    flip: bool = False
    threat: Threat | None = None
    attack_steps: int = 7
    attack_step_size: float = 0.1
    attack_mode: str = "eval"
    precision: str = "float32"
    drops: tuple[float, ...] = field(default=(), metadata=ADDED_LATER)
    logit_factor: float = field(default=1.0, metadata=ADDED_LATER)
    whitening: bool = field(default=True, metadata=ADDED_LATER)
    average: float = field(default=0.0, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "shift", "attack_steps"):
            inputs.whole(name, getattr(self, name))
        for name in ("lr", "warmup", "momentum", "weight_decay", "label_smoothing", "attack_step_size",
                     "logit_factor", "average"):  # fmt: skip
            inputs.real(name, getattr(self, name))
        for name in ("attack_mode", "precision"):
            inputs.text(name, getattr(self, name))
        for name in ("flip", "whitening"):
            inputs.flag(name, getattr(self, name))
        inputs.instance("drops", self.drops, tuple, "a tuple of shares of the steps")
        for share in self.drops:
            inputs.real("drops", share)
        if self.threat is not None:
            check_threat(self.threat)
        for name, accepted, words in (
            ("epochs", self.epochs >= 0, "0 or more"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
            ("lr", 0 < self.lr < math.inf, "a positive number"),
            ("warmup", 0 <= self.warmup < 1, "in [0, 1)"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)"),
            ("shift", self.shift >= 0, "0 or more"),
            ("attack_steps", self.attack_steps >= 1, "1 or more"),
            ("attack_step_size", 0 < self.attack_step_size < math.inf, "a positive number"),
            ("attack_mode", self.attack_mode in ("eval", "train"), "eval or train"),
            ("logit_factor", 0 < self.logit_factor < math.inf, "a positive number"),
            ("average", 0 <= self.average < 1, "in [0, 1)"),
            ("drops", _rising((0.0, *self.drops, 1.0)), "shares in (0, 1), each larger than the one before"),
            ("precision", self.precision in ("float32", "bfloat16", "fast"), "float32, bfloat16 or fast"),
        ):
            if not accepted:
                raise ValueError(f"{name}={getattr(self, name)!r} is out of range; it must be {words}")
        # A step that leaps over the ball is one in other units.
        if self.threat is not None and 0 < self.threat.eps < math.inf:
            limit = 2 * self.threat.eps
            inputs.step_size(self.attack_step_size, limit=limit, of=self.threat, name="attack_step_size")

    def on(self, device_type: str) -> TrainConfig:
        """The same training with the precision by its name, where it is ``fast``: see ``fused_steps.fast_dtype``."""
        if self.precision != "fast":
            return self
        return dataclasses.replace(self, precision=str(fused_steps.fast_dtype(device_type)).removeprefix("torch."))

    def at_radius(self, eps: float) -> TrainConfig:
        """The same adversarial training within another radius; the attack's steps grow with it.

        Raises:
            ValueError: there is no threat, or it has radius 0 and so no scale to keep.
        """
        if self.threat is None or self.threat.eps == 0:
            raise ValueError(f"only adversarial training within a radius has another radius, got threat={self.threat}")
        inputs.number("eps", eps, least=0)
        step_size = self.attack_step_size * (eps / self.threat.eps)
        return dataclasses.replace(self, threat=dataclasses.replace(self.threat, eps=eps), attack_step_size=step_size)


def _rising(values: tuple[float, ...]) -> bool:
    return all(one < other for one, other in itertools.pairwise(values))
