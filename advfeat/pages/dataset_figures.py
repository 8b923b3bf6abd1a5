"""Whole figures of chapters 4 to 6, on datasets that are made with a network: numbers in, a figure out.

The chapters and the figures share the names below: a key of a chapter or a record is shown under its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from advfeat.data import Dataset
from advfeat.experiments.records import Record
from advfeat.image_files import CIFAR10_CLASSES
from advfeat.pages import pictures, plots
from advfeat.pages.identity import ANSWERS, COLORS, GREY, LIGHT
from advfeat.pages.plots import Interval

SETS = MappingProxyType(
    {
        "D": r"$\mathcal{D}$",
        "D_R": r"$\hat{\mathcal{D}}_R$",
        "D_NR": r"$\hat{\mathcal{D}}_{NR}$",
        "D_rand": r"$\hat{\mathcal{D}}_{\mathrm{rand}}$",
        "D_det": r"$\hat{\mathcal{D}}_{\mathrm{det}}$",
    }
)
"""Training set → its symbol in the paper."""


class _Attacks(dict[str, str]):
    """Names of attacks, among which a further radius, ``eps1``, has one, too."""

    def __missing__(self, key: str) -> str:
        if not key.startswith("eps"):
            raise KeyError(key)
        return f"ε = {key.removeprefix('eps')}"


ATTACKS = MappingProxyType(_Attacks({"clean": "clean", "eps0.25": "ε = 0.25", "eps0.5": "ε = 0.5"}))
"""Last word of the id of an accuracy → the attack in words. The paper's are listed; any other radius has its name."""

MATCHED_ROWS = ("$x$", "$x'$", SETS["D_R"], SETS["D_NR"])
"""Rows of chapter 4's pictures: the image to be matched, the start of both searches, and the ends."""

FROM_NOISE = ("$x$", "robust,\nfrom noise", "ordinary,\nfrom noise")
"""Rows of chapter 4's pictures of searches that start from noise."""

BY_SOURCE = ("image", "ordinary\nsource", "robust\nsource")
"""Rows of chapter 5's pictures of what two sources make of the same images and targets."""

ARCHITECTURES = MappingProxyType(
    {
        "resnet50": "ResNet-50",
        "inception_v3": "Inception-v3",
        "resnet18": "ResNet-18",
        "densenet": "DenseNet-121",
        "vgg16": "VGG-16",
    }
)
"""The five architectures of the paper's Figure 3 → their names."""

SHORT = MappingProxyType(
    {
        "source": "source",
        "resnet50": "RN-50",
        "inception_v3": "Incept.",
        "resnet18": "RN-18",
        "densenet": "Dense",
        "vgg16": "VGG",
    }
)
"""The source and the five architectures → short names for the axes of a matrix."""


def matched_sheet(record: Record) -> Figure:
    """Chapter 4: the recorded pictures of both sets; of the authors' released sets no originals are known."""
    rows = MATCHED_ROWS[2:] if _released(record) else MATCHED_ROWS
    classes = record.first["config"]["classes"]
    return pictures.picture_sheet(record.sheet("panel"), rows, column_labels=classes, title=record.title)


def noise_sheet(record: Record) -> Figure | None:
    """Chapter 4: the recorded pictures of searches from noise; None for the released sets, which have none."""
    if _released(record):
        return None
    classes = record.first["config"]["classes"]
    return pictures.picture_sheet(record.sheet("noise"), FROM_NOISE, column_labels=classes, title=record.title)


