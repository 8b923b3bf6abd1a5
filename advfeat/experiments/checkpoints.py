"""Unfinished work on disk: the state of a training, and the finished pieces of a dataset."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from advfeat.experiments.tensor_files import read_tensors, write_tensors
from advfeat.files import load_tensors, write_whole

IMAGES_FILE = "images.levels"
"""Name of the file of a streamed dataset's images."""


class TrainingCheckpoint:
    """The state of an unfinished training run, in one file; ``recipe`` is the key of the model's recipe."""

    def __init__(self, path: Path, recipe: str = "") -> None:
        self.path = path
        self.recipe = recipe

    def load(self) -> dict | None:
        """The saved state on the CPU, or None. Only tensors and plain values are read, never pickled objects.

        Raises:
            ValueError: the file is damaged, or of another recipe; the message names the file and the cure.
            UnpicklingError: the file holds more than tensors and plain values.
        """
        if not self.path.exists():
            return None
        cure = "delete it, and the training begins anew"
        content = self.path.read_bytes()
        head, _, state = content.partition(b"\n")
        if not head.startswith(_CHECKPOINT):  # written by an earlier version
            state = content
        elif head != self._head(state):
            reason = "its checksum is wrong" if self._key(head) == self.recipe else "it is of another recipe"
            raise ValueError(f"{self.path} is damaged or foreign ({reason}); {cure}")
        try:
            found = load_tensors(io.BytesIO(state), self.path)
        except (ValueError, UnpicklingError) as error:
            raise type(error)(f"{error}; {cure}") from error
        if not isinstance(found, dict):
            raise ValueError(f"{self.path} holds no state of a training but a {type(found).__name__}; {cure}")
        return found

    def save(self, state: dict) -> None:
        """Replace the saved state."""
        # The state goes into memory first, because PyTorch does not report that a disk is full.
        stream = io.BytesIO()
        torch.save(state, stream)
        content = stream.getvalue()
        write_whole(self.path, self._head(content) + b"\n" + content)

    def _head(self, state: bytes) -> bytes:
        return b"%s %s %08x" % (_CHECKPOINT, self.recipe.encode() or b"-", zlib.crc32(state))

    @staticmethod
    def _key(head: bytes) -> str:
        key = head.removeprefix(_CHECKPOINT).split()[:1]
        return key[0].decode(errors="replace").removeprefix("-") if key else ""


_CHECKPOINT = b"advfeat checkpoint"


class DatasetShards:
    """Finished pieces of an unfinished dataset, one file each, named by their first row.

    ``recipe`` is the key of the dataset's recipe.
    """

    def __init__(self, folder: Path, recipe: str = "") -> None:
        self.folder = folder
        self.recipe = recipe

    def load(self, start: int) -> Tensor | None:
        """The images from row ``start`` on, or None.

        Raises:
            ValueError: the file is damaged, or of another recipe or row; the message names the file and the cure.
        """
        path = self._path(start)
        if not path.exists():
            return None
        try:
            parts, of = read_tensors(path)
            if of not in (None, self._of(start)):
                raise ValueError(f"it is of {of}")
            return parts["images"]
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged or foreign ({error}); delete it, and these images are made anew"
            ) from error

    def save(self, start: int, images: Tensor) -> None:
        """Keep a finished piece."""
        write_tensors(self._path(start), {"images": images}, of=self._of(start))

    @property
    def images_file(self) -> Path:
        """The file for the images of a streamed dataset, which is no piece but grows until it is whole."""
        return self.folder / IMAGES_FILE

    def clear(self) -> None:
        """Delete the pieces, once the whole dataset is written."""
        for path in self.folder.glob("shard-*.safetensors"):
            path.unlink()

    def _of(self, start: int) -> str:
        return f"{self.recipe}, row {start}"

    def _path(self, start: int) -> Path:
        return self.folder / f"shard-{start:08d}.safetensors"
