"""Models and constructed datasets on disk, keyed by the recipe that made them.

A recipe is a dictionary of JSON values. Equal recipes share one folder, named by the recipe's hash; another process
that wants the same artifact waits until the first has finished it. Unfinished work is kept in the same folder and
resumed; with the same number of threads the resumed work ends in the same bytes as uninterrupted work, see
``train.train``. Files are written under a temporary name and renamed, so a file with its final name is whole.

Every file carries the key of its recipe and a checksum, and both are checked when it is read: a flipped bit on the
disk, or the file of another recipe, is an error that names the file and the cure, never a result. The checksum is a
CRC-32, against accidents; it costs a second for 1.2 GB on one core. Files of earlier versions of the library have
neither; they are read if the recipe noted beside them is the right one.

Finished artifacts are read without a lock and without writing, so a store may lie on a read-only drive.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from platformdirs import user_cache_path
from torch import Tensor

from advfeat import inputs
from advfeat.data import Dataset
from advfeat.experiments.checkpoints import IMAGES_FILE, DatasetShards, TrainingCheckpoint
from advfeat.experiments.tensor_files import read_tensors, write_tensors
from advfeat.files import refusal, sweep, write_whole
from advfeat.models import Classifier
from advfeat.shards import Shards
from advfeat.streamed import StreamedDataset, StreamedImages
from advfeat.train import Checkpoint

# Part of every key. Raise it when the meaning of a recipe changes (another algorithm under the same numbers), so that
# artifacts of the old meaning are not taken for new ones.
EDITION = 2

# The file whose presence says that an artifact of a kind is whole.
_TENSORS = {"models": "model.safetensors", "datasets": "dataset.safetensors"}

Recipe = Mapping[str, Any]


class Store:
    """A folder of artifacts: ``root``, or ``ADVFEAT_STORE``, or ``advfeat`` in the user's cache folder."""

    def __init__(self, root: Path | str | None = None) -> None:
        given = root if root is not None else os.environ.get("ADVFEAT_STORE")
        self.root = Path(given).expanduser() if given else user_cache_path("advfeat")

    def key(self, recipe: Recipe) -> str:
        """Hash of a recipe: 20 hexadecimal digits.

        Raises:
            TypeError: the recipe holds a value whose type JSON does not know.
        """
        text = json.dumps({**recipe, "edition": EDITION}, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def model(
        self, recipe: Recipe, fresh: Classifier, fit: Callable[[Classifier, Checkpoint], list[dict[str, float]]]
    ) -> tuple[Classifier, list[dict[str, float]]]:
        """The trained model of ``recipe`` and its history; ``fit(fresh, checkpoint)`` trains it if it is not stored.

        ``fresh`` has the architecture; its weights are overwritten by the stored ones.

        Raises:
            ValueError: the stored model is damaged, or was made by another recipe.
            OSError: the model is not stored and cannot be, for example because the disk is full.
        """
        made = _Artifact(self, "models", "history.json", recipe)

        def train() -> None:
            history = fit(fresh, TrainingCheckpoint(made.folder / "checkpoint.pt", made.key))
            made.write(fresh.state_dict(), history)

        made.ensure(train)
        state, history = made.read()
        try:
            fresh.load_state_dict(state)
        except RuntimeError as error:
            raise made.damaged(made.tensors, str(error)) from error
        fresh.eval()
        return fresh, history

    def dataset(self, recipe: Recipe, build: Callable[[Shards], Dataset]) -> Dataset:
        """The dataset of ``recipe``; ``build(shards)`` constructs it if it is not stored.

        Raises:
            ValueError: the stored dataset is damaged, or was made by another recipe.
            OSError: the dataset is not stored and cannot be, for example because the disk is full.
        """
        made = self._dataset(recipe)

        def construct() -> None:
            built = build(DatasetShards(made.folder, made.key))
            parts = {"labels": built.labels, **{f"truth.{k}": v for k, v in built.truth.items()}}
            about: dict[str, Any] = {"classes": built.classes, "name": built.name, "info": built.info}
            if isinstance(built, StreamedDataset):
                images = built.images
                about["images"] = {"sides": images.sides, "white": images.white, "crc32": images.checksum()}
            else:
                parts = {"images": built.images, **parts}
            made.write(parts, about)

        made.ensure(construct)
        return _read_dataset(made)

    def holds(self, kind: str, recipe: Recipe) -> bool:
        """Whether the artifact of a recipe is stored: ``kind`` is ``models`` or ``datasets``. Its content is not read.

        Raises:
            ValueError: another kind.
        """
        inputs.one_of("kind", kind, tuple(_TENSORS))
        return (self.root / kind / self.key(recipe) / _TENSORS[kind]).exists()

    def finished_dataset(self, recipe: Recipe) -> Dataset | None:
        """The dataset of ``recipe`` if it is stored, or None; nothing is constructed, and no lock is waited for.

        Raises:
            ValueError: the dataset is damaged, or was made by another recipe.
        """
        made = self._dataset(recipe)
        return _read_dataset(made) if made.tensors.exists() else None

    def finished_with_fewer(self, recipe: Recipe, count: str) -> Dataset | None:
        """The finished dataset of the recipe that is this one but for a smaller number ``count``, the largest there is.

        ``count`` names a whole number of the recipe, from 1 on. Nothing is made, and nobody is waited for; a folder
        without the note of its recipe is passed over.

        Raises:
            ValueError: it is damaged, or was made by another recipe.
        """
        for smaller in sorted(self._noted(count), reverse=True):
            if 0 < smaller < recipe[count] and (found := self.finished_dataset({**recipe, count: smaller})) is not None:
                return found
        return None

    def _noted(self, number: str) -> set[int]:
        """The whole numbers of that name in the recipes of all datasets."""
        found = []
        for note in self.root.glob("datasets/*/recipe.json"):
            with suppress(OSError, ValueError, AttributeError):  # a note that cannot be read says nothing
                found.append(json.loads(note.read_bytes()).get(number))
        return {value for value in found if type(value) is int}

    def _dataset(self, recipe: Recipe) -> _Artifact:
        return _Artifact(self, "datasets", "dataset.json", recipe)


class _Artifact:
    """The folder of one recipe: a file of tensors, a file of facts about them, the recipe, and unfinished work."""

    def __init__(self, store: Store, kind: str, about: str, recipe: Recipe) -> None:
        self.store = store
        self.recipe = recipe
        self.key = store.key(recipe)
        self.folder = store.root / kind / self.key
        self.tensors, self.about = self.folder / _TENSORS[kind], self.folder / about
        self._sum = self.folder / f"{about}.crc32"

    def ensure(self, make: Callable[[], None]) -> None:
        """Call ``make`` to write the files if they are missing, under a lock, and delete leftovers."""
        if self.tensors.exists() and not any(True for _ in self._left_over(".*.part")):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / "lock")
            lock.acquire()
        except OSError as error:
            if self.tensors.exists():
                return
            cure = f"the store {self.store.root} lacks this: let it be written, or set ADVFEAT_STORE to another folder"
            raise refusal(error.errno or errno.EIO, self.folder, cure) from error
        try:
            sweep(self.folder)
            if not self.tensors.exists():
                self._check_note()
                write_whole(self.folder / "recipe.json", json.dumps(self.recipe, indent=1, sort_keys=True))
                make()
            for path in self._left_over():
                with suppress(OSError):  # the file may belong to another user
                    path.unlink()
        finally:
            lock.release()

    def write(self, tensors: Mapping[str, Tensor], about: object) -> None:
        """Write both files. The tensors are written last: if they exist, the other files do, too."""
        text = json.dumps(about, indent=1)
        write_whole(self.about, text)
        # The checksum has a file of its own: a history holds seconds, and equal weights must be equal bytes.
        write_whole(self._sum, f"{zlib.crc32(text.encode()):08x}")
        write_tensors(self.tensors, tensors, of=self.key)

    def read(self) -> tuple[dict[str, Tensor], Any]:
        """The contents of both files, after a check of key and checksums.

        Raises:
            ValueError: the key or a checksum is wrong; the message names the file and the cure.
        """
        path = self.tensors
        try:
            tensors, of = read_tensors(path)
            if of is None:
                self._check_note()
            elif of != self.key:
                raise ValueError(f"it was made by another recipe, with the key {of}")
            path = self.about
            content = path.read_bytes()
            if of is not None and self._sum.read_bytes() != b"%08x" % zlib.crc32(content):
                raise ValueError("its checksum is wrong")
            return tensors, json.loads(content)
        except (FileNotFoundError, KeyError, ValueError) as error:
            raise self.damaged(path, str(error)) from error

    def damaged(self, path: Path, reason: str) -> ValueError:
        """The exception for a file with wrong content."""
        why = " ".join(reason.split())  # PyTorch's reasons have several lines
        return ValueError(f"{path} is damaged or foreign ({why}); delete the folder {self.folder}, and it is made anew")

    def _check_note(self) -> None:
        """Refuse files without a key of their own if the recipe noted beside them is another one."""
        note = self.folder / "recipe.json"
        try:
            noted = self.store.key(json.loads(note.read_bytes()))
        except (OSError, TypeError, ValueError):  # no note, or an unreadable one
            return
        if noted != self.key:
            raise self.damaged(note, f"it notes another recipe, with the key {noted}")

    def _left_over(self, *more: str) -> Iterator[Path]:
        """Unfinished work, which is of no use once the artifact is written."""
        for pattern in ("shard-*.safetensors", "checkpoint.pt", *more):
            yield from self.folder.glob(pattern)


def _read_dataset(made: _Artifact) -> Dataset:
    parts, about = made.read()
    try:
        fields: dict[str, Any] = {
            "labels": parts["labels"],
            "classes": tuple(about["classes"]),
            "name": about["name"],
            "truth": {key.removeprefix("truth."): value for key, value in parts.items() if key.startswith("truth.")},
            "info": about["info"],
        }
        if "images" not in about:
            return Dataset(images=parts["images"], **fields)
        of, rows = about["images"], torch.arange(len(parts["labels"]))
        images = StreamedImages(made.folder / IMAGES_FILE, tuple(of["sides"]), rows, of["white"])
        if images.checksum() != of["crc32"]:
            raise ValueError(f"the checksum of {IMAGES_FILE} is wrong")
        return StreamedDataset(images=images, **fields)
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise made.damaged(made.tensors, str(error)) from error
