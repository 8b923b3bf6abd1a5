"""Transfer: how often adversarial images made with one network fool another network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from advfeat import inputs
from advfeat.attacks import pgd
from advfeat.data import Dataset, batches, check_dataset
from advfeat.estimates import Estimate
from advfeat.measures import predictions
from advfeat.models import ready
from advfeat.progress import progress
from advfeat.threats import Threat, check_step, check_threat, usual_step_size


@dataclass(frozen=True)
class SameMistake:
    """How often two networks make the same mistake (see ``Transfer.same_mistake``).

    Attributes:
        rate: share of ``images`` on which both give the same wrong answer; None if no image counts.
        chance: how often they give the same answer to *different* images of one class: over all such pairs of a class,
            and then over the classes, each with the weight of its images, as they weigh in ``rate``. So it is what
            ``rate`` would be if the answers were independent within a class. A class with one image that counts has no
            pair, and no weight; None if there are no others.
        images: the images that count.
    """

    rate: Estimate | None
    chance: float | None
    images: Bool[Tensor, " n"]

    @property
    def estimates(self) -> dict[str, Estimate]:
        """``same_mistake`` and ``same_mistake_chance`` for a record, as far as they exist.

        ``chance`` is of pairs of images, to which no interval of ours applies; it is its own lower and upper end.
        """
        found = {}
        if self.rate is not None:
            found["same_mistake"] = self.rate
        if self.chance is not None:
            n = int(self.images.sum())
            found["same_mistake_chance"] = Estimate(self.chance, self.chance, self.chance, n, rate=False)
        return found


@dataclass(frozen=True)
class Transfer:
    """The answers of networks to images, and to the adversarial images made with each source.

    Attributes:
        labels: classes of the images.
        targets: target classes of the attacks, or None for untargeted attacks.
        clean: network → its answers to the unperturbed images.
        attacked: source → network → the network's answers to the images made with the source.
    """

    labels: Int[Tensor, " n"]
    targets: Int[Tensor, " n"] | None
    clean: Mapping[str, Int[Tensor, " n"]]
    attacked: Mapping[str, Mapping[str, Int[Tensor, " n"]]]

    def rate(self, source: str, target: str, *, among: str = "fooled") -> Estimate:
        """Share of the images made with ``source`` that fool ``target``.

        Fooled means f(x') ≠ y after an untargeted attack, f(x') = t after a targeted one. Publications differ in the
        images that they count, ``among``:

        - ``fooled``: images that both networks classify as labelled and whose attack fooled the source. This isolates
          the step from one network to the other; from a network to itself the rate is 100 %.
        - ``right``: images that both networks classify as labelled. From a network to itself the rate is the success
          rate of the attack.
        - ``all``: every image. The rate then includes mistakes that ``target`` makes without an attack, and attacks
          that fail on the source.

        Raises:
            KeyError: an unknown network; the message lists the known ones.
            ValueError: another ``among``, or there is no image to count.
        """
        self._check_known(source, target)
        hit, counted = self._fools(self.attacked[source][target]), self.counted(source, target, among=among)
        if not bool(counted.any()):
            also = f" and fools {source}" if among == "fooled" else ""
            raise ValueError(f"no image is classified as labelled by {source} and {target}{also}")
        return Estimate.of_rate(int((hit & counted).sum()), int(counted.sum()))

    def counted(self, source: str, target: str, *, among: str = "fooled") -> Bool[Tensor, " n"]:
        """The images that ``rate`` counts, with the same arguments.

        Raises:
            KeyError: an unknown network.
            ValueError: another ``among``.
        """
        self._check_known(source, target)
        inputs.one_of("among", among, ("fooled", "right", "all"))
        counted = torch.ones_like(self.labels, dtype=torch.bool)
        if among != "all":
            counted &= (self.clean[source] == self.labels) & (self.clean[target] == self.labels)
        if among == "fooled":
            counted &= self._fools(self.attacked[source][source])
        return counted

    def same_mistake(self, source: str, target: str) -> SameMistake:
        """How often ``target`` gives the wrong answer of ``source``, among images of ``source`` that fool both.

        Some agreement is due to the class: all networks confuse classes that look alike. ``chance`` is the share of
        agreements between the answer of ``source`` to one image and the answer of ``target`` to *another* image of the
        same class. Agreement above ``chance`` is due to the single image and its perturbation.

        Raises:
            KeyError: an unknown network.
            ValueError: the attacks were targeted.
        """
        self._check_known(source, target)
        if self.targets is not None:
            raise ValueError("targets: mistakes are compared after untargeted attacks; these were targeted")
        first, second = self.attacked[source][source], self.attacked[source][target]
        both = self.counted(source, target) & self._fools(second)
        expected, counted = 0.0, 0
        for label in self.labels[both].unique():
            one, two = (answers[both & (self.labels == label)] for answers in (first, second))
            alike = one[:, None] == two[None, :]
            if len(one) > 1:
                # Of len(one) · (len(one) − 1) pairs, times len(one) images.
                expected += int(alike.sum() - alike.diagonal().sum()) / (len(one) - 1)
                counted += len(one)
        same = (first == second)[both]
        rate = Estimate.of_rate(int(same.sum()), len(same)) if len(same) else None
        return SameMistake(rate, expected / counted if counted else None, both)

    def _check_known(self, source: str, target: str) -> None:
        for name, value, known in (("source", source, self.attacked), ("target", target, self.clean)):
            inputs.text(name, value)
            if value not in known:
                raise KeyError(f"{name} must be one of {', '.join(known)}, got {value!r}")

    def _fools(self, answers: Tensor) -> Tensor:
        return answers != self.labels if self.targets is None else answers == self.targets


def transfer(
    models: Mapping[str, nn.Module],
    dataset: Dataset,
    threat: Threat,
    *,
    steps: int,
    step_size: float | None = None,
    targets: Int[Tensor, " n"] | None = None,
    sources: Mapping[str, nn.Module] | None = None,
    batch_size: int = 500,
) -> Transfer:
    """Attack ``dataset`` with each source by PGD, and collect the answers of every network in float32.

    Args:
        models: name → network whose answers are collected.
        steps: PGD steps, from the image itself; the last iterate counts.
        step_size: default ``threats.usual_step_size``.
        targets: target class of each image; None for untargeted attacks.
        sources: the networks of ``models`` that attacks are made with; default: all.

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: a source that is not among the models, another number of targets than of images, a target that is
            not a class, a radius that is 0 or infinite, logits that are not finite, and from ``pgd``.
    """
    check_threat(threat, finite=True)
    check_dataset(dataset, least=1)
    for name, given in (("models", models), ("sources", sources)):
        inputs.instance(name, {} if given is None else given, Mapping, "a mapping from names to networks")
        for key, model in (given or {}).items():
            inputs.network(model, f"{name}[{key!r}]")
    if not models:
        raise ValueError("models must be one or more, got none")
    inputs.whole("steps", steps, least=1)
    inputs.whole("batch_size", batch_size, least=1)
    if step_size is not None:
        check_step(step_size, threat, dataset.images)
    sources = models if sources is None else sources
    if strangers := sources.keys() - models.keys():
        raise ValueError(f"sources must be among the models, got {', '.join(sorted(strangers))}")
    if targets is not None:
        inputs.labels(targets, "targets", count=len(dataset))
        inputs.look(("targets", targets, (0, dataset.num_classes - 1)))
    aim = dataset if targets is None else dataset.replace(labels=targets)
    size = usual_step_size(threat, steps) if step_size is None else step_size
    judges = {name: ready(model, dtype=torch.float32) for name, model in models.items()}
    clean_answers = {name: _asked(name, judge, dataset, batch_size) for name, judge in judges.items()}
    attacked: dict[str, dict[str, Tensor]] = {}
    total, description = len(sources) * len(dataset), f"transfer, {threat}"
    with progress(total=total, unit="img", description=description) as bar, inputs.trusted():
        for name, source in sources.items():
            frozen = ready(source)
            images = torch.empty_like(dataset.images)
            for start, (clean, labels) in zip(
                range(0, len(aim), batch_size), batches(aim, batch_size=batch_size), strict=True
            ):
                images[start : start + len(labels)] = pgd(
                    frozen, clean, labels, threat, steps=steps, step_size=size, targeted=targets is not None
                )
                bar.update(len(labels))
            found = dataset.replace(images=images)
            attacked[name] = {other: _asked(other, judge, found, batch_size) for other, judge in judges.items()}
    return Transfer(dataset.labels, targets, clean_answers, attacked)


def _asked(name: str, judge: nn.Module, dataset: Dataset, batch_size: int) -> Tensor:
    """The answers of one of the models; an error message begins with the model's name."""
    try:
        return predictions(judge, dataset, batch_size=batch_size)
    except (TypeError, ValueError) as error:
        raise type(error)(f"models[{name!r}]: {error}") from error


def other_classes(labels: Int[Tensor, " n"], classes: int, *, seed: int) -> Int[Tensor, " n"]:
    """A target for each label, drawn uniformly from all other classes; ``seed`` fixes the draw.

    Raises:
        TypeError: labels that are not int64, or an argument of another type.
        ValueError: fewer than two classes, or a label that is not a class.
    """
    inputs.whole("classes", classes, least=2)
    inputs.seed(seed)
    inputs.labels(labels)
    inputs.look(("labels", labels, (0, classes - 1)))
    step = torch.randint(1, classes, labels.shape, generator=torch.Generator().manual_seed(seed))
    return (labels + step.to(labels.device)) % classes
