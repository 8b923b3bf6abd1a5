"""The names that ``import advfeat`` offers, and the examples in the docstrings."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import advfeat

ROOT = Path(__file__).parents[1]
MODULES = sorted(path.stem for path in Path(advfeat.__file__).parent.rglob("*.py"))
WITH_EXAMPLES = ("attacks", "features", "linear_features", "fourier", "minimum_norm", "models", "planted", "robustness")


def test_every_name_is_that_of_its_module():
    assert sorted(advfeat._HOME) == sorted(advfeat.__all__)
    for name, home in advfeat._HOME.items():
        assert getattr(advfeat, name) is getattr(import_module(f"advfeat.{home}"), name)
        assert name in dir(advfeat)


def test_no_name_is_also_a_module():
    """It would be one thing before that module is loaded, and another one afterwards."""
    assert not set(advfeat.__all__) & set(MODULES)
    for name in advfeat._MODULES:
        assert getattr(advfeat, name) is import_module(f"advfeat.{name}")


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="module 'advfeat' has no attribute 'l2'"):
        advfeat.l2  # noqa: B018


def test_nothing_is_loaded_before_it_is_asked_for():
    code = (
        "import sys, advfeat; dir(advfeat); print('torch' in sys.modules); advfeat.L2(1); print('torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_the_docstrings_hold(name):
    tried = doctest.testmod(import_module(f"advfeat.{name}"))
    assert tried.failed == 0
    assert tried.attempted > 0


def test_every_module_with_examples_is_tried():
    paths = Path(advfeat.__file__).parent.rglob("*.py")
    assert {path.stem for path in paths if ">>> " in path.read_text()} == set(WITH_EXAMPLES)


@pytest.mark.numbers
def test_the_code_in_the_readme_runs_and_finds_an_accurate_and_fragile_network(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["clean"].value > 0.9
    assert names["attacked"].value < 0.1
    assert capsys.readouterr().out.startswith("accuracy 9")