def signal_bars(kept: Mapping[str, Mapping[str, Interval]]) -> Figure:
    """Chapter 4: the share of each feature's signal that a set has kept, which can be negative.

    Args:
        kept: key of ``SETS`` → feature → share.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3.6))
    plots.grouped_bars(axis, {SETS[name]: shares for name, shares in kept.items()})
    axis.set(ylim=(-0.2, 1.2), ylabel="signal kept")
    axis.axhline(0, color=GREY, lw=1)
    return figure


def robustness_bars(
    found: Mapping[str, Mapping[str, Interval]],
    *,
    paper: Mapping[tuple[str, str], float] | None = None,
    title: str = "",
) -> Figure:
    """Chapter 4: accuracies of networks by their training, with the paper's as diamonds: the paper's Figure 2.

    Args:
        found: ``standard`` or ``adversarial``, both trained on D, or another training set, a key of ``SETS`` → key of
            ``ATTACKS`` → accuracy.
        paper: (training, key of ``ATTACKS``) → the paper's accuracy, where it is known.
    """

    def name(training: str) -> str:
        kind = "adversarial" if training == "adversarial" else "standard"
        return f"{SETS.get(training, SETS['D'])}\n{kind}"

    groups = {name(of): {ATTACKS[at]: value for at, value in bars.items()} for of, bars in found.items()}
    published = {(name(of), ATTACKS[at]): value for (of, at), value in (paper or {}).items()}
    figure, axis = plt.subplots(figsize=(6.4, 3.8))
    plots.grouped_bars(axis, groups, paper=published)
    if title:
        axis.set_title(title, pad=30)  # above the legend
    return figure


def steps_curves(panels: Mapping[str, Mapping[int, Mapping[str, Interval]]], *, budget: int) -> Figure:
    """Chapter 4: accuracy by the number of matching steps, clean and attacked; a dashed line at the ``budget``.

    Args:
        panels: title → number of steps → key of ``ATTACKS`` → accuracy.
        budget: number of steps of the sets themselves.
    """
    look: Any = {
        "colors": [COLORS["D_R"]] * 3,
        "styles": ("-", "-.", ":"),
        "xlabel": "matching steps",
        "logarithmic": True,
    }
    size = (5.8, 3.5) if len(panels) == 1 else (6.4, 3.4)
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for axis, (title, by_steps) in zip(axes[0], panels.items(), strict=True):
        curves: dict[str, dict[float, Interval]] = {
            name: {steps: found[at] for steps, found in by_steps.items()} for at, name in ATTACKS.items()
        }
        plots.accuracy_curves(axis, curves, **look)
        axis.axvline(budget, color=GREY, ls="--", lw=1.2)
        axis.set_title(title)
    axes[0][0].legend()
    return figure


def relabelled_sheet(record: Record, kind: str = "D_rand") -> Figure | None:
    """Chapter 5: the recorded pictures of a set below their originals, with the new labels where they are known; None
    for the released sets, which have no originals.

    Args:
        kind: ``D_rand`` or ``D_det``.
    """
    if _released(record):
        return None
    labels = [row["label"] for row in record.first.get("tables", {}).get(kind, [])]
    if not labels and kind == "D_det" and record.first["config"].get("data") == "cifar10":
        labels = [*CIFAR10_CLASSES[1:], *CIFAR10_CLASSES[:1]]  # one image of each class, in their order
    rows = ["photograph", f"image in\n{SETS[kind]}"]
    shown = [f"“{label}”" for label in labels]
    return pictures.picture_sheet(record.sheet(kind), rows, column_labels=shown, title=record.title)


def by_source_sheet(record: Record) -> Figure | None:
    """Chapter 5: the recorded pictures as two sources perturb them: the paper's Figure 9; None if not recorded."""
    known = (record.folder / "by_source.png").exists()
    return pictures.picture_sheet(record.sheet("by_source"), BY_SOURCE, title=record.title) if known else None


def relabelled(dataset: Dataset, originals: Dataset | None = None) -> Figure:
    """Chapter 5: images with their new labels in quotation marks, below the originals and the perturbations.

    Args:
        dataset: a few images of a set such as D_rand, with the labels that they have there.
        originals: the same images with the labels of their content; None if nobody knows them.

    Raises:
        ValueError: the two sets differ in size.
    """
    after = [f"“{dataset.classes[k]}”" for k in dataset.labels]
    if originals is None:
        return pictures.image_grid(dataset.images[None], captions=[after])
    if len(originals) != len(dataset):
        raise ValueError(f"originals must be {len(dataset)} images, as many as those of dataset, got {len(originals)}")
    before = [originals.classes[k] for k in originals.labels]
    return pictures.attack_panel(originals.images, dataset.images, before=before, after=after)


