"""The table behind ``test_bad_input``: public functions, and wrong values for each of their arguments.

As a program it calls every function with every bad value and prints, as JSON, how each call ended. That happens in a
process of its own, because the tests check annotations, and users do not.
"""

from __future__ import annotations

import inspect
import json
import math
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

N, SIZE, CLASSES, UNITS = 8, 5, 4, 6
NAN, INF = math.nan, math.inf


@dataclass(frozen=True)
class Argument:
    """A valid value and bad ones, by kind of badness.

    Attributes:
        rows: whether its first dimension is the images, so that it is cut together with the others.
    """

    valid: Any
    bad: dict[str, Any]
    rows: bool = False


@dataclass(frozen=True)
class Row:
    """A function, its arguments, and the cells in which a strange value is meant to work.

    Attributes:
        works: ``"argument: kind"``; every other bad value must be refused in words that hold the argument's name.
        one, none: the outcome with a single image, and with no image: ``works``, or the word that the refusal names.
        given: arguments that are valid and are not varied.
        says: cells whose refusal names another argument, with which the given one does not fit.
    """

    function: Callable[..., Any]
    arguments: dict[str, Argument]
    works: tuple[str, ...] = ()
    one: str = "works"
    none: str = "works"
    given: dict[str, Any] = field(default_factory=dict)
    says: dict[str, str] = field(default_factory=dict)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def spoiled(values: Tensor, by: float) -> Tensor:
    """One value replaced."""
    values = values.clone()
    values.flatten()[values.numel() // 2] = by
    return values


# Kinds of arguments


def images(valid: Tensor | None = None, *, channels: bool = True) -> Argument:
    valid = noise(N, 3, SIZE, SIZE) if valid is None else valid
    bad = {
        "type": "pictures",
        "nothing": None,
        "list": valid.tolist(),
        "shape": valid[0],
        "one row": valid[:1],
        "dtype": (valid * 255).byte(),
        "float64": valid.double(),
        "levels": valid * 255,
        "normalised": (valid - 0.48) / 0.25,
        "NaN": spoiled(valid, NAN),
        "infinite": spoiled(valid, INF),
        "a little outside": spoiled(valid, 1.001),
    }
    if channels:
        bad |= {"one channel": valid[:, :1], "four channels": torch.cat([valid, valid[:, :1]], 1)}
    return Argument(valid, bad, rows=True)


def labels(classes: int = CLASSES, *, rows: int = N) -> Argument:
    valid = torch.arange(rows) % classes
    bad = {
        "type": "cat",
        "nothing": None,
        "one number": 1,
        "list": valid.tolist(),
        "int32": valid.int(),
        "floats": valid.float(),
        "one-hot": nn.functional.one_hot(valid, classes),
        "one-hot floats": nn.functional.one_hot(valid, classes).float(),
        "one row": valid[:1],
        "ignored": valid.clone().fill_(-100),
        "one ignored": torch.where(torch.arange(rows) == 1, -100, valid),
        "negative": valid - 1,
        "no class": valid + 1,
    }
    return Argument(valid, bad, rows=True)


def numbers(valid: Tensor, *, rows: bool = True, negative: bool = False) -> Argument:
    """A tensor of finite numbers; ``negative`` is bad if so said."""
    bad = {
        "type": "many",
        "nothing": None,
        "number": 0.5,
        "integers": valid.long(),
        "bytes": valid.byte(),
        "shape": valid[None],
        "NaN": spoiled(valid, NAN),
        "infinite": spoiled(valid, INF),
    }
    if len(valid) > 1:
        bad["one row"] = valid[:1]
    if valid.ndim > 1 and valid.shape[-1] > 1:
        bad["width 1"] = valid[..., :1]
    return Argument(valid, bad | ({"negative": -valid - 1} if negative else {}), rows=rows)


def numbers64(valid: Tensor, *, rows: bool = True) -> Argument:
    """The same in float64, as the theory has it."""
    found = numbers(valid, rows=rows)
    return Argument(valid, found.bad | {"float32": valid.float()}, rows)


def whole(valid: int, least: int = 0, *, most: int | None = None, none: bool = False) -> Argument:
    bad = {"type": "many", "fraction": 1.5, "flag": True, "list": [valid], "NaN": NAN, "infinite": INF}
    bad |= {"negative": -1} | ({f"below {least}": least - 1} if least > 0 else {})
    bad |= {} if none else {"nothing": None}
    return Argument(valid, bad | ({} if most is None else {"too large": most + 1}))


def real(valid: float, *outside: float, none: bool = False) -> Argument:
    bad = {"type": "long", "flag": True, "NaN": NAN, "infinite": INF, "tensor": torch.tensor([valid, valid])}
    bad |= {f"out of range {value:g}": value for value in outside}
    return Argument(valid, bad | ({} if none else {"nothing": None}))


def length(valid: float = 0.05, *, none: bool = False) -> Argument:
    return real(valid, 0.0, -0.1, 1e6, none=none)


def seed() -> Argument:
    bad = {"type": "one", "nothing": None, "fraction": 1.5, "flag": True, "negative": -1, "too large": 2**32}
    return Argument(3, bad | {"the same once more": 2**32 + 1, "list": [1]})


def name(valid: str, *, none: bool = False) -> Argument:
    bad = {"unknown name": "unknown", "number": 3, "list": [valid], "empty": ""}
    return Argument(valid, bad | ({} if none else {"nothing": None}))


def flag(valid: bool = False) -> Argument:
    return Argument(valid, {"type": "no", "number": 2, "nothing": None})


def other(valid: Any, *wrong: Any, none: bool = False, **bad: Any) -> Argument:
    values = {f"type {type(value).__name__}": value for value in wrong} | bad
    return Argument(valid, values | ({} if none else {"nothing": None}))


def classifier(**changes: Any) -> nn.Module:
    from advfeat.models import Classifier

    torch.manual_seed(0)
    features = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, UNITS), nn.BatchNorm1d(UNITS), nn.ReLU())
    del features[2]
    model = Classifier(features, nn.Linear(UNITS, changes.get("classes", CLASSES))).eval()
    if changes.get("spoil"):
        with torch.no_grad():
            model.features[1].weight.fill_(changes["spoil"])
    return model.train(changes.get("train", False))


class Plain(nn.Module):
    """A network that the library did not make: no head, no representation, no normalisation."""

    def __init__(self, answer: Callable[[Tensor], Any] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, CLASSES))
        self.answer = answer
        self.eval()

    def forward(self, pixels: Tensor) -> Any:
        logits = self.layers(pixels)
        return logits if self.answer is None else self.answer(logits)


def model(*, inside: bool = False, training: bool = True, broken: bool = True, logits: bool = True) -> Argument:
    """A network: with ``inside`` one that must have a representation; training mode and NaN where they matter."""
    bad: dict[str, Any] = {"type": "resnet18", "nothing": None, "class": nn.Linear, "function": lambda x: x}
    if inside:
        bad["no representation"] = Plain()
    if training:
        bad["training mode"] = classifier(train=True)
    if broken:
        bad |= {"NaN weights": classifier(spoil=NAN), "infinite weights": classifier(spoil=INF)}
    if logits:
        bad |= {
            "answers a tuple": Plain(lambda z: (z, z)),
            "answers a number": Plain(lambda z: z.sum()),
            "answers a vector": Plain(lambda z: z[:, 0]),
            "answers classes": Plain(lambda z: z.argmax(1)),
            "too few classes": classifier(classes=2),
        }
    return Argument(classifier(), bad)


