"""Checks before the first cell, so that no run fails after hours: device, data, released sets, packages, folders, disk.

The code of a chapter tells which of these it needs: a chapter that never asks its ``Run`` for images needs no data.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advfeat.autoattack import installed
from advfeat.experiments.datasets import DATASETS
from advfeat.experiments.records import results_root
from advfeat.experiments.run import Run
from advfeat.pages.notebook import check_record
from advfeat.pages.parameters import Refused, code_cells, default_of, parameters_of

_OF_RUN = ("profile", "device", "overrides", "released")
# Members of ``Run`` that load images, or train.
_WITH_IMAGES = re.compile(
    r"\.(train_set|test_set|standard|source|robust|match_source|overfitted|control|constructed|trained_on)\b"
)
_KINDS = re.compile(r"""\.(?:constructed|trained_on)\(\s*["'](\w+)["']""")


def check_run(chapter: Path, given: Mapping[str, Any]) -> list[str]:
    """Check that a run of ``chapter`` with these checked parameters can end well; return warnings.

    Raises:
        Refused: the device does not exist, raw data or released sets are missing or damaged, a package that a recorded
            run needs is not installed, a folder cannot be written, or this run cannot join the present record.
    """
    code = "\n".join(source for source, _ in code_cells(chapter))
    settings = {name: given[name] for name in _OF_RUN if given.get(name)}
    try:
        run = Run(settings.pop("profile", "planted"), **settings)
        warnings = _check_images(run, code) if _WITH_IMAGES.search(code) else []
        if given.get("record"):
            _check_recording(chapter, run, code, given)
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        raise Refused(f"{chapter.stem}: {error}") from error
    return [f"{chapter.stem}: {warning}" for warning in warnings]


def _check_images(run: Run, code: str) -> list[str]:
    """Data and store; of released sets those that the chapter asks for are read."""
    if DATASETS[run.profile.data.name].from_files:
        _ = run.train_set, run.test_set
    if run.released is not None:
        for kind in sorted(set(_KINDS.findall(code))):
            run.released.read(kind)
    root, warnings = run.store.root, []
    reason = _unwritable(root)
    if reason and not (root.is_dir() and any(root.iterdir())):
        raise OSError(f"the store {root} cannot be written ({reason}); ADVFEAT_STORE names another folder")
    if reason:
        warnings.append(f"the store {root} cannot be written ({reason}); nothing can be added to it")
    else:
        free, needed = shutil.disk_usage(_existing(root)).free, _bytes_of_a_dataset(run)
        if free < needed:
            warnings.append(
                f"{free / 1e9:.2f} GB are free at the store {root}, but making one dataset takes {needed / 1e9:.2f} GB"
            )
    return warnings


def _check_recording(chapter: Path, run: Run, code: str, given: Mapping[str, Any]) -> None:
    known = parameters_of(chapter)
    others = {
        name: given.get(name, default_of(parameter))
        for name, parameter in known.items()
        if name not in (*_OF_RUN, "seed")
    }
    settings = {name: given[name] for name in ("seed", *_OF_RUN) if name in given}
    check_record(chapter.stem, parameters=others, **{"profile": run.profile.name, **settings})
    root = results_root()
    if reason := _unwritable(root):
        raise OSError(f"the folder of the records {root} cannot be written ({reason}); ADVFEAT_RESULTS names another")
    if run.profile.evaluation.autoattack_eps and re.search(r"\bautoattack_accuracies\(", code) and not installed():
        raise ModuleNotFoundError(
            f"a record at profile {run.profile.name!r} needs AutoAttack, which is not installed: "
            'pip install "advfeat[autoattack]" adds it'
        )


def _bytes_of_a_dataset(run: Run) -> int:
    # Pieces and whole lie side by side until the whole is written, as 32-bit numbers in three channels.
    return 2 * run.profile.data.train_images * 3 * DATASETS[run.profile.data.name].side ** 2 * 4


def _unwritable(folder: Path) -> str:
    """Why a folder, which need not exist yet, cannot be written to; "" if it can."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest parent that exists."""
    folder = folder.absolute()
    return next((path for path in (folder, *folder.parents) if path.exists() or path.is_symlink()), folder)
