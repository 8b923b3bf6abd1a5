"""The authors' released sets: every accepted form of the files gives the same dataset, and no code in them is run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from advfeat.authors_release import FOLDERS, load_authors_set
from advfeat.image_files import CIFAR10_CLASSES

BATCHES, SIZE = (3, 2), 4
LABELS = torch.tensor([0, 9, 4, 1, 7])
# Values that bytes hold exactly, so that every form of the same image can be compared to the bit.
BYTES = torch.randint(256, (5, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
BYTES[0, 0, 0, :2] = torch.tensor([0, 255])
PIXELS = BYTES.float() / 255


def write(folder: Path, images: object = None, labels: object = None, **options: object) -> None:
    folder.mkdir(parents=True)
    torch.save(list(PIXELS.split(BATCHES)) if images is None else images, folder / "CIFAR_ims", **options)
    torch.save(list(LABELS.split(BATCHES)) if labels is None else labels, folder / "CIFAR_lab", **options)


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.parametrize("place", ["{}", "d_{}", "release_datasets/{}", "release_datasets/d_{}"])
def test_a_set_is_found_under_each_of_its_names(tmp_path, kind, place):
    write(tmp_path / place.format(FOLDERS[kind]))
    for other in set(FOLDERS) - {kind}:
        with pytest.raises(FileNotFoundError, match=f"no released {other}"):
            load_authors_set(other, tmp_path)
    dataset = load_authors_set(kind, str(tmp_path))
    assert dataset.name == kind
    assert dataset.classes == CIFAR10_CLASSES
    assert torch.equal(dataset.images, PIXELS)
    assert torch.equal(dataset.labels, LABELS)
    assert dataset.info == {"dataset": "released", "set": Path(place.format(FOLDERS[kind])).name}


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (PIXELS, LABELS),
        (tuple(PIXELS.split(2)), list(LABELS.split(1))),
        (list(BYTES.split(BATCHES)), LABELS.int()),
        (list(BYTES.float().split(BATCHES)), LABELS.to(torch.uint8)),
        (list(PIXELS.permute(0, 2, 3, 1).split(BATCHES)), LABELS.float()),
        (BYTES.permute(0, 2, 3, 1).contiguous(), LABELS),
        (PIXELS.double(), LABELS),
    ],
    ids=["one tensor", "tuple", "bytes", "floats to 255", "channels last", "bytes, channels last", "float64"],
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy file"])
def test_every_form_gives_the_same_dataset(tmp_path, images, labels, legacy):
    write(tmp_path / "robust_CIFAR", images, labels, _use_new_zipfile_serialization=not legacy)
    dataset = load_authors_set("D_R", tmp_path)
    assert torch.equal(dataset.images, PIXELS)
    assert dataset.images.is_contiguous()
    assert torch.equal(dataset.labels, LABELS)


def test_rounding_beyond_the_box_is_taken_back(tmp_path):
    write(tmp_path / "robust_CIFAR", PIXELS * (1 + 2e-4) - 1e-4)
    dataset = load_authors_set("D_R", tmp_path)
    assert float(dataset.images.min()) == 0
    assert float(dataset.images.max()) == 1
    assert (dataset.images - PIXELS).abs().max() <= 1e-4 + 2**-23


def test_the_targets_of_d_det_give_the_original_labels_away(tmp_path):
    write(tmp_path / "ddet_CIFAR")
    write(tmp_path / "drand_CIFAR")
    assert load_authors_set("D_det", tmp_path).truth["source_labels"].tolist() == [
        9,
        8,
        3,
        0,
        6,
    ]  # not (label + 1) mod 10
    assert load_authors_set("D_rand", tmp_path).truth == {}


class Malicious:
    """Unpickling it runs a command, as any pickle may."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("file", ["CIFAR_ims", "CIFAR_lab"])