def threat(valid: Any = None, *, finite: bool = True) -> Argument:
    from advfeat.threats import FREE, L2

    bad: dict[str, Any] = {"type": 0.5, "name": "l2", "nothing": None, "class": L2}
    return Argument(valid or L2(0.3), bad | ({"no bound": FREE, "radius 0": L2(0)} if finite else {}))


def data(n: int = N, size: int = SIZE) -> Any:
    from advfeat.data import Dataset

    return Dataset(noise(n, 3, size, size), torch.arange(n) % CLASSES, tuple("abcd"), "noise")


def dataset(valid: Any = None, *, none: bool = False) -> Argument:
    valid = data() if valid is None else valid
    bad = {"type": "cifar10", "images alone": valid.images, "pair": (valid.images, valid.labels)}
    return Argument(valid, bad | ({} if none else {"nothing": None}), rows=True)


def generator(*, none: bool = False) -> Argument:
    return other(torch.Generator().manual_seed(0), 0, "seed", none=none)


def compared() -> dict[str, Row]:
    """Comparisons of what two networks got right."""
    from advfeat import comparisons

    outcome = torch.arange(N) % 3 == 0
    bad = numbers(outcome.float()).bad | {"a list": outcome.tolist()}
    sides = {side: Argument(outcome, bad, rows=True) for side in ("first", "second")}
    table = {
        f"comparisons.{each.__name__}": Row(each, sides, one=one, none="first")
        for each, one in (
            (comparisons.paired_difference, "first"),
            (comparisons.mcnemar, "first"),
            (comparisons.unpaired_difference, "works"),
            (comparisons.two_proportions, "works"),
        )
    }
    p_values = other([0.5, 0.1], 0.5, "p", above=[0.5, 1.1], NaN=[NAN], negative=[-0.1], text=["a"])
    return table | {"comparisons.holm": Row(comparisons.holm, {"p_values": p_values})}


# The table


