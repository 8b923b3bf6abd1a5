"""BatchNorm folded into convolutions: fewer passes through memory for the same answers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from advfeat.engine.compiled_layers import put_in, take_out
from advfeat.engine.convolution_code import engine

# Layers that in eval mode treat each image on its own and draw nothing at random. Any other layer is refused. A
# function is trusted unless it is listed further down.
KNOWN: set[type[nn.Module]] = {
    nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.Identity, nn.Flatten, nn.Unflatten,
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.PixelShuffle, nn.PixelUnshuffle,
    nn.Upsample, nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU,
    nn.Mish, nn.Softplus, nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softmax,
}  # fmt: skip
# Layers that return their input in eval mode.
DROPOUT: set[type[nn.Module]] = {nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout}
# Functions that draw at random or mix images in training mode → position and default of their argument ``training``.
TRAINING = {
    "dropout": (2, True), "dropout1d": (2, True), "dropout2d": (2, True), "dropout3d": (2, True),
    "alpha_dropout": (2, False), "feature_alpha_dropout": (2, False), "batch_norm": (5, False),
}  # fmt: skip
RANDOM_FUNCTIONS = {
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "bernoulli", "poisson",
    "binomial", "multinomial", "rrelu", "rrelu_", "normal_", "uniform_", "random_", "bernoulli_", "exponential_",
    "cauchy_", "geometric_", "log_normal_",
}  # fmt: skip


def fold(features: nn.Module, *, through_pooling: bool) -> fx.GraphModule:
    """``features`` with each BatchNorm folded into the convolution before it.

    w' = w · γ/√(σ² + ε) and b' = β + (b − μ) · γ/√(σ² + ε), exact up to rounding. A BatchNorm after any other layer, or
    after a convolution whose output has other users, stays; dropout is removed. The layers of ``features`` are changed
    in place: pass a copy in eval mode. ``meta["folds"]`` maps each convolution to its BatchNorm, for ``refold``.

    Args:
        through_pooling: fold also where a max-pooling lies between the two and every γ is positive; a maximum commutes
            with increasing maps only.

    Raises:
        TypeError: a layer that is not in ``KNOWN`` or ``DROPOUT``, works across the images of a batch or has hooks, a
            BatchNorm without running statistics, a function that draws at random (``RANDOM_FUNCTIONS``) or is called in
            training mode (``TRAINING``), or control flow that depends on the input. The message names it, with the
            reason. ``batch_independence`` tries out whether the other functions treat each image on its own.
    """
    forget_layout(features)
    graph, tracer = _traced(features)
    layers: dict[str, Any] = dict(features.named_modules())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    # Weights that are also read outside their layer must stay as they are.
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    folds: dict[str, str] = {}
    for node in list(graph.nodes):
        _check(node, layers)
        if node.op != "call_module":
            continue
        layer, before = layers[node.target], _input(node)
        if type(layer) in DROPOUT:
            _bypass(node)
        elif isinstance(layer, nn.BatchNorm2d):
            if through_pooling and _feeds_only_this(before, nn.MaxPool2d, layers) and _increasing(layer):
                before = _input(before)
            # A convolution that is called twice would need two sets of weights.
            alone = _feeds_only_this(before, nn.Conv2d, layers) and calls[before.target] == 1
            if alone and before.target not in read:
                convolution = layers[before.target]
                convolution.weight, convolution.bias = _folded(convolution, layer)
                folds[before.target] = node.target
                _bypass(node)
    folded = fx.GraphModule(tracer.root, graph)
    folded.meta["folds"] = folds
    return folded


@torch.no_grad()
def refold(folded: nn.Module, features: nn.Module) -> None:
    """Bring ``folded``, made from a copy of ``features``, up to date with the weights and statistics of the original.

    Only weights are written: nothing is traced, and no value is read back, so the host does not wait for a GPU.

    Raises:
        ValueError: ``folded`` was not made from a network with the layers of ``features``.
    """
    folds: dict[str, str] = getattr(folded, "meta", {}).get("folds", {})
    originals = dict(features.named_modules())
    for name, layer in folded.named_modules():
        tensors = dict([*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)])
        if not tensors:
            continue
        original, norm = originals.get(name), originals.get(folds.get(name, name))
        if original is None or norm is None:
            raise ValueError(f"the folded network has a layer {name!r} that the original has not")
        fresh: dict[str, Any] = {key: getattr(original, key, None) for key in tensors}
        if name in folds:
            fresh["weight"], fresh["bias"] = _folded(original, norm)
        for key, tensor in tensors.items():
            if fresh[key] is None or fresh[key].shape != tensor.shape:
                raise ValueError(f"{key} of layer {name!r} does not fit the original's")
            tensor.copy_(fresh[key])


def open_last_relu(folded: fx.GraphModule, leak: float) -> None:
    """Make the last ReLU, if there is one, pass on ``leak`` of the gradient where its output is 0."""
    layers: dict[str, Any] = dict(folded.named_modules())
    for node in reversed(folded.graph.nodes):
        called = node.op == "call_function" and node.target in (F.relu, F.relu_, torch.relu, torch.relu_)
        called |= node.op == "call_method" and node.target in ("relu", "relu_")
        if called or (node.op == "call_module" and isinstance(layers[str(node.target)], nn.ReLU)):
            folded.add_submodule("open_relu", _LeakyGradientReLU(leak))
            with folded.graph.inserting_after(node):
                opened = folded.graph.call_module("open_relu", (_input(node),))
            node.replace_all_uses_with(opened)
            folded.graph.erase_node(node)
            folded.recompile()
            return


class _LeakyGradientReLU(nn.Module):
    """max(x, 0) with a gradient of ``leak`` instead of 0 where x is negative."""

    def __init__(self, leak: float) -> None:
        super().__init__()
        self.leak = leak

    def forward(self, inputs: Tensor) -> Tensor:
        """The difference is exactly 0, its gradient is not."""
        negative = inputs.clamp(max=0)
        return inputs.relu() + self.leak * (negative - negative.detach())


def _traced(features: nn.Module) -> tuple[fx.Graph, fx.Tracer]:
    _refuse_hooks(features, type(features).__name__)
    tracer, state = fx.Tracer(), torch.get_rng_state()
    try:
        graph = tracer.trace(features)
    except (fx.proxy.TraceError, RuntimeError) as error:
        raise TypeError(f"{type(features).__name__} cannot be traced, so it cannot be folded: {error}") from error
    # A random draw that does not depend on the input happens during tracing, and would become a constant.
    if not torch.equal(state, torch.get_rng_state()):
        raise TypeError(f"{type(features).__name__} draws at random, so an image would not get the same answer twice")
    return graph, tracer


def _refuse_hooks(layer: nn.Module, named: str) -> None:
    if layer._forward_pre_hooks or layer._forward_hooks:
        raise TypeError(f"{named} has hooks, which may change its output; remove them")


def _input(node: fx.Node) -> Any:
    return node.args[0] if node.args else node.kwargs["input"]


def _folded(convolution: Any, norm: Any) -> tuple[nn.Parameter, nn.Parameter]:
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)


def _check(node: fx.Node, layers: dict[str, Any]) -> None:
    if node.op == "call_module":
        layer = layers[str(node.target)]
        named = f"layer {node.target} ({type(layer).__name__})"
        if type(layer) not in KNOWN | DROPOUT:
            raise TypeError(f"{named} is not known to treat each image on its own; folding.KNOWN lists accepted layers")
        _refuse_hooks(layer, named)
        across = isinstance(layer, nn.Softmax | nn.Unflatten) and layer.dim in (0, None)
        if across or (isinstance(layer, nn.Flatten) and layer.start_dim == 0):
            raise TypeError(f"{named} works across the images of a batch")
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is None:
            raise TypeError(f"{named} keeps no running statistics: it would mix the images of a batch")
    elif node.op in ("call_function", "call_method"):
        name = str(getattr(node.target, "__name__", node.target))
        if name in RANDOM_FUNCTIONS:
            raise TypeError(f"{name} draws at random, so an image would not get the same answer twice")
        position, default = TRAINING.get(name, (0, False))
        training = node.args[position] if name in TRAINING and len(node.args) > position else default
        if name in TRAINING and node.kwargs.get("training", training) is not False:
            raise TypeError(f"{name} is called as in training, whatever the mode of the network")


def _bypass(node: Any) -> None:
    node.replace_all_uses_with(_input(node))
    node.graph.erase_node(node)


def _feeds_only_this(node: Any, kind: type[nn.Module], layers: dict[str, Any]) -> bool:
    """Whether ``node`` calls a layer of this kind whose output has one user only."""
    called = isinstance(node, fx.Node) and node.op == "call_module" and isinstance(layers[str(node.target)], kind)
    return called and len(node.users) == 1


def _increasing(norm: nn.BatchNorm2d) -> bool:
    return norm.affine and bool((norm.weight > 0).all())


def lay_out_for_float32(features: nn.Module) -> None:
    """On a CPU in float32: let the compiled convolutions compute; without them, rearrange the input of PyTorch's.

    Then wide convolutions on at most 8×8 points get their input channel by channel. All other layers have channels
    last, as in bfloat16 and on GPUs. But oneDNN's float32 kernels for channels last lose a third of the rate where an
    image is small and its channels are many: half of the work of a ResNet-18.
    """
    if engine().name == "winograd":
        put_in(features)
        return
    for layer in features.modules():
        if not isinstance(layer, nn.Conv2d) or layer.kernel_size[0] == 1:
            continue
        if min(layer.in_channels, layer.out_channels) >= 256:
            layer.weight.data = layer.weight.data.contiguous()  # a weight with channels last would decide the layout
            layer.register_forward_pre_hook(_small_by_channel)


def forget_layout(features: nn.Module) -> None:
    """Undo ``lay_out_for_float32``: a frozen network may be frozen once more."""
    take_out(features)
    for layer in features.modules():
        for key, hook in list(layer._forward_pre_hooks.items()):
            if hook is _small_by_channel:
                del layer._forward_pre_hooks[key]


def _small_by_channel(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (images,) = given
    small = images.shape[2] * images.shape[3] <= 64
    return (images.contiguous(memory_format=torch.contiguous_format if small else torch.channels_last),)
