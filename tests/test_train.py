"""The training loop: the same seed gives the same bits, also after a stop; single steps and rows by hand."""

from __future__ import annotations

import copy
import dataclasses
import io
import math
import re
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from advfeat import train as train_module
from advfeat.attacks import pgd
from advfeat.data import Dataset
from advfeat.engine import fused_steps
from advfeat.hyperparameters import TrainConfig
from advfeat.models import Classifier, build_model
from advfeat.optimization import optimizer_of, rate_factor
from advfeat.threats import L2, Linf
from advfeat.train import resumed_elsewhere, train
from advfeat.whitening import whiten

pytestmark = pytest.mark.numbers

U = 2.0**-24
# A rate at which float32 weights do not move: the report of a row then belongs to the weights at the start.
STILL = 1e-30


def noise(n: int = 48, classes: int = 4, size: int = 12, seed: int = 0) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    return Dataset(
        images=torch.rand((n, 3, size, size), generator=generator),
        labels=torch.randint(classes, (n,), generator=generator),
        classes=tuple("abcd"[:classes]),
        name="noise",
    )


def fresh(seed: int = 0) -> Classifier:
    return build_model("resnet9", classes=4, width=4, seed=seed)


def same_bits(first: Classifier, second: Classifier) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def without_time(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


class Stopped(Exception):
    """A power cut."""


class Disk:
    """A checkpoint that survives as bytes, and pulls the plug after a number of writes."""

    def __init__(self) -> None:
        self.content: bytes | None = None
        self.writes = 0
        self.stop_after = math.inf

    def load(self) -> dict | None:
        return None if self.content is None else torch.load(io.BytesIO(self.content), weights_only=True)

    def save(self, state: dict) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.content = buffer.getvalue()
        self.writes += 1
        if self.writes >= self.stop_after:
            raise Stopped


STANDARD = TrainConfig(epochs=3, batch_size=16, lr=0.2, shift=2, flip=True, label_smoothing=0.1)
ROBUST = dataclasses.replace(STANDARD, threat=L2(0.5), attack_steps=2, attack_step_size=0.3)
ON_BATCH = dataclasses.replace(ROBUST, attack_mode="train")
AVERAGED = dataclasses.replace(STANDARD, average=0.5, drops=(0.6,), logit_factor=0.5)
KINDS = pytest.mark.parametrize(
    "config", [STANDARD, ROBUST, ON_BATCH, AVERAGED], ids=["standard", "robust", "robust, train mode", "averaged"]
)


@KINDS
def test_same_seed_same_bits(config):
    first, second, other = fresh(), fresh(), fresh()
    rows = train(first, noise(), config, seed=7)
    assert without_time(train(second, noise(), config, seed=7)) == without_time(rows)
    assert same_bits(first, second)
    train(other, noise(), config, seed=8)
    assert not same_bits(first, other)


@KINDS
@pytest.mark.parametrize("epochs_done", [1, 2, 3])
def test_a_run_that_was_stopped_ends_like_one_that_was_not(config, epochs_done):
    whole = fresh()
    whiten(whole, noise().images)
    rows = train(whole, noise(), config, seed=3)

    disk = Disk()
    disk.stop_after = epochs_done
    stopped = fresh()
    whiten(stopped, noise().images)
    with pytest.raises(Stopped):
        train(stopped, noise(), config, seed=3, checkpoint=disk)
    disk.stop_after = math.inf
    epochs_seen = []
    resumed = fresh(seed=99)  # other weights: all of them must come from the checkpoint
    whiten(resumed, noise().images)
    again = train(resumed, noise(), config, seed=3, checkpoint=disk, evaluate=lambda _: epochs_seen.append(None) or {})
    assert len(epochs_seen) == 3 - epochs_done  # it went on, and did not start over
    assert without_time(again) == without_time(rows)
    assert same_bits(resumed, whole)
    assert not resumed.training


def test_rows_say_what_happened_in_each_epoch():
    modes = []

    def evaluate(model: Classifier) -> dict[str, float]:
        modes.append(model.training)
        return {"test": 0.25}

    rows = train(fresh(), noise(), STANDARD, seed=0, evaluate=evaluate)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert modes == [False, False, False]
    for row in rows:
        assert set(row) == {"epoch", "loss", "accuracy", "seconds", "test"}
        assert row["test"] == 0.25
        assert 0 <= row["accuracy"] <= 1
        assert row["accuracy"] * 48 == pytest.approx(round(row["accuracy"] * 48), abs=1e-9)
        assert row["seconds"] > 0


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_and_accuracy_of_a_row_are_those_of_the_batch(smoothing):
    dataset, model = noise(), fresh()
    twin = copy.deepcopy(model).train()
    config = TrainConfig(epochs=1, batch_size=48, lr=STILL, label_smoothing=smoothing)
    (row,) = train(model, dataset, config, seed=0)
    logits = twin(dataset.images).detach().double()
    logs = logits - logits.logsumexp(1, keepdim=True)
    picked = logs.gather(1, dataset.labels[:, None])[:, 0]
    expected = -float(((1 - smoothing) * picked + smoothing * logs.mean(1)).mean())
    # The same network on the same batch in another order: BatchNorm and convolutions sum differently. Nine layers
    # of at most sqrt(144) U each, a loss near ln 4, and logits no larger.
    assert row["loss"] == pytest.approx(expected, abs=16 * 9 * 12 * U)
    assert row["accuracy"] == float((logits.argmax(1) == dataset.labels).double().mean())


def test_adversarial_training_shows_images_attacked_in_eval_mode():
    dataset, model = noise(), fresh()
    twin = copy.deepcopy(model)
    config = TrainConfig(epochs=1, batch_size=48, lr=STILL, threat=L2(0.5), attack_steps=3, attack_step_size=0.2)
    (row,) = train(model, dataset, config, seed=0)
    adv = pgd(twin.eval(), dataset.images, dataset.labels, L2(0.5), steps=3, step_size=0.2)
    attacked = float(F.cross_entropy(twin.train()(adv), dataset.labels).detach())
    plain = float(F.cross_entropy(twin(dataset.images), dataset.labels).detach())
    # As above, and the attacked images of two orders of the batch differ by rounding as well.
    assert row["loss"] == pytest.approx(attacked, abs=2 * 16 * 9 * 12 * U)
    assert abs(attacked - plain) > 100 * 16 * 9 * 12 * U  # the test can tell them apart
    # One pass in training mode, none of the attack's: BatchNorm counted one batch.
    assert {int(v) for key, v in model.state_dict().items() if key.endswith("num_batches_tracked")} == {1}


def test_an_attack_in_train_mode_sees_the_statistics_of_its_batch_and_keeps_none():
    dataset = noise()
    model, twin = fresh(), fresh().train()  # BatchNorm's running statistics are still those of no image
    config = TrainConfig(
        epochs=1, batch_size=48, lr=STILL, threat=L2(0.5), attack_steps=2, attack_step_size=0.3, attack_mode="train"
    )
    (row,) = train(model, dataset, config, seed=0)
    adv = dataset.images
    for _ in range(2):
        inputs = adv.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(twin(inputs), dataset.labels, reduction="sum"), inputs)
        adv = L2(0.5).step(adv, dataset.images, gradient, 0.3)
    by_hand = float(F.cross_entropy(twin(adv), dataset.labels).detach())
    frozen = pgd(fresh().eval(), dataset.images, dataset.labels, L2(0.5), steps=2, step_size=0.3)
    lagging = float(F.cross_entropy(twin(frozen), dataset.labels).detach())
    assert row["loss"] == pytest.approx(by_hand, abs=1e-4)
    assert abs(lagging - by_hand) > 1e-2  # the test can tell the two modes apart
    norms = [layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert [int(norm.num_batches_tracked) for norm in norms] == [1] * len(norms)
    assert all(norm.track_running_stats for norm in norms)
    assert not any(layer.training for layer in model.modules())
    # Exactly the statistics that one training step on these images keeps.
    once = fresh().train()
    once(adv)
    for key, kept in once.state_dict().items():
        if "running" in key:
            torch.testing.assert_close(model.state_dict()[key], kept, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet9", "cnn4"])
def test_adversarial_training_attacks_the_weights_of_the_moment(monkeypatch, name):
    dataset = noise(size=16)
    model = build_model(name, classes=4, width=4)
    config = TrainConfig(epochs=2, batch_size=16, lr=0.5, threat=L2(0.5), attack_steps=3, attack_step_size=0.2)
    compared = []

    def watched(attacked, images, labels, threat, **attack):
        made = pgd(attacked, images, labels, threat, **attack)
        twin = copy.deepcopy(model).eval()
        expected = pgd(twin, images, labels, threat, **attack)
        compared.append(float((made - expected).abs().max()))
        # The copy and the model compute the same up to rounding: gradients of nine layers, normalised, three steps of
        # 0.2. Weights that are one batch old are off by a thousand times as much.
        assert compared[-1] <= 3 * 0.2 * 9 * 12 * 16 * U
        assert not attacked.training
        return made

    monkeypatch.setattr(train_module, "pgd", watched)
    train(model, dataset, config, seed=0)
    assert len(compared) == 6


def test_the_attack_of_adversarial_training_is_as_precise_as_the_training(monkeypatch):
    seen = []

    def watched(attacked, *arguments, **attack):
        seen.append(attacked.dtype)
        return pgd(attacked, *arguments, **attack)

    monkeypatch.setattr(train_module, "pgd", watched)
    monkeypatch.setattr(fused_steps, "fast_dtype", {"cpu": torch.bfloat16}.get)
    for precision in ("float32", "bfloat16", "fast"):
        train(fresh(), noise(), dataclasses.replace(ROBUST, epochs=1, batch_size=48, precision=precision), seed=0)
    assert seen == [torch.float32, torch.bfloat16, torch.bfloat16]


def test_adversarial_training_leaves_weight_gradients_as_they_were():
    model = fresh()
    whiten(model, noise().images)
    before = [parameter.requires_grad for parameter in model.parameters()]
    assert before.count(False) == 2
    train(model, noise(), dataclasses.replace(ROBUST, epochs=1), seed=0)
    assert [parameter.requires_grad for parameter in model.parameters()] == before


def test_the_whitening_stem_does_not_move():
    model = fresh()
    whiten(model, noise().images)
    stem = next(model.features.children())
    before, head = stem.weight.clone(), model.head.weight.clone()
    train(model, noise(), dataclasses.replace(STANDARD, weight_decay=0.1), seed=0)
    assert torch.equal(stem.weight, before)
    assert torch.equal(stem.bias, torch.zeros_like(stem.bias))
    assert not torch.equal(model.head.weight, head)


def test_weight_decay_pulls_on_filters_and_matrices_only():
    start, plain, decayed = fresh(), fresh(), fresh()
    one_step = TrainConfig(epochs=1, batch_size=48, lr=0.1, warmup=0.0, momentum=0.0, weight_decay=0.0)
    train(plain, noise(), one_step, seed=0)
    train(decayed, noise(), dataclasses.replace(one_step, weight_decay=0.5), seed=0)
    pulled, after = dict(decayed.named_parameters()), dict(plain.named_parameters())
    for name, parameter in start.named_parameters():
        w0, w1, w2 = parameter.detach(), after[name].detach(), pulled[name].detach()
        if w0.ndim > 1:
            # w - lr (g + d w) against w - lr g: the difference is -lr d w, but for four roundings of the largest term.
            largest = float(torch.stack([w0.abs().max(), w1.abs().max(), w2.abs().max()]).max())
            difference = w2.double() - w1.double() + 0.1 * 0.5 * w0.double()
            assert float(difference.abs().max()) <= 4 * U * max(1.0, largest), name
            assert not torch.equal(w1, w2), name
        else:
            assert torch.equal(w1, w2), name


def test_one_step_is_gradient_descent_on_the_mean_loss():
    dataset, model = noise(), fresh()
    twin = copy.deepcopy(model).train()
    one_step = TrainConfig(epochs=1, batch_size=48, lr=0.1, warmup=0.0, momentum=0.0, weight_decay=0.0)
    train(model, dataset, one_step, seed=0)
    F.cross_entropy(twin(dataset.images), dataset.labels).backward()
    expected = twin.head.weight - 0.1 * twin.head.weight.grad
    # Gradients differ by the order of the batch, as above; they are multiplied by the rate.
    assert float((model.head.weight - expected).detach().abs().max()) <= 0.1 * 16 * 9 * 12 * U


def test_the_rate_rises_then_falls_in_straight_lines_to_zero():
    class Rates(Disk):
        seen: list[float]

        def save(self, state: dict) -> None:
            self.__dict__.setdefault("seen", []).append(state["optimizer"]["param_groups"][0]["lr"])

    rates = Rates()
    config = TrainConfig(epochs=10, batch_size=48, lr=0.8, warmup=0.2)
    train(fresh(), noise(), config, seed=0, checkpoint=rates)
    # One step per epoch, and the rate that is kept is that of the next step. Of ten steps two rise: 1/3, 2/3, then
    # 1 - (t - 2) / 8.
    expected = [2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0]
    assert rates.seen == pytest.approx([0.8 * factor for factor in expected], abs=1e-12)


def test_the_rate_drops_to_a_tenth_and_stays_level_between():
    config = TrainConfig(epochs=10, batch_size=48, lr=0.8, warmup=0.2, drops=(0.5, 0.8))
    factors = [rate_factor(config, 10)(step) for step in range(10)]
    assert factors == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01], abs=1e-12)


