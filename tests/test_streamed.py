"""Images that stay in a file: the same numbers as in memory, in the memory of one batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from advfeat.attacks import L2
from advfeat.construct import deterministic_target_dataset, random_target_dataset, robust_dataset
from advfeat.data import Dataset, batches
from advfeat.experiments.store import Store
from advfeat.hyperparameters import TrainConfig
from advfeat.image_files import image_folder
from advfeat.measures import accuracy
from advfeat.models import build_model
from advfeat.robustness import robust_accuracy
from advfeat.streamed import StreamedDataset, StreamedImages, streamed_folder, write_in_pieces
from advfeat.train import train

pytestmark = pytest.mark.numbers
PROGRAM = Path(__file__).with_name("stream_pictures.py")


def levels(count=20, size=8, seed=0):
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(seed)).float() / 255


def streamed(path, images, classes=4, white=255):
    """The images in a file, and the dataset that has them in memory."""
    kept = write_in_pieces(path, images.shape, lambda rows: images[rows], white=white, batch_size=7, name="test")
    labels = torch.arange(len(images)) % classes
    fields = {"labels": labels, "classes": tuple("abcdefghij"[:classes]), "name": "levels", "truth": {"row": labels}}
    return StreamedDataset(images=kept, **fields), Dataset(images=images, **fields)


@pytest.fixture
def pair(tmp_path):
    return streamed(tmp_path / "images.u8", levels())


def test_what_comes_from_the_file_is_what_went_in(pair):
    kept, whole = pair
    assert kept.images.shape == whole.images.shape
    assert len(kept) == len(whole) == 20
    assert torch.equal(kept.images[slice(None)], whole.images)
    assert kept.fingerprint() == whole.fingerprint() == kept.in_memory().fingerprint()
    for index in (slice(3, 9), slice(5, 5), torch.tensor([4, 5, 6, 2, 2, 19, -1]), torch.arange(20) % 3 == 0):
        assert torch.equal(kept.images[index], whole.images[index])
        part, same = kept.subset(index), whole.subset(index)
        assert isinstance(part, StreamedDataset)
        assert torch.equal(part.in_memory().images, same.images)
        assert torch.equal(part.labels, same.labels)
        assert torch.equal(part.truth["row"], same.truth["row"])
    twice = kept.subset(slice(4, 16)).subset(torch.tensor([0, 11]))
    assert torch.equal(twice.in_memory().images, whole.images[[4, 15]])


def test_sixteen_bits_keep_an_image_to_half_a_level(tmp_path):
    images = torch.rand((9, 3, 5, 5), generator=torch.Generator().manual_seed(1))
    kept, _ = streamed(tmp_path / "images.u16", images, white=65535)
    # Half a level, and float32's rounding of a product and of a quotient.
    assert float((kept.images[slice(None)] - images).abs().max()) <= 0.5 / 65535 + 2 * 2**-24
    assert (tmp_path / "images.u16").stat().st_size == 9 * 75 * 2


def test_batches_in_a_drawn_order_are_those_in_memory(pair):
    kept, whole = pair
    for drawn in (None, 3):
        both = (
            list(batches(of, batch_size=6, generator=None if drawn is None else torch.Generator().manual_seed(drawn)))
            for of in (kept, whole)
        )
        for (images, labels), (expected, known) in zip(*both, strict=True):
            assert torch.equal(images, expected)
            assert torch.equal(labels, known)


def test_a_stopped_run_goes_on_behind_the_last_whole_image(tmp_path):
    images, asked = levels(), []

    def make(rows):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(rows)
        return images[rows]

    path = tmp_path / "images.u8"
    with pytest.raises(KeyboardInterrupt):
        write_in_pieces(path, images.shape, make, white=255, batch_size=6, name="test")
    assert not path.exists()
    with (tmp_path / "images.u8.unfinished").open("ab") as stream:
        stream.write(b"\x07" * 100)  # a part of an image
    asked.clear()
    kept = write_in_pieces(path, images.shape, lambda rows: asked.append(rows) or images[rows], white=255, batch_size=6,
                           name="test")  # fmt: skip
    assert asked == [slice(12, 18), slice(18, 20)]
    assert torch.equal(kept[slice(None)], images)
    assert [entry.name for entry in tmp_path.iterdir()] == ["images.u8"]


@pytest.mark.parametrize("kind", ["D_rand", "D_det", "D_R"])
def test_a_construction_in_a_file_is_the_one_in_memory(tmp_path, kind):
    kept, whole = streamed(tmp_path / "images.u8", levels(size=16))
    model = build_model("cnn4", width=8, classes=4, seed=0).eval()
    attack = {"steps": 3, "step_size": 0.2}
    make = {
        "D_rand": lambda of, **more: random_target_dataset(model, of, L2(0.5), seed=5, **attack, **more),
        "D_det": lambda of, **more: deterministic_target_dataset(model, of, L2(0.5), **attack, **more),
        "D_R": lambda of, **more: robust_dataset(model, of, seed=5, **attack, **more),
    }[kind]
    expected, found = make(whole), make(kept, into=tmp_path / "made.u16", batch_size=6)
    assert isinstance(found, StreamedDataset)
    assert (found.name, found.info, found.classes) == (expected.name, expected.info, expected.classes)
    assert torch.equal(found.labels, expected.labels)
    for key, values in expected.truth.items():
        assert torch.equal(found.truth[key], values)
    moved = (expected.images - whole.images).abs().max()
    # Half a level of 16 bits, and rounding of the attack in pieces of another size: far below what the attack moves.
    assert float((found.in_memory().images - expected.images).abs().max()) <= 0.5 / 65535 + 1e-5 < float(moved) / 100


def test_a_construction_asks_for_a_file_where_it_needs_one_and_nowhere_else(pair, tmp_path):
    kept, whole = pair
    model = build_model("cnn4", width=8, classes=4, seed=0).eval()
    for of, into in ((kept, None), (whole, tmp_path / "made")):
        with pytest.raises(ValueError, match="into must name a file for a streamed dataset, and for no other"):
            deterministic_target_dataset(model, of, L2(0.5), steps=1, step_size=0.5, into=into)
    with pytest.raises(ValueError, match="start must be other for a streamed dataset"):
        robust_dataset(model, kept, steps=1, step_size=0.5, seed=0, start="noise", into=tmp_path / "made")


def test_training_and_accuracies_are_those_in_memory(tmp_path):
    kept, whole = streamed(tmp_path / "images.u8", levels(count=40, size=16))
    models = []
    for of in (kept, whole):
        model = build_model("cnn4", width=8, classes=4, seed=0)
        train(model, of, TrainConfig(epochs=2, batch_size=10, lr=0.1, shift=1, flip=True), seed=1)
        models.append(model)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)
    assert accuracy(models[0], kept) == accuracy(models[1], whole)
    attacked = [robust_accuracy(models[0], of, L2(0.1), steps=2) for of in (kept, whole)]
    assert attacked[0] == attacked[1]


def test_the_store_keeps_the_file_and_finds_a_flipped_bit(pair, tmp_path):
    kept, _ = pair
    model, store = build_model("cnn4", width=8, classes=4, seed=0).eval(), Store(tmp_path / "store")

    def build(shards):
        attack = {"steps": 2, "step_size": 0.3, "into": shards.images_file}
        return deterministic_target_dataset(model, kept, L2(0.5), **attack)

    made = store.dataset({"kind": "test"}, build)
    again = store.dataset({"kind": "test"}, lambda _: pytest.fail("made once more"))
    assert isinstance(again, StreamedDataset)
    assert again.fingerprint() == made.fingerprint()
    assert torch.equal(again.truth["source_labels"], kept.labels)
    content = bytearray(made.images.path.read_bytes())
    content[100] ^= 1
    made.images.path.write_bytes(content)
    with pytest.raises(ValueError, match=r"the checksum of images\.levels is wrong.*it is made anew"):
        store.dataset({"kind": "test"}, build)


def test_what_needs_all_images_at_once_says_how_to_get_them(pair):
    with pytest.raises(AttributeError, match=r"have no 'flatten'.*dataset.subset\(...\).in_memory\(\)"):
        pair[0].images.flatten(1)


def test_a_file_that_is_missing_or_too_short_is_refused(pair, tmp_path):
    rows = torch.arange(20)
    with pytest.raises(FileNotFoundError, match=r"path must be a file of images, got .*nowhere"):
        StreamedImages(tmp_path / "nowhere", (3, 8, 8), rows)
    with pytest.raises(ValueError, match=r"rows must lie in \[0, 20\), got 0 to 20"):
        StreamedImages(pair[0].images.path, (3, 8, 8), torch.arange(21))
    with pytest.raises(ValueError, match="white must be one of 255, 65535, got 256"):
        StreamedImages(pair[0].images.path, (3, 8, 8), rows, 256)


# Folders of pictures


def save(path, array, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **how)


@pytest.fixture
def folder(tmp_path):
    """Three classes of pictures of one colour, told apart by their red level, and what is no picture of a class."""
    for number, name in enumerate(("ant", "bee", "cat")):
        for row in range(4):
            save(tmp_path / "pictures" / name / f"{row}.png", np.full((20, 30, 3), (80 * number, row, 9), np.uint8))
    (tmp_path / "pictures" / "empty").mkdir()
    (tmp_path / "pictures" / "ant" / "notes.txt").write_text("no picture")
    return tmp_path / "pictures"


def test_a_folder_is_packed_once_and_gives_each_picture_its_label(folder, tmp_path, monkeypatch):
    into = tmp_path / "kept"
    found = streamed_folder(folder, size=8, into=into)
    assert found.classes == ("ant", "bee", "cat")
    assert found.images.shape == (12, 3, 8, 8)
    whole = found.in_memory()
    red, row = ((whole.images[:, channel, 0, 0] * 255).round().long() for channel in (0, 1))
    assert torch.equal(red, 80 * whole.labels)
    assert sorted(zip(red.tolist(), row.tolist(), strict=True)) == [(80 * n, r) for n in range(3) for r in range(4)]
    assert whole.labels.tolist() != sorted(whole.labels.tolist())  # the first ones are not all of one class
    monkeypatch.setattr("advfeat.streamed.cropped", lambda *_, **__: pytest.fail("read once more"))
    assert streamed_folder(folder, size=8, into=into).fingerprint() == found.fingerprint()
    monkeypatch.undo()
    save(folder / "ant" / "0.png", np.full((20, 30, 3), 200, np.uint8))
    assert streamed_folder(folder, size=8, into=into).fingerprint() != whole.fingerprint()
    with pytest.raises(FileNotFoundError):  # and never the new pictures
        found.in_memory()
    assert len(streamed_folder(folder, size=6, into=into)) == 12
    assert len(list(into.glob("*.u8"))) == 2  # one a size


def test_pictures_are_cropped_as_usual_for_imagenet(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    save(tmp_path / "pictures" / "a" / "1.png", picture)
    found = streamed_folder(tmp_path / "pictures", size=14, into=tmp_path).in_memory().images[0]
    tensor = torch.from_numpy(picture).permute(2, 0, 1)[None].double() / 255
    smaller = torch.nn.functional.interpolate(tensor, (16, 24), mode="bilinear", antialias=True)[0]
    expected = smaller[:, 1:15, 5:19]
    assert float((found.double() - expected).abs().max()) <= 0.5 / 255 + 1e-4
    # Without a margin the shorter side is kept whole.
    whole = streamed_folder(tmp_path / "pictures", size=40, resized=40, into=tmp_path).in_memory().images[0]
    assert torch.equal((whole * 255).round().byte(), torch.from_numpy(picture[:, 10:50]).permute(2, 0, 1))


def test_gray_transparent_cmyk_and_turned_pictures_are_read_as_a_viewer_shows_them(tmp_path):
    place = tmp_path / "pictures" / "a"
    gray = np.full((8, 8), 51, np.uint8)
    save(place / "0.png", gray)
    half = np.zeros((8, 8, 4), np.uint8)
    half[..., 3] = 0  # transparent all over: the page shows
    save(place / "1.png", half)
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(place / "2.jpg", quality=100)
    turned = np.zeros((8, 8, 3), np.uint8)
    turned[:4] = 255  # white above; orientation 3 turns it upside down
    about = Image.Exif()
    about[274] = 3
    Image.fromarray(turned).save(place / "3.png", exif=about)
    found = streamed_folder(tmp_path / "pictures", size=8, resized=8, into=tmp_path).in_memory().images
    order = torch.randperm(4, generator=torch.Generator().manual_seed(0)).tolist()
    images = {number: found[order.index(number)] for number in range(4)}
    assert torch.equal(images[0], torch.full((3, 8, 8), 51.0) / 255)
    assert torch.equal(images[1], torch.ones(3, 8, 8))
    assert images[2][0].min() > 0.9
    assert images[2][1:].max() < 0.2  # red
    assert images[3][:, :4].max() == 0
    assert images[3][:, 4:].min() == 1
    beside = image_folder(tmp_path / "pictures", size=8)
    assert all(torch.equal(beside.images[number], images[number]) for number in (0, 1, 3))


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 no more", b"GIF89a", b"\x80\x04cos\nsystem\n"])
def test_a_corrupt_picture_is_named_and_the_next_run_goes_on(folder, tmp_path, content):
    whole = (folder / "bee" / "2.png").read_bytes()
    (folder / "bee" / "2.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"bee/2\.png is no whole image that can be read"):
        streamed_folder(folder, size=8, into=tmp_path)
    (folder / "bee" / "2.png").write_bytes(whole)
    assert len(streamed_folder(folder, size=8, into=tmp_path)) == 12


def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path must be a folder with one sub-folder per class, got .*nowhere"):
        streamed_folder(tmp_path / "nowhere", size=8, into=tmp_path)
    (tmp_path / "bare" / "a").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"path must have one sub-folder with pictures per class, and .* has"):
        streamed_folder(tmp_path / "bare", size=8, into=tmp_path)
    with pytest.raises(ValueError, match="size must be 1 or more, got 0"):
        streamed_folder(tmp_path / "bare", size=0, into=tmp_path)
    with pytest.raises(ValueError, match="resized must be 8 or more, got 7"):
        streamed_folder(tmp_path / "bare", size=8, resized=7, into=tmp_path)


def test_the_peak_of_the_memory_does_not_grow_with_the_pictures():
    """Ten times as many pictures from a folder through packing and construction; in memory they would take 55 MB more.

    ``python tests/stream_pictures.py 100000`` beside 1000 is the same at full size.
    """
    peaks = []
    for count in (500, 5000):
        command = [sys.executable, str(PROGRAM), str(count)]
        said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROGRAM.parents[1])
        peaks.append(json.loads(said.stdout)["peak_mb"])
    assert peaks[1] - peaks[0] < 12, peaks
