"""A run that is bound to fail is refused before its first cell, and the message names the cure."""

from __future__ import annotations

import shutil

import nbformat
import pytest
import torch

from advfeat.authors_release import FOLDERS
from advfeat.experiments import datasets
from advfeat.pages import preflight
from advfeat.pages.parameters import Refused
from advfeat.pages.preflight import check_run
from advfeat.planted import PlantedWorld, planted

TRAINS = 'd = run.constructed("D_rand", source_seed=0)'
PARAMETERS = 'profile: str = "planted"\nseed: int = 0\ndevice: str = "auto"\nreleased: str = ""\nrecord: bool = False'
GPU_ABSENT = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so asking for one is right")


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    """Makes a chapter of given code; its records go to a folder of its own."""
    monkeypatch.setenv("ADVFEAT_RESULTS", str(tmp_path / "results"))

    def make(*cells: str):
        code = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
        code += [nbformat.v4.new_code_cell(cell) for cell in cells]
        path = tmp_path / "42-tiny.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=code), path)
        return path

    return make


def refuses(path, message, **given):
    with pytest.raises(Refused, match=message):
        check_run(path, given)


def test_a_run_that_can_end_well_is_let_through(chapter, tmp_path):
    assert check_run(chapter(TRAINS), {"profile": "planted", "seed": 1, "record": True}) == []
    assert not (tmp_path / "results").exists(), "looking leaves nothing behind"


def test_a_device_that_is_not_there_is_refused(chapter):
    refuses(chapter(TRAINS), "42-tiny: device must be auto, cpu or cuda, got 'gpu'", device="gpu")


@GPU_ABSENT
def test_a_gpu_that_is_not_there_is_refused(chapter):
    refuses(chapter(TRAINS), "device is cuda, but PyTorch sees no GPU", device="cuda")


def test_missing_raw_data_is_refused_unless_the_chapter_needs_none(chapter, tmp_path, monkeypatch):
    monkeypatch.setenv("ADVFEAT_DATA", str(tmp_path / "data"))

    def no_network(*args, **kwargs):
        raise RuntimeError("no network here")

    monkeypatch.setattr("torchvision.datasets.CIFAR10.download", no_network)
    refuses(chapter(TRAINS), "(?s)CIFAR-10 is not in .*ADVFEAT_DATA", profile="cifar10-small")
    assert check_run(chapter("print(run.profile.name)"), {"profile": "cifar10-small"}) == []


@pytest.fixture
def release(tmp_path, monkeypatch):
    """A folder with two released sets, and CIFAR-10 in place."""
    world = planted(PlantedWorld(), 20, seed=0)
    monkeypatch.setattr(datasets, "cifar10", lambda **_: world)
    for kind in ("D_rand", "D_det"):
        folder = tmp_path / "sets" / FOLDERS[kind]
        folder.mkdir(parents=True)
        torch.save([world.images], folder / "CIFAR_ims")
        torch.save([world.labels], folder / "CIFAR_lab")
    return tmp_path / "sets"


def test_released_sets_are_read_before_the_first_training(chapter, release, tmp_path):
    real = {"profile": "cifar10-small"}
    assert check_run(chapter(TRAINS), {**real, "released": str(release)}) == []
    refuses(
        chapter(TRAINS),
        r"folder with one of .*drand_CIFAR.* in it, got .*nowhere",
        **real,
        released=f"{tmp_path}/nowhere",
    )
    refuses(chapter(TRAINS), r"folder with one of .*drand_CIFAR", **real, released=str(tmp_path))
    refuses(chapter(TRAINS), "profile 'planted' is not of it", released=str(release))
    # Each set that the chapter names, and none that it does not.
    refuses(
        chapter("run.trained_on(\n    'D_R', source_seed=0, seed=0)"), "no released D_R", **real, released=str(release)
    )
    whole = release / FOLDERS["D_rand"] / "CIFAR_ims"
    whole.write_bytes(whole.read_bytes()[:1000])
    refuses(chapter(TRAINS), "CIFAR_ims", **real, released=str(release))
    assert check_run(chapter('run.constructed("D_det", source_seed=0)'), {**real, "released": str(release)}) == []
    whole.unlink()
    refuses(chapter(TRAINS), "holds no CIFAR_ims", **real, released=str(release))


def test_folders_that_cannot_be_written_are_refused(chapter, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("ADVFEAT_STORE", str(blocked / "store"))
    refuses(
        chapter(TRAINS),
        r"the store .*file/store cannot be written \(.*\); ADVFEAT_STORE names another",
        profile="planted",
    )
    assert check_run(chapter("print(1)"), {"profile": "planted"}) == [], "no images, no store"
    monkeypatch.setenv("ADVFEAT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ADVFEAT_RESULTS", str(blocked / "results"))
    assert check_run(chapter(TRAINS), {"profile": "planted"}) == []
    refuses(chapter(TRAINS), r"records .*file/results cannot be written \(.*ADVFEAT_RESULTS names another", record=True)


def test_a_read_only_store_that_holds_something_may_hold_everything(chapter, tmp_path, monkeypatch):
    monkeypatch.setenv("ADVFEAT_STORE", str(tmp_path / "store"))
    (tmp_path / "store" / "models").mkdir(parents=True)
    monkeypatch.setattr(preflight, "_unwritable", lambda _: "Read-only file system")
    (warning,) = check_run(chapter(TRAINS), {"profile": "planted"})
    assert "the store" in warning
    assert "Read-only file system" in warning
    shutil.rmtree(tmp_path / "store" / "models")
    refuses(chapter(TRAINS), "Read-only file system", profile="planted")


def test_a_full_disk_is_said_before(chapter, monkeypatch):
    free = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: free)
    (warning,) = check_run(chapter(TRAINS), {"profile": "planted"})
    assert "0.00 GB are free at the store" in warning


def test_a_record_that_needs_autoattack_is_refused_without_it(chapter, monkeypatch):
    path = chapter("run.robust(seed=0)", "found = autoattack_accuracies(run, trained, required=record)")
    monkeypatch.setattr(datasets, "cifar10", lambda **_: planted(PlantedWorld(), 20, seed=0))
    monkeypatch.setattr(preflight, "installed", lambda: False)
    refuses(path, r'needs AutoAttack.*pip install "advfeat\[autoattack\]"', profile="cifar10-cpu", record=True)
    assert check_run(path, {"profile": "cifar10-cpu", "record": False}) == []
    assert check_run(path, {"profile": "planted", "record": True}) == []
    monkeypatch.setattr(preflight, "installed", lambda: True)
    assert check_run(path, {"profile": "cifar10-cpu", "record": True}) == []
