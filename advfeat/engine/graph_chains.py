"""Finds in the graph of a frozen network which compiled convolutions follow one another, and joins them into chains."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

from advfeat.engine.compiled_chains import chain
from advfeat.engine.compiled_layers import CompiledConv2d

_SUMS = (operator.add, operator.iadd, torch.add)


def join(features: fx.GraphModule) -> None:
    """Replace convolutions with the ReLUs and sums behind them by calls of ``chain``, as many as have one user each.

    Layers keep their names, and whoever traces the network anew, ``folding.fold`` for one, sees them one by one.
    """
    layers = dict(features.named_modules())
    taken: set[fx.Node] = set()
    for node in list(features.graph.nodes):
        if node not in taken and _calls(node, CompiledConv2d, layers):
            found = _Run(node, layers)
            taken.update(found.nodes)
            if len(found.nodes) > 1:
                _replace(features, found)
    features.recompile()


class _Run:
    """Nodes that one chain can take the place of, from a convolution on."""

    def __init__(self, first: fx.Node, layers: dict[str, Any]) -> None:
        self.nodes = [first]
        self.convolutions: list[str] = [str(first.target)]
        self.relus: list[str | None] = [None]
        self.added: fx.Node | None = None
        while self._take_next(layers):
            pass

    def _take_next(self, layers: dict[str, Any]) -> bool:
        last = self.nodes[-1]
        user = next(iter(last.users)) if len(last.users) == 1 else None
        if user is None or user.kwargs or not _nothing_in_place_between(last, user, layers):
            return False
        ended = self.added is not None or self.relus[-1] is not None
        if _calls(user, nn.ReLU, layers) and self.relus[-1] is None:
            self.relus[-1] = str(user.target)
        elif self.added is not None:
            return False
        elif _calls(user, CompiledConv2d, layers):
            self.convolutions.append(str(user.target))
            self.relus.append(None)
        elif not ended and user.op == "call_function" and user.target in _SUMS and _adds(user, last):
            self.added = next(arg for arg in user.args if arg is not last)  # type: ignore[assignment]
        else:
            return False
        self.nodes.append(user)
        return True


def _calls(node: fx.Node, kind: type[nn.Module], layers: dict[str, Any]) -> bool:
    return node.op == "call_module" and type(layers[str(node.target)]) is kind and len(node.args) == 1


def _adds(node: fx.Node, one: fx.Node) -> bool:
    """Whether a sum is of ``one`` and another tensor, which it does not write to."""
    if len(node.args) != 2 or not all(isinstance(arg, fx.Node) for arg in node.args) or node.args[0] is node.args[1]:
        return False
    return node.target is not operator.iadd or node.args[0] is one


def _nothing_in_place_between(last: fx.Node, user: fx.Node, layers: dict[str, Any]) -> bool:
    """Whether a chain that is computed where ``user`` stands still finds its inputs as they were."""
    node = last.next
    while node is not user:
        if node.op == "call_module" and getattr(layers[str(node.target)], "inplace", False):
            return False
        if node.op in ("call_function", "call_method") and node.target is not chain:
            return False
        node = node.next
    return True


def _replace(features: fx.GraphModule, run: _Run) -> None:
    graph, last = features.graph, run.nodes[-1]
    with graph.inserting_before(last):
        convolutions = tuple(graph.get_attr(name) for name in run.convolutions)
        relus = tuple(name and graph.get_attr(name) for name in run.relus)
        made = graph.call_function(chain, (run.nodes[0].args[0], run.added, convolutions, relus))
    last.replace_all_uses_with(made)
    for node in reversed(run.nodes):
        graph.erase_node(node)
