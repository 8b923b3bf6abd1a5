"""The circumstances of a result: the only file that knows git, the date and the versions of the book's packages."""

from __future__ import annotations

import datetime
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from advfeat.checkout import CHECKOUT
from advfeat.engine.convolution_code import engine_name

_PACKAGES = ("advfeat", "torch", "torchvision", "numpy", "scipy")


def provenance(device: torch.device | str = "cpu") -> dict[str, Any]:
    """The circumstances of a computation: commit, dirty flag, versions, device, engine, threads, time (UTC).

    ``engine`` names the code that computes convolutions in float32: ``torch``, or ``winograd`` and the instructions
    that it was compiled for. ``dirty`` is true if the code may differ from the commit: a tracked file other than a
    record has been changed, or git gave no answer.
    """
    kind = torch.device(device).type
    commit = _git("rev-parse", "HEAD")
    # Records are left out: the record of the first seed is a change, so the second seed could never be clean.
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)book/results")
    return {
        "commit": commit or "unknown",
        "dirty": not commit or changed != "",
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "device": torch.cuda.get_device_name() if kind == "cuda" else _processor(),
        "engine": "torch" if kind == "cuda" else engine_name(),
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _git(*words: str) -> str | None:
    """The output of git in the checkout; None if git fails, or if the package lies in no checkout of its own."""
    if not (CHECKOUT / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *words], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    except OSError:  # a reader without git still gets a run card
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line for line in lines if line.startswith("model name")]
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()