def test_averaged_weights_are_the_mean_of_the_last_steps_and_of_no_other():
    class Weights(Disk):
        def save(self, state: dict) -> None:
            self.__dict__.setdefault("seen", []).append(copy.deepcopy(state["model"]))

    # One step an epoch; with an average the last state holds the mean, so the steps are watched in a run without.
    config = TrainConfig(epochs=5, batch_size=48, lr=0.2)
    steps = Weights()
    train(fresh(), noise(), config, seed=0, checkpoint=steps)
    averaged = fresh()
    seen = []
    train(averaged, noise(), dataclasses.replace(config, average=0.6), seed=0,
          evaluate=lambda model: seen.append(model.head.weight.clone()) or {})  # fmt: skip
    for name, value in averaged.state_dict().items():
        if value.is_floating_point():
            mean = torch.stack([state[name].double() for state in steps.seen[-3:]]).mean(0)
            assert float((value - mean).abs().max()) <= U * float(mean.abs().max()), name
    assert torch.equal(seen[-1], averaged.head.weight)  # the last row is of the network that is returned
    assert torch.equal(seen[-2], steps.seen[-2]["head.weight"])


def test_a_factor_of_the_logits_is_in_the_loss_and_not_in_the_network():
    dataset, model = noise(), fresh()
    twin = copy.deepcopy(model).train()
    one_step = TrainConfig(
        epochs=1, batch_size=48, lr=0.1, warmup=0.0, momentum=0.0, weight_decay=0.0, logit_factor=3.0
    )
    rows = train(model, dataset, one_step, seed=0)
    loss = F.cross_entropy(3 * twin(dataset.images), dataset.labels)
    loss.backward()
    expected = twin.head.weight - 0.1 * twin.head.weight.grad
    # As in the step without a factor, and the gradient is three times as large.
    assert float((model.head.weight - expected).detach().abs().max()) <= 0.1 * 3 * 16 * 9 * 12 * U
    assert rows[0]["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)


def test_no_epoch_changes_nothing():
    model = fresh()
    assert train(model, noise(), TrainConfig(epochs=0, batch_size=8, lr=0.1), seed=0) == []
    assert same_bits(model, fresh())
    assert not model.training


def test_bfloat16_trains_float32_weights():
    model = fresh()
    (row,) = train(model, noise(), TrainConfig(epochs=1, batch_size=16, lr=0.1, precision="bfloat16"), seed=0)
    assert math.isfinite(row["loss"])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_fast_precision_gets_the_name_of_what_the_device_computes_faster(dtype, monkeypatch):
    monkeypatch.setattr(fused_steps, "fast_dtype", {"cpu": dtype}.get)
    fast = dataclasses.replace(ROBUST, precision="fast")
    assert fast.on("cpu") == dataclasses.replace(ROBUST, precision=str(dtype).split(".")[1])
    for chosen in ("float32", "bfloat16"):
        config = dataclasses.replace(ROBUST, precision=chosen)
        assert config.on("cpu") is config


def test_another_radius_scales_the_steps_with_it():
    config = TrainConfig(epochs=1, batch_size=8, lr=0.1, threat=Linf(0.1), attack_steps=3, attack_step_size=0.07)
    assert config.at_radius(0.1) == config  # to the bit: equal recipes share one network
    assert config.at_radius(0.4) == dataclasses.replace(config, threat=Linf(0.4), attack_step_size=0.28)
    for threat in (None, L2(0)):
        with pytest.raises(ValueError, match="only adversarial training within a radius has another radius"):
            dataclasses.replace(config, threat=threat).at_radius(0.4)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="48 images do not fill one batch of 49"):
        train(fresh(), noise(), TrainConfig(epochs=1, batch_size=49, lr=0.1), seed=0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_raises(value):
    model = fresh()
    with torch.no_grad():
        model.head.weight[0, 0] = value
    with pytest.raises(FloatingPointError, match=r"loss became .*lower lr=0\.1"):
        train(model, noise(), TrainConfig(epochs=1, batch_size=16, lr=0.1), seed=0)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": -1}, {"batch_size": 0}, {"lr": 0.0}, {"lr": -0.1}, {"lr": math.nan}, {"warmup": 1.0},
        {"warmup": -0.1}, {"momentum": 1.0}, {"weight_decay": -1e-4}, {"label_smoothing": 1.0}, {"shift": -1},
        {"attack_steps": 0}, {"attack_step_size": 0.0}, {"attack_mode": "batch"}, {"precision": "float16"},
        {"drops": (0.5, 0.5)}, {"drops": (0.0,)}, {"drops": (1.0,)}, {"logit_factor": 0.0}, {"average": 1.0},
    ],
    ids=str,
)  # fmt: skip
def test_a_configuration_out_of_range_is_named(change):
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=re.escape(f"{name}={value!r} is out of range")):
        TrainConfig(**({"epochs": 1, "batch_size": 8, "lr": 0.1} | change))


