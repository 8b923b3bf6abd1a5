"""Something to try on a page: numbers for the script of the pages, and a still picture for readers without it."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping

import matplotlib.pyplot as plt
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from advfeat import inputs

WIDGETS = ("attacks", "gaussians")
"""What ``_static/advfeat-widgets.js`` can build."""

STILL_COLOURS = 128  # a drawing with a few small pictures looks the same, and weighs a third


class Interactive:
    """A widget of the pages, with the picture that stands for it wherever their script does not run.

    On a page the script builds the widget from ``data`` and puts the picture behind a button. Jupyter and Colab, print,
    EPUB and readers without JavaScript get the picture; LaTeX gets it as a PNG. Nothing is loaded from anywhere, and
    two equal widgets are equal byte by byte.

    Args:
        kind: one of ``WIDGETS``.
        data: numbers, texts, lists and mappings that JSON can hold.
        still: the picture; it is closed, so that nothing else shows it.
        alt: what the picture shows, in a sentence.

    Raises:
        TypeError: ``data`` holds something that JSON cannot.
        ValueError: an unknown kind, an ``alt`` without words, or a number of ``data`` that is not finite.
    """

    def __init__(self, kind: str, data: Mapping[str, object], still: Figure, *, alt: str) -> None:
        inputs.text("alt", alt)
        if not alt.strip():
            raise ValueError("alt is empty: say what the picture shows")
        if kind not in WIDGETS:
            raise ValueError(f"kind must be one of {', '.join(WIDGETS)}, got {kind!r}")
        self.kind, self.alt = kind, alt
        self._json = json.dumps(data, separators=(",", ":"), allow_nan=False)
        self._png = _still(still)

    def __repr__(self) -> str:
        return f"<interactive figure: {self.kind}>"

    def _repr_png_(self) -> bytes:
        return self._png

    def _repr_html_(self) -> str:
        # A closing tag within the numbers would end the script early, so no "<" is left there.
        safe = self._json.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
        return (
            f'<div class="advfeat-widget" data-widget="{self.kind}">\n'
            # A lazy picture would be missing in print: nobody scrolls to it.
            f'<img class="advfeat-still" alt="{html.escape(self.alt)}" loading="eager" '
            'style="max-width: 100%; height: auto" '
            f'src="data:image/png;base64,{_base64(self._png)}">\n'
            f'<script type="application/json">{safe}</script>\n</div>'
        )


def data_uri(image: Float[Tensor, "3 h w"]) -> str:
    """An image in [0, 1] as a PNG in base64, without the head of a data address."""
    array = image.detach().cpu().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    return _base64(_saved(Image.fromarray(array)))


def _still(figure: Figure) -> bytes:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=figure.dpi, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    picture = Image.open(drawn).convert("RGB")
    return _saved(picture.quantize(STILL_COLOURS, dither=Image.Dither.NONE))


def _saved(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
