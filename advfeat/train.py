"""The training loop, standard and adversarial: the only file that changes weights."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from advfeat import inputs
from advfeat.attacks import pgd
from advfeat.data import Dataset, augment, batches, check_dataset
from advfeat.engine.compiled_layers import training
from advfeat.engine.convolution_code import engine
from advfeat.evaluation_mode import batch_statistics
from advfeat.hyperparameters import TrainConfig
from advfeat.models import Classifier, freeze, refold
from advfeat.onednn import check_trainable
from advfeat.optimization import WeightAverage, optimizer_of, rate_factor
from advfeat.progress import progress

Attack = Callable[[Tensor, Tensor], Tensor]  # images and labels of a batch to the images that are trained on


@runtime_checkable
class Checkpoint(Protocol):
    """Where a run keeps its state between epochs, such as ``checkpoints.TrainingCheckpoint``."""

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
    been. The model ends in eval mode, with the averaged weights if ``config`` asks for them; ``evaluate`` sees them in
    the last row.

    On one machine with one number of threads (``torch.get_num_threads``) the same seed gives the same weights, to the
    bit, stopped or not. With another number of threads, on a processor with other vector instructions, or where the
    convolutions cannot be compiled (see ``winograd``), sums are taken in another order, and training enlarges the
    difference: it reached 2e-2 in the weights after twenty steps. A run that goes on under other ones is neither lost
    nor silent: it warns, and its rows from there on hold ``threads``.

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
    steps = config.epochs * steps_per_epoch
    optimizer = optimizer_of(model, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_factor(config, steps))
    average = WeightAverage(model, config.average, steps)
    history: list[dict[str, float]] = []
    attack = _attack(model, config)

    state = checkpoint.load() if checkpoint is not None else None
    here = _computes_with(config, dataset.images.device)
    note: dict[str, float] = {}
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        generator.set_state(state["generator"])
        average.load_state_dict(state.get("average", {}))
        history = state["history"]
        before = {"engine": "torch"} | state["computed_with"] if "computed_with" in state else here
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

    def stepped(count: int) -> None:
        average.add()
        bar.update(count)

    with progress(
        total=config.epochs * len(dataset), initial=done * len(dataset), unit="img", description=description
    ) as bar:
        for epoch in range(done, config.epochs):
            start = time.perf_counter()
            with training(model):
                loss, correct = _one_epoch(model, attack, dataset, config, optimizer, schedule, generator, stepped)
            seen = steps_per_epoch * config.batch_size
            row = {"epoch": epoch + 1, "loss": loss / seen, "accuracy": correct / seen}
            row["seconds"] = time.perf_counter() - start
            model.eval()
            average.settle()
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
                        "average": average.state_dict(),
                    }
                )
    model.eval()
    return history


def resumed_elsewhere(history: list[dict[str, float]]) -> dict[str, list[int]]:
    """The remark in the provenance of a result about a network whose training went on with other threads.

    ``{"resumed_with_threads": [...]}``, or nothing if it did not. See ``train``.
    """
    counts = sorted({int(row["threads"]) for row in history if "threads" in row})
    return {"resumed_with_threads": counts} if counts else {}


def _computes_with(config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """The surroundings that decide the bits of a training run, besides its arguments; checkpoints keep them."""
    compiled = device.type == "cpu" and config.precision == "float32"
    return {
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "engine": engine().name if compiled else "torch",
    }


def _in_words(computed_with: dict[str, Any]) -> str:
    return f"{computed_with['threads']} threads and {computed_with['instructions']} ({computed_with['engine']})"


def _attack(model: Classifier, config: TrainConfig) -> Attack:
    """The change of a batch before its training step: the attack of ``config`` on the model of the moment."""
    threat = config.threat
    if threat is None:
        return lambda images, _: images
    search: dict[str, Any] = {"steps": config.attack_steps, "step_size": config.attack_step_size}

    def on_batch_statistics(images: Tensor, labels: Tensor) -> Tensor:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        with batch_statistics(model), torch.autocast(images.device.type, **_autocast(config)):
            for parameter in trained:
                parameter.requires_grad_(False)  # else compiled layers would compute gradients that nobody wants
            try:
                return pgd(model, images, labels, threat, **search)
            finally:
                for parameter in trained:
                    parameter.requires_grad_(True)

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
        loss = F.cross_entropy(config.logit_factor * logits.float(), labels, label_smoothing=config.label_smoothing)
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
