"""What a reader can try on the pages, tried by keyboard and mouse, in the dark, on a phone, on paper, unscripted."""

from __future__ import annotations

import json
import math
import re

import pytest

pytestmark = pytest.mark.browser

ATTACKS, GAUSSIANS = "book/01-adversarial-examples.html", "book/07-gaussian-theory.html"
PREDICTIONS = {
    "book/04-robust-datasets.html": "fig-ch04-fig2b",
    "book/05-non-robust-features.html": "fig-ch05-answers",
    GAUSSIANS: "fig-ch07-figure4",
}
each_prediction = pytest.mark.parametrize("path", PREDICTIONS)


def numbers(widget):
    """The numbers that the chapter put on the page for a widget."""
    return json.loads(widget.locator("script").evaluate("script => script.textContent"))


def widget_on(page):
    if page.locator(".advfeat-predict.advfeat-open").count():
        page.get_by_role("button", name="Skip", exact=True).click()
    widget = page.locator(".advfeat-widget")
    widget.scroll_into_view_if_needed()
    return widget


def height(page):
    return page.evaluate("document.documentElement.scrollHeight")


# Attacks


def test_every_stop_of_the_slider_shows_the_answer_that_was_computed(open_page):
    widget = widget_on(open_page(ATTACKS))
    data = numbers(widget)
    slider = widget.get_by_role("slider", name="Radius ε")
    choices = widget.get_by_role("radio")
    assert choices.count() == len(data["pictures"]) >= 4
    fooled = 0
    for place, picture in enumerate(data["pictures"]):
        choices.nth(place).check()
        for at, answers in enumerate(picture["answers"]):
            slider.fill(str(at))
            said = data["classes"][answers.index(max(answers))]
            label = data["classes"][picture["label"]]
            verdict = widget.locator(".advfeat-verdict").inner_text()
            assert verdict.startswith(f"The network answers {said} ("), "not the likeliest class"
            assert ("which is the label" in verdict) == (said == label)
            fooled += said != label
            assert said in slider.get_attribute("aria-valuetext")
            sources = [image.get_attribute("src") for image in widget.locator(".advfeat-pane img").all()]
            shown = [picture["attacked"][0], picture["change"][at], picture["attacked"][at]]
            assert sources == [f"data:image/png;base64,{code}" for code in shown]
            assert all(image.get_attribute("alt") for image in widget.locator(".advfeat-pane img").all())
        bars = widget.locator(".advfeat-bars li")
        assert bars.count() == len(data["classes"])
        tracks = widget.locator(".advfeat-track")
        for place_of_class, share in enumerate(picture["answers"][-1]):
            width = tracks.nth(place_of_class).locator(".advfeat-bar").bounding_box()["width"]
            assert width == pytest.approx(share * tracks.nth(place_of_class).bounding_box()["width"], abs=1)
    assert fooled, "no attack of the slider succeeds"
    assert f"× {data['gain']:g}" in widget.inner_text(), "the gain is not stated"


def test_attacks_by_keyboard_alone(open_page):
    page = open_page(ATTACKS)
    widget = widget_on(page)
    widget.get_by_role("radio").first.focus()
    page.keyboard.press("ArrowRight")
    assert widget.get_by_role("radio").nth(1).is_checked()
    page.keyboard.press("Tab")
    slider = widget.get_by_role("slider")
    assert slider.evaluate("slider => slider === document.activeElement"), "Tab leads from the images to the slider"
    for key, value in (("ArrowRight", "1"), ("ArrowRight", "2"), ("ArrowLeft", "1"), ("Home", "0")):
        page.keyboard.press(key)
        assert slider.input_value() == value
    page.keyboard.press("End")
    assert "The label is" in widget.locator(".advfeat-verdict").inner_text()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert widget.locator(".advfeat-still").is_visible()
    assert widget.get_by_role("button").get_attribute("aria-expanded") == "true"
    page.keyboard.press("Enter")
    assert not widget.locator(".advfeat-still").is_visible()


def test_attacks_by_mouse(open_page):
    page = open_page(ATTACKS)
    widget = widget_on(page)
    data = numbers(widget)
    slider = widget.get_by_role("slider")
    box = slider.bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    assert slider.input_value() == str(len(data["radii"]) - 1)
    before = widget.locator(".advfeat-pane img").first.get_attribute("src")
    widget.locator(".advfeat-choices label").last.click()
    assert widget.locator(".advfeat-pane img").first.get_attribute("src") != before
    assert slider.input_value() == str(len(data["radii"]) - 1), "another image is shown at the same radius"


