"""Ids of records become words that name the same number."""

from __future__ import annotations

import itertools
import json

import pytest

from advfeat import L2, Linf
from advfeat.experiments.records import BOOK
from advfeat.pages.wording import in_words, threat_in_words


def observations():
    """The ids of chapters 3 and 8 that their tables list, as the committed records hold them."""
    index = json.loads((BOOK / "results" / "index.json").read_text())
    keys = {row["id"] for row in index}
    listed = {key for key in keys if key.split("/")[0] in ("price", "gradients", "overfit")}
    return sorted(listed | {key.split("/", 2)[2] for key in keys if key.startswith("representations/")})


def test_every_listed_number_has_words_and_no_two_have_the_same():
    # Two ids of one name would be one row of the table, and one of the numbers would be lost.
    words = {key: in_words(key) for key in observations()}
    assert len(words) > 20
    assert not [text for text in words.values() if "/" in text or "_" in text]
    for one, other in itertools.combinations(words, 2):
        assert words[one] != words[other], (one, other)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("price/eps0.25", "clean accuracy lost, trained at ε = 0.25"),
        ("inversion/noise/judge", "inverted from noise: distance, robust judge"),
        ("manipulation/judge", "unit added to an image: the judge's unit rises by"),
        ("evaluation/false_alarm/holm", "evaluation, false alarm, holm"),
        ("robust/pgd-20/eps0.5", "robust, pgd-20, ε = 0.5"),
        ("epsilon/epsx", "epsilon, epsx"),
    ],
)
def test_words_of_some_ids(key, words):
    assert in_words(key) == words


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (f"PGD-20, {L2(0.5)}", "PGD-20, ℓ2, ε = 0.5"),
        (f"PGD-100, a restart, {Linf(8 / 255)}", "PGD-100, a restart, ℓ∞, ε = 8/255"),
        (str(Linf(1 / 255)), "ℓ∞, ε = 1/255"),
        (str(Linf(0.01)), "ℓ∞, ε = 0.01"),
        (str(Linf(0.001)), "ℓ∞, ε = 0.001"),
        ("none", "none"),
    ],
)
def test_a_threat_has_the_symbols_of_the_book(attack, words):
    assert threat_in_words(attack) == words
