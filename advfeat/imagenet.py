"""ImageNet from the reader's own folder: Restricted ImageNet, and ImageNet-A and -O with the logits that they ask for.

Nothing of ImageNet is in this library, not even the WordNet ids of its classes: they are the names of the folders that
every copy has. A class has the number of its folder among all 1,000, sorted by name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from advfeat import inputs
from advfeat.image_files import is_hidden
from advfeat.streamed import StreamedDataset
from advfeat.streamed_folders import streamed_folder

IMAGENET_CLASSES = 1000
RESTRICTED_IMAGENET = {
    "dog": (151, 268), "cat": (281, 285), "frog": (30, 32), "turtle": (33, 37), "bird": (80, 100),
    "monkey": (365, 382), "fish": (389, 397), "crab": (118, 121), "insect": (300, 319),
}  # fmt: skip
"""Class → first and last of the ImageNet classes in it, both inclusive: 203 of them, among which 118 are dogs and 18
monkeys. The comment beside these ranges in the authors' code counts 117 and 14; this follows the code."""

IMAGENET_A_CLASSES = (
    6, 11, 13, 15, 17, 22, 23, 27, 30, 37, 39, 42, 47, 50, 57, 70, 71, 76, 79, 89, 90, 94, 96, 97, 99, 105, 107, 108,
    110, 113, 124, 125, 130, 132, 143, 144, 150, 151, 207, 234, 235, 254, 277, 283, 287, 291, 295, 298, 301, 306, 307,
    308, 309, 310, 311, 313, 314, 315, 317, 319, 323, 324, 326, 327, 330, 334, 335, 336, 347, 361, 363, 372, 378, 386,
    397, 400, 401, 402, 404, 407, 411, 416, 417, 420, 425, 428, 430, 437, 438, 445, 456, 457, 461, 462, 470, 472, 483,
    486, 488, 492, 496, 514, 516, 528, 530, 539, 542, 543, 549, 552, 557, 561, 562, 569, 572, 573, 575, 579, 589, 606,
    607, 609, 614, 626, 627, 640, 641, 642, 643, 658, 668, 677, 682, 684, 687, 701, 704, 719, 736, 746, 749, 752, 758,
    763, 765, 768, 773, 774, 776, 779, 780, 786, 792, 797, 802, 803, 804, 813, 815, 820, 823, 831, 833, 835, 839, 845,
    847, 850, 859, 862, 870, 879, 880, 888, 890, 897, 900, 907, 913, 924, 932, 933, 934, 937, 943, 945, 947, 951, 954,
    956, 957, 959, 971, 972, 980, 981, 984, 986, 987, 988,
)  # fmt: skip
"""The 200 classes of ImageNet that ImageNet-A has images of, in increasing order."""

_WORDNET_ID = re.compile(r"n\d{8}")


def wordnet_ids(root: Path | str) -> list[str]:
    """The WordNet ids of ImageNet's 1,000 classes in their order, from a copy of it.

    They are the names of the folders in ``root/train`` or ``root/val``. Where a copy lacks some of these, they are the
    first words of the lines of ``root/LOC_synset_mapping.txt``, which ImageNet's download on Kaggle holds.

    Raises:
        FileNotFoundError: there is neither; the message says what there is.
    """
    inputs.path("root", root)
    folder, counts = Path(root).expanduser(), []
    for half in ("train", "val"):
        found = _folders(folder / half)
        if len(found) == IMAGENET_CLASSES:
            return found
        counts.append(f"{len(found)} in {half}/")
    listed = folder / "LOC_synset_mapping.txt"
    if listed.is_file():
        ids = sorted({line.split()[0] for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()})
        if len(ids) == IMAGENET_CLASSES and all(map(_WORDNET_ID.fullmatch, ids)):
            return ids
        counts.append(f"{len(ids)} in {listed.name}")
    raise FileNotFoundError(
        f"root must be a copy of ImageNet with a folder nXXXXXXXX for each of its {IMAGENET_CLASSES} classes in train/ "
        f"or val/, or with some of them and LOC_synset_mapping.txt, got {root} with {', '.join(counts)}. The number of "
        "a class is the place of its folder among all of them, so some of the folders alone do not tell which is which"
    )


def restricted_imagenet(
    root: Path | str, *, train: bool, size: int, into: Path | str, resized: int | None = None
) -> StreamedDataset:
    """Restricted ImageNet (Tsipras et al. 2019): nine classes made of 203 of ImageNet's, of very different sizes.

    Args:
        root: a copy of ImageNet, ``root/{train,val}/nXXXXXXXX/*.JPEG``; classes without a folder are left out.
        train: the images of ``train/``, otherwise those of ``val/``.
        size: side of the images; ``into``, ``resized``: see ``streamed_folders.streamed_folder``.

    Raises:
        FileNotFoundError: ``root`` is no such copy, or holds none of the classes; the message says what is accepted.
        ValueError, OSError: from ``streamed_folder``.
    """
    inputs.flag("train", train)
    ids, half = wordnet_ids(root), Path(root).expanduser() / ("train" if train else "val")
    labels = {
        ids[number]: label
        for label, (first, last) in enumerate(RESTRICTED_IMAGENET.values())
        for number in range(first, last + 1)
    }
    there = set(_folders(half))
    chosen = {folder: label for folder, label in labels.items() if folder in there}
    if not chosen:
        raise FileNotFoundError(f"root must hold classes of Restricted ImageNet, but {half} has none of its folders")
    names, name = tuple(RESTRICTED_IMAGENET), "Restricted ImageNet"
    return streamed_folder(half, size=size, into=into, resized=resized, classes=chosen, names=names, name=name)


