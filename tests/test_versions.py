"""Versions: every file names the same Pythons, and for each of them the pinned packages exist as wheels.

The second part asks the package index, so `make resolve` runs it by itself, with uv, which resolves for an interpreter
and a system that are not there. It installs nothing: whether a version also works is for `make test` on that Python.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OLDEST, TOO_NEW = (int(minor) for minor in re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups())
PYTHONS = [f"3.{minor}" for minor in range(OLDEST, TOO_NEW)]
RANGE = f"Python {PYTHONS[0]} to {PYTHONS[-1]}"

SYSTEMS = ["x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin", "x86_64-pc-windows-msvc"]
"""Those on which the README says that everything or nearly everything runs."""

SETS = [
    *((("book", "test"), "constraints.txt", system) for system in SYSTEMS),
    (("student",), "constraints.txt", SYSTEMS[0]),
    (("bench",), "constraints-bench.txt", SYSTEMS[0]),
    *(((), "constraints-workflow.txt", system) for system in SYSTEMS[:1]),
]
SDISTS = {"constraints-bench.txt": ["gputil"], "constraints-workflow.txt": ["connection-pool", "immutables"]}
"""Packages without a wheel, of the environments that neither the book nor its tests need: pip makes one of them."""


@pytest.mark.parametrize(
    "name",
    ["README.md", "book/instructors.md", "book/assignments/for-students.md", ".ci/run", "Makefile", "CONTRIBUTING.md"],
)
def test_every_file_names_the_same_pythons(name):
    text = (ROOT / name).read_text()
    assert RANGE in text, f"{name} does not say {RANGE}"
    others = re.findall(r"Python 3\.\d+(?:, 3\.\d+)* (?:or|to|and) 3\.\d+", text)
    assert set(others) <= {RANGE, *TRIED}


TRIED = ["Python 3.11 to 3.13"]  # in CONTRIBUTING: those on which the tests ran


def test_the_classifiers_name_them_too():
    named = [of.rpartition(" ")[2] for of in PROJECT["classifiers"] if of.startswith("Programming Language :: Python")]
    assert named == PYTHONS


@pytest.mark.parametrize("minor", range(OLDEST - 1, TOO_NEW + 1))
def test_make_takes_these_pythons_and_no_others(minor, tmp_path):
    """The Makefile's search, with one interpreter on the path that says it is of this version."""
    folder = tmp_path / "bin"
    folder.mkdir()
    stand_in = folder / "python3"
    version = f"import sys; sys.version_info = (3, {minor}, 0, 'final', 0)"
    stand_in.write_text(f'#!/bin/sh\nshift\nexec "{sys.executable}" -c "{version}; $1"\n')
    stand_in.chmod(0o755)
    for name in ("make", "bash", "getconf", "env"):
        found = next(Path(at) / name for at in os.environ["PATH"].split(":") if (Path(at) / name).exists())
        (folder / name).symlink_to(found)
    command = ["make", "--no-print-directory", "--eval", "say: ; @echo found=$(PYTHON)", "say"]
    said = subprocess.run(command, cwd=ROOT, env={"PATH": str(folder)}, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == ("found=python3" if OLDEST <= minor < TOO_NEW else "found=")


def index_options() -> list[str]:
    """The package index that pip uses here, for uv, which does not read pip's settings."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    found = re.search(r"^(?:global|:env:|install)\.index-url='(.*)'$", listed.stdout, re.MULTILINE)
    return ["--default-index", found[1]] if found else []


@pytest.mark.resolver
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    ("extras", "pins", "system"), SETS, ids=lambda of: "-".join(of) if isinstance(of, tuple) else of
)
def test_the_pinned_versions_exist_as_wheels(python, extras, pins, system, tmp_path):
    """Every requirement has a version that the pins allow, with a wheel for this Python and this system."""
    asked = tmp_path / "asked.in"
    parts = [*PROJECT["dependencies"], *(line for extra in extras for line in expanded(extra))]
    asked.write_text("\n".join(parts if extras else ["snakemake"]))
    command = [os.environ["ADVFEAT_UV"], "pip", "compile", str(asked), "-c", str(ROOT / pins), "--quiet"]
    command += [
        "--only-binary",
        ":all:",
        *(word for name in SDISTS.get(pins, []) for word in ("--no-binary", name)),
    ]
    patch = f"{python}.9" if python == PYTHONS[0] else python  # soupsieve asks for 3.11.5
    command += ["--python-version", patch, "--python-platform", system, "--python", sys.executable, *index_options()]
    done = subprocess.run(
        command, env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    pinned = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", done.stdout, re.MULTILINE))
    assert len(pinned) > 20


def expanded(extra: str) -> list[str]:
    """The requirements of an extra, with those of the extras that it names."""
    found = []
    for line in PROJECT["optional-dependencies"][extra]:
        inner = re.fullmatch(r"advfeat\[(\w+)\]", line)
        found += expanded(inner[1]) if inner else [line]
    return found