def rows() -> dict[str, Row]:
    from advfeat import (
        attack_checks,
        attacks,
        authors_release,
        autoattack,
        construct,
        corruptions,
        estimates,
        evaluation_mode,
        fashion_mnist,
        features,
        fourier,
        gaussian,
        gradient_ascent,
        gradient_masking,
        hyperparameters,
        image_files,
        imagenet,
        linear_features,
        measures,
        minimum_norm,
        models,
        onednn,
        optimization,
        planted,
        representations,
        responses,
        robustness,
        shards,
        streamed,
        streamed_folders,
        superposition,
        threats,
        torchvision_networks,
        train,
        transfer,
        whitening,
    )
    from advfeat import (
        data as data_module,
    )
    from advfeat.engine import fused_steps
    from advfeat.experiments import records
    from advfeat.threats import FREE

    small = noise(N, 3, SIZE, SIZE)
    one_hot = {"labels": labels(), "images": images()}
    search = {"steps": whole(2), "step_size": length()}
    per_piece = {"batch_size": whole(4, 1), "shards": other(None, "shelf", 3, none=True)}
    world = planted.PlantedWorld()
    found = features.linear_responses(noise(3, 3, SIZE, SIZE), small, threats.L2(0.3))
    sure = transfer.Transfer(
        torch.arange(N) % CLASSES,
        None,
        {"a": torch.arange(N) % CLASSES, "b": torch.arange(N) % CLASSES},
        {"a": {"a": torch.zeros(N).long(), "b": torch.zeros(N).long()}},
    )
    table: dict[str, Row] = {}

    # attacks and threats
    bounded = threat(finite=False)
    attack = {"model": model(), **one_hot, "threat": bounded}
    table["attacks.pgd"] = Row(
        attacks.pgd,
        {
            **attack,
            **search,
            "targeted": flag(),
            "start": Argument(None, {k: v for k, v in images().bad.items() if k != "nothing"}),
        },
        says={"model: too few classes": "labels"},
    )
    table["attacks.pgd, drawn start"] = Row(
        attacks.pgd,
        {"threat": threat(), "generator": generator(none=True)},
        works=("threat: radius 0",),
        given={"model": classifier(), "images": small, "labels": torch.arange(N) % CLASSES, "steps": 1,
               "step_size": 0.1},
    )  # fmt: skip
    table["attacks.fgsm"] = Row(
        attacks.fgsm,
        {**attack, "threat": threat()},
        works=("threat: radius 0",),
        says={"model: too few classes": "labels"},
    )
    table["attacks.unshared_pgd"] = Row(
        attacks.unshared_pgd,
        {**attack, **search, "others": other([classifier()], classifier(), none_at_all=[], not_a_network=[3],
                                             training=[classifier(train=True)], classes=[classifier(classes=2)]),
         "targets": labels()},
        says={"model: too few classes": "others"},
    )  # fmt: skip
    # Any further attack: the name of an argument tells its values.
    named = {**attack, **search, "targeted": flag(), "generator": generator(none=True)}
    for each, function in vars(attacks).items():
        wanted = list(inspect.signature(function).parameters) if inspect.isfunction(function) else []
        if wanted[:4] == ["model", "images", "labels", "threat"] and not each.startswith("_"):
            given = {key: named[key] for key in wanted if key in named}
            table.setdefault(f"attacks.{each}", Row(function, given, says={"model: too few classes": "labels"}))
    units = noise(N, UNITS)
    table["attacks.match_representation"] = Row(
        attacks.match_representation,
        {"model": model(inside=True, logits=False), "start": images(), "target": numbers(units), **search},
    )
    table["gradient_ascent.maximize"] = Row(
        gradient_ascent.maximize,
        {
            "model": model(logits=False),
            "objective": other(
                lambda out, target: out.sum(), "sum", 3,
                vector=lambda out, target: out[:, 0], number=lambda out, target: 1.0,
            ),
            "images": images(),
            "target": Argument(
                noise(N), {"type": "up", "number": 3, "short": noise(1), "scalar": torch.tensor(1.0)}, rows=True
            ),
            "threat": bounded,
            **search,
            "on": name("logits"),
            "start": Argument(None, {k: v for k, v in images().bad.items() if k != "nothing"}),
        },
    )  # fmt: skip
    shape = {
        "number": 3,
        "text": "3",
        "nothing": None,
        "three": (3, 5, 5),
        "negative": (2, 3, -1, 5),
        "float": (2.0,) * 4,
    }
    table["attacks.gray_noise"] = Row(
        attacks.gray_noise, {"shape": Argument((2, 3, 5, 5), shape), "generator": generator()}
    )
    for kind in (threats.L2, threats.Linf):
        table[f"threats.{kind.__name__}"] = Row(
            kind, {"eps": real(0.3, -0.1, -INF)}, works=("eps: infinite",) if kind is not threats.Linf else ()
        )
        own = {"images": images(channels=False), "generator": generator()}
        table[f"threats.{kind.__name__}.random_start"] = Row(
            kind(0.3).random_start, own, works=("images: float64", "images: one row")
        )
        quiet = ("levels", "normalised", "NaN", "infinite", "a little outside", "float64")
        table[f"threats.{kind.__name__}.distance"] = Row(
            kind(0.3).distance,
            {"adv": images(channels=False), "origin": images(channels=False)},
            works=tuple(f"{a}: {k}" for a in ("adv", "origin") for k in quiet),
        )
        table[f"threats.{kind.__name__}.dual_norm"] = Row(
            kind(0.3).dual_norm, {"rows": numbers(noise(3, 4))},
            works=("rows: NaN", "rows: infinite", "rows: one row", "rows: width 1"),
        )  # fmt: skip
        table[f"threats.{kind.__name__}.whole_box"] = Row(
            kind(0.3).whole_box, {"images": images(channels=False)},
            works=tuple(f"images: {k}" for k in (*quiet[:-1], "one row")), none="images",
        )  # fmt: skip
        step = getattr(fused_steps, f"{kind.__name__.lower()}_step")
        table[f"fused_steps.{kind.__name__.lower()}_step"] = Row(
            step,
            {k: images(channels=False) for k in ("adv", "origin", "gradient")}
            | {"eps": real(0.3, -0.1), "step_size": real(0.1, -0.1, 0.0)},
            # Inside a loop on a GPU no value is read back: a NaN stays a NaN, and the attack looks at its end.
            works=(
                *(f"{a}: {k}" for a in ("adv", "origin", "gradient") for k in quiet),
                "eps: infinite",
            ),
        )
    table["threats.usual_step_size"] = Row(threats.usual_step_size, {"threat": bounded, "steps": whole(3, 1)})
    table["threats.check_threat"] = Row(threats.check_threat, {"threat": bounded})
    table["threats.check_step"] = Row(
        threats.check_step, {"step_size": length(), "threat": bounded}, given={"images": small}
    )

    # autoattack
    table["autoattack.autoattack"] = Row(
        autoattack.autoattack,
        {**attack, "threat": threat(), "seed": seed(), "batch_size": whole(8, 1)},
        none="images",
    )

    # construct
    table["shards.check_pieces"] = Row(shards.check_pieces, per_piece)
    plain = {"dataset": dataset(), **search, **per_piece}
    table["construct.random_target_dataset"] = Row(
        construct.random_target_dataset, {"model": model(training=False), **plain, "threat": bounded, "seed": seed()}
    )
    table["construct.deterministic_target_dataset"] = Row(
        construct.deterministic_target_dataset, {"model": model(training=False), **plain, "threat": bounded}
    )
    for which in ("robust_dataset", "nonrobust_dataset"):
        table[f"construct.{which}"] = Row(
            getattr(construct, which),
            {"model": model(inside=True, training=False, logits=False), **plain, "seed": seed(),
             "start": name("other"), "begun": other(None, "yes", small, none=True)},
            one="start", none="start",
        )  # fmt: skip
    table["autoattack.autoattacked_dataset"] = Row(
        autoattack.autoattacked_dataset,
        {"model": model(training=False), "dataset": dataset(), "threat": threat(), "seed": seed(), **per_piece},
    )

    reached = {"steps": whole(2), "targeted": flag(), "tolerance": real(0.005, -0.1, 1.0)}
    table["minimum_norm.minimum_norm"] = Row(
        minimum_norm.minimum_norm,
        {"model": model(), **one_hot, "threat": Argument(FREE, threat().bad), **reached},
        works=("threat: no bound",),
        says={"model: too few classes": "labels"},
    )
    table["minimum_norm.minimum_distances"] = Row(
        minimum_norm.minimum_distances,
        {"model": model(training=False), "dataset": dataset(), "threat": Argument(FREE, threat().bad),
         "steps": whole(2), "tolerance": real(0.005, -0.1, 1.0), "batch_size": whole(4, 1)},
        works=("threat: no bound",),
        none="dataset",
        says={"model: too few classes": "labels"},
    )  # fmt: skip
    table["attack_checks.check_attack_function"] = Row(
        attack_checks.check_attack_function,
        {"attack": other(attacks.fgsm, "pgd", 3), "model": model(training=False), **one_hot, "threat": threat(),
         "slack": real(0.05, -0.1, 2.0)},
        one="images", none="images",
        says={"model: too few classes": "labels"},
    )  # fmt: skip
    table |= compared()
    table["attack_checks.LinearModel"] = Row(
        attack_checks.LinearModel, {"seed": seed()}, given={"shape": (3, SIZE, SIZE)}
    )

    # measures
    judged = {"model": model(training=False), "dataset": dataset(), "batch_size": whole(4, 1)}
    table["measures.predictions"] = Row(measures.predictions, judged | {"model": model()}, none="dataset")
    table["measures.accuracy"] = Row(measures.accuracy, judged, none="dataset")
    tried = judged | {
        "threat": bounded, "attack": name("pgd"), "steps": whole(2), "step_size": length(none=True),
        "restarts": whole(0), "seed": seed(), "early_drop": flag(),
    }  # fmt: skip
    for which in ("withstands", "robust_accuracy"):
        table[f"robustness.{which}"] = Row(getattr(robustness, which), tried, none="dataset")
        table[f"robustness.{which}, autoattack"] = Row(
            getattr(robustness, which),
            judged | {"threat": threat(), "seed": seed(), "steps": other(None, 3, none=True)},
            works=("threat: radius 0",),
            none="dataset",
            given={"attack": "autoattack"},
        )
    bright = torch.eye(CLASSES)[:, :3, None, None].expand(-1, -1, SIZE, SIZE) * 0.3
    bright[3] = -0.3
    shining = data().replace(images=(0.5 + bright[torch.arange(N) % CLASSES]).contiguous())
    table["measures.signal_kept"] = Row(
        measures.signal_kept,
        {"dataset": dataset(shining), "original": dataset(shining), "paired": flag(True),
         "templates": numbers(bright.contiguous(), rows=False)},
        one="dataset", none="dataset",
    )  # fmt: skip
    table["estimates.Estimate.of_rate"] = Row(estimates.Estimate.of_rate, {"hits": whole(3, most=8), "n": whole(8, 3)})
    table["estimates.Estimate.of_mean"] = Row(
        estimates.Estimate.of_mean, {"values": numbers(noise(N))}, one="values", none="values"
    )
    table["estimates.Estimate.of_median"] = Row(
        estimates.Estimate.of_median,
        {"values": numbers(noise(N))},
        works=("values: infinite",),
        one="values",
        none="values",
    )
    table["estimates.Estimate.of_correlation"] = Row(
        estimates.Estimate.of_correlation, {"pairs": numbers(noise(N, 2))}, one="pairs", none="pairs"
    )

    # masking
    table["gradient_masking.check_gradient_masking"] = Row(
        gradient_masking.check_gradient_masking,
        judged
        | {"threat": threat(), "steps": whole(2, 1), "slack": real(0.02, -0.1, 2.0), "pairs": whole(2, 1),
           "seed": seed(), "surrogate": other(None, "resnet18", 3, none=True)},
        none="dataset",
    )  # fmt: skip

    # transfer
    asked = {"a": classifier(), "b": Plain()}
    spread = {
        "dataset": dataset(), "threat": threat(), "steps": whole(2, 1), "step_size": length(none=True),
        "targets": Argument(None, {k: v for k, v in labels().bad.items() if k != "nothing"}),
        "batch_size": whole(4, 1),
    }  # fmt: skip
    table["transfer.transfer"] = Row(
        transfer.transfer,
        spread
        | {
            "models": other(
                asked, "a", classifier(), none_of_them={}, text={"models": "a"}, NaN={"a": classifier(spoil=NAN)}
            ),
            "sources": other(None, "a", 3, none=True, stranger={"c": classifier()}),
        },
        none="dataset",
    )
    for which in ("rate", "counted", "same_mistake"):
        more = {} if which == "same_mistake" else {"among": name("all")}
        table[f"transfer.Transfer.{which}"] = Row(
            getattr(sure, which), {"source": name("a"), "target": name("b"), **more}
        )
    table["transfer.other_classes"] = Row(
        transfer.other_classes,
        {"labels": labels(), "classes": whole(CLASSES, 2), "seed": seed()},
        works=("labels: one row",),
    )

    # representations
    pair = {"left": images(), "right": images()}
    inner = {"model": model(inside=True, logits=False)}
    table["representations.interpolate"] = Row(
        representations.interpolate, {**inner, **pair, "points": whole(3, 2), **search}
    )
    table["representations.excite"] = Row(
        representations.excite,
        {**inner, "start": images(), "units": labels(UNITS), **search,
         "ceiling": Argument(None, {"type": "high", "NaN": torch.full((N,), NAN), "one row": noise(1),
                                    "integers": torch.ones(N).long(), "shape": noise(N, 1)})},
    )  # fmt: skip
    both = {"found": numbers(units), "target": numbers(units)}
    table["representations.relative_distance"] = Row(representations.relative_distance, both)
    table["representations.match_distance"] = Row(
        representations.match_distance,
        {"model": model(inside=True, training=False, logits=False), "found": images(), "target": images(),
         "batch_size": whole(4, 1)},
    )  # fmt: skip
    table["representations.detour"] = Row(
        representations.detour, {"path": numbers(noise(N, 2, 3))}, works=("path: width 1",), one="path", none="path"
    )
    table["representations.matched_units"] = Row(
        representations.matched_units,
        {"first": numbers(units), "second": numbers(units)},
        works=("first: width 1", "second: width 1"),
        one="first", none="first",
    )  # fmt: skip

    # features
    yes = torch.arange(N) % 2 == 0
    positive = Argument(
        yes, {"type": "yes", "nothing": None, "list": yes.tolist(), "bytes": yes.byte(), "int64": yes.long(),
              "floats": yes.float(), "signs": 2 * yes.long() - 1, "one row": yes[:1], "shape": yes[:, None],
              "one side": yes | True}, rows=True,
    )  # fmt: skip
    level = real(0.95, 0.0, 1.0, -0.5, 95.0)
    table["features.linear_responses"] = Row(
        features.linear_responses,
        {"weights": numbers(noise(3, 3, SIZE, SIZE), rows=False), "images": images(), "threat": bounded,
         "box": flag(True)},
        works=("weights: one row", "images: one row"), none="images",
    )  # fmt: skip
    table["features.linear_responses, no box"] = Row(
        features.linear_responses,
        {"threat": threat()},
        works=("threat: radius 0",),
        given={"weights": noise(3, 3, SIZE, SIZE), "images": small, "box": False},
    )
    table["features.searched_responses"] = Row(
        features.searched_responses,
        {
            "function": other(
                lambda x: x.flatten(1)[:, :3], "mean", 3,
                vector=lambda x: x.mean((1, 2, 3)), number=lambda x: x.mean(), constant=lambda x: torch.ones(len(x), 2),
                NaN=lambda x: x.flatten(1)[:, :3] * NAN, integers=lambda x: x.flatten(1)[:, :2].long(),
            ),
            "images": images(channels=False), "threat": bounded, "steps": whole(2, 1), "step_size": length(),
            "batch_size": whole(4, 1),
        },
        works=("images: one row",), none="images",
    )  # fmt: skip
    table["features.usefulness"] = Row(
        features.usefulness,
        {"values": numbers(noise(N, 3)), "positive": positive, "level": level},
        works=("values: width 1",), one="positive", none="positive",
    )  # fmt: skip
    lists = other(found, "found", small)
    answers = Argument(lists.valid, lists.bad | {
        "NaN": responses.Responses(found.clean * NAN, found.lowest, found.highest),
        "infinite": responses.Responses(found.clean, found.lowest - INF, found.highest),
        "shapes": responses.Responses(found.clean, found.lowest[:1], found.highest),
        "width": responses.Responses(found.clean, found.lowest[:, :1], found.highest),
        "bytes": responses.Responses(found.clean.byte(), found.lowest, found.highest),
    })  # fmt: skip
    table["features.robust_usefulness"] = Row(
        features.robust_usefulness, {"responses": answers, "positive": positive, "level": level},
        one="positive", none="positive",
    )  # fmt: skip
    sorted_labels = labels()
    several = Argument(
        sorted_labels.valid,
        sorted_labels.bad | {"one class": torch.zeros(N).long()},
    )
    table["features.class_usefulness"] = Row(features.class_usefulness, {"responses": answers, "labels": several})
    table["features.shares"] = Row(
        features.shares,
        {"responses": answers, "labels": several, "threshold": real(0.2, -0.1), "draws": whole(5, 2), "seed": seed()},
    )
    table["features.linear_truth"] = Row(
        features.linear_truth,
        {"means": numbers(noise(4, 3), rows=False), "variances": numbers(noise(4, 3), rows=False, negative=True),
         "reach": numbers(noise(3), rows=False, negative=True), "positive": whole(1, most=3)},
    )  # fmt: skip

    # models and training
    table["models.build_model"] = Row(
        models.build_model,
        {"name": name("cnn4"), "classes": whole(4, 1), "width": whole(8, 1, none=True), "patch": whole(1, 1),
         "depth": other(None, "deep", 1.5, none=True, negative=-1), "boost": real(1.0, 0.0, -1.0),
         "whitened": flag(), "seed": seed()},
    )  # fmt: skip
    table["whitening.whiten"] = Row(
        whitening.whiten,
        {"model": other(models.build_model("resnet9", width=8), "resnet9", 3, plain=Plain()),
         "images": images(noise(N, 3, 8, 8)), "floor": real(0.02, -0.1)},
        works=("images: one row",), none="images",
    )  # fmt: skip
    table["models.ready"] = Row(models.ready, {"model": model(training=False, broken=False, logits=False)})
    no_network = ("resnet", 3, nn.Linear, [classifier()])
    table["evaluation_mode.check_eval"] = Row(
        evaluation_mode.check_eval, {"model": other(classifier(), *no_network, training=classifier(train=True))}
    )
    table["onednn.check_trainable"] = Row(onednn.check_trainable, {"model": other(classifier(), *no_network)})
    table["models.freeze"] = Row(
        models.freeze,
        {"model": other(classifier(), "resnet", 3, plain=Plain()), "dtype": other(None, "float32", 3, none=True),
         "leak": real(0.0, -0.1, 1.1), "refoldable": flag()},
    )  # fmt: skip
    table["models.refold"] = Row(
        models.refold,
        {"frozen": other(models.freeze(classifier(), refoldable=True), "resnet", 3, fixed=models.freeze(classifier())),
         "model": other(classifier(), "resnet", 3, plain=Plain())},
    )  # fmt: skip
    for which in ("forward", "representation", "normalise"):
        # Values are looked at by whoever measures or attacks, once for many calls.
        table[f"models.Classifier.{which}"] = Row(
            getattr(classifier(), which),
            {"images": images()},
            works=tuple(f"images: {k}" for k in ("one row", "levels", "normalised", "NaN", "infinite", "float64",
                                                 "a little outside")),
        )  # fmt: skip
    epochs = {"epochs": whole(1), "batch_size": whole(4, 1), "lr": real(0.1, 0.0, -0.1), "warmup": real(0.2, 1.0, -0.1),
              "momentum": real(0.9, 1.0, -0.1), "weight_decay": real(0.0, -0.1),
              "label_smoothing": real(0.0, 1.0, -0.1), "shift": whole(0), "flip": flag(),
              "threat": other(threats.L2(0.3), 0.5, "l2", none=True), "attack_steps": whole(2, 1),
              "attack_step_size": length(), "attack_mode": name("eval"), "precision": name("float32"),
              "drops": other((0.5,), 0.5, [0.5], falling=(0.5, 0.2), end=(1.0,)), "logit_factor": real(1.0, 0.0, -0.1),
              "whitening": flag(), "average": real(0.5, 1.0, -0.1)}  # fmt: skip
    table["hyperparameters.TrainConfig"] = Row(hyperparameters.TrainConfig, epochs)
    config = hyperparameters.TrainConfig(epochs=1, batch_size=4, lr=0.1, threat=threats.L2(0.3))
    table["optimization.optimizer_of"] = Row(
        optimization.optimizer_of, {"model": other(classifier(), *no_network), "config": other(config, 3, "quick")}
    )
    table["optimization.rate_factor"] = Row(
        optimization.rate_factor, {"config": other(config, 3, "quick"), "steps": whole(3)}
    )
    table["optimization.WeightAverage"] = Row(
        optimization.WeightAverage,
        {"model": other(classifier(), *no_network), "share": real(0.5, -0.1, 1.1), "steps": whole(3)},
    )
    table["hyperparameters.TrainConfig.at_radius"] = Row(config.at_radius, {"eps": real(0.3, -0.1)})
    table["train.train"] = Row(
        lambda model, *given, **named: train.train(classifier() if model == "fresh" else model, *given, **named),
        {"model": other("fresh", 3, Plain(), few=classifier(classes=2), NaN=classifier(spoil=NAN)),
         "dataset": dataset(),
         "config": other(config, 3, "quick", shift=hyperparameters.TrainConfig(1, 4, 0.1, shift=5)),
         "seed": seed(), "checkpoint": other(None, "file", 3, none=True), "evaluate": other(None, "all", 3, none=True),
         "description": other("train", 3)},
        one="dataset", none="dataset",
    )  # fmt: skip

    # data and the planted world
    valid = data()
    table["data.Dataset"] = Row(
        data_module.Dataset,
        {"images": images(), "labels": labels(), "classes": other(tuple("abcd"), 4, numbers=(1, 2, 3, 4)),
         "name": other("noise", 3), "truth": other({}, 3, "none", short={"truth": noise(2)}, text={"truth": "a"}),
         "info": other({}, 3, "none")},
    )  # fmt: skip
    rows_of = {"type": "first", "list": [0, 1], "floats": noise(2), "mask": torch.ones(3, dtype=torch.bool),
               "no row": torch.tensor([N]), "number": 1, "nothing": None}  # fmt: skip
    table["data.Dataset.subset"] = Row(valid.subset, {"index": Argument(torch.tensor([0, 2]), rows_of)})
    table["data.Dataset.of_each_class"] = Row(valid.of_each_class, {"count": whole(2, most=2)})
    table["data.Dataset.to"] = Row(valid.to, {"device": other("cpu", 3.5)})
    table["data.check_dataset"] = Row(
        data_module.check_dataset, {"dataset": dataset()}, given={"least": 1}, none="dataset"
    )
    table["data.batches"] = Row(
        lambda *given, **named: list(data_module.batches(*given, **named)),
        {"dataset": dataset(), "batch_size": whole(4, 1), "generator": generator(none=True), "drop_last": flag()},
    )
    table["data.augment"] = Row(
        data_module.augment,
        {"images": images(channels=False), "generator": generator(), "shift": whole(1, most=4), "flip": flag()},
        works=tuple(f"images: {k}" for k in ("one row", "levels", "normalised", "NaN", "infinite", "a little outside")),
    )
    table["fused_steps.augment_step"] = Row(
        fused_steps.augment_step,
        {"images": images(channels=False), "shift": whole(1, most=4),
         "offsets": other(torch.zeros(2, N).long(), "none", 3, short=torch.zeros(2, 1).long(), real=torch.zeros(2, N)),
         "mirrored": other(torch.zeros(N).bool(), "no", 3, short=torch.zeros(1).bool(), bytes=torch.zeros(N).byte())},
        works=tuple(f"images: {k}" for k in quiet),
        one="images", none="images",
    )  # fmt: skip
    table["planted.planted"] = Row(
        planted.planted,
        {"world": other(world, "flat", 3), "n": whole(3), "seed": seed(), "shapes": flag(True), "textures": flag(True)},
    )
    table["planted.PlantedWorld"] = Row(
        planted.PlantedWorld,
        {"shape_reliability": real(0.9, -0.1, 1.1), "texture_reliability": real(0.9, -0.1, 1.1),
         "texture_norm": real(0.3, 0.0, -1.0, 5.0), "noise": real(0.03, -0.1, 1.0), "shift": real(2.0, -1.0, 20.0),
         "turn": real(12.0, -1.0, 90.0), "seed": seed(),
         "radius": other((10.0, 12.0), "wide", 3, order=(12.0, 10.0), three=(1.0, 2.0, 3.0), NaN=(NAN, 12.0),
                         text=("a", "b"))},
    )  # fmt: skip
    table["planted.PlantedWorld.moments"] = Row(
        world.moments, {"weights": numbers(noise(2, 3, 32, 32), rows=False), "points": whole(8, 1)},
        works=("weights: one row",),
    )  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="advfeat-inputs-"))
    table["authors_release.load_authors_set"] = Row(
        lambda kind, root: _absent(authors_release.load_authors_set, kind, root),
        {"kind": name("D_R"), "root": other(folder, 3, 0.5)},
    )
    table["authors_release.Release"] = Row(
        lambda root: _absent(authors_release.Release, root, images=3, device=torch.device("cpu")),
        {"root": other(folder, 3, 0.5)},
    )
    table["image_files.image_folder"] = Row(
        lambda path, **named: _absent(image_files.image_folder, path, **named),
        {"path": other(folder, 3, 0.5), "size": whole(8, 1)},
    )
    reads = fashion_mnist.fashion_mnist
    table["fashion_mnist.fashion_mnist"] = Row(
        lambda train, root: None if train is True and root == folder else reads(train=train, root=root),
        {"train": flag(True), "root": other(folder, 3.5, [1], none=True)},
    )
    place, size = other(folder, 3, 0.5), whole(8, 1)
    table["streamed_folders.streamed_classes"] = Row(
        lambda path: _absent(streamed_folders.streamed_classes, path), {"path": place}
    )
    table["streamed_folders.streamed_folder"] = Row(
        lambda path, **named: _absent(streamed_folders.streamed_folder, path, **named),
        {"path": place, "into": place, "size": size, "resized": whole(9, 8, none=True)},
    )
    rows_of_file = {"type": [0, 1], "negative": torch.tensor([-1]), "floats": torch.zeros(2)}
    table["streamed.StreamedImages"] = Row(
        streamed.StreamedImages,
        {"path": other(Path(__file__), 3, 0.5), "rows": Argument(torch.arange(2), rows_of_file)},
        given={"sides": (3, 2, 2)},
    )
    table["imagenet.wordnet_ids"] = Row(lambda root: _absent(imagenet.wordnet_ids, root), {"root": place})
    table["imagenet.restricted_imagenet"] = Row(
        lambda root, train: _absent(imagenet.restricted_imagenet, root, train=train, size=8, into=folder),
        {"root": place, "train": flag(True)},
    )
    table["imagenet.imagenet_a"] = Row(
        lambda path, **named: _absent(imagenet.imagenet_a, path, **named), {"path": place, "into": place, "size": size}
    )
    table["imagenet.imagenet_o"] = Row(
        lambda path, imagenet_, into: _absent(imagenet.imagenet_o, path, imagenet=imagenet_, into=into),
        {"path": place, "into": place},
        given={"imagenet_": folder},
    )
    table["imagenet.RestrictedLogits"] = Row(
        imagenet.RestrictedLogits,
        {
            "model": other(model(training=False).valid, "resnet", 3),
            "classes": Argument((0, 2), {"none": (), "twice": (1, 1), "negative": (-1,), "fraction": (0.5,)}),
        },
    )
    table |= _of_confidence() | _of_probe() | _of_cues()
    table["image_files.cifar10"] = Row(
        lambda train, root: None if train is True and root == folder else image_files.cifar10(train=train, root=root),
        {"train": flag(True), "root": other(folder, 3.5, [1], none=True)},
    )

    # fourier
    some = torch.zeros(4, 6, dtype=torch.bool)
    some[1, 2] = True
    where = other(some, "low", 3, list=some.tolist(), floats=some.float(), shape=some[None], one_row=some[:1])
    nowhere = {"nowhere": torch.zeros_like(some)}
    table["fourier.fourier_basis"] = Row(fourier.fourier_basis, {"height": whole(4, 1), "width": whole(6, 1)})
    wrong = other(
        some[..., None].repeat(1, 1, 3),
        "all",
        3,
        floats=torch.zeros(4, 6, 3),
        flat=some,
        empty=some[..., None][..., :0],
    )
    table["fourier.HeatMap"] = Row(fourier.HeatMap, {"wrong": wrong})
    of_map = {"frequencies": Argument(some, where.bad | nowhere), "others": Argument(some, where.bad | nowhere)}
    table["fourier.HeatMap.over"] = Row(fourier.HeatMap(wrong.valid).over, {"frequencies": of_map["frequencies"]})
    table["fourier.HeatMap.excess"] = Row(fourier.HeatMap(wrong.valid).excess, of_map)
    waves = numbers(fourier.fourier_basis(SIZE, SIZE), rows=False)
    waves.bad["one-sided"] = noise(SIZE, SIZE, SIZE, SIZE)
    table["fourier.error_heat_map"] = Row(
        fourier.error_heat_map,
        {"model": model(), "dataset": dataset(), "basis": waves, "norm": real(0.5, -0.1), "generator": generator(),
         "batch_size": whole(4, 1)},
        works=("model: training mode",), none="dataset",
    )  # fmt: skip
    table["fourier.near"] = Row(fourier.near, {"frequencies": where, "bins": whole(1)}, works=("frequencies: one_row",))
    finite = tuple(
        f"images: {k}" for k in ("one row", "levels", "normalised", "a little outside", "one channel", "four channels")
    )
    odd = whole(3, 1)
    odd.bad["even"] = 4
    for which in ("low_pass", "high_pass"):
        table[f"fourier.{which}"] = Row(getattr(fourier, which), {"images": images(), "bandwidth": odd}, works=finite)
    table["fourier.power_spectrum"] = Row(
        fourier.power_spectrum,
        {"pictures": images()},
        works=tuple(cell.replace("images", "pictures") for cell in finite),
        none="pictures",
    )
    sized = other(torch.ones(SIZE, SIZE, dtype=torch.bool), "low", 3, floats=torch.ones(SIZE, SIZE), shape=some)
    shared = images()
    shared.bad["black"] = torch.zeros(N, 3, SIZE, SIZE)
    table["fourier.power_share"] = Row(
        fourier.power_share,
        {"pictures": shared, "frequencies": sized},
        works=tuple(cell.replace("images", "pictures") for cell in finite),
    )
    table["fourier.radial_average"] = Row(
        fourier.radial_average,
        {"spectrum": numbers(noise(4, 6), rows=False)},
        works=("spectrum: one row", "spectrum: width 1"),
    )

    # corruptions
    coloured = tuple(f"images: {k}" for k in ("one row", "one channel", "four channels"))
    strength = real(0.5, -0.1)
    decay = real(2.0, 0.5, 0.0)
    for which, further in (
        ("gaussian_noise", {"scale": real(0.1, -0.1), "generator": generator()}),
        ("fog", {"strength": strength, "decay": decay, "generator": generator()}),
        ("contrast", {"factor": real(0.5, -0.1, 1.1)}),
        ("gaussian_blur", {"width": real(0.8, 0.0, -1.0, 17.0)}),
    ):
        table[f"corruptions.{which}"] = Row(
            getattr(corruptions, which), {"images": images(), **further}, works=coloured
        )
    side = whole(8, 2)
    side.bad["no power of two"] = 6
    table["corruptions.plasma_fractal"] = Row(
        corruptions.plasma_fractal, {"count": whole(2), "size": side, "decay": decay, "generator": generator()}
    )

    # the two Gaussian classes
    draw = torch.Generator().manual_seed(0)
    points = torch.randn(N, 2, generator=draw, dtype=torch.float64)
    sides = (torch.arange(N) % 2 * 2 - 1).double()
    fit = gaussian.Gaussians(torch.ones(2).double(), torch.tensor([[1.0, 0.2], [0.2, 0.5]]).double())
    exact = {"x": numbers64(points), "y": numbers64(sides)}
    exact["y"].bad.update({"classes 0 and 1": (sides > 0).double(), "integers": sides.long()})
    covariance = numbers64(fit.covariance, rows=False)
    covariance.bad.update(
        {
            "not symmetric": torch.tensor([[1.0, 0.0], [1.0, 1.0]]).double(),
            "singular": torch.ones(2, 2).double(),
        }
    )
    covariance.bad.update({"negative": -torch.eye(2).double(), "empty": torch.ones(0, 0).double()})
    small_eps, price = real(0.1, -0.1), real(9.0, -1.0, 0.0)
    adversary = {"fit": other(fit, "fit", 3), **exact}
    along = {"weights": numbers64(torch.ones(2).double(), rows=False), "eps": small_eps}
    along["weights"].bad["zero"] = torch.zeros(2).double()
    table["gaussian.Gaussians"] = Row(
        gaussian.Gaussians, {"mean": numbers64(fit.mean, rows=False), "covariance": covariance}
    )
    table["gaussian.Gaussians.sample"] = Row(fit.sample, {"n": whole(3), "generator": generator()})
    table["gaussian.Gaussians.loss"] = Row(fit.loss, exact, none="x")
    table["gaussian.Gaussians.accuracy"] = Row(fit.accuracy, along)
    table["gaussian.Gaussians.usefulness"] = Row(fit.usefulness, along)
    # One point has no covariance.
    table["gaussian.standard_mle"] = Row(
        gaussian.standard_mle, exact, works=("x: width 1",), one="covariance", none="x"
    )
    table["gaussian.multiplier"] = Row(gaussian.multiplier, {"covariance": covariance, "eps": real(0.1, 0.0, -0.1)})
    table["gaussian.robust_mle"] = Row(gaussian.robust_mle, {"fit": adversary["fit"], "eps": small_eps})
    table["gaussian.exact_robust_mle"] = Row(
        gaussian.exact_robust_mle,
        {"fit": adversary["fit"], "eps": small_eps, "points": whole(16, 2), "seed": seed()},
    )
    table["gaussian.attack_at_price"] = Row(gaussian.attack_at_price, adversary | {"price": price}, none="x")
    for which in ("attack_on_average", "attack_each"):
        table[f"gaussian.{which}"] = Row(getattr(gaussian, which), adversary | {"eps": small_eps}, none="x")
    table["gaussian.adversarial_training"] = Row(
        gaussian.adversarial_training,
        exact | {"attack": other(lambda _, x, y: x, "each", 3), "steps": whole(2), "rate": real(0.5, 0.0, 1.5)},
        works=("x: width 1",), one="covariance", none="x",
    )  # fmt: skip
    table["gaussian.vulnerability"] = Row(gaussian.vulnerability, {"covariance": covariance, "price": price})
    table["gaussian.alignment"] = Row(
        gaussian.alignment, {"mean": numbers64(fit.mean, rows=False), "covariance": covariance}
    )
    for which in ("worst_mean", "worst_alignment"):
        table[f"gaussian.{which}"] = Row(getattr(gaussian, which), {"covariance": covariance})

    # records
    measured = {"value": real(0.5), "n": whole(8, 1), "network": other("cnn4", 3), "attack": other("none", 3),
                "seed": seed()}  # fmt: skip
    table["records.Measured"] = Row(
        records.Measured, measured, works=("value: NaN", "value: infinite", "n: negative", "n: below 1")
    )
    about = {"provenance": {}, "config": {}, "seconds": {}}
    table["record_writing.save_record"] = Row(
        lambda **named: _saved(folder, **named),
        {"chapter": other("01", 3), "profile": other("planted", 3), "seed": seed(),
         "values": other({}, 3, "none", number={"a": 0.5}, NaN={"values": records.Measured(NAN, 8, "cnn4")},
                         share={"values": records.Measured(1.5, 8, "cnn4")},
                         none={"values": records.Measured(0.5, 0, "cnn4")})},
        given=about,
    )  # fmt: skip
    run = {"provenance": {"device": "cpu", "commit": "c"}, "config": {}, "values": {}}
    record = records.Record("01", "planted", {0: run}, folder)
    table["records.Record.only"] = Row(
        record.only, {"seed": Argument(0, {"unknown": 7, "type": "one", "nothing": None})}
    )
    table["records.load_record"] = Row(
        lambda **named: _absent(records.load_record, **named), {"chapter": other("01", 3), "profile": other("quick", 3)}
    )
    table["torchvision_networks.ArchitectureScale"] = Row(
        torchvision_networks.ArchitectureScale,
        {"width": whole(64, 4), "patch": whole(2, 1), "depth": other(None, "deep", 1.5, none=True, negative=-1),
         "boost": real(1.0, 0.0, -1.0), "whitened": flag()},
    )  # fmt: skip
    # linear features and the toy of superposition
    vectors = numbers(noise(N, 6))
    linear = linear_features.LinearClassifier(noise(3, 6), noise(3, seed=1))
    table["linear_features.LinearClassifier"] = Row(
        linear_features.LinearClassifier,
        {"weights": numbers(noise(3, 6), rows=False), "bias": numbers(noise(3), rows=False)},
        works=("weights: width 1",),
        says={"weights: one row": "bias"},
    )
    answers_of = {"values": vectors}
    table["linear_features.LinearClassifier.scores"] = Row(linear.scores, answers_of, works=("values: one row",))
    table["linear_features.LinearClassifier.predictions"] = Row(
        linear.predictions, answers_of, works=("values: one row",)
    )
    table["linear_features.LinearClassifier.certified"] = Row(
        linear.certified, {**answers_of, "threat": threat()}, works=("values: one row", "threat: radius 0")
    )
    table["linear_features.fit_linear"] = Row(
        linear_features.fit_linear,
        {"values": vectors, "labels": labels(), "classes": whole(CLASSES, 2),
         "threat": threat(), "penalty": real(0.1, -0.1), "iterations": whole(3, 1)},
        works=("values: width 1", "threat: nothing", "threat: radius 0"),
        none="values",
    )  # fmt: skip
    table["linear_features.principal_directions"] = Row(
        linear_features.principal_directions, {"images": images(channels=False)}, one="images", none="images",
    )  # fmt: skip
    table["linear_features.signed_sum"] = Row(
        linear_features.signed_sum,
        {"directions": numbers(noise(3, 3, SIZE, SIZE), rows=False), "images": images(channels=False),
         "positive": other(torch.arange(N) % 2 == 0, "cats", one_row=torch.ones(1, dtype=torch.bool),
                           one_side=torch.ones(N, dtype=torch.bool), floats=noise(N))},
        works=("directions: one row",),
        one="images",
        none="images",
    )  # fmt: skip
    table["superposition.ToyModels"] = Row(
        superposition.ToyModels,
        {"weights": numbers(noise(2, 3, 6), rows=False), "bias": numbers(noise(2, 6), rows=False)},
        says={"weights: one row": "bias", "weights: width 1": "bias"},
    )
    toys = superposition.ToyModels(noise(2, 3, 6), noise(2, 6))
    above = {"threshold": real(0.5, -0.1)}
    table["superposition.ToyModels.kept"] = Row(toys.kept, above)
    table["superposition.ToyModels.breaking_radius"] = Row(toys.breaking_radius, above)
    table["superposition.train_toys"] = Row(
        superposition.train_toys,
        {"presence": other([0.1, 0.5], 0.1, above=[0.1, 1.5], zero=[0.0, 0.5], words=["a", "b"], empty=[]),
         "radii": other([0.0, 0.1], 0.1, negative=[-0.1, 0.1], one=[0.1], words=["a", "b"], empty=[]),
         "features": whole(5, 1), "units": whole(2, 1), "steps": whole(2, 1), "batch_size": whole(4, 1),
         "lr": real(0.01, 0.0, -1.0), "seed": seed()},
    )  # fmt: skip
    table["representations.layer_robustness"] = Row(
        representations.layer_robustness,
        {"function": other(lambda pixels: pixels.flatten(1), 3, "layer"), "images": images(channels=False),
         "threat": threat(), "steps": whole(2, 1), "step_size": length(), "generator": generator(),
         "batch_size": whole(4, 1)},
        one="images", none="images",
    )  # fmt: skip

    return table


