"""What a reader can try on the pages: the HTML that a chapter makes, its still picture, the directive ``predict``."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
import yaml
from PIL import Image

from advfeat.gaussian import Gaussians, alignment, attack_on_average, robust_mle
from advfeat.pages import front_page, interactive
from advfeat.pages.attack_figures import GAIN, attack_slider
from advfeat.pages.gaussian_figures import radius_slider
from advfeat.pages.interactive import Interactive

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = (ROOT / "_static" / "advfeat-widgets.js").read_text()
STYLE = (ROOT / "_static" / "advfeat-widgets.css").read_text()
CHAPTERS = {path.stem: nbformat.read(path, as_version=4) for path in sorted((ROOT / "book").glob("[0-9]*.ipynb"))}
HEAVIEST = 300_000  # bytes that the widgets of a page may add to it


class Parts(HTMLParser):
    """Tags with their attributes, and the text inside the script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.script = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script":
            self.script += data


def small_figure():
    figure, axis = plt.subplots(figsize=(2, 1))
    axis.plot([0, 1])
    return figure


def decoded(code: str):
    return torch.tensor(list(Image.open(io.BytesIO(base64.b64decode(code))).tobytes()))


# The HTML, and the picture


def test_the_page_gets_the_picture_and_the_data_whatever_they_hold():
    data = {"classes": ["</script><b>", "a & b", "“ü”\u2028"], "numbers": [0.5, -1]}
    alt = 'A line, "rising" & <straight>'
    widget = Interactive("attacks", data, small_figure(), alt=alt)
    html = widget._repr_html_()
    parts = Parts(html)
    assert [tag for tag, _ in parts.tags] == ["div", "img", "script"]
    (_, holder), (_, image), (_, script) = parts.tags
    assert holder == {"class": "advfeat-widget", "data-widget": "attacks"}
    assert image["alt"] == alt
    assert image["loading"] == "eager", "in print nobody scrolls to it"
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == widget._repr_png_()
    assert script == {"type": "application/json"}
    assert json.loads(parts.script) == data
    assert html.count("</script>") == 1
    assert "://" not in html, "it loads something"
    assert " id=" not in html, "two equal widgets on a page would have one id"


def test_equal_widgets_are_equal_byte_by_byte_and_their_figures_are_closed():
    before = plt.get_fignums()
    one, two = (Interactive("gaussians", {"a": [1 / 3]}, small_figure(), alt="A line.") for _ in range(2))
    assert (one._repr_html_(), one._repr_png_(), repr(one)) == (two._repr_html_(), two._repr_png_(), repr(two))
    assert plt.get_fignums() == before, "Jupyter would show the figure once more"
    picture = Image.open(io.BytesIO(one._repr_png_()))
    assert "Software" not in picture.info, "the version of matplotlib would change the bytes"
    assert picture.width > 100


@pytest.mark.parametrize(
    ("kind", "data", "alt", "said"),
    [
        ("sliders", {}, "A line.", "attacks, gaussians"),
        ("attacks", {}, "  ", "alt is empty"),
        ("attacks", {"a": math.nan}, "A line.", "not JSON compliant"),
    ],
)
def test_what_no_page_could_show_is_refused(kind, data, alt, said):
    figure = small_figure()
    with pytest.raises(ValueError, match=said):
        Interactive(kind, data, figure, alt=alt)
    plt.close(figure)


def test_pixels_are_those_of_the_image_and_a_value_beyond_one_does_not_wrap_round():
    image = torch.linspace(-0.2, 1.2, 3 * 4 * 5).reshape(3, 4, 5)
    found = decoded(interactive.data_uri(image)).reshape(4, 5, 3).permute(2, 0, 1)
    assert torch.equal(found, (image.clamp(0, 1) * 255).round().long())


# The two widgets


def attacked_images():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 8, 8, generator=generator) * 0.5 + 0.25
    within = [images + eps * 0.01 * torch.ones(3, 8, 8) for eps in (0, 1, 2)]
    answers = [torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([[0.6, 0.4], [0.1, 0.9]])]
    answers.append(torch.tensor([[0.25, 0.75], [0.0, 1.0]]))
    return within, answers


