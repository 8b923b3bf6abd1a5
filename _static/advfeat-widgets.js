// What a reader can try on the pages: attacks and Gaussians with a slider, and predictions before a figure is shown.
// Everything shown was computed by the chapters. The script only draws; it loads nothing, and stores nothing but a
// prediction, for the session. Without it, and in print, every page shows still pictures and all figures.
"use strict";

document.documentElement.classList.add("advfeat-js");

(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const percent = (share) => `${Math.round(100 * share)}%`;
  let made = 0;
  const fresh = (name) => `advfeat-${name}-${++made}`;

  /** Put attributes and children on an element: functions listen to the event of their name, null is left out. */
  function dress(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") element.addEventListener(name, value);
      else if (value !== null) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }
  const html = (tag, attributes = {}, ...children) => dress(document.createElement(tag), attributes, children);
  const svg = (tag, attributes = {}, ...children) => dress(document.createElementNS(SVG, tag), attributes, children);

  /** A slider over the radii with its label and value; tells `changed` the place of the radius. */
  function radiusSlider(radii, start, changed) {
    const id = fresh("radius");
    const input = html("input", { type: "range", id, min: 0, max: radii.length - 1, step: 1, value: start });
    const value = html("span", { class: "advfeat-value" });
    const digits = Math.max(...radii.map((radius) => `${radius}`.split(".")[1]?.length ?? 0));
    const update = () => {
      const words = changed(Number(input.value));
      value.textContent = radii[input.value].toFixed(digits);
      input.setAttribute("aria-valuetext", `${value.textContent}: ${words}`);
    };
    input.addEventListener("input", update);
    const label = html("label", { for: id }, "Radius ", html("i", {}, "ε"));
    return { row: html("div", { class: "advfeat-slider" }, label, input, value), update };
  }

  // ---- Chapter 1: attacks of growing radius -------------------------------------------------------------------

  function attacks(data) {
    const { classes, pictures, radii, gain } = data;
    let chosen = 0;
    const address = (code) => `data:image/png;base64,${code}`;
    const panes = ["original", `change × ${gain}`, "attacked"].map((name) => {
      const image = html("img", { alt: "" });
      return { image, figure: html("div", { class: "advfeat-pane" }, image, html("span", {}, name)) };
    });
    const bars = classes.map((name) => {
      const bar = html("span", { class: "advfeat-bar" });
      const share = html("span", { class: "advfeat-share" });
      const track = html("span", { class: "advfeat-track" }, bar);
      return { bar, share, row: html("li", {}, html("span", { class: "advfeat-class" }, name), track, share) };
    });
    const verdict = html("p", { class: "advfeat-verdict" });

    const slider = radiusSlider(radii, 0, (at) => {
      const { label, attacked, change, answers } = pictures[chosen];
      const shares = answers[at];
      const answer = shares.indexOf(Math.max(...shares));
      const words = `${classes[answer]}, ${percent(shares[answer])}`;
      [attacked[0], change[at], attacked[at]].forEach((code, pane) => (panes[pane].image.src = address(code)));
      panes[0].image.alt = `The original image, labelled ${classes[label]}`;
      panes[1].image.alt = at ? `The change, ${gain} times as large, around grey` : "Plain grey: nothing is changed";
      panes[2].image.alt = `The image attacked within ${radii[at]}; the network answers ${words}`;
      bars.forEach(({ bar, share, row }, place) => {
        bar.style.width = `${100 * shares[place]}%`;
        share.textContent = percent(shares[place]);
        row.className = place === label ? "advfeat-right" : place === answer ? "advfeat-wrong" : "";
      });
      const right = answer === label;
      verdict.replaceChildren(
        "The network answers ",
        html("b", {}, `${classes[answer]} (${percent(shares[answer])})`),
        right ? ", which is the label." : `. The label is ${classes[label]}.`
      );
      verdict.classList.toggle("advfeat-fooled", !right);
      return `the network answers ${words}${right ? ", the label" : `; the label is ${classes[label]}`}`;
    });

    const name = fresh("picture");
    const choices = pictures.map(({ label, attacked }, place) => {
      const change = () => { chosen = place; slider.update(); };
      const input = html("input", { type: "radio", name, change });
      input.checked = place === 0;
      return html("label", {}, input, html("img", { src: address(attacked[0]), alt: classes[label] }));
    });
    slider.update();
    return html(
      "div",
      { role: "group", "aria-label": "Attacks of growing radius" },
      html("fieldset", { class: "advfeat-choices" }, html("legend", {}, "Image"), ...choices),
      slider.row,
      html("div", { class: "advfeat-panes" }, ...panes.map(({ figure }) => figure)),
      verdict,
      html("ul", { class: "advfeat-bars", "aria-label": "The network’s answer, by class" }, ...bars.map(({ row }) => row))
    );
  }

  // ---- Chapter 7: the robust fit to two Gaussian classes ------------------------------------------------------

  const UNIT = 40; // pixels of the drawing; it is 11 units wide and 8 high, and its second axis points up
  const CLASSES = ["advfeat-plus", "advfeat-minus"]; // of the labels +1 and -1
  const at = ([x, y]) => [(UNIT * (x + 5.5)).toFixed(1), (UNIT * (4 - y)).toFixed(1)];
  const line = (points) => `M${points.map((point) => at(point).join(" ")).join("L")}`;

  /** The points at `radius` standard deviations from `mean`, for covariance [[a, b], [b, c]]. */
  function ellipse(mean, [[a, b], [, c]], radius) {
    const root = [Math.sqrt(a), b / Math.sqrt(a)];
    const rest = Math.sqrt(c - root[1] ** 2);
    const points = Array.from({ length: 73 }, (_, step) => {
      const [u, v] = [Math.cos, Math.sin].map((wave) => radius * wave((step * Math.PI) / 36));
      return [mean[0] + root[0] * u, mean[1] + root[1] * u + rest * v];
    });
    return `${line(points)}Z`;
  }

  function gaussians({ points, stops }) {
    const signs = [1, -1];
    const times = (factor, vector) => vector.map((part) => factor * part);
    const tipOf = (vector) => times(2.8 / Math.hypot(...vector), vector);
    const dots = points.flatMap((cloud, of) => cloud.map((point) => {
      const [cx, cy] = at(point);
      return svg("circle", { class: CLASSES[of], cx, cy, r: 2.2 });
    }));
    const paths = (kind) => signs.map((_, of) => svg("path", { class: `advfeat-${kind} ${CLASSES[of]}` }));
    const [outer, inner, moves] = [paths("ellipse"), paths("ellipse"), paths("moves")];
    const border = svg("path", { class: "advfeat-border" });
    const arrow = (kind, text) => ({
      path: svg("path", { class: `advfeat-arrow advfeat-${kind}` }),
      text: svg("text", { class: `advfeat-${kind}` }, text),
    });
    const [mean, gradient] = [arrow("mean", "μ"), arrow("gradient", "Σ⁻¹μ")];
    const rulerAt = [4.45, -2.95];
    const box = svg("rect", { class: "advfeat-corner", x: 352, y: 232, width: 84, height: 84 });
    const ruler = svg("path", { class: "advfeat-ruler advfeat-gradient" });
    const circle = svg("path", { class: "advfeat-ruler advfeat-circle", d: ellipse(rulerAt, [[0.16, 0], [0, 0.16]], 1) });
    const facts = [
      "angle between μ and the gradient", "standard deviations, by coordinate",
      "accuracy without attack", "accuracy attacked within this radius",
    ].map((name) => ({ name, value: html("dd") }));

    function point({ path, text }, vector, shift) {
      const tip = tipOf(vector);
      const back = times(0.92, tip);
      const aside = [-0.045 * tip[1], 0.045 * tip[0]];
      const barbs = signs.map((sign) => back.map((part, axis) => part + sign * aside[axis]));
      path.setAttribute("d", `${line([[0, 0], tip])} ${line([barbs[0], tip, barbs[1]])}`);
      const [x, y] = at(tip).map(Number);
      text.setAttribute("x", x + shift[0]);
      text.setAttribute("y", y + shift[1]);
    }

    const drawing = svg(
      "svg", { viewBox: "0 0 440 320", role: "img", class: "advfeat-plane" },
      ...dots, ...moves, ...outer, ...inner, border, mean.path, gradient.path, mean.text, gradient.text, box, circle, ruler
    );
    const radii = stops.map(({ radius }) => radius);
    const slider = radiusSlider(radii, 0, (place) => {
      const fit = stops[place];
      signs.forEach((sign, of) => {
        outer[of].setAttribute("d", ellipse(times(sign, fit.mean), fit.covariance, 2));
        inner[of].setAttribute("d", ellipse(times(sign, fit.mean), fit.covariance, 1));
        moves[of].setAttribute("d", fit.moved[of].map((end, dot) => line([points[of][dot], end])).join(""));
      });
      const [x, y] = fit.gradient;
      border.setAttribute("d", line([[-12 * -y, -12 * x], [12 * -y, 12 * x]]));
      point(mean, fit.mean, [8, 14]);
      point(gradient, fit.gradient, [8, -4]);
      const [[a, b], [, c]] = fit.covariance;
      const area = Math.sqrt(a * c - b * b) / 0.16;
      ruler.setAttribute("d", ellipse(rulerAt, [[a / area, b / area], [b / area, c / area]], 1));
      const angle = `${Math.round(fit.angle)}°`;
      const deviations = [a, c].map((variance) => Math.sqrt(variance).toFixed(2)).join(" and ");
      [angle, deviations, ...fit.accuracy.map(percent)].forEach((text, row) => (facts[row].value.textContent = text));
      const words = `${angle} between the means’ direction and the gradient, standard deviations ${deviations}`;
      drawing.setAttribute("aria-label", `The robust fit at radius ${fit.radius}: ${words}.`);
      return words;
    });
    slider.update();
    return html(
      "div", { role: "group", "aria-label": "The robust fit by the radius" },
      slider.row, drawing,
      html("dl", { class: "advfeat-facts" }, ...facts.map(({ name, value }) => html("div", {}, html("dt", {}, name), value)))
    );
  }

  const BUILDERS = { attacks, gaussians };

  /** Put the widget before its still picture, which a button then shows. */
  function build(root) {
    try {
      const live = BUILDERS[root.dataset.widget](JSON.parse(root.querySelector("script").textContent));
      const still = root.querySelector(".advfeat-still");
      still.id = fresh("still");
      const click = () => button.setAttribute("aria-expanded", root.classList.toggle("advfeat-with-still"));
      const attributes = { type: "button", "aria-expanded": false, "aria-controls": still.id, click };
      const button = html("button", attributes, "Still picture of several radii");
      live.classList.add("advfeat-live");
      live.append(button);
      root.prepend(live);
    } catch (error) {
      root.classList.add("advfeat-failed"); // shows the still picture
      console.error(error);
    }
  }

  // ---- Predict, then see --------------------------------------------------------------------------------------

  const memory = {
    read(key) {
      try { return JSON.parse(sessionStorage.getItem(key)); } catch { return null; }
    },
    write(key, value) {
      try { sessionStorage.setItem(key, JSON.stringify(value)); } catch { /* then the session has no memory */ }
    },
  };

  const follows = (one, other) => one.compareDocumentPosition(other) & Node.DOCUMENT_POSITION_FOLLOWING;

  /** The numbers that the text quotes behind a question, to the end of the figure's section. */
  const numbersToCover = (box, figure) =>
    [...(figure.closest("section") ?? document).querySelectorAll(".pasted-text")].filter(
      (number) => follows(box, number) && !box.contains(number)
    );

  /** Outputs between a question and its figure, with the figure, and with the cells that follow it without a word. */
  function outputsToCover(box, figure) {
    let last = figure.closest(".cell") ?? figure;
    while (last.nextElementSibling?.classList.contains("cell")) last = last.nextElementSibling;
    return [...document.querySelectorAll(".cell_output")].filter(
      (output) => follows(box, output) && (last.contains(output) || follows(output, last))
    );
  }

  function predict(box) {
    const { figure: id, low, high, unit } = box.dataset;
    const [least, most] = [Number(low), Number(high)];
    const key = `advfeat-predict:${location.pathname}#${id}`;
    const figure = document.getElementById(id);
    const covered = figure ? outputsToCover(box, figure) : [];
    const quoted = figure ? numbersToCover(box, figure) : [];
    const list = box.querySelector(".advfeat-answers");
    const status = html("p", { class: "advfeat-status", role: "status" });
    const written = (value) => (unit === "°" || unit === "%" ? `${value}${unit}` : `${value} ${unit}`.trim());

    const rows = [...list.children].map((row) => {
      const [label, truth] = row.children;
      const found = parseFloat(truth.textContent); // NaN where a run did not measure it
      label.id = fresh("answer");
      const id = fresh("guess");
      const input = html("input", { type: "range", id, min: least, max: most, step: 1, "aria-labelledby": label.id });
      input.value = (least + most) / 2;
      const mark = html("span", { class: "advfeat-mark" });
      mark.style.setProperty("--place", (found - least) / (most - least));
      const guess = html("span", { class: "advfeat-value" });
      const update = () => {
        guess.textContent = written(input.value);
        input.setAttribute("aria-valuetext", guess.textContent);
        input.style.setProperty("--place", (input.value - least) / (most - least));
      };
      input.addEventListener("input", update);
      update();
      truth.before(html("span", { class: "advfeat-draw" }, input, mark), guess);
      truth.prepend("found: ");
      return { input, found, update };
    });

    const button = (text, click, name = "") => html("button", { type: "button", class: name, click }, text);
    const lock = button("Lock prediction", () => reveal(rows.map(({ input }) => Number(input.value))), "advfeat-main");
    const skip = button("Skip", () => reveal([]));
    const again = button("Start over", () => hide());
    const cover = covered.map((output) => {
      const words = html("p", {}, "Covered until you lock your prediction above.");
      const told = output.contains(figure) ? [words, button("Skip, and show it", () => reveal([]))] : [];
      return html("div", { class: "advfeat-cover" }, ...told);
    });

    /** Show the figure; `guesses` are numbers, or none if the reader skipped. */
    function reveal(guesses, moved = true) {
      memory.write(key, guesses);
      const focused = document.activeElement;
      covered.forEach((output, place) => { output.classList.remove("advfeat-covered"); cover[place].remove(); });
      quoted.forEach((number) => number.classList.remove("advfeat-number"));
      box.classList.remove("advfeat-open");
      box.classList.toggle("advfeat-skipped", guesses.length === 0);
      rows.forEach(({ input, update }, place) => {
        input.disabled = true;
        if (guesses.length) { input.value = guesses[place]; update(); }
      });
      const misses = guesses.map((guess, place) => Math.abs(guess - rows[place].found)).filter(Number.isFinite);
      const mean = misses.reduce((sum, miss) => sum + miss, 0) / misses.length;
      const off = unit === "%" ? `${mean.toFixed(0)} points` : written(mean.toFixed(0));
      status.textContent = misses.length ? `Locked. On average you were off by ${off}.` : "Shown without a prediction.";
      // The button that was pressed is gone, so the focus goes to what took its place.
      if (focused === lock || focused === skip) again.focus({ preventScroll: true });
      else if (moved && !focused.isConnected) figure.focus({ preventScroll: true });
    }

    function hide(moved = true) {
      memory.write(key, null);
      covered.forEach((output, place) => { output.classList.add("advfeat-covered"); output.append(cover[place]); });
      quoted.forEach((number) => number.classList.add("advfeat-number"));
      box.classList.add("advfeat-open");
      box.classList.remove("advfeat-skipped");
      rows.forEach(({ input }) => (input.disabled = false));
      status.textContent = "Drag the bars, or use the arrow keys.";
      if (moved) rows[0].input.focus({ preventScroll: true });
    }

    if (figure) figure.tabIndex = -1; // can take the focus from a button that covered it
    const before = memory.read(key);
    if (Array.isArray(before)) reveal(before, false);
    else hide(false);
    list.hidden = false;
    list.after(html("div", { class: "advfeat-buttons" }, lock, skip, again), status);
  }

  function start() {
    document.querySelectorAll(".advfeat-widget").forEach(build);
    document.querySelectorAll(".advfeat-predict").forEach(predict);
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
