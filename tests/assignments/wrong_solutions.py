"""Wrong solutions of the problem sets: each a small change of the right one, and the points that it must lose."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wrong:
    """A change of one answer: ``old`` becomes ``new``; without ``old``, the whole answer is ``new``.

    ``alone``: made by a student who makes no other mistake, because others change what it costs.
    """

    name: str
    answer: str
    old: str
    new: str
    loses: dict[str, float]
    alone: bool = False


WRONG = {
    "ps1-attacks": [
        Wrong(
            "mean of the losses instead of their sum",
            "ps1-gradient",
            ', reduction="sum"',
            "",
            {"ps1-gradient-batch": 1},
        ),
        Wrong(
            "BatchNorm in training mode",
            "ps1-gradient",
            "    model.eval()\n",
            "",
            {"ps1-gradient-mode": 1},
        ),
        Wrong(
            "gradients leak into the weights",
            "ps1-gradient",
            "(gradient,) = torch.autograd.grad(loss, images)",
            "loss.backward()\n    gradient = images.grad",
            {"ps1-gradient-leak": 1},
        ),
        Wrong(
            "no projection",
            "ps1-step",
            "    change = change * (eps / norm(change).clamp(min=1e-30)).clamp(max=1)\n",
            "",
            {"ps1-step-visible": 1, "ps1-step-ball": 1},
        ),
        Wrong("no clamp", "ps1-step", ".clamp(0, 1)", "", {"ps1-step-box": 1}),
        # The detective needs attacks that go the right way; every other mistake leaves him his clues.
        Wrong(
            "flipped sign",
            "ps1-step",
            "adv + step_size * direction",
            "adv - step_size * direction",
            {"ps1-step-direction": 1, "ps1-detective-hidden": 3},
        ),
        Wrong(
            "one norm for the whole batch",
            "ps1-step",
            "gradient / norm(gradient).clamp(min=1e-30)",
            "gradient / gradient.norm()",
            {"ps1-step-ball": 1, "ps1-step-box": 1, "ps1-step-each": 1},
        ),
        Wrong("radius uniform", "ps1-start", " ** (1 / noise.shape[1])", "", {"ps1-start-uniform": 1}),
        Wrong(
            "global generator",
            "ps1-start",
            "torch.randn(images.shape, generator=generator)",
            "torch.randn(images.shape)",
            {"ps1-start-generator": 1},
        ),
        Wrong(
            "targeted the wrong way",
            "ps1-pgd",
            "-1 if targeted else 1",
            "1",
            {"ps1-pgd-targeted": 1, "ps1-detective-hidden": 3},
        ),
        Wrong(
            "best iterate instead of the last",
            "ps1-pgd",
            "    for _ in range(steps):\n"
            "        adv = l2_step(adv, images, sign * input_gradient(model, adv, labels), eps, step_size)\n"
            "    return adv",
            "    tried = [adv]\n"
            "    for _ in range(steps):\n"
            "        tried.append(\n"
            "            l2_step(tried[-1], images, sign * input_gradient(model, tried[-1], labels), eps, step_size)\n"
            "        )\n"
            "    loss = [sign * F.cross_entropy(model(x), labels, reduction='none').detach() for x in tried]\n"
            "    best = torch.stack(loss).argmax(0)\n"
            "    return torch.stack(tried)[best, torch.arange(len(images))]",
            {"ps1-pgd-last": 1},
        ),
    ],
    "ps2-features": [
        Wrong(
            "every image counts the same",
            "ps2-rho",
            "    centre = (yes.mean() + no.mean()) / 2\n"
            "    variance = ((yes - centre).square().mean() + (no - centre).square().mean()) / 2\n"
            "    return float((yes.mean() - no.mean()) / 2 / variance.sqrt())",
            "    return float((yes.mean() - no.mean()) / 2 / values.std(correction=0))",
            {"ps2-rho-balance": 1},
        ),
        Wrong("not centred", "ps2-rho", "centre = (yes.mean() + no.mean()) / 2", "centre = 0", {"ps2-rho-scale": 1}),
        Wrong("usefulness without its sign", "ps2-rho", "return float(", "return abs(", {"ps2-rho-sign": 1}),
        Wrong(
            "dual norm of another ball",
            "ps2-linear",
            "eps * weights.norm()",
            "eps * weights.abs().sum()",
            {"ps2-linear-formula": 1, "ps2-report-gamma": 1},
        ),
        Wrong(
            "reach not in units of the feature",
            "ps2-linear",
            "eps * weights.norm() / sigma",
            "eps * weights.norm()",
            {"ps2-linear-formula": 1, "ps2-linear-scale": 1, "ps2-report-gamma": 1},
        ),
        Wrong(
            "every image pushed down",
            "ps2-search",
            "torch.where(positive, -1.0, 1.0)",
            "-torch.ones(len(images))",
            {"ps2-search-linear": 2, "ps2-search-curved": 1},
        ),
        Wrong(
            "rescaled after the attack",
            "ps2-search",
            "clean, attacked = function(images), function(adv)",
            "clean = attacked = function(adv)",
            {"ps2-search-linear": 2, "ps2-search-curved": 1},
        ),
        Wrong("no clamp", "ps2-search", ".clamp(0, 1)", "", {"ps2-search-box": 1}),
        Wrong(
            "filter of the shape",
            "ps2-filter",
            "return torch.fft.ifft2(torch.fft.fft2(difference) * fine).real",
            "return difference",
            {"ps2-filter-nonrobust": 1},
        ),
        Wrong(
            "judged by the images that it was built from",
            "ps2-report",
            "",
            "mine = build_filter(workbench.images, workbench.labels, 3)\n"
            "is_three = workbench.labels == 3\n"
            "report = {\n"
            "    'rho': usefulness((workbench.images * mine).flatten(1).sum(1), is_three),\n"
            "    'gamma': linear_gamma(mine, workbench.images, is_three, eps=0.5),\n"
            "}",
            {"ps2-report-rho": 1, "ps2-report-gamma": 1},
            alone=True,
        ),
        Wrong(
            "all features weigh the same",
            "ps2-ensemble",
            "return rho / sigma",
            "return 1 / sigma",
            {"ps2-ensemble-signs": 1, "ps2-ensemble-weak": 1},
        ),
        Wrong(
            "weights without signs",
            "ps2-ensemble",
            "return rho / sigma",
            "return rho.abs() / sigma",
            {"ps2-ensemble-signs": 1},
        ),
        Wrong("units forgotten", "ps2-ensemble", "return rho / sigma", "return rho", {"ps2-ensemble-scales": 1}),
    ],
    "ps3-datasets": [
        Wrong("no clamp", "ps3-match", ".clamp(0, 1)", "", {"ps3-match-clamp": 1}),
        Wrong(
            "gradients leak into the weights",
            "ps3-match",
            "(gradient,) = torch.autograd.grad(distance.sum(), z)",
            "distance.sum().backward()\n        gradient = z.grad",
            {"ps3-match-leak": 1},
        ),
        Wrong(
            "labels of the starts",
            "ps3-dr",
            "step_size), labels, index",
            "step_size), labels[index], index",
            {"ps3-dr-labels": 1, "ps3-dr-signal": 2},
        ),
        Wrong("starts at the image itself", "ps3-dr", "randint(1, n,", "randint(0, n,", {"ps3-dr-starts": 1}),
        Wrong(
            "matches the start",
            "ps3-dr",
            "model.representation(images)",
            "model.representation(images[index])",
            {"ps3-dr-target": 1, "ps3-dr-signal": 2},
        ),
        Wrong(
            "standard network",
            "ps3-drset",
            "build_robust_set(robust",
            "build_robust_set(standard",
            {"ps3-dr-signal": 2},
        ),
        Wrong(
            "labels of the originals",
            "ps3-det",
            "det_labels = (originals.labels + 1) % 10\ndet_images = pgd(standard, originals.images, det_labels,",
            "det_labels = originals.labels\ndet_images = pgd(standard, originals.images, (det_labels + 1) % 10,",
            {"ps3-det-labels": 1},
        ),
        Wrong("attack away from the target", "ps3-det", ", targeted=True", "", {"ps3-det-target": 2}),
        Wrong("radius too large", "ps3-det", "L2(0.5)", "L2(2.0)", {"ps3-det-ball": 1}),
        Wrong(
            "measured on the images that it learned from",
            "ps3-learn",
            "",
            "learner = course.learn(det_images, det_labels)\n"
            "with torch.no_grad():\n"
            "    answers = learner(det_images).argmax(1)\n"
            "report = {\n"
            "    'own class': (answers == det_labels).float().mean().item(),\n"
            "    'next class': (answers == (det_labels + 1) % 10).float().mean().item(),\n"
            "}",
            {"ps3-learn-hidden": 4},
        ),
    ],
    "ps4-theory": [
        Wrong("covariance around zero", "ps4-mle", "z = x - y[:, None] * mean", "z = x", {"ps4-mle-covariance": 1}),
        Wrong("divided by n - 1", "ps4-mle", "/ len(z)", "/ (len(z) - 1)", {"ps4-mle-count": 1}),
        Wrong(
            "root of each entry",
            "ps4-robust",
            "    return basis @ torch.diag(inflated) @ basis.T",
            "    one = torch.eye(len(s), dtype=s.dtype)\n"
            "    inside = covariance / price + covariance @ covariance / 4\n"
            "    return covariance / 2 + one / price + inside.clamp(min=0).sqrt()",
            {"ps4-robust-matrix": 2, "ps4-angles-hidden": 3},
        ),
        Wrong(
            "budget not squared",
            "ps4-price",
            "math.log(eps**2)",
            "math.log(eps)",
            {"ps4-price-equation": 2, "ps4-price-range": 1, "ps4-angles-hidden": 2},
        ),
        Wrong(
            "search that gives up too early",
            "ps4-price",
            "ends = [math.log(root / (eps * (math.sqrt(float(end)) + eps / root))) for end in (s[-1], s[0])]",
            "ends = [-4.0, 4.0]",
            {"ps4-price-range": 1},
        ),
        Wrong(
            "adversary that helps",
            "ps4-attack",
            "return x + torch",
            "return x - torch",
            {"ps4-attack-condition": 1, "ps4-attack-refit": 1},
        ),
        Wrong(
            "covariance instead of its inverse",
            "ps4-alignment",
            "gradient = torch.linalg.solve(covariance, mean)",
            "gradient = covariance @ mean",
            {"ps4-alignment-inverse": 1, "ps4-angles-hidden": 4},
        ),
        Wrong(
            "half of each eigenvector",
            "ps4-alignment",
            "s[-1].sqrt() * basis[:, -1] + s[0].sqrt() * basis[:, 0]",
            "basis[:, -1] + basis[:, 0]",
            {"ps4-alignment-worst": 2},
        ),
        Wrong(
            "angles in radians",
            "ps4-angles",
            "math.degrees(math.acos(alignment(world.mean, covariance)))",
            "math.acos(alignment(world.mean, covariance))",
            {"ps4-angles-hidden": 4},
        ),
        Wrong(
            "angles of another class",
            "ps4-angles",
            "",
            "angles = {0.0: 76.1646, 0.5: 55.5356, 1.0: 42.8163, 2.0: 28.2148}",
            {"ps4-angles-hidden": 4},
        ),
    ],
    "ps5-project": [
        Wrong(
            "split that no seed decides",
            "ps5-measure",
            "torch.randperm(len(dataset), generator=generator)",
            "torch.randperm(len(dataset))",
            {"ps5-measure-seed": 2, "ps5-report-values": 2},
        ),
        Wrong(
            "data changed in place",
            "ps5-measure",
            "    order = torch",
            "    dataset.images.mul_(0.999)\n    order = torch",
            {"ps5-measure-data": 1},
            alone=True,
        ),
        Wrong(
            "a number that asks no label",
            "ps5-measure",
            "return (answers == asked.labels).float().mean().item()",
            "return asked.images.mean().item()",
            {"ps5-measure-labels": 1},
            alone=True,
        ),
        Wrong(
            "best of five",
            "ps5-report",
            '"values": values.tolist()',
            '"values": [float(values.max())] * 5',
            {"ps5-report-values": 2, "ps5-report-interval": 2},
        ),
        Wrong("normal quantile", "ps5-report", "student.ppf(0.975, 4)", "1.96", {"ps5-report-interval": 2}),
        Wrong("spread of one run", "ps5-report", " / math.sqrt(5)", "", {"ps5-report-interval": 2}),
        Wrong(
            "control without shuffling",
            "ps5-report",
            "sample.labels[order]",
            "sample.labels",
            {"ps5-report-control": 1},
        ),
    ],
}