def test_the_attacks_of_the_slider_are_the_given_ones():
    within, answers = attacked_images()
    labels = torch.tensor([0, 1])
    widget = attack_slider(within, answers, radii=(0, 0.5, 1), labels=labels, classes=["cat", "dog"])
    data = json.loads(Parts(widget._repr_html_()).script)
    assert (data["classes"], data["radii"], data["gain"]) == (["cat", "dog"], [0, 0.5, 1], GAIN)
    assert [picture["label"] for picture in data["pictures"]] == [0, 1]
    for place, picture in enumerate(data["pictures"]):
        for at, images in enumerate(within):
            assert picture["attacked"][at] == interactive.data_uri(images[place])
            grey = decoded(picture["change"][at]).float() / 255
            assert (grey - (0.5 + GAIN * at * 0.01)).abs().max() < 1 / 255, "amplified by the gain that is stated"
            assert picture["answers"][at] == pytest.approx(answers[at][place].tolist(), abs=5e-4)
    for said in ("cat: cat 90% at 0, cat 60% at 0.5, dog 75% at 1", "dog: dog 80% at 0"):
        assert said in widget.alt


@pytest.mark.parametrize("radii", [(0, 1), (0.1, 0.5, 1), (0, 1, 1), (0, 1, 0.5)])
def test_radii_that_belong_to_other_images_are_refused(radii):
    within, answers = attacked_images()
    with pytest.raises(ValueError, match="radii"):
        attack_slider(within, answers, radii=radii, labels=torch.tensor([0, 1]), classes=["cat", "dog"])


def test_the_fits_of_the_slider_are_those_of_the_theorem():
    world = Gaussians(
        torch.tensor([1.0, 0.3], dtype=torch.float64), torch.tensor([[3.0, 0.1], [0.1, 0.2]], dtype=torch.float64)
    )
    x, y = world.sample(400, generator=torch.Generator().manual_seed(0))
    widget = radius_slider(world, x, y, (0, 0.5, 2), still=(0, 0.5, 2, 3))
    data = json.loads(Parts(widget._repr_html_()).script)
    assert [stop["radius"] for stop in data["stops"]] == [0, 0.5, 2]
    for stop in data["stops"]:
        fit = robust_mle(world, eps=stop["radius"])
        assert stop["covariance"] == [pytest.approx(row, abs=1e-3) for row in fit.covariance.tolist()]
        assert stop["mean"] == pytest.approx(fit.mean.tolist(), abs=1e-3)
        assert math.cos(math.radians(stop["angle"])) == pytest.approx(alignment(fit.mean, fit.covariance), abs=1e-4)
        assert stop["accuracy"][1] == pytest.approx(world.accuracy(fit.weights(), eps=stop["radius"]), abs=1e-3)
        for sign, points, moved in zip((1, -1), data["points"], stop["moved"], strict=True):
            start = torch.tensor(points[:9], dtype=torch.float64)
            labels = torch.full((9,), sign, dtype=torch.float64)
            end = attack_on_average(fit, start, labels, eps=stop["radius"])
            assert (end - torch.tensor(moved, dtype=torch.float64)).abs().max() < 0.02
    assert data["stops"][0]["accuracy"][0] == data["stops"][0]["accuracy"][1]
    assert "at radius 0.5" in widget.alt


# The script and the style


def test_the_script_builds_every_kind_and_asks_nobody_for_anything():
    builders = re.search(r"const BUILDERS = \{ ([\w, ]+) \}", SCRIPT)
    assert sorted(builders[1].split(", ")) == sorted(interactive.WIDGETS)
    assert '"use strict";' in SCRIPT
    assert len(SCRIPT.splitlines()) <= 400
    alone = SCRIPT.replace("http://www.w3.org/2000/svg", "")
    for word in ("://", "fetch(", "XMLHttpRequest", "import(", "eval(", "innerHTML", "localStorage", "cookie"):
        assert word not in alone, word
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_every_class_of_the_style_is_one_that_somebody_makes():
    made = SCRIPT + (ROOT / "_ext" / "predict.py").read_text() + (ROOT / "advfeat/pages/interactive.py").read_text()
    kinds = {"ellipse", "moves", "label", "found"}  # put together: advfeat-${kind}, advfeat-{name}
    for name in set(re.findall(r"\.(advfeat-[\w-]+)", STYLE)):
        assert name in made or name.removeprefix("advfeat-") in kinds, f"nothing has the class {name}"


# In the committed chapters


def test_widgets_of_a_page_weigh_little_and_have_a_picture_for_latex():
    shown = {}
    for stem, notebook in CHAPTERS.items():
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                html = output.get("data", {}).get("text/html", "")
                if "advfeat-widget" in html:
                    assert "image/png" in output.data, stem
                    # Images are not compared between runs and machines; a cell beside it prints the numbers.
                    assert "nbval-ignore-output" in cell.metadata.tags, stem
                    shown[stem] = shown.get(stem, 0) + len(html)
    assert set(shown) >= {"01-adversarial-examples", "07-gaussian-theory"}
    assert max(shown.values()) <= HEAVIEST, shown


