"""The training loop, standard and adversarial: the only file that changes weights."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advfeat import inputs
from advfeat.attacks import Threat, pgd
from advfeat.data import Dataset, augment, batches, check_dataset
from advfeat.engine import fused_steps
from advfeat.evaluation_mode import batch_statistics
from advfeat.models import Classifier, freeze, refold
from advfeat.onednn import check_trainable
from advfeat.progress import progress
from advfeat.threats import check_threat

Attack = Callable[[Tensor, Tensor], Tensor]  # images and labels of a batch to the images that are trained on


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
        attack_mode: what BatchNorm computes with during the attack. ``eval``: its running statistics, so that images
            do not depend on each other. ``train``: the statistics of the batch, as in the training step that follows.
            Where weights change fast the running statistics lag behind them, and with few steps the network can then
            learn to withstand the attack on its lagging copy alone.
        precision: ``float32``, ``bfloat16`` for autocast, or ``fast``: the one of them that the device computes faster.

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

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "shift", "attack_steps"):
            inputs.whole(name, getattr(self, name))
        for name in ("lr", "warmup", "momentum", "weight_decay", "label_smoothing", "attack_step_size"):
            inputs.real(name, getattr(self, name))
        for name in ("attack_mode", "precision"):
            inputs.text(name, getattr(self, name))
        inputs.flag("flip", self.flip)
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


@runtime_checkable
class Checkpoint(Protocol):
    """Where a run keeps its state between epochs, such as ``store.TrainingCheckpoint``."""

    def load(self) -> dict | None:
        """The saved state, or None."""

    def save(self, state: dict) -> None:
        """Keep the state; either wholly written or not at all."""


def train(
    model: Classifier,
    dataset: Dataset,
    config: TrainConfig,
    *,
    seed: int,
    checkpoint: Checkpoint | None = None,
    evaluate: Callable[[Classifier], dict[str, float]] | None = None,
    description: str = "train",
) -> list[dict[str, float]]:
    """Train ``model`` in place on ``dataset`` and return one row per epoch.

    A row holds ``epoch`` (from 1), ``loss`` and ``accuracy`` on the training batches as they were seen (attacked ones
    in adversarial training), ``seconds``, and whatever ``evaluate`` returns. With a ``checkpoint`` the state is kept
    after each epoch, and a run that was stopped goes on from there with the same order of images as if it had not
    been. The model ends in eval mode.

    On one machine with one number of threads (``torch.get_num_threads``) the same seed gives the same weights, to the
    bit, stopped or not. With another number of threads, or on a processor with other vector instructions, sums are
    taken in another order, and training enlarges the difference: it reached 2e-2 in the weights after twenty steps. A
    run that goes on under other ones is neither lost nor silent: it warns, and its rows from there on hold
    ``threads``.

    Adversarial examples are made with the model in eval mode, so that BatchNorm does not mix the images: with a frozen
    copy, in the precision of the training, that takes over the weights before every batch. With the ``attack_mode``
    ``train`` they are made with the model itself and the statistics of the batch. BatchNorm learns from neither.

    Raises:
        TypeError: an argument of another type, or a model that is no ``Classifier``.
        ValueError: the dataset is smaller than one batch or has more classes than the model, ``seed`` is not in
            [0, 2**32), or the model has narrow strided layers that cannot be trained on a CPU, see
            ``onednn.check_trainable``.
        FloatingPointError: the loss is not finite.

    Source: section 3 and appendix C of Ilyas et al. 2019; Madry et al. 2018 for adversarial training.
    """
    inputs.instance("model", model, Classifier, "a models.Classifier")
    check_dataset(dataset)
    inputs.instance("config", config, TrainConfig, "a TrainConfig")
    inputs.seed(seed)
    inputs.instance("checkpoint", checkpoint, (Checkpoint, type(None)), "a place for the state with load and save")
    if evaluate is not None:
        inputs.function("evaluate", evaluate, "of the model")
    inputs.text("description", description)
    if model.head.out_features < dataset.num_classes:
        raise ValueError(f"model knows {model.head.out_features} classes, but the dataset has {dataset.num_classes}")
    if config.shift >= min(dataset.images.shape[2:]):
        raise ValueError(f"config: shift={config.shift} must be below the side of {tuple(dataset.images.shape)}")
    steps_per_epoch = len(dataset) // config.batch_size
    if steps_per_epoch == 0:
        raise ValueError(f"dataset: {len(dataset)} images do not fill one batch of {config.batch_size}")
    check_trainable(model)
    config = config.on(dataset.images.device.type)
    generator = torch.Generator().manual_seed(seed)
    optimizer = _optimizer(model, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _triangle(config.epochs * steps_per_epoch, config.warmup))
    history: list[dict[str, float]] = []
    attack = _attack(model, config)

    state = checkpoint.load() if checkpoint is not None else None
    here = {"threads": torch.get_num_threads(), "instructions": torch.backends.cpu.get_cpu_capability()}
    note: dict[str, float] = {}
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        generator.set_state(state["generator"])
        history = state["history"]
        before = state.get("computed_with", here)
        if before != here:
            warnings.warn(
                f"{description}: the first {len(history)} epochs were computed with {_in_words(before)}, the "
                f"others with {_in_words(here)}. The weights will not be, to the bit, those of a run that was not "
                f"stopped; for those go on with torch.set_num_threads({before['threads']}) on such a processor",
                stacklevel=2,
            )
        if before != here or any("threads" in row for row in history):
            note = {"threads": torch.get_num_threads()}

    done = len(history)
    with progress(
        total=config.epochs * len(dataset), initial=done * len(dataset), unit="img", description=description
    ) as bar:
        for epoch in range(done, config.epochs):
            start = time.perf_counter()
            loss, correct = _one_epoch(model, attack, dataset, config, optimizer, schedule, generator, bar.update)
            seen = steps_per_epoch * config.batch_size
            row = {"epoch": epoch + 1, "loss": loss / seen, "accuracy": correct / seen}
            row["seconds"] = time.perf_counter() - start
            model.eval()
            row |= note | (evaluate(model) if evaluate is not None else {})
            history.append(row)
            bar.set_postfix(loss=f"{row['loss']:.3f}", accuracy=f"{row['accuracy']:.3f}")
            if checkpoint is not None:
                checkpoint.save(
                    {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "schedule": schedule.state_dict(),
                        "generator": generator.get_state(),
                        "history": history,
                        "computed_with": here,
                    }
                )
    model.eval()
    return history


def resumed_elsewhere(history: list[dict[str, float]]) -> dict[str, list[int]]:
    """What the provenance of a result should say of a network whose training went on with other threads.

    ``{"resumed_with_threads": [...]}``, or nothing if it did not. See ``train``.
    """
    counts = sorted({int(row["threads"]) for row in history if "threads" in row})
    return {"resumed_with_threads": counts} if counts else {}


def _in_words(computed_with: dict[str, Any]) -> str:
    return f"{computed_with['threads']} threads and {computed_with['instructions']}"


def _attack(model: Classifier, config: TrainConfig) -> Attack:
    """What a batch goes through before its training step: the attack of ``config`` on the model of the moment."""
    threat = config.threat
    if threat is None:
        return lambda images, _: images
    search: dict[str, Any] = {"steps": config.attack_steps, "step_size": config.attack_step_size}

    def on_batch_statistics(images: Tensor, labels: Tensor) -> Tensor:
        with batch_statistics(model), torch.autocast(images.device.type, **_autocast(config)):
            return pgd(model, images, labels, threat, **search)

    if config.attack_mode == "train":
        return on_batch_statistics
    frozen = freeze(model, dtype=getattr(torch, config.precision), refoldable=True)

    def on_running_statistics(images: Tensor, labels: Tensor) -> Tensor:
        refold(frozen, model)
        return pgd(frozen, images, labels, threat, **search)

    return on_running_statistics


def _autocast(config: TrainConfig) -> dict[str, Any]:
    return {"dtype": torch.bfloat16, "enabled": config.precision == "bfloat16"}


def _one_epoch(
    model: Classifier,
    attack: Attack,
    dataset: Dataset,
    config: TrainConfig,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    generator: torch.Generator,
    advance: Callable[[int], object],
) -> tuple[float, int]:
    """One pass: the summed loss and the number of correct predictions."""
    device = dataset.images.device
    loss_sum = torch.zeros((), device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for images, labels in batches(dataset, batch_size=config.batch_size, generator=generator, drop_last=True):
        images = augment(images, generator=generator, shift=config.shift, flip=config.flip)
        with inputs.trusted():  # pieces of a dataset
            images = attack(images, labels)
        model.train()
        with torch.autocast(device.type, **_autocast(config)):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        loss_sum += loss.detach() * len(labels)
        correct += (logits.detach().argmax(1) == labels).sum()
        advance(len(labels))
    total = float(loss_sum)
    if not total < float("inf"):  # catches NaN as well
        raise FloatingPointError(f"the training loss became {total}; lower lr={config.lr}")
    return total, int(correct)


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
    )


def _triangle(steps: int, warmup: float) -> Callable[[int], float]:
    """Learning-rate factor at step t: up to 1 over the first ``warmup`` of ``steps``, then down to 0."""
    rise = warmup * steps

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        return max(0.0, (steps - step) / max(1.0, steps - rise))

    return factor
