"""A step that is run many times on the same memory: on a GPU recorded once as a CUDA graph, then replayed.

Launching the few hundred kernels of an attack step costs the host a millisecond or two, which for a small batch is more
than the GPU needs for the work. A replay launches all of them at once.

The rule: on a GPU the first ``WARM_UP`` steps on given memory run as they are, because libraries set themselves up at
first use and that cannot be recorded. Then the step is recorded, as soon as the steps done and those asked for make
``WORTHWHILE`` of them. On other devices every step simply runs. A step that cannot be recorded, because it reads a
value back to the host, raises PyTorch's own error: hand in steps of known operations only, and let others run without
this module.
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
# To record is to wait for the device, to empty PyTorch's cache of free memory, and to run the step's Python once more:
# taken for the price of some ten launches.
WORTHWHILE = 10
# Sets of buffers that are kept for a network, the latest used: whole batches, the last smaller one, a few threats.
KEPT = 8

Step = Callable[[], None]


@runtime_checkable
class Recorder(Protocol):
    """How steps are recorded on one kind of device."""

    def warm_up(self, step: Step) -> None:
        """Run ``step`` in the way in which it will be recorded."""

    def record(self, step: Step) -> Step:
        """What does the same as ``step``, which is not run."""


class CudaRecorder:
    """CUDA graphs, recorded one after the other on a stream of their own.

    They share their memory: one graph runs at a time, and nothing in that memory is needed after it has run.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def warm_up(self, step: Step) -> None:
        """Run ``step`` on the recording stream, after what was launched before, and before what will be."""
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            step()
        current.wait_stream(self.stream)

    def record(self, step: Step) -> Step:
        """Record ``step`` as a graph; what is returned launches it on the current stream."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            step()
        return graph.replay


RECORDERS: dict[str, Callable[[torch.device], Recorder]] = {"cuda": CudaRecorder}


@dataclass
class Recording:
    """Tensors that stay where they are in memory, and how far the step that works on them has got.

    Attributes:
        buffers: by name; the step reads and writes these.
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
            if self.replay is None and self.done >= WARM_UP and self.done + left >= WORTHWHILE:
                self.replay = self.recorder.record(step)
            if self.replay is not None:
                self.replay()
            else:
                self.recorder.warm_up(step)
            self.done += 1


@dataclass
class Recordings:
    """The recordings of one network, and where its weights lie, since a recorded step reads them there."""

    addresses: tuple[tuple[int, torch.dtype], ...]
    recorder: Recorder
    kept: OrderedDict[Hashable, Recording] = field(default_factory=OrderedDict)


_of_network: WeakKeyDictionary[nn.Module, Recordings] = WeakKeyDictionary()


def recording(network: nn.Module, key: Hashable, buffers: Callable[[], dict[str, Tensor]]) -> Recording:
    """The recording of ``network`` under ``key``, with fresh ``buffers()`` if it is new; it ends with the network.

    The key names all that the step depends on besides its buffers and the network's weights. Weights that are changed
    in place count from the next step on; if they have moved in memory, what was recorded is forgotten.
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
    while len(known.kept) > KEPT:
        known.kept.popitem(last=False)
    return known.kept[key]