def predictions():
    """Chapter, name of the figure, range and names of the glued numbers of every prediction."""
    for stem, notebook in CHAPTERS.items():
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        for name, body in re.findall(r"^:::\{predict\} (\S+)\n(.*?)^:::$", text, re.MULTILINE | re.DOTALL):
            ends = re.search(r"^:range: (\S+) (\S+)$", body, re.MULTILINE)
            numbers = re.findall(r"^- .+ \| \{glue:text\}`([^`]+)`$", body, re.MULTILINE)
            yield stem, name, tuple(map(float, ends.groups() if ends else (0, 100))), numbers


def test_predictions_are_about_figures_of_their_page_and_numbers_within_reach():
    found = list(predictions())
    assert len(found) >= 3
    for stem, name, (low, high), numbers in found:
        known = front_page.glued(CHAPTERS[stem])
        figures = [cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in CHAPTERS[stem].cells]
        assert name in figures
        assert numbers
        for number in numbers:
            value = float(re.match(r"-?[\d.]+", known[number])[0])
            assert low <= value <= high, f"{stem}: nobody could draw {known[number]}"


# The directive


@pytest.fixture(scope="module")
def extension():
    specification = importlib.util.spec_from_file_location("predict", ROOT / "_ext" / "predict.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_a_question_is_parted_from_its_answers(extension):
    lines = ["How often?", "", "- the *label* | {glue:text}`ch05_a/b`", "- another | {seeds}`a first`"]
    question, answers = extension.parted(lines)
    assert question == ["How often?", ""]
    assert answers == [("the *label*", "{glue:text}`ch05_a/b`"), ("another", "{seeds}`a first`")]
    assert extension.limits("0 90") == (0, 90)


@pytest.mark.parametrize(
    "lines",
    [["How often?"], ["- a | {glue:text}`b`"], ["How often?", "- a | 92 %"], ["How often?", "- a"]],
)
def test_a_typed_answer_or_none_is_refused(extension, lines):
    with pytest.raises(ValueError, match="answer"):
        extension.parted(lines)


@pytest.mark.parametrize("text", ["1", "90 0", "0 0", "0 1 2", "low high"])
def test_a_range_that_does_not_rise_is_refused(extension, text):
    with pytest.raises(ValueError, match=r"range|unpack|convert"):
        extension.limits(text)


PAGE = """# Page

:::{predict} fig-it
:unit: °
:range: 0 90

How *large* is it?

- for $x$ | {literal}`38°`
:::

```{figure} it.png
:name: fig-it
:alt: It.

It.
```
"""


def built(folder, builder, text=PAGE):
    folder.mkdir(exist_ok=True)
    (folder / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / '_ext')!r})\nextensions = ['myst_parser', 'predict']\n"
        "myst_enable_extensions = ['colon_fence', 'dollarmath']\n"
    )
    (folder / "index.md").write_text(text)
    Image.new("RGB", (8, 8)).save(folder / "it.png")
    flags = ["-q", "-n", "-W", "-E", "-b", builder]
    command = [sys.executable, "-m", "sphinx", *flags, str(folder), str(folder / builder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_page_asks_and_hides_the_answer_from_readers_without_the_script(tmp_path):
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]
    assert config["local_extensions"]["predict"] == "_ext"
    result = built(tmp_path, "html")
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "html" / "index.html").read_text()
    box = page.partition('<div class="advfeat-predict"')[2].partition("<figure")[0]
    assert 'data-figure="fig-it" data-low="0" data-high="90" data-unit="°"' in box
    assert "How <em>large</em> is it?" in box
    hidden = box.partition('<ul class="advfeat-answers" hidden>')[2].partition("</ul>")[0]
    assert re.fullmatch(
        r'\s*<li><span class="advfeat-label">for <span class="math[^>]+>\S+x\S+</span></span>'
        r'<span class="advfeat-found"><code.*38°.*</code></span></li>\s*',
        hidden,
    )
    assert "38°" not in page.replace(hidden, "")


def test_latex_asks_and_does_not_answer(tmp_path):
    result = built(tmp_path, "latex")
    assert result.returncode == 0, result.stderr
    page = next((tmp_path / "latex").glob("*.tex")).read_text()
    question = page.partition("\\begin{quote}")[2].partition("\\end{quote}")[0]
    assert "Predict, then see" in question
    assert "{large} is it?" in question
    assert "38°" not in page


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{predict} fig-it", "{predict} fig-that", "no figure 'fig-that'"),
        ("{literal}`38°`", "38°", "an answer must be"),
    ],
)
def test_a_prediction_that_would_cover_nothing_or_is_typed_stops_the_build(tmp_path, old, new, said):
    result = built(tmp_path, "html", PAGE.replace(old, new))
    assert result.returncode != 0
    assert said in result.stderr