@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle"])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, file, form):
    folder, ran = tmp_path / "robust_CIFAR", tmp_path / "ran"
    write(folder)
    poison = [PIXELS, Malicious(ran)]
    if form == "plain pickle":
        (folder / file).write_bytes(pickle.dumps(poison, protocol=2))
    else:
        torch.save(poison, folder / file, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ValueError, match=f"{file} holds more than tensors and is not read"):
        load_authors_set("D_R", tmp_path)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ({"images": PIXELS}, LABELS, "CIFAR_ims must hold a tensor or a list of tensors, got dict"),
        ([], LABELS, "CIFAR_ims must hold a tensor or a list of tensors, got list"),
        ([PIXELS, "more"], LABELS, "CIFAR_ims must hold a tensor or a list of tensors"),
        (
            [PIXELS, PIXELS[:, :, :2]],
            LABELS,
            r"CIFAR_ims must hold one or more batches .* got \(5, 3, 2, 4\), \(5, 3, 4, 4\)",
        ),
        (PIXELS[:0], LABELS[:0], "CIFAR_lab must hold one or more batches"),
        (PIXELS, [LABELS[0]], r"CIFAR_lab must hold one or more batches of rows of one shape, got \(\)"),
        (PIXELS.flatten(1), LABELS, r"CIFAR_ims must hold images .* got \(5, 48\)"),
        (PIXELS[:, :1], LABELS, r"CIFAR_ims must hold images .* got \(5, 1, 4, 4\)"),
        (PIXELS * 2 - 1, LABELS, r"CIFAR_ims must hold values in \[0, 1\] or \[0, 255\], got -1 to 1"),
        (PIXELS * 510, LABELS, r"CIFAR_ims must hold values in \[0, 1\] or \[0, 255\], got 0 to 2"),
        (PIXELS * 2, LABELS, r"CIFAR_ims must hold values in \[0, 1\] or \[0, 255\], got 0 to 2"),
        (PIXELS + torch.nan, LABELS, r"CIFAR_ims must hold values .* got nan"),
        (PIXELS, LABELS + 0.5, "CIFAR_lab must hold one whole number per image"),
        (PIXELS, LABELS[:, None], "CIFAR_lab must hold one whole number per image"),
        (PIXELS, LABELS + 1, r"labels must lie in \[0, 10\), got 1 to 10"),
    ],
)
def test_what_is_no_dataset_is_refused(tmp_path, images, labels, message):
    write(tmp_path / "robust_CIFAR", images, labels)
    with pytest.raises(ValueError, match=message):
        load_authors_set("D_R", tmp_path)


@pytest.mark.parametrize("content", [b"hello, this is a page that says: not found", b"\0" * 600], ids=["text", "zeros"])
def test_what_is_no_file_of_tensors_is_named(tmp_path, content):
    write(tmp_path / "robust_CIFAR", PIXELS, LABELS)
    (tmp_path / "robust_CIFAR" / "CIFAR_ims").write_bytes(content)
    with pytest.raises(ValueError, match=r"CIFAR_ims (is damaged or incomplete|holds more than tensors)"):
        load_authors_set("D_R", tmp_path)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [0.0, 0.6])
def test_a_download_that_was_cut_off_is_named(tmp_path, kept, legacy):
    write(tmp_path / "robust_CIFAR", PIXELS, LABELS)
    path = tmp_path / "robust_CIFAR" / "CIFAR_ims"
    torch.save(PIXELS, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match="CIFAR_ims is damaged or incomplete"):
        load_authors_set("D_R", tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match="kind must be one of D_R, D_NR, D_rand, D_det, got 'd_r'"):
        load_authors_set("d_r", tmp_path)
    with pytest.raises(FileNotFoundError, match="release_datasets/d_robust_CIFAR"):
        load_authors_set("D_R", tmp_path)
    write(tmp_path / "robust_CIFAR")
    (tmp_path / "robust_CIFAR" / "CIFAR_lab").unlink()
    with pytest.raises(FileNotFoundError, match="robust_CIFAR holds no CIFAR_lab"):
        load_authors_set("D_R", tmp_path)


@pytest.mark.parametrize("file", ["CIFAR_ims", "CIFAR_lab"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97])
def test_a_file_that_was_cut_off_anywhere_is_named(tmp_path, file, kept, legacy):
    write(tmp_path / "robust_CIFAR", _use_new_zipfile_serialization=not legacy)
    path = tmp_path / "robust_CIFAR" / file
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=f"{file} is damaged or incomplete") as caught:
        load_authors_set("D_R", tmp_path)
    assert str(path) in str(caught.value)


def test_a_flipped_bit_is_found_where_the_file_format_knows(tmp_path):
    write(tmp_path / "robust_CIFAR", PIXELS)
    path = tmp_path / "robust_CIFAR" / "CIFAR_ims"
    content = bytearray(path.read_bytes())
    content[bytes(content).index(PIXELS.numpy().tobytes()) + 9] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"CIFAR_ims is damaged or incomplete: the checksum of .* is wrong"):
        load_authors_set("D_R", tmp_path)


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    write(tmp_path / "robust_CIFAR")
    (tmp_path / "robust_CIFAR" / "CIFAR_lab").unlink()
    (tmp_path / "robust_CIFAR" / "CIFAR_lab").mkdir()
    with pytest.raises(ValueError, match="CIFAR_lab must be a file, but is not one"):
        load_authors_set("D_R", tmp_path)