def _of_probe() -> dict[str, Row]:
    from advfeat import probe
    from advfeat.hyperparameters import TrainConfig

    units, classes = noise(N, UNITS), torch.arange(N) % CLASSES
    layer = probe.linear_probe(units, classes, classes=CLASSES, penalties=[0.1])
    config = TrainConfig(epochs=1, batch_size=4, lr=0.01)
    # Other widths, classes and numbers of images are as good: nothing is fixed before.
    return {
        "probe.frozen_features": Row(
            probe.frozen_features,
            {"model": model(inside=True, training=False, logits=False), "dataset": dataset(),
             "batch_size": whole(4, 1)},
            none="dataset",
        ),
        "probe.linear_probe": Row(
            probe.linear_probe,
            {"features": numbers(units), "labels": labels(), "classes": whole(CLASSES, 2), "seed": seed(),
             "penalties": other([0.1, 0.01], 0.1, "0.1", empty=[], zero=[0.0], text=["a"]),
             "held_out": real(0.25, 0.0, 1.0, -0.5, 2.0)},
            works=("features: width 1",), one="features", none="features",
        ),
        "probe.LinearProbe.logits": Row(
            layer.logits, {"features": numbers(units)}, works=("features: one row",)
        ),
        "probe.LinearProbe.accuracy": Row(
            layer.accuracy, {"features": numbers(units), "labels": labels()}, none="features"
        ),
        "probe.fine_tuned": Row(
            probe.fine_tuned,
            {"model": other(classifier(), "resnet18", 3, Plain()), "dataset": dataset(),
             "config": other(config, 3, "quick"), "seed": seed()},
            one="dataset", none="dataset",
        ),
    }  # fmt: skip


