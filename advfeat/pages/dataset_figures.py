"""Whole figures of chapters 4 to 6, on datasets that are made with a network: numbers in, a figure out.

The chapters and the figures share the names below: a key of a chapter or a record is shown under its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from advfeat.data import Dataset
from advfeat.experiments.records import Record
from advfeat.pages import pictures, plots
from advfeat.pages.plots import BLUE, GREY, ORANGE, RED, Interval

SETS = MappingProxyType(
    {
        "D": r"$\mathcal{D}$",
        "D_R": r"$\hat{\mathcal{D}}_R$",
        "D_NR": r"$\hat{\mathcal{D}}_{NR}$",
        "D_rand": r"$\hat{\mathcal{D}}_{\mathrm{rand}}$",
    }
)
"""Training set → its symbol in the paper."""

ATTACKS = MappingProxyType({"clean": "clean", "eps0.25": "ε = 0.25", "eps0.5": "ε = 0.5"})
"""Last word of the id of an accuracy → the attack in words."""

MATCHED_ROWS = ("$x$", "$x'$", SETS["D_R"], SETS["D_NR"])
"""Rows of chapter 4's pictures: the image to be matched, the start of both searches, and the ends."""

FROM_NOISE = ("$x$", "robust,\nfrom noise", "ordinary,\nfrom noise")
"""Rows of chapter 4's pictures of searches that start from noise."""

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
    return pictures.picture_sheet(record.sheet("panel"), rows, column_labels=classes, title=record.profile)


def noise_sheet(record: Record) -> Figure | None:
    """Chapter 4: the recorded pictures of searches from noise; None for the released sets, which have none."""
    if _released(record):
        return None
    classes = record.first["config"]["classes"]
    return pictures.picture_sheet(record.sheet("noise"), FROM_NOISE, column_labels=classes, title=record.profile)


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
    figure, axis = plt.subplots(figsize=(7.4, 3.8))
    plots.grouped_bars(axis, groups, paper=published)
    if title:
        axis.set_title(title, y=1.12)  # above the legend
    return figure


def steps_curves(panels: Mapping[str, Mapping[int, Mapping[str, Interval]]], *, budget: int) -> Figure:
    """Chapter 4: accuracy by the number of matching steps, clean and attacked; a dashed line at the ``budget``.

    Args:
        panels: title → number of steps → key of ``ATTACKS`` → accuracy.
        budget: number of steps of the sets themselves.
    """
    size = (5.8, 3.5) if len(panels) == 1 else (9.4, 3.6)
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for axis, (title, by_steps) in zip(axes[0], panels.items(), strict=True):
        curves: dict[str, dict[float, Interval]] = {
            name: {steps: found[at] for steps, found in by_steps.items()} for at, name in ATTACKS.items()
        }
        plots.accuracy_curves(axis, curves, colors=(BLUE, ORANGE, RED), xlabel="matching steps", logarithmic=True)
        axis.axvline(budget, color=GREY, ls="--", lw=1.2)
        axis.set_title(title)
    axes[0][0].legend()
    return figure


def relabelled_sheet(record: Record) -> Figure | None:
    """Chapter 5: the recorded pictures of D_rand below their originals; None for the released sets, which have none."""
    return (
        None if _released(record) else pictures.picture_sheet(record.sheet("D_rand"), ["photograph", "training\nimage"])
    )


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


def training_sets(
    found: Mapping[str, Interval], *, chance: float, paper: Mapping[str, float] | None = None, title: str = ""
) -> Figure:
    """Chapter 5: accuracy by training set, with chance as a line and the paper's as diamonds: the paper's Table 1."""
    figure, axis = plt.subplots(figsize=(5.6, 3.6))
    plots.accuracy_bars(axis, found, chance=chance, paper=paper)
    axis.set(xlabel="trained on", title=title)
    return figure


def learning_and_transfer(panels: Mapping[str, tuple[Mapping[str, Interval], Mapping[str, Interval]]]) -> Figure:
    """Chapter 6: transfer to an architecture against its accuracy after D_det: the paper's Figure 3, one or more.

    Args:
        panels: title → the accuracies and the transfer rates, both by the keys of ``ARCHITECTURES``.
    """
    size = (6.2, 4.4) if len(panels) == 1 else (3.5 * len(panels) + 0.4, 3.9)
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis, (title, (learned, fooled)) in zip(axes[0], panels.items(), strict=True):
        plots.rate_scatter(axis, {name: (learned[key], fooled[key]) for key, name in ARCHITECTURES.items()})
        axis.set(title=title, xlabel=r"accuracy, trained on $\hat{\mathcal{D}}_{\mathrm{det}}$")
    axes[0][0].set_ylabel("transfer from the source")
    return figure


def transfer_matrix(rates: Mapping[tuple[str, str], Interval], *, title: str = "") -> Figure:
    """Chapter 6: how often the images of one network fool another, all with all.

    Args:
        rates: (who made the images, who is shown them) → rate, for every two keys of ``SHORT``.
        title: above the matrix.
    """
    figure, axis = plt.subplots(figsize=(5.6, 4.9))
    plots.rate_matrix(axis, [[rates[row, column] for column in SHORT] for row in SHORT], list(SHORT.values()))
    axis.set_title(title)
    return figure


def _released(record: Record) -> bool:
    """Whether a record is of the sets that the paper's authors released."""
    return bool(record.first["config"].get("released"))