def stopped_after_one_epoch() -> Disk:
    disk = Disk()
    disk.stop_after = 1
    with pytest.raises(Stopped):
        train(fresh(), noise(), STANDARD, seed=3, checkpoint=disk)
    disk.stop_after = math.inf
    return disk


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"threads": 7}, "the first 1 epochs were computed with 7 threads and .*set_num_threads"),
        ({"instructions": "OTHER"}, r"the first 1 epochs were computed with \d+ threads and OTHER \(\w+\), the others"),
        ({"engine": "OTHER"}, r"the first 1 epochs were computed with \d+ threads and .* \(OTHER\), the others with"),
    ],
)
def test_a_run_that_goes_on_elsewhere_is_not_lost_but_says_so(changed, told):
    disk = stopped_after_one_epoch()
    state = disk.load()
    state["computed_with"] |= changed  # as if the first epoch had been computed there
    disk.save(state)
    model = fresh()
    disk.stop_after = disk.writes + 1
    with pytest.warns(UserWarning, match=f"robust: {told}"), pytest.raises(Stopped):
        train(model, noise(), STANDARD, seed=3, checkpoint=disk, description="robust")
    disk.stop_after = math.inf
    rows = train(fresh(), noise(), STANDARD, seed=3, checkpoint=disk)  # once more, here: nothing new to warn of
    here = torch.get_num_threads()
    assert [row.get("threads") for row in rows] == [None, here, here]
    assert resumed_elsewhere(rows) == {"resumed_with_threads": [here]}