def imagenet_a(path: Path | str, *, into: Path | str, size: int = 224) -> StreamedDataset:
    """ImageNet-A (Hendrycks et al. 2021): unmodified photographs that ordinary networks misclassify, of 200 classes.

    A label counts the 200 folders in order of their names, so it is the place of a class in ``IMAGENET_A_CLASSES``:
    ``RestrictedLogits(network, IMAGENET_A_CLASSES)`` answers in these labels.

    Args:
        path: the unpacked folder, with one sub-folder nXXXXXXXX for each class.
        into: the folder for the packed images, see ``streamed_folders.streamed_folder``.
        size: side of the images; the shorter side is resized to size · 256 / 224.

    Raises:
        FileNotFoundError: there are not 200 such folders.
        ValueError, OSError: from ``streamed_folder``.
    """
    for key, value in (("path", path), ("into", into)):
        inputs.path(key, value)
    inputs.whole("size", size, least=1)
    folders = _folders(Path(path).expanduser())
    if len(folders) != len(IMAGENET_A_CLASSES):
        raise FileNotFoundError(
            f"path must hold {len(IMAGENET_A_CLASSES)} folders nXXXXXXXX, got {path} with {len(folders)}"
        )
    labels = {folder: label for label, folder in enumerate(folders)}
    return streamed_folder(path, size=size, into=into, classes=labels, name="ImageNet-A")


def imagenet_o(
    path: Path | str, *, imagenet: Path | str, into: Path | str, size: int = 224
) -> tuple[StreamedDataset, StreamedDataset, tuple[int, ...]]:
    """ImageNet-O (Hendrycks et al. 2021): images of no class of ImageNet, beside validation images of 200 classes.

    Args:
        path: the unpacked folder; its 200 sub-folders bear the WordNet ids of the classes that networks mistook the
            images for.
        imagenet: a copy of ImageNet, of which ``val/`` is read, see ``wordnet_ids``.
        into: the folder for the packed images, see ``streamed_folders.streamed_folder``.
        size: side of the images.

    Returns:
        The images of no class (their labels say what they were mistaken for), the validation images of those classes,
        and the numbers of the classes in ImageNet: the logits that count, for ``RestrictedLogits``.

    Raises:
        ValueError: a folder in ``path`` is no class of ImageNet.
        FileNotFoundError, ValueError, OSError: from ``wordnet_ids`` and ``streamed_folder``.
    """
    for key, value in (("path", path), ("into", into)):
        inputs.path(key, value)
    place = {folder: number for number, folder in enumerate(wordnet_ids(imagenet))}
    folders = _folders(Path(path).expanduser())
    if not folders or (strange := [folder for folder in folders if folder not in place]):
        found = strange[:3] if folders else "none"
        raise ValueError(f"path must hold folders nXXXXXXXX of classes of ImageNet, got {path} with {found}")
    labels = {folder: label for label, folder in enumerate(folders)}
    val = Path(imagenet).expanduser() / "val"
    out = streamed_folder(path, size=size, into=into, classes=labels, name="ImageNet-O")
    inside = streamed_folder(val, size=size, into=into, classes=labels, name="ImageNet, classes of ImageNet-O")
    return out, inside, tuple(place[folder] for folder in folders)


class RestrictedLogits(nn.Module):
    """A network that answers with some of its logits only: with those classes, in that order.

    A network of ImageNet could otherwise answer with one of the 800 classes that ImageNet-A has no image of.

    Raises:
        TypeError: ``model`` is no network.
        ValueError: ``classes`` are none, or one is negative or given twice.
    """

    kept: Tensor

    def __init__(self, model: nn.Module, classes: Sequence[int]) -> None:
        super().__init__()
        inputs.network(model)
        for number in classes:
            inputs.whole("classes", number, least=0)
        if not classes or len(set(classes)) < len(classes):
            raise ValueError(f"classes must be different numbers, one or more, got {list(classes)}")
        self.model = model
        self.register_buffer("kept", torch.tensor(list(classes)))
        self.train(model.training)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The kept logits.

        Raises:
            ValueError: the network has fewer logits than the classes ask for.
        """
        logits: Float[Tensor, "n all"] = self.model(images)
        kept: Int[Tensor, " k"] = self.kept
        if logits.shape[1] <= int(kept.max()):
            raise ValueError(f"model has {logits.shape[1]} logits, but classes go up to {int(kept.max())}")
        return logits[:, kept]


def _folders(path: Path) -> list[str]:
    """The sub-folders whose names are WordNet ids, sorted."""
    if not path.is_dir():
        return []
    names = (entry.name for entry in path.iterdir() if entry.is_dir() and not is_hidden(entry.name))
    return sorted(name for name in names if _WORDNET_ID.fullmatch(name))
