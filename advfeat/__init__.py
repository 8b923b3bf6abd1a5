"""Code behind *Adversarial Examples Are Not Bugs, They Are Features*, executable edition.

Images are float32 in [0, 1], laid out (n, 3, height, width); radii, step sizes and distances are in those pixel
units. Normalisation happens inside the model. Randomness is always an argument.

The names that an experiment needs first are here. ``advfeat.train`` and ``advfeat.planted`` are modules, whose
functions are ``advfeat.train.train`` and ``advfeat.planted.planted``. Nothing is loaded before it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from advfeat.attacks import fgsm, pgd
    from advfeat.data import Dataset
    from advfeat.estimates import Estimate
    from advfeat.experiments.run import Run
    from advfeat.hyperparameters import TrainConfig
    from advfeat.image_files import cifar10, image_folder
    from advfeat.measures import accuracy
    from advfeat.models import build_model, freeze
    from advfeat.planted import PlantedWorld
    from advfeat.robustness import robust_accuracy
    from advfeat.threats import L2, Linf

__version__ = "0.1.0"

_HOME = {
    "L2": "threats",
    "Linf": "threats",
    "pgd": "attacks",
    "fgsm": "attacks",
    "Dataset": "data",
    "cifar10": "image_files",
    "image_folder": "image_files",
    "PlantedWorld": "planted",
    "build_model": "models",
    "freeze": "models",
    "TrainConfig": "hyperparameters",
    "Estimate": "estimates",
    "accuracy": "measures",
    "robust_accuracy": "robustness",
    "Run": "experiments.run",
}
_MODULES = ("features", "planted", "train")

__all__ = [
    "L2",
    "Dataset",
    "Estimate",
    "Linf",
    "PlantedWorld",
    "Run",
    "TrainConfig",
    "accuracy",
    "build_model",
    "cifar10",
    "fgsm",
    "freeze",
    "image_folder",
    "pgd",
    "robust_accuracy",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"advfeat.{name}")
    if name in _HOME:
        return getattr(import_module(f"advfeat.{_HOME[name]}"), name)
    raise AttributeError(f"module 'advfeat' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES, "__version__"})
