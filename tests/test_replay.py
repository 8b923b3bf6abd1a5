"""Steps on fixed memory: when they are recorded, when a recording is reused, and that it gives the same bits.

Where there is no GPU, a tape plays its part: while the step runs once, every PyTorch operation is written down with the
memory that it works on, and the list is then run again and again, without the step's Python.
"""

from __future__ import annotations

import gc
import inspect

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from advfeat.attacks import match_representation, pgd
from advfeat.engine import folding, replay
from advfeat.engine.convolution_code import Engine
from advfeat.engine.fused_steps import NetworkInput
from advfeat.engine.replay import MAX_RECORDINGS, MIN_STEPS_TO_RECORD, WARM_UP, Recording, recording
from advfeat.gradient_ascent import maximize
from advfeat.models import Classifier, build_model, freeze, refold
from advfeat.threats import L2, Linf

pytestmark = pytest.mark.numbers


class Counting:
    """A recorder that counts its calls; a recorded step is the step itself."""

    def __init__(self) -> None:
        self.warm = self.recorded = self.replayed = 0

    def warm_up(self, step) -> None:
        self.warm += 1
        step()

    def record(self, step):
        self.recorded += 1
        program = self.program(step)

        def again() -> None:
            self.replayed += 1
            program()

        return again

    def program(self, step):
        return step


class Tape(TorchDispatchMode):
    """Operations with their arguments and results, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        self.calls.append((function, arguments, named or {}, result))
        return result

    def play(self) -> None:
        """Every operation again: on the memory that replaces earlier results, otherwise on the very same."""
        now: dict[int, Tensor] = {}

        def current(value):
            return now.get(id(value), value)

        with torch.no_grad():
            for function, arguments, named, result in self.calls:
                fresh = function(*tree_map(current, arguments), **tree_map(current, named))
                for old, new in zip(tree_leaves(result), tree_leaves(fresh), strict=True):
                    now[id(old)] = new


class Taped(Counting):
    """A recorder whose recorded step is a tape. Taping runs the step once, so its effect is undone."""

    def program(self, step):
        before = [(tensor, tensor.clone()) for tensor in memory_of(step)]
        with Tape() as tape:
            step()
        for tensor, value in before:
            tensor.copy_(value)
        return tape.play


def memory_of(step) -> list[Tensor]:
    """The tensors that a step of an attack closes over."""
    held = [cell.cell_contents for cell in inspect.unwrap(step).__closure__]
    tensors = [value.values if isinstance(value, NetworkInput) else value for value in held]
    return [tensor for tensor in tensors if isinstance(tensor, Tensor)]


@pytest.fixture(autouse=True)
def pytorchs_convolutions(monkeypatch):
    """As on a GPU: a tape sees PyTorch's operations only, and where somebody looks on, compiled layers make way."""
    monkeypatch.setattr(folding, "engine", lambda: Engine("torch", "hidden"))


@pytest.fixture
def recorder(monkeypatch):
    """Steps on the CPU are recorded, by one recorder that the test can look at."""
    made = Counting()
    monkeypatch.setitem(replay.RECORDERS, "cpu", lambda _: made)
    return made


def network(seed: int = 0) -> Classifier:
    return build_model("resnet9", width=4, seed=seed).eval()


def images(n: int = 6, seed: int = 0) -> Tensor:
    return torch.rand((n, 3, 12, 12), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("calls", "warm", "recorded"),
    [
        ([MIN_STEPS_TO_RECORD], WARM_UP, 1),  # long enough: recorded as soon as it is warm
        ([MIN_STEPS_TO_RECORD - 1], MIN_STEPS_TO_RECORD - 1, 0),  # too short
        ([7, 7, 7], 7, 1),  # short calls on the same memory: at the beginning of the second
        ([2] * 6, 8, 1),  # as soon as those done and those asked for are enough
        ([0, 0], 0, 0),
        ([1000], WARM_UP, 1),
    ],
    ids=str,
)
def test_a_step_is_recorded_when_it_is_warm_and_worthwhile(calls, warm, recorded):
    recorder, runs = Counting(), []
    place = Recording({}, recorder)
    for times in calls:
        place.run(lambda: runs.append(None), times)
    assert len(runs) == sum(calls) == place.done
    assert (recorder.warm, recorder.recorded) == (warm, recorded)
    assert recorder.replayed == sum(calls) - warm


def test_without_a_recorder_the_step_just_runs():
    runs = []
    place = Recording({})
    place.run(lambda: runs.append(None), 20)
    assert len(runs) == 20
    assert place.replay is None


def test_on_the_cpu_nothing_is_kept():
    model = freeze(network())
    assert recording(model, "key", dict) is not recording(model, "key", dict)
    assert recording(model, "key", dict).recorder is None


