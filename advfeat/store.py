"""Models and constructed datasets on disk, keyed by the recipe that made them.

A recipe is a dictionary of JSON values. Equal recipes share one folder, named by the recipe's hash; another process
that wants the same artifact waits for the first to finish it. Unfinished work lies beside the finished and is taken up
again; with the same number of threads it ends in the same bytes as if it had not been stopped, see ``train.train``.
Files are written under a temporary name and renamed, so what has its final name is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from platformdirs import user_cache_path
from safetensors.torch import load_file, save_file
from torch import Tensor

from advfeat.construct import Shards
from advfeat.data import Dataset
from advfeat.models import Classifier
from advfeat.train import Checkpoint

# Part of every key. Raise it when the meaning of a recipe changes (another algorithm under the same numbers), so that
# artifacts of the old meaning are not taken for new ones.
EDITION = 2

Recipe = Mapping[str, Any]


class Store:
    """A folder of artifacts: ``root``, else ``ADVFEAT_STORE``, else ``advfeat`` in the user's cache folder."""

    def __init__(self, root: Path | str | None = None) -> None:
        given = root if root is not None else os.environ.get("ADVFEAT_STORE")
        self.root = Path(given).expanduser() if given else user_cache_path("advfeat")

    def key(self, recipe: Recipe) -> str:
        """Hash of a recipe: 20 hexadecimal digits.

        Raises:
            TypeError: the recipe holds something that JSON does not know.
        """
        text = json.dumps({**recipe, "edition": EDITION}, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def model(
        self, recipe: Recipe, fresh: Classifier, fit: Callable[[Classifier, Checkpoint], list[dict[str, float]]]
    ) -> tuple[Classifier, list[dict[str, float]]]:
        """The trained model of ``recipe`` and its history; ``fit(fresh, checkpoint)`` trains it if it is not there.

        ``fresh`` has the architecture; its weights are overwritten by those of the store.
        """
        with self._folder("models", recipe) as folder:
            weights, history_file = folder / "model.safetensors", folder / "history.json"
            if not weights.exists():
                history = fit(fresh, TrainingCheckpoint(folder / "checkpoint.pt"))
                _write(history_file, lambda path: path.write_text(json.dumps(history, indent=1)))
                _write(weights, lambda path: save_file(_contiguous(fresh.state_dict()), path))
                (folder / "checkpoint.pt").unlink(missing_ok=True)
            fresh.load_state_dict(load_file(weights))
            fresh.eval()
            return fresh, json.loads(history_file.read_text())

    def dataset(self, recipe: Recipe, build: Callable[[Shards], Dataset]) -> Dataset:
        """The dataset of ``recipe``; ``build(shards)`` constructs it if it is not there."""
        with self._folder("datasets", recipe) as folder:
            tensors, facts = folder / "dataset.safetensors", folder / "dataset.json"
            if not tensors.exists():
                shards = DatasetShards(folder)
                made = build(shards)
                about = {"classes": made.classes, "name": made.name, "info": made.info}
                _write(facts, lambda path: path.write_text(json.dumps(about, indent=1)))
                parts = {
                    "images": made.images,
                    "labels": made.labels,
                    **{f"truth.{k}": v for k, v in made.truth.items()},
                }
                _write(tensors, lambda path: save_file(_contiguous(parts), path))
                shards.clear()
            return _read_dataset(folder)

    def finished_dataset(self, recipe: Recipe) -> Dataset | None:
        """The dataset of ``recipe`` if it is there, else None: nothing is made, and nobody is waited for."""
        folder = self.root / "datasets" / self.key(recipe)
        return _read_dataset(folder) if (folder / "dataset.safetensors").exists() else None

    @contextmanager
    def _folder(self, kind: str, recipe: Recipe) -> Iterator[Path]:
        folder = self.root / kind / self.key(recipe)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            note = folder / "recipe.json"
            if not note.exists():
                _write(note, lambda path: path.write_text(json.dumps(recipe, indent=1, sort_keys=True)))
            yield folder


class TrainingCheckpoint:
    """The state of an unfinished training run in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> dict | None:
        """The saved state on the CPU, or None. Only tensors and plain values are read, never pickled objects."""
        return torch.load(self.path, weights_only=True, map_location="cpu") if self.path.exists() else None

    def save(self, state: dict) -> None:
        """Replace the saved state."""
        _write(self.path, lambda path: torch.save(state, path))


class DatasetShards:
    """Finished pieces of an unfinished dataset, one file each, named by their first row."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, start: int) -> Tensor | None:
        """The images from row ``start`` on, or None."""
        path = self._path(start)
        return load_file(path)["images"] if path.exists() else None

    def save(self, start: int, images: Tensor) -> None:
        """Keep a finished piece."""
        _write(self._path(start), lambda path: save_file({"images": images.contiguous()}, path))

    def clear(self) -> None:
        """Delete the pieces, once the whole is written."""
        for path in self.folder.glob("shard-*.safetensors"):
            path.unlink()

    def _path(self, start: int) -> Path:
        return self.folder / f"shard-{start:08d}.safetensors"


def _read_dataset(folder: Path) -> Dataset:
    parts, about = load_file(folder / "dataset.safetensors"), json.loads((folder / "dataset.json").read_text())
    return Dataset(
        images=parts["images"],
        labels=parts["labels"],
        classes=tuple(about["classes"]),
        name=about["name"],
        truth={key.removeprefix("truth."): value for key, value in parts.items() if key.startswith("truth.")},
        info=about["info"],
    )


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().contiguous() for key, value in tensors.items()}


def _write(path: Path, write: Callable[[Path], object]) -> None:
    # The temporary name holds the process id: two processes never write the same file, even without the lock.
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
