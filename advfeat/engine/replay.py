"""A step that is run many times on the same memory: on a GPU recorded once as a CUDA graph, then replayed.

Launching the few hundred kernels of an attack step costs the host a millisecond or two. For a small batch that is more
time than the GPU needs for the work. A replay launches all kernels at once.

The rule: on a GPU the first ``WARM_UP`` steps on given memory run unrecorded, because libraries set themselves up at
first use, and the set-up cannot be recorded. Then the step is recorded, provided that the steps done and the steps
still asked for are ``MIN_STEPS_TO_RECORD`` or more. On other devices every step simply runs. A step that reads a value
back to the host cannot be recorded and raises PyTorch's own error: pass only steps of known operations, and run other
steps without this module.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

WARM_UP = 3
# A recording waits for the device, empties PyTorch's cache of free memory and runs the step's Python once more. The
# cost is assumed to be that of ten launches.
MIN_STEPS_TO_RECORD = 10
# The most recently used sets of buffers of a network: for whole batches, the smaller last batch, and a few threats.
MAX_RECORDINGS = 8

Step = Callable[[], None]


@runtime_checkable
class Recorder(Protocol):
    """How steps are recorded on one kind of device."""

    def warm_up(self, step: Step) -> None:
        """Run ``step`` in the way in which it will be recorded."""

    def record(self, step: Step) -> Step:
        """A function that does the same as ``step``; ``step`` itself is not run."""


class CudaRecorder:
    """CUDA graphs, recorded one after the other on a stream of their own.

    The graphs share their memory: one graph runs at a time, and its memory is not needed after it has run.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def warm_up(self, step: Step) -> None:
        """Run ``step`` on the recording stream, after all earlier work and before all later work."""
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            step()
        current.wait_stream(self.stream)

    def record(self, step: Step) -> Step:
        """Record ``step`` as a graph, and return the function that launches the graph on the current stream."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            step()
        return graph.replay


RECORDERS: dict[str, Callable[[torch.device], Recorder]] = {"cuda": CudaRecorder}


@dataclass
class Recording:
    """Tensors at fixed addresses in memory, and the state of the step that works on them.

    Attributes:
        buffers: name → tensor that the step reads or writes.
        recorder: None where steps are not recorded.
        done: steps run so far.
        replay: the recorded step; None until there is one.
    """

    buffers: dict[str, Tensor]
    recorder: Recorder | None = None
    done: int = 0
    replay: Step | None = None

    def run(self, step: Step, times: int) -> None:
        """Run ``step``, the same one at every call, ``times`` times."""
        for left in range(times, 0, -1):
            if self.recorder is None:
                step()
                continue
            if self.replay is None and self.done >= WARM_UP and self.done + left >= MIN_STEPS_TO_RECORD:
                self.replay = self.recorder.record(step)
            if self.replay is not None:
                self.replay()
            else:
                self.recorder.warm_up(step)
            self.done += 1


@dataclass
class Recordings:
    """The recordings of one network, and the addresses of its weights, from which a recorded step reads them."""

    addresses: tuple[tuple[int, torch.dtype], ...]
    recorder: Recorder
    kept: OrderedDict[Hashable, Recording] = field(default_factory=OrderedDict)


_of_network: WeakKeyDictionary[nn.Module, Recordings] = WeakKeyDictionary()


def recording(network: nn.Module, key: Hashable, buffers: Callable[[], dict[str, Tensor]]) -> Recording:
    """The recording of ``network`` under ``key``, made with fresh ``buffers()`` if it is new.

    A recording lives as long as its network. The key holds everything that the step depends on besides its buffers and
    the network's weights. Weights that are changed in place take effect from the next step on. If the weights have
    moved in memory, all recordings of the network are forgotten.
    """
    weights = (*network.parameters(), *network.buffers())
    device = weights[0].device
    if device.type not in RECORDERS:
        return Recording(buffers())
    addresses = tuple((tensor.data_ptr(), tensor.dtype) for tensor in weights)
    known = _of_network.get(network)
    if known is None or known.addresses != addresses:
        known = _of_network[network] = Recordings(addresses, RECORDERS[device.type](device))
    if key not in known.kept:
        known.kept[key] = Recording(buffers(), known.recorder)
    known.kept.move_to_end(key)
    while len(known.kept) > MAX_RECORDINGS:
        known.kept.popitem(last=False)
    return known.kept[key]
