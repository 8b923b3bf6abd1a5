"""The ids of records in words, for tables that people read."""

from __future__ import annotations

import re

WORDS = {
    r"price/eps(.+)": r"clean accuracy lost, trained at ε = \1",
    r"gradients/standard/smooth": "smooth share of the gradient, standard network",
    r"gradients/eps(.+)/smooth": r"smooth share of the gradient, trained at ε = \1",
    r"overfit/training": "trained too long: attacked training images, last epoch",
    r"overfit/best": "… attacked test images, best epoch",
    r"overfit/test": "… attacked test images, last epoch",
    r"overfit/ordinary-best": "… ordinary test images, best epoch",
    r"overfit/ordinary": "… ordinary test images, last epoch",
    r"overfit/control-best": "its control: ordinary test images, best epoch",
    r"overfit/control": "its control: ordinary test images, last epoch",
    r"inversion/other/(.+)": r"inverted from another image: \1",
    r"inversion/noise/(.+)": r"inverted from noise: \1",
    r"interpolation/(.+)": r"interpolation: \1",
    r"visualisation/noise/(.+)": r"unit excited from noise: \1",
    r"visualisation/image/(.+)": r"unit excited from an image: \1",
    r"manipulation/(.+)": r"unit added to an image: \1",
}
"""Pattern of an id → words, the first that fits the whole of it; ``ENDS`` has words for what they leave of the id."""

ENDS = {
    "inverted": {
        "own": "distance, own representation",
        "pixels": "pixel distance left",
        "judge": "distance, robust judge",
        "recognised_robust": "recognised by the robust judge",
        "recognised_standard": "recognised by the standard judge",
    },
    "interpolation": {
        "own": "off its line, own representation",
        "moved": "off the cross-fade (ℓ2)",
        "straying": "straying, robust judge",
        "stride": "longest stride, robust judge",
    },
    "unit": {
        "own": "the unit rises by",
        "judge": "the judge's unit rises by",
        "judge_others": "the judge's other units rise by",
        "judge_rescaled": "the judge's unit, at the other's length",
        "moved": "the image moves by (ℓ2)",
    },
}
"""First word → last part of an id in it → its words."""


def in_words(key: str) -> str:
    """An id such as ``inversion/other/recognised_robust`` as a row of a table calls it.

    Ids that ``WORDS`` does not know are spelled out: their parts with commas between them, and radii as ε.
    """
    for pattern, words in WORDS.items():
        found = re.fullmatch(pattern, key)
        if found:
            said = found.expand(words)
            first, _, last = said.rpartition(": ")
            ends = ENDS.get(re.split(r"[ :]", first)[0], {})
            return f"{first}: {ends[last]}" if last in ends else said
    parts = [re.sub(r"^eps(?=[\d.])", "ε = ", part) for part in key.split("/")]
    return ", ".join(part.replace("_", " ") for part in parts)


def threat_in_words(attack: str) -> str:
    """An attack as records name it, ``PGD-20, l2 eps=0.5``, with the symbols of the book: ``PGD-20, ℓ2, ε = 0.5``.

    Radii of the maximum norm are in steps of grey, ``8/255``, where they are whole ones.
    """
    return re.sub(r"\b(l2|linf) eps=([\d.e-]+)", _in_symbols, attack)


def _in_symbols(found: re.Match[str]) -> str:
    if found[1] == "l2":
        return f"ℓ2, ε = {found[2]}"
    steps = 255 * float(found[2])  # of grey, in which such radii are usually given
    whole = round(steps) >= 1 and abs(steps - round(steps)) <= 0.005 * steps
    return f"ℓ∞, ε = {f'{round(steps)}/255' if whole else found[2]}"
