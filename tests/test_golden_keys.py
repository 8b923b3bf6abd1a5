"""Keys of stored artifacts and settings of records, as they were: whoever changes one makes years of work unfindable.

``golden_keys.json`` was written by these functions before recipes became classes. A new profile or a new artifact adds
lines to it (``python tests/test_golden_keys.py`` writes them all); no line that is there changes, unless the thing it
names is to be made anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from advfeat.engine import fused_steps
from advfeat.experiments import making
from advfeat.experiments.making import Trained
from advfeat.experiments.profiles import PROFILES
from advfeat.experiments.recipes import CONSTRUCTED
from advfeat.experiments.run import Run
from advfeat.experiments.store import Store

GOLDEN = Path(__file__).with_name("golden_keys.json")


class Named:
    """Stands for a set of images, of which recipes only know the fingerprint."""

    num_classes = 10

    def fingerprint(self) -> str:
        return "fingerprint"

    def subset(self, _: object) -> Named:
        return self

    def to(self, _: object) -> Named:
        return self


class AnyNetwork:
    """Stands for a network, of which keys only know the recipe."""

    def to(self, _: object) -> AnyNetwork:
        return self


class AnyRecipe:
    """Stands for the recipe of a network, of which other keys only know the parts."""

    def key_parts(self) -> dict[str, object]:
        return {"kind": "any", "seed": 3}


def asked_for(run: Run) -> dict[str, Callable[[], object]]:
    """Everything that a run can be asked for, by its name."""
    profile = run.profile
    some = Trained(AnyNetwork(), [], AnyRecipe())
    asked: dict[str, Callable[[], object]] = {
        "standard": lambda: run.standard(seed=3),
        "source": lambda: run.source(seed=3),
        "robust": lambda: run.robust(seed=3),
        "match_source": lambda: run.match_source(seed=3),
        "overfitted": lambda: run.overfitted(seed=3),
        "overfitted, no adversary": lambda: run.overfitted(seed=3, attacked=False),
        "control": lambda: run.control(seed=3),
        "AutoAttack at 0.25": lambda: run.autoattack_set(some, 0.25),
    }
    for eps in (0.1, *profile.training.robust_eps):
        asked[f"robust at {eps}"] = lambda eps=eps: run.robust(seed=3, eps=eps)
    for kind in CONSTRUCTED:
        asked[kind] = lambda kind=kind: run.constructed(kind, source_seed=5)
        asked[f"on {kind}"] = lambda kind=kind: run.trained_on(kind, source_seed=5, seed=3)
    for name in profile.transfer.architectures:
        asked[f"standard {name}"] = lambda name=name: run.standard(seed=3, architecture=name)
        asked[f"source {name}"] = lambda name=name: run.source(seed=3, architecture=name)
        asked[f"D_det by {name}"] = lambda name=name: run.constructed("D_det", source_seed=5, source=name)
        asked[f"{name} on D_det"] = lambda name=name: run.trained_on("D_det", source_seed=5, seed=3, architecture=name)
        asked[f"{name} on D_det by {profile.transfer.source}"] = lambda name=name: run.trained_on(
            "D_det", source_seed=5, seed=3, architecture=name, source=profile.transfer.source or None
        )
    return asked


def keys(profile: str, precision: torch.dtype, patch: pytest.MonkeyPatch) -> dict[str, str]:
    """Name → key of everything that a run at ``profile`` can be asked for, and a hash of its settings."""
    found: list[str] = []

    def model(store: Store, recipe: object, fresh: object, fit: object) -> tuple[object, list]:
        found.append(store.key(recipe))
        return fresh, []

    def dataset(store: Store, recipe: object, build: object) -> Named:
        found.append(store.key(recipe))
        return Named()

    patch.setattr(Store, "model", model)
    patch.setattr(Store, "dataset", dataset)
    patch.setattr(making, "build_model", lambda *_, **__: AnyNetwork())
    patch.setattr(fused_steps, "fast_dtype", lambda _: precision)
    run = Run(profile, device="cpu")
    run.train_set = run.test_set = Named()
    answer = {}
    for name, ask in asked_for(run).items():
        found.clear()
        ask()
        answer[name] = found[-1]
    settings = json.dumps(run.describe(), sort_keys=True)
    return answer | {"settings": hashlib.sha256(settings.encode()).hexdigest()[:20]}


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("profile", PROFILES)
def test_no_artifact_and_no_record_loses_its_name(unchecked_types, monkeypatch, profile, precision):
    golden = json.loads(GOLDEN.read_text())[profile][str(precision)]
    assert keys(profile, precision, monkeypatch) == golden


if __name__ == "__main__":
    table: dict[str, dict[str, dict[str, str]]] = {}
    for name in PROFILES:
        for dtype in (torch.float32, torch.bfloat16):
            with pytest.MonkeyPatch.context() as context:
                table.setdefault(name, {})[str(dtype)] = keys(name, dtype, context)
    GOLDEN.write_text(json.dumps(table, indent=1) + "\n")