def by_source(images: Tensor, made: Sequence[Tensor], captions: Sequence[str]) -> Figure:
    """Chapter 5: images, and for each of two sources the perturbation, amplified, above the perturbed image.

    Args:
        images: the originals, (n, 3, h, w) in [0, 1].
        made: the same images as the ordinary and as the robust source perturb them.
        captions: the target of each image.
    """
    rows, names = [images], [BY_SOURCE[0]]
    for perturbed, source in zip(made, BY_SOURCE[1:], strict=True):
        rows += [pictures.amplified(perturbed - images, factor=10), perturbed]
        names += ["perturbation\n× 10", source]
    return pictures.image_grid(torch.stack(rows), row_labels=names, column_labels=captions)


def answer_shares(networks: Mapping[str, tuple[Interval, Interval]], *, title: str = "") -> Figure:
    """Chapter 5: for each network a bar in three parts: how often it names the label, the class after it, another.

    Args:
        networks: name, or key of ``SETS``, → the share of the label and that of the class after it.
    """
    figure, axis = plt.subplots(figsize=(6.2, 0.55 * len(networks) + 1.3))
    names = [SETS.get(name, name) for name in networks]
    label, after = ([both[part].value for both in networks.values()] for part in (0, 1))
    other = [1 - one - two for one, two in zip(label, after, strict=True)]
    parts = zip(
        ("the label", "the class after it", "another class"), (label, after, other), (*ANSWERS, LIGHT), strict=True
    )
    start = [0.0] * len(names)
    for part, shares, color in parts:
        axis.barh(names, shares, left=start, color=color, label=part, height=0.66)
        for place, (left, share) in enumerate(zip(start, shares, strict=True)):
            if share > 0.06:  # a narrower part has no room for its number
                ink = "black" if color == LIGHT else "white"
                axis.text(left + share / 2, place, f"{share:.0%}", ha="center", va="center", color=ink)
        start = [left + share for left, share in zip(start, shares, strict=True)]
    axis.set(xlim=(0, 1), xlabel="share of the ordinary test images")
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.invert_yaxis()
    axis.grid(False, axis="y")
    axis.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.45, 1.0))
    figure.suptitle(title)
    return figure


def recorded_answers(own: Record | None, five: Record | None) -> Figure | None:
    """Chapter 5: ``answer_shares`` of recorded networks trained on D_det; None where nothing is recorded.

    Args:
        own: chapter 5's record.
        five: a record of chapter 6, with five architectures.
    """
    found: dict[str, Any] = {}
    if own is not None and "table1/D_det/after" in own.ids():
        found["chapter 5"] = (own.summary("table1/D_det"), own.summary("table1/D_det/after"))
    for key, name in ARCHITECTURES.items() if five is not None else ():
        if five is not None and f"fig3/{key}/visible" in five.ids():
            found[name] = (five.summary(f"fig3/{key}/det_accuracy"), five.summary(f"fig3/{key}/visible"))
    return answer_shares(found, title="trained on D_det of CIFAR-10") if found else None


def training_sets(
    found: Mapping[str, Interval], *, chance: float, paper: Mapping[str, float] | None = None, title: str = ""
) -> Figure:
    """Chapter 5: accuracy by training set, with chance as a line and the paper's as diamonds: the paper's Table 1."""
    figure, axis = plt.subplots(figsize=(5.6, 3.6))
    named = {SETS.get(name, name): value for name, value in found.items()}
    published = {SETS.get(name, name): value for name, value in (paper or {}).items()}
    plots.accuracy_bars(axis, named, chance=chance, paper=published)
    axis.set(xlabel="trained on", title=title)
    return figure


def _released(record: Record) -> bool:
    """Whether a record is of the sets that the paper's authors released."""
    return bool(record.first["config"].get("released"))