def test_a_moving_slider_moves_nothing_below_it(open_page):
    for width in (1280, 360):
        page = open_page(ATTACKS, width=width)
        widget = widget_on(page)
        heights = set()
        for place in range(widget.get_by_role("radio").count()):
            widget.get_by_role("radio").nth(place).check()
            for at in range(len(numbers(widget)["radii"])):
                widget.get_by_role("slider").fill(str(at))
                heights.add(height(page))
        assert len(heights) == 1, width


# Gaussians


def test_the_ellipses_and_the_words_are_those_of_the_fit(open_page):
    widget = widget_on(open_page(GAUSSIANS))
    data = numbers(widget)
    slider = widget.get_by_role("slider", name="Radius ε")
    plane = widget.get_by_role("img", name="The robust fit")
    unit = 40  # of the drawing
    for at in (0, len(data["stops"]) // 3, len(data["stops"]) - 1):
        slider.fill(str(at))
        stop = data["stops"][at]
        boxes = plane.locator(".advfeat-ellipse").evaluate_all(
            "paths => paths.map((path) => path.getBBox()).map(({width, height}) => [width, height])"
        )
        (one, _), (_, two) = stop["covariance"]
        for box, radius in zip(boxes, (2, 2, 1, 1), strict=True):
            wanted = [2 * radius * math.sqrt(variance) * unit for variance in (one, two)]
            assert box == pytest.approx(wanted, rel=0.01), "no level set of the covariance"
        angle = f"{stop['angle']:.0f}°"
        assert angle in widget.locator(".advfeat-facts").inner_text()
        assert angle in slider.get_attribute("aria-valuetext")
        assert angle in plane.get_attribute("aria-label")
    assert plane.locator("circle").count() == sum(map(len, data["points"]))


# Predict, then see


def tab_to(page, control):
    """Lead the focus to the next control; the formula of its label takes the focus, too."""
    for _ in range(2):
        if not control.evaluate("control => control === document.activeElement"):
            page.keyboard.press("Tab")
    assert control.evaluate("control => control === document.activeElement"), "Tab does not lead there"


def hidden_texts(page, figure):
    """Whether the figure, and the words below it, can be seen."""
    numbers_below = page.locator(f"section:has(> .cell #{figure}) .pasted-text >> visible=true")
    return page.locator(f"#{figure}").is_visible(), numbers_below.count()


@each_prediction
def test_a_prediction_by_keyboard_uncovers_what_was_found_and_nothing_jumps(open_page, path):
    page, figure = open_page(path), PREDICTIONS[path]
    box = page.locator(".advfeat-predict")
    visible, before = hidden_texts(page, figure)
    assert not visible, "the figure shows before the prediction"
    assert box.locator(".advfeat-found >> visible=true").count() == 0
    sliders = box.get_by_role("slider")
    sliders.first.focus()
    for slider in sliders.all():
        tab_to(page, slider)
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
    tab_to(page, box.get_by_role("button", name="Lock prediction"))
    assert {slider.input_value() for slider in sliders.all()} == {"1"}
    tall, place = height(page), page.evaluate("scrollY")
    page.keyboard.press("Enter")
    assert height(page) == tall
    assert page.evaluate("scrollY") == place
    visible, after = hidden_texts(page, figure)
    assert visible
    assert after > before, "the numbers of the text stay covered"
    assert box.locator(".advfeat-found >> visible=true").count() == sliders.count()
    assert not any(slider.is_enabled() for slider in sliders.all())
    texts = box.locator(".advfeat-found").all_inner_texts()
    found = [float(text.removeprefix("found: ").rstrip("%°")) for text in texts]
    off = sum(abs(value - 1) for value in found) / len(found)
    (told,) = re.findall(r"off by (\d+)", box.get_by_role("status").inner_text())
    assert abs(int(told) - off) <= 0.5 + 1e-6  # halves go up in a browser, and to even numbers in Python
    assert page.evaluate("document.activeElement.textContent") == "Start over"
    page.keyboard.press("Enter")
    assert not page.locator(f"#{figure}").is_visible()
    assert height(page) == tall


@each_prediction
def test_a_bar_is_drawn_by_mouse_and_kept_for_the_session(open_page, path):
    page, figure = open_page(path), PREDICTIONS[path]
    slider = page.locator(".advfeat-predict").get_by_role("slider").first
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 10, steps=5)
    page.mouse.up()
    assert slider.input_value() == slider.get_attribute("max")
    page.get_by_role("button", name="Lock prediction").click()
    assert page.locator(f"#{figure}").is_visible()
    page.reload()
    assert page.locator(f"#{figure}").is_visible()
    assert slider.input_value() == slider.get_attribute("max")
    assert "off by" in page.locator(".advfeat-predict").get_by_role("status").inner_text()