def _of_cues() -> dict[str, Row]:
    from advfeat import filtration, shortcuts

    truth, missed = torch.arange(N) % CLASSES, torch.arange(N) % 2 == 0
    given = other({"a": truth}, "a", truth, none_of_them={}, text={"answers": "a"}, short={"a": truth[:1]})
    rows = Argument(
        missed, {"type": "yes", "nothing": None, "int64": missed.long(), "one row": missed[:1], "none": missed & False},
        rows=True,
    )  # fmt: skip
    after = Argument((truth + 1) % CLASSES, labels().bad, rows=True)
    return {
        # Nobody says how many classes there are.
        "filtration.filtered": Row(
            filtration.filtered, {"answers": given, "labels": labels()}, works=("labels: no class",), one="answers",
            none="labels", says={"labels: one row": "answers"},
        ),
        "filtration.judged": Row(
            filtration.judged, {"answers": labels(), "labels": labels(), "missed": rows},
            works=("labels: no class", "answers: no class"), none="labels", says={"labels: one row": "answers"},
        ),
        "shortcuts.corners": Row(
            shortcuts.corners,
            {"n": whole(4), "seed": seed(), "texture_norm": real(0.3, -0.1, 5.0),
             "telling": other(("shape",), "shape", 3, unknown=("colour",), numbers=(3,))},
        ),
        "shortcuts.shape_response": Row(
            shortcuts.shape_response, {"images": images(noise(N, 3, 32, 32))}, works=("images: one row",)
        ),
        "shortcuts.shape_bias": Row(
            shortcuts.shape_bias, {"answers": labels(), "shape": labels(), "texture": after},
            works=("answers: no class", "texture: no class"), none="answers",
            says={"shape: one row": "texture"},
        ),
    }  # fmt: skip


