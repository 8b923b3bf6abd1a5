"""The other libraries that are installed are found, and all of them make the same attack."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

from advfeat.attacks import pgd
from advfeat.bench import peers
from advfeat.bench.peers import PEERS, Setting, first_line, presence
from advfeat.models import build_model
from advfeat.threats import L2

ROOT = Path(__file__).resolve().parent.parent


def test_the_same_libraries_everywhere():
    distributions = {distribution for distribution, _ in PEERS.values()}
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["bench"]
    assert {line.split("==")[0] for line in extra} == distributions
    pinned = (ROOT / "constraints-bench.txt").read_text().splitlines()
    assert set(extra) <= set(pinned), "the extra and the constraints name different versions"
    assert set(re.search(r"^PEERS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()) == distributions


def test_a_missing_and_a_broken_library_are_named_with_the_reason(monkeypatch):
    def version(distribution):
        if distribution == "foolbox":
            raise PackageNotFoundError(distribution)
        return "1.0"

    def load(name):
        if name == "art":
            raise AttributeError("module 'numpy' has no attribute 'float'\nand a second line")

    monkeypatch.setattr(peers, "version", version)
    monkeypatch.setattr(peers.importlib, "import_module", load)
    present, absent = presence()
    assert present == {"torchattacks": "1.0", "robustness": "1.0"}
    assert absent == {
        "foolbox": "not installed",
        "art": "1.0 cannot be imported: AttributeError: module 'numpy' has no attribute 'float'",
    }


def test_a_reason_is_one_line():
    assert first_line(ValueError("")) == "ValueError: "
    assert "\n" not in first_line(RuntimeError("a\nb" * 200))


@pytest.mark.parametrize("name", PEERS)
def test_a_library_makes_the_attack_of_the_paper(name):
    present, absent = presence()
    if name not in present:
        pytest.skip(f"{name}: {absent[name]}")
    model = build_model("cnn4", width=8, seed=0).eval()
    images, labels = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    found = PEERS[name][1](Setting(model, images, labels, eps=0.5, steps=3, step_size=0.2))()
    expected = pgd(model.eval(), images, labels, L2(0.5), steps=3, step_size=0.2)
    # A twentieth of the radius: a peer that clips before it projects goes a little elsewhere in the corners of the box.
    assert float((found - expected).flatten(1).norm(dim=1).max()) <= 0.05
    assert float(L2(0.5).distance(found, images).min()) > 0.45