@each_prediction
def test_a_covered_figure_says_so_and_shows_itself_on_demand(open_page, path):
    page, figure = open_page(path, width=360, theme="dark"), PREDICTIONS[path]
    output = page.locator(f".cell_output:has(#{figure})")
    assert "Covered until you lock your prediction above." in output.inner_text()
    output.get_by_role("button", name="Skip, and show it").click()
    assert page.locator(f"#{figure}").is_visible()
    assert page.evaluate(f"document.activeElement.id === '{figure}'"), "the focus is lost"
    box = page.locator(".advfeat-predict")
    assert box.get_by_role("status").inner_text() == "Shown without a prediction."
    assert box.locator(".advfeat-found >> visible=true").count()
    assert not box.get_by_role("slider").first.is_visible()


def test_a_browser_that_refuses_to_remember_predicts_all_the_same(open_page):
    path = "book/05-non-robust-features.html"
    page = open_page(path)
    page.add_init_script("Object.defineProperty(window, 'sessionStorage', {get() { throw new Error('refused') }})")
    page.complaints.clear()
    page.reload()
    refused = [text for text in page.complaints if "refused" in text]
    page.get_by_role("button", name="Lock prediction").click()
    assert page.locator(f"#{PREDICTIONS[path]}").is_visible()
    assert [text for text in page.complaints if "refused" in text] == refused, "an error of this script"
    page.complaints.clear()  # other scripts of the theme may ask for the memory, too


# Without the script, on paper, on a phone


@pytest.mark.parametrize("path", [ATTACKS, *PREDICTIONS])
@pytest.mark.parametrize("how", [{"javascript": False}, {"media": "print"}])
def test_without_the_script_and_on_paper_everything_shows(open_page, path, how):
    page = open_page(path, **how)
    for still in page.locator(".advfeat-still").all():
        still.scroll_into_view_if_needed()
        assert still.is_visible()
        assert still.evaluate("image => image.complete && image.naturalWidth > 300")
    for part in (".advfeat-live", ".advfeat-cover", ".advfeat-answers", ".advfeat-predict button"):
        assert page.locator(f"{part} >> visible=true").count() == 0, part
    if path in PREDICTIONS:
        assert page.locator(f"#{PREDICTIONS[path]}").is_visible()
        assert "?" in page.locator(".advfeat-predict").inner_text()
    covered = page.locator(".advfeat-number")
    assert {number.evaluate("number => getComputedStyle(number).visibility") for number in covered.all()} <= {"visible"}
    if path in PREDICTIONS and "media" in how:
        assert covered.count(), "what this test looks at is gone"
    if not how.get("javascript", True):
        page.complaints.clear()  # that scripts are refused is meant


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", [ATTACKS, *PREDICTIONS])
def test_widgets_fit_a_phone(open_page, path, theme):
    page = open_page(path, width=360, theme=theme)
    if page.locator(".advfeat-predict.advfeat-open").count():
        page.get_by_role("button", name="Skip", exact=True).click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for part in page.locator(".advfeat-live, .advfeat-predict").all():
        box = part.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
        wide = part.evaluate("part => part.scrollWidth - part.clientWidth")
        assert wide <= 0
        for control in part.get_by_role("slider").all() + part.get_by_role("button").all():
            if control.is_visible():
                assert control.bounding_box()["height"] >= 24, "too small for a finger"


@pytest.mark.parametrize("path", [ATTACKS, *PREDICTIONS])
def test_words_of_the_widgets_are_legible_in_both_themes(open_page, path):
    contrast = """part => {
      const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
      const light = (color) => color.match(/[\\d.]+/g).map(Number)
        .reduce((sum, v, i) => sum + (i < 3 ? channel(v) * [0.2126, 0.7152, 0.0722][i] : 0), 0);
      const paper = (element) => {
        const color = getComputedStyle(element).backgroundColor;
        return /, 0\\)$|transparent/.test(color) ? paper(element.parentElement) : color;
      };
      const words = [...part.querySelectorAll("*")].filter((element) => element.offsetParent
        && [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
      return Math.min(...words.map((element) => {
        const [a, b] = [light(getComputedStyle(element).color), light(paper(element))].sort((x, y) => y - x);
        return (a + 0.05) / (b + 0.05);
      }));
    }"""
    for theme in ("light", "dark"):
        page = open_page(path, theme=theme)
        if page.locator(".advfeat-predict.advfeat-open").count():
            page.get_by_role("button", name="Lock prediction").click()
        for part in page.locator(".advfeat-live, .advfeat-predict").all():
            assert part.evaluate(contrast) >= 4.5, theme
