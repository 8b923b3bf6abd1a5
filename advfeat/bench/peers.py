"""Other attack libraries, each called for the one attack that the benchmark compares: the only file that imports them.

The extra ``bench`` installs them into an environment of their own, because torchattacks needs a version of requests
that current versions of Sphinx refuse. Every library makes the same attack: ℓ2 projected gradient descent on the
cross-entropy, started at the images, with a fixed absolute step size, last iterate. All other settings of a library
keep their defaults.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn

PreparedAttack = Callable[[], Tensor]


@dataclass(frozen=True)
class Setting:
    """The input of every contender: a model in eval mode, images in [0, 1] with labels, radius, steps, step size."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    eps: float
    steps: int
    step_size: float


def torchattacks(setting: Setting) -> PreparedAttack:
    """``PGDL2`` of Kim 2020."""
    from torchattacks import PGDL2

    attack = PGDL2(
        _RowMajor(setting.model).eval(),
        eps=setting.eps,
        alpha=setting.step_size,
        steps=setting.steps,
        random_start=False,
    )
    return lambda: attack(setting.images, setting.labels)


def foolbox(setting: Setting) -> PreparedAttack:
    """``L2ProjectedGradientDescentAttack`` of Rauber et al. 2020."""
    from foolbox import PyTorchModel
    from foolbox.attacks import L2ProjectedGradientDescentAttack

    wrapped = PyTorchModel(setting.model, bounds=(0, 1), device=setting.images.device)
    attack = L2ProjectedGradientDescentAttack(abs_stepsize=setting.step_size, steps=setting.steps, random_start=False)
    # Foolbox returns three results; the second is the iterate inside the ball and the box.
    return lambda: attack(wrapped, setting.images, setting.labels, epsilons=setting.eps)[1]


def art(setting: Setting) -> PreparedAttack:
    """``ProjectedGradientDescentPyTorch`` of Nicolae et al. 2018, which takes and returns NumPy arrays."""
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    with torch.no_grad():
        classes = setting.model(setting.images[:1]).shape[1]
    device = setting.images.device
    wrapped = PyTorchClassifier(
        setting.model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(setting.images.shape[1:]),
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type="gpu" if device.type == "cuda" else "cpu",
    )
    attack = ProjectedGradientDescentPyTorch(
        wrapped,
        norm=2,
        eps=setting.eps,
        eps_step=setting.step_size,
        max_iter=setting.steps,
        batch_size=len(setting.images),
        verbose=False,
    )
    images, labels = setting.images.cpu().numpy(), setting.labels.cpu().numpy()
    return lambda: torch.from_numpy(attack.generate(images, labels)).to(device)


def robustness(setting: Setting) -> PreparedAttack:
    """``Attacker`` of Engstrom et al. 2019, by the paper's authors; without ``use_best`` it gives the last iterate."""
    from robustness.attacker import Attacker

    class Plain:
        """No normalisation: the model does it."""

        mean, std = torch.zeros(3), torch.ones(3)

    attack = Attacker(setting.model, Plain).to(setting.images.device).eval()
    settings = {"constraint": "2", "eps": setting.eps, "step_size": setting.step_size, "iterations": setting.steps}

    def run() -> Tensor:
        with _without_cuda_calls(setting.images.device):
            adv: Tensor = attack(setting.images, setting.labels, use_best=False, **settings)
            return adv

    return run


class _RowMajor(nn.Module):
    """The model, with gradients in the memory layout of the images: torchattacks calls ``view``, which needs it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        # The backward pass of this reshaping makes the gradient contiguous.
        logits: Tensor = self.model(images.flatten(1).view(images.shape))
        return logits


PEERS: dict[str, tuple[str, Callable[[Setting], PreparedAttack]]] = {
    "torchattacks": ("torchattacks", torchattacks),
    "foolbox": ("foolbox", foolbox),
    "art": ("adversarial-robustness-toolbox", art),
    "robustness": ("robustness", robustness),
}
"""Name → (distribution, maker of the attack)."""


def presence() -> tuple[dict[str, str], dict[str, str]]:
    """Name → version of the peers that can be imported here, and name → reason for those that cannot."""
    present, absent = {}, {}
    for name, (distribution, _) in PEERS.items():
        try:
            known = version(distribution)
            importlib.import_module(name)
        except PackageNotFoundError:
            absent[name] = "not installed"
        except Exception as error:  # noqa: BLE001 - any failure of an old library becomes its row in the table
            absent[name] = f"{known} cannot be imported: {first_line(error)}"
        else:
            present[name] = known
    return present, absent


def first_line(error: Exception) -> str:
    """The first line of an exception, after its type."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:120]


@contextmanager
def _without_cuda_calls(device: torch.device) -> Iterator[None]:
    """Let ``Tensor.cuda`` do nothing on a CPU: robustness 1.2.1 calls it in every attack and has no other path."""
    if device.type == "cuda":
        yield
        return
    original = torch.Tensor.cuda
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.cuda = original  # type: ignore[method-assign]
