"""The look of the book in one place: a fixed colour and marker for each training set and network.

Whoever draws asks here by name, so that a reader who knows one figure can read the next without its legend.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from matplotlib.colors import to_hex, to_rgb

COLORS = MappingProxyType(
    {
        "D": "#171B26",
        "D_R": "#40A38F",
        "D_NR": "#7A244F",
        "D_rand": "#C87F11",
        "D_det": "#994B8F",
        "standard": "#C22007",
        "robust": "#0041D9",
    }
)
"""Training set, or training on D itself → its colour in every figure.

Found by a search for seven colours of given hues that lie as far apart as possible (in OKLab) for normal vision and for
each kind of colour blindness, under the condition that a thin line of each stands out from white paper.
"""

MARKERS = MappingProxyType(
    {"D": "o", "D_R": ">", "D_NR": "<", "D_rand": "P", "D_det": "X", "standard": "s", "robust": "^"}
)
"""The same names → their markers. Diamonds are left to published values."""

OTHERS = ("#004479", "#21830D", "#593524", "#956DD9", "#CE7488")
"""Colours, found in the same way, of everything else: architectures, libraries, radii of a theory."""
BESIDE = (OTHERS[3], OTHERS[0], OTHERS[2], OTHERS[1], OTHERS[4])
"""The same beside named ones: those that differ most from all seven come first."""
OTHER_MARKERS = ("o", "s", "v", "*", "p", "d", "h")
ANSWERS = (OTHERS[0], OTHERS[3])
"""Colours of the answers of a network trained on D_det: the label, and the class after it, which a person sees."""
GREY, LIGHT = "#6B7280", "#D1D5DB"
"""Of lines that guide the eye, and of what is neither of two named things."""

SMALLEST = 10.5
"""Points of the smallest letters. On a phone a figure is shown at half its size, which leaves eight pixels of them."""
WIDEST = 6.4
"""Inches of the widest figure, which then fits a phone at half its size."""

_ALIASES = {
    "adversarial": "robust",
    "ordinary": "standard",
    # Features of the planted world have the colour of the networks that use them.
    "shape": "robust",
    "shapes": "robust",
    "texture": "standard",
    "textures": "standard",
}
_RADIUS = re.compile(r"^(?:(?:trained|fitted) at )?[$\\]*(?:ε|epsilon)\s*=\s*([\d.]+)")
"""The radius in the name of a network that was trained, or fitted, against an adversary."""


def key_of(name: str) -> str:
    """The key of ``COLORS`` that a name in a figure stands for, or "" if it stands for none.

    Symbols (``$\\hat{\\mathcal{D}}_R$``), radii (``robust 0.5``) and the words *trained on* and *network*, *judge*,
    *source* make no difference. Of two lines the first counts, but for D with the kind of training below it.
    """
    first, _, second = name.partition("\n")
    plain = re.sub(r"[$\\{}]|hat|mathcal|mathrm", "", first).strip()
    plain = second if plain == "D" and second else plain
    plain = re.sub(r"^trained on | (network|judge|source|inversion|training)$| [\d.]+$", "", plain)
    plain = _ALIASES.get(plain, plain)
    return plain if plain in COLORS else ""


def colors_of(names: Sequence[str]) -> list[str]:
    """One colour for each name: its own if it has an identity, otherwise the next of ``OTHERS``, or of ``BESIDE``.

    Networks named by the radius that they were trained at, or fitted at, have the colour of robust ones, the darker the
    later in the list; at radius 0 that of standard ones.
    """
    found = _given(names, COLORS, BESIDE if any(map(key_of, names)) else OTHERS)
    radii = {place: float(at[1]) for place, name in enumerate(names) if (at := _RADIUS.match(name))}
    shades = iter(strengths(COLORS["robust"], sum(radius > 0 for radius in radii.values())))
    for place, radius in radii.items():
        found[place] = next(shades) if radius > 0 else COLORS["standard"]
    return found


def markers_of(names: Sequence[str]) -> list[str]:
    """One marker for each name: its own if it has an identity, otherwise the next of ``OTHER_MARKERS``."""
    return _given(names, MARKERS, OTHER_MARKERS)


def _given(names: Sequence[str], own: MappingProxyType[str, str], others: Sequence[str]) -> list[str]:
    found, strange = [], 0
    for name in names:
        key = key_of(name)
        found.append(own[key] if key else others[strange % len(others)])
        strange += not key
    return found


def strengths(color: str, count: int) -> list[str]:
    """``count`` colours from a lighter to a darker ``color``, each of which stands out from white paper."""
    red, green, blue = to_rgb(color)
    steps = [0.0] if count == 1 else [0.4 - 1.0 * step / (count - 1) for step in range(count)]
    towards = [(1 - abs(at), max(0.0, at)) for at in steps]  # share of the colour, and of white
    return [to_hex((red * own + white, green * own + white, blue * own + white)) for own, white in towards]


def tints(color: str, count: int) -> list[tuple[float, float, float]]:
    """``count`` colours from ``color`` to nearly white: one thing under ever stronger attacks."""
    red, green, blue = to_rgb(color)
    whites = [0.85 * step / max(1, count - 1) for step in range(count)]
    return [(red + (1 - red) * w, green + (1 - green) * w, blue + (1 - blue) * w) for w in whites]


def colors_of_bars(groups: Sequence[str], names: Sequence[str]) -> list[list[tuple[Any, str]]]:
    """Fill and edge of each bar: a list for each of ``names``, of one pair for each of ``groups``.

    The colours are those of the names, if any has an identity; otherwise those of the groups, with a tint for each
    name.
    """
    if any(map(key_of, names)):
        return [[(color, color)] * len(groups) for color in colors_of(names)]
    edges = colors_of(groups)
    return [[(tints(edge, len(names))[place], edge) for edge in edges] for place in range(len(names))]