def test_a_run_that_goes_on_where_it_was_holds_nothing_more():
    disk = stopped_after_one_epoch()
    assert disk.load()["computed_with"]["threads"] == torch.get_num_threads()
    rows = train(fresh(), noise(), STANDARD, seed=3, checkpoint=disk)
    assert {key for row in rows for key in row} == {"epoch", "loss", "accuracy", "seconds"}
    assert resumed_elsewhere(rows) == {}
    old = stopped_after_one_epoch()  # a checkpoint from before this was kept
    state = old.load()
    del state["computed_with"]
    old.save(state)
    assert without_time(train(fresh(), noise(), STANDARD, seed=3, checkpoint=old)) == without_time(rows)


def test_the_optimizer_takes_the_steps_of_pytorchs_and_reads_its_state():
    """A momentum, decay or schedule that got lost on the way, and checkpoints that the other one cannot read."""
    config = dataclasses.replace(STANDARD, weight_decay=0.01)
    ours, theirs = fresh(), fresh()
    first = optimizer_of(ours, config)
    groups = [{**group, "params": []} for group in first.param_groups]
    for group, own in zip(groups, first.param_groups, strict=True):
        names = [name for name, of in ours.named_parameters() if any(of is one for one in own["params"])]
        group["params"] = [theirs.get_parameter(name) for name in names]
    second = torch.optim.SGD(groups, lr=config.lr)
    generator = torch.Generator().manual_seed(0)
    for step in range(4):
        for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            two.grad = one.grad.clone()
        for optimizer in (first, second):
            optimizer.step()
        assert same_bits(ours, theirs), step
        if step == 1:
            first.load_state_dict(copy.deepcopy(second.state_dict()))
    first.zero_grad()
    assert all(parameter.grad is None for parameter in ours.parameters())


def test_training_imports_no_compiler_of_pytorchs():
    """1.4 s of every process that trains: the first call of a method of ``torch.optim.SGD`` imports it."""
    program = """
import sys, torch
from advfeat import Dataset, TrainConfig, build_model
from advfeat.train import train
data = Dataset(images=torch.rand(4, 3, 8, 8), labels=torch.arange(4), classes=tuple("abcd"), name="noise")
train(build_model("cnn4", classes=4, width=4), data, TrainConfig(epochs=1, batch_size=2, lr=0.1), seed=0)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
