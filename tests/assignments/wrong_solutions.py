"""Wrong solutions of the problem sets: each a small change of the right one, and the points that it must lose."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wrong:
    """A change of one answer: ``old`` becomes ``new``; without ``old``, the whole answer is ``new``."""

    name: str
    answer: str
    old: str
    new: str
    loses: dict[str, float]


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
}

HOSTILE = {
    "loops forever": ("ps1-step", "def l2_step(adv, origin, gradient, eps, step_size):\n    while True:\n        pass"),
    "ignores interrupts": (
        "ps1-start",
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
    ),
    "prints 100 MB": ("ps1-start", "for _ in range(100_000):\n    print('x' * 1000)"),
    "deletes its files": (
        "ps1-start",
        "import os, shutil\n"
        "for folder in ('.', '..', os.path.expanduser('~'), VICTIM):\n"
        "    shutil.rmtree(folder, ignore_errors=True)\n"
        "raise SystemExit",
    ),
    "raises at import": ("ps1-start", "import a_module_that_is_not_there"),
    "kills its kernel": ("ps1-start", "import os\nos.kill(os.getppid(), 9)\nos._exit(0)"),
    "takes all memory": ("ps1-start", "hoard = []\nwhile True:\n    hoard.append(torch.ones(25_000_000))"),
}
"""What a submission may do to the grader: answer that it takes the place of, and code."""
