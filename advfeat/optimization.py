"""Gradient descent as a training uses it: SGD, the learning rate at every step, and the average of late weights."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from advfeat import inputs
from advfeat.hyperparameters import TrainConfig


class _SGD(torch.optim.SGD):
    """PyTorch's SGD, to the bit, unknown to ``torch.compile``.

    PyTorch wraps these methods, and the first call imports its compiler: 1.4 s of every process that trains.
    """

    add_param_group = inspect.unwrap(torch.optim.SGD.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.SGD.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.SGD.state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))
    zero_grad = inspect.unwrap(torch.optim.SGD.zero_grad)


def optimizer_of(model: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    """SGD with Nesterov momentum on the weights that are trained; the decay spares biases and BatchNorm."""
    inputs.network(model)
    inputs.instance("config", config, TrainConfig, "a TrainConfig")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return _SGD(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
    )


def rate_factor(config: TrainConfig, steps: int) -> Callable[[int], float]:
    """Factor of the learning rate at step t, from 0 on, of a training of so many ``steps``.

    It rises to 1 over the first ``warmup`` of the steps. Then it falls to 0 in a straight line, or, where the training
    has ``drops``, it is a tenth of what it was after each of them.
    """
    inputs.instance("config", config, TrainConfig, "a TrainConfig")
    inputs.whole("steps", steps, least=0)
    rise = config.warmup * steps

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        if config.drops:
            return 0.1 ** sum(step >= share * steps for share in config.drops)
        return max(0.0, (steps - step) / max(1.0, steps - rise))

    return factor


class WeightAverage:
    """The mean of a network's weights, and of the statistics of its BatchNorm, over the last steps of a training.

    Args:
        model: the network; ``add`` looks at its values, and ``settle`` replaces them.
        share: of the steps, the last ones, that count; 0: none, and nothing is done.
        steps: of the whole training.

    Source: Izmailov et al. 2018, who compute the statistics anew; here they are averaged, too, which needs no pass.
    """

    def __init__(self, model: nn.Module, share: float, steps: int) -> None:
        inputs.network(model)
        inputs.number("share", share, least=0, most=1)
        inputs.whole("steps", steps, least=0)
        self._model, self._steps, self._begin = model, steps, steps - math.ceil(share * steps)
        self._seen = 0
        self._means: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self) -> None:
        """Take note of a step: its weights count if it is late enough."""
        self._seen += 1
        added = self._seen - self._begin
        if added <= 0:
            return
        for name, value in self._model.state_dict().items():
            if value.is_floating_point():
                # In float64, so that thousands of additions of 1/n of a difference do not wear the mean away.
                mean = self._means.setdefault(name, torch.zeros_like(value, dtype=torch.float64))
                mean += (value.double() - mean) / added

    @torch.no_grad()
    def settle(self) -> None:
        """Give the network the means, if this was the last step and any step counts."""
        if self._means and self._seen == self._steps:
            self._model.load_state_dict({**self._model.state_dict(), **self._means})

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` takes, to go on elsewhere; empty where no step counts."""
        return {"seen": self._seen, "means": self._means} if self._begin < self._steps else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._seen, self._means = state.get("seen", 0), dict(state.get("means", {}))