def _of_confidence() -> dict[str, Row]:
    from advfeat import confidence

    certain, right = torch.linspace(0.1, 0.9, N), torch.arange(N) % 2 == 0
    bad = {"type": "many", "integers": certain.long(), "NaN": spoiled(certain, NAN), "shape": certain[None]}
    marks = {
        "confidence": Argument(certain, bad | {"percent": 100 * certain}, rows=True),
        "right": Argument(right, {"type": "yes", "integers": right.long(), "shape": right[None]}, rows=True),
    }
    scores = {key: Argument(certain, bad, rows=True) for key in ("foreign", "familiar")}
    asked = {"model": model(training=False), "dataset": dataset(), "batch_size": whole(4, 1)}
    return {
        "confidence.confidences": Row(confidence.confidences, asked, none="dataset"),
        "confidence.rms_calibration_error": Row(
            confidence.rms_calibration_error, {**marks, "bin_size": whole(3, 1)}, none="confidence"
        ),
        "confidence.aurra": Row(confidence.aurra, marks, none="confidence"),
        "confidence.auroc": Row(confidence.auroc, scores, none="foreign"),
        "confidence.aupr": Row(confidence.aupr, scores, none="foreign"),
        "confidence.fpr_at_tpr": Row(confidence.fpr_at_tpr, {**scores, "tpr": real(0.95, 0.0, 1.5)}, none="foreign"),
    }


