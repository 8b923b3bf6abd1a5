"""Evaluation mode: networks that treat each image on its own, and BatchNorm on the statistics of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from advfeat import inputs


def check_eval(model: nn.Module) -> None:
    """Refuse a network that would mix the images of a batch, and remember them, by the modes of all its layers.

    The functions of a network outside its layers, such as a mean over the batch, are not looked at: only ``freeze``
    finds those.

    Raises:
        ValueError: the model, or a layer of it, is in training mode, or a BatchNorm keeps no running statistics.
    """
    inputs.network(model)
    if getattr(model, "on_batch_statistics", False):
        return
    if model.training:
        raise ValueError(
            "model is in training mode: its BatchNorm would mix the images; call model.eval() or freeze(model)"
        )
    for name, layer in model.named_modules():
        if layer.training:
            raise ValueError(
                f"model is in eval mode, but its layer {name} ({type(layer).__name__}) is in training mode, where "
                "images are mixed or changed at random; call model.eval() or freeze(model)"
            )
        if isinstance(layer, _BatchNorm) and layer.running_mean is None and layer.running_var is None:
            raise ValueError(
                f"layer {name} of model ({type(layer).__name__}) keeps no running statistics: it mixes the images of a "
                "batch in eval mode, too; make it with track_running_stats=True and train it"
            )


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Eval mode, except that BatchNorm computes with the statistics of the batch, which it does not keep.

    Images then depend on each other. ``check_eval`` lets the model pass, since here that is wanted.
    """
    model.eval()
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    tracking = [norm.track_running_stats for norm in norms]
    for norm in norms:
        norm.train()
        norm.track_running_stats = False
    model.on_batch_statistics = True  # type: ignore[assignment]
    try:
        yield
    finally:
        del model.on_batch_statistics
        model.eval()
        for norm, tracked in zip(norms, tracking, strict=True):
            norm.track_running_stats = tracked