def test_one_key_one_memory_until_the_weights_move(recorder):
    model = freeze(network(), dtype=torch.float32)
    buffers = lambda: {"adv": torch.zeros(1)}  # noqa: E731
    first = recording(model, "a", buffers)
    assert recording(model, "a", buffers) is first
    assert recording(model, "b", buffers) is not first
    assert recording(freeze(network()), "a", buffers) is not first  # another network
    with torch.no_grad():
        model.head.weight.mul_(2)  # changed in place: the recorded step reads the new values
    assert recording(model, "a", buffers) is first
    model.features.to(torch.bfloat16)  # moved: the recorded step would read memory that is not the network's any more
    assert recording(model, "a", buffers) is not first


def test_the_latest_recordings_are_kept(recorder):
    model = freeze(network())
    places = [recording(model, key, dict) for key in range(MAX_RECORDINGS)]
    assert recording(model, 0, dict) is places[0]  # used again, so 1 is now the oldest
    recording(model, "one more", dict)
    assert recording(model, 0, dict) is places[0]
    assert recording(model, 1, dict) is not places[1]


def test_recordings_end_with_their_network(monkeypatch):
    taped = Taped()
    monkeypatch.setitem(replay.RECORDERS, "cpu", lambda _: taped)
    model = freeze(network())
    pgd(model, images(), torch.arange(6), L2(0.5), steps=MIN_STEPS_TO_RECORD, step_size=0.1)
    assert taped.recorded == 1
    before = len(replay._of_network)
    del model
    gc.collect()
    assert len(replay._of_network) == before - 1


@pytest.mark.parametrize("threat", [L2(0.5), Linf(0.03)], ids=str)
def test_attacks_on_recorded_memory_give_the_bits_of_attacks_that_are_not_recorded(monkeypatch, threat):
    source = network()
    labels = torch.arange(6)
    # Whole batches of different images, a smaller last one, other settings, and back: nothing is left over from before.
    plan = [
        (images(seed=0), labels, 12, False),
        (images(seed=1), labels, 12, False),
        (images(4, seed=2), labels[:4], 12, False),
        (images(seed=3), labels, 3, False),
        (images(seed=3), labels, 12, True),
        (images(seed=0), labels.flip(0), 12, False),
    ]

    def attacked() -> list[Tensor]:
        frozen = freeze(source, dtype=torch.float32)
        return [
            pgd(frozen, pixels, aims, threat, steps=steps, step_size=threat.eps / 4, targeted=targeted)
            for pixels, aims, steps, targeted in plan
        ]

    expected = attacked()
    taped = Taped()
    monkeypatch.setitem(replay.RECORDERS, "cpu", lambda _: taped)
    for ours, theirs in zip(attacked(), expected, strict=True):
        assert torch.equal(ours, theirs)
    assert taped.recorded == 3  # whole batches, the last one, targeted
    assert taped.replayed > 30


def test_matching_on_recorded_memory_gives_the_same_bits(monkeypatch):
    source = network()

    def matched() -> list[Tensor]:
        frozen = freeze(source, dtype=torch.float32)
        targets = [frozen.representation(images(seed=seed)) for seed in (5, 6)]
        starts = [images(seed=seed) for seed in (7, 8)]
        return [
            match_representation(frozen, start, target, steps=15, step_size=0.1)
            for start, target in zip(starts, targets, strict=True)
        ]

    expected = matched()
    taped = Taped()
    monkeypatch.setitem(replay.RECORDERS, "cpu", lambda _: taped)
    for ours, theirs in zip(matched(), expected, strict=True):
        assert torch.equal(ours, theirs)
    assert taped.recorded == 1


def rise(logits: Tensor, unit: Tensor) -> Tensor:
    return logits.gather(1, unit).sum()


def fall(logits: Tensor, unit: Tensor) -> Tensor:
    return -logits.gather(1, unit).sum()


def test_two_objectives_never_replay_each_other(monkeypatch):
    """As they did where the key was a word that the caller chose. A new function costs a recording, no more."""
    source, unit = network(), torch.arange(6)[:, None]

    def attacked() -> list[Tensor]:
        frozen = freeze(source, dtype=torch.float32)
        anew = [lambda logits, unit, sign=sign: sign * logits.gather(1, unit).sum() for sign in (1, -1)]
        return [
            maximize(frozen, objective, images(), unit, L2(0.5), steps=12, step_size=0.1)
            for objective in (rise, fall, rise, *anew)
        ]

    expected = attacked()
    taped = Taped()
    monkeypatch.setitem(replay.RECORDERS, "cpu", lambda _: taped)
    found = attacked()
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
    up, down, up_again, up_anew, down_anew = found
    assert torch.equal(up, up_again)
    assert torch.equal(up, up_anew)
    assert torch.equal(down, down_anew)
    assert not torch.equal(up, down)
    assert taped.recorded == 4  # rise, fall, and each of those that are made anew


def test_a_representation_and_logits_never_replay_each_other(monkeypatch):
    taped = Taped()
    monkeypatch.setitem(replay.RECORDERS, "cpu", lambda _: taped)
    frozen, unit = freeze(network(), dtype=torch.float32), torch.zeros(6, 1).long()
    attack = {"steps": 12, "step_size": 0.1}
    found = [maximize(frozen, rise, images(), unit, L2(0.5), on=on, **attack) for on in ("logits", "representation")]
    assert not torch.equal(*found)
    assert taped.recorded == 2