def _absent(function: Callable[..., Any], *given: Any, **named: Any) -> None:
    """Call it on a folder that is empty: that is said, by the folder's name, and counts as having worked."""
    try:
        function(*given, **named)
    except FileNotFoundError:
        return


def _saved(folder: Path, **named: Any) -> None:
    from advfeat.experiments.record_writing import save_record
    from advfeat.experiments.records import results_in

    with results_in(folder):
        save_record(**named)


REFUSED = (ValueError, TypeError, KeyError, FloatingPointError, FileNotFoundError)


def outcome(call: Callable[[], Any], word: str) -> str:
    """``works``, ``refused``, or the other outcome."""
    try:
        call()
    except REFUSED as error:
        said = str(error)
        return "refused" if re.search(rf"\b{re.escape(word)}\b", said) else f"riddle: {type(error).__name__}: {said}"
    except Exception as error:
        return f"riddle: {type(error).__name__}: {error}"
    return "works"


def cut(value: Any, count: int) -> Any:
    if isinstance(value, Tensor):
        return value[:count]
    return value.subset(slice(0, count)) if hasattr(value, "subset") else value


def cells(row: Row) -> Iterable[tuple[str, str, str]]:
    """Name, expected outcome, outcome."""
    good = {key: argument.valid for key, argument in row.arguments.items()} | row.given

    def call(**changes: Any) -> Callable[[], Any]:
        return lambda: row.function(**{**good, **changes})

    yield "as described", "works", outcome(call(), "")
    for key, argument in row.arguments.items():
        for kind, value in argument.bad.items():
            cell = f"{key}: {kind}"
            yield (
                cell,
                "works" if cell in row.works else "refused",
                outcome(call(**{key: value}), row.says.get(cell, key)),
            )
    several = [key for key, argument in row.arguments.items() if argument.rows]
    for title, count, expected in (("one image", 1, row.one), ("no image", 0, row.none)):
        if several:
            changes = {key: cut(good[key], count) for key in several}
            wanted = "works" if expected == "works" else "refused"
            yield title, wanted, outcome(call(**changes), expected)


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # only the returned value matters
    import pyautoattack

    class Quick(pyautoattack.AutoAttack):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self.attacks_to_run = ["square"]
            self.square.n_queries = 3

    pyautoattack.AutoAttack = Quick
    known = rows()
    chosen = sys.argv[1:] or list(known)
    print(json.dumps({title: list(cells(known[title])) for title in chosen}))


if __name__ == "__main__":
    main()