def test_an_objective_that_cannot_be_a_key_is_refused():
    class Sum:
        __hash__ = None

        def __call__(self, output: Tensor, _: Tensor) -> Tensor:
            return output.sum()

    frozen = freeze(network())
    with pytest.raises(
        TypeError, match="objective must be hashable, since its recordings are kept under it, got a Sum"
    ):
        maximize(frozen, Sum(), images(), torch.zeros(6), L2(0.5), steps=1, step_size=0.1)


def test_a_recorded_step_follows_refolded_weights(monkeypatch):
    taped = Taped()
    monkeypatch.setitem(replay.RECORDERS, "cpu", lambda _: taped)
    first, second = network(0), network(1)
    attack = {"threat": L2(0.5), "steps": 12, "step_size": 0.1}
    frozen = freeze(first, dtype=torch.float32, refoldable=True)
    stale = pgd(frozen, images(), torch.arange(6), **attack)
    refold(frozen, second)
    ours = pgd(frozen, images(), torch.arange(6), **attack)
    assert taped.recorded == 1
    fresh = freeze(second, dtype=torch.float32, refoldable=True)
    assert torch.equal(ours, pgd(fresh, images(), torch.arange(6), **attack))
    assert not torch.equal(ours, stale)


def test_other_networks_are_not_recorded(recorder):
    class Custom(Classifier):
        def forward(self, pixels: Tensor) -> Tensor:
            return super().forward(pixels)

    plain = network()
    custom = freeze(Custom(plain.features, plain.head))
    for model in (plain, custom):
        pgd(model, images(), torch.arange(6), L2(0.5), steps=MIN_STEPS_TO_RECORD, step_size=0.1)
    assert (recorder.warm, recorder.recorded) == (0, 0)


@pytest.mark.parametrize("attack", ["l2", "linf", "match"])
def test_a_step_reads_no_value_back_to_the_host(monkeypatch, attack):
    """Fake tensors have shapes and no values: whoever asks for one, as a branch or a boolean index does, fails."""

    class Fake(Counting):
        def warm_up(self, step) -> None:
            super().warm_up(lambda: None)
            with FakeTensorMode(allow_non_fake_inputs=True):
                step()

    fake = Fake()
    monkeypatch.setitem(replay.RECORDERS, "cpu", lambda _: fake)
    frozen = freeze(network(), dtype=torch.float32)
    if attack == "match":
        match_representation(frozen, images(), frozen.representation(images(seed=1)), steps=1, step_size=0.1)
    else:
        threat = L2(0.5) if attack == "l2" else Linf(0.1)
        pgd(frozen, images(), torch.arange(6), threat, steps=1, step_size=0.1)
    assert fake.warm == 1
    # And the test would notice.
    for broken in (lambda: float(images().sum()), lambda: images()[images() > 0.5]):
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)), FakeTensorMode():
            broken()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["pgd-l2", "pgd-linf", "match"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_on_a_gpu_a_replayed_attack_gives_the_bits_of_one_that_is_not(monkeypatch, name, dtype):
    source = network().cuda()
    pixels, labels = images(32).cuda(), (torch.arange(32) % 10).cuda()
    torch.backends.cudnn.deterministic = True

    def results() -> list[Tensor]:
        frozen = freeze(source, dtype=dtype)
        if name == "match":
            with torch.no_grad():
                target = frozen.representation(pixels.flip(0))
            return [match_representation(frozen, pixels[:n], target[:n], steps=20, step_size=0.1) for n in (32, 32, 9)]
        threat = L2(0.5) if name == "pgd-l2" else Linf(8 / 255)
        attack = {"steps": 20, "step_size": threat.eps / 8}
        return [pgd(frozen, pixels[:n], labels[:n], threat, **attack) for n in (32, 32, 9)]

    replayed = results()
    monkeypatch.delitem(replay.RECORDERS, "cuda")
    for ours, eager in zip(replayed, results(), strict=True):
        assert torch.equal(ours, eager)


@pytest.mark.gpu
def test_on_a_gpu_training_steps_between_replays_are_seen():
    first, second = network(0).cuda(), network(1).cuda()
    pixels, labels = images(32).cuda(), (torch.arange(32) % 10).cuda()
    attack = {"threat": L2(0.5), "steps": 12, "step_size": 0.1}
    frozen = freeze(first, dtype=torch.float32, refoldable=True)
    pgd(frozen, pixels, labels, **attack)
    refold(frozen, second)
    fresh = freeze(second, dtype=torch.float32, refoldable=True)
    assert torch.equal(pgd(frozen, pixels, labels, **attack), pgd(fresh, pixels, labels, **attack))


@pytest.mark.gpu
def test_on_a_gpu_what_cannot_be_recorded_says_so():
    place = recording(nn.Linear(1, 1).cuda(), "key", lambda: {"x": torch.zeros(3, device="cuda")})
    with pytest.raises(RuntimeError):
        place.run(lambda: float(place.buffers["x"].sum()), MIN_STEPS_TO_RECORD)
