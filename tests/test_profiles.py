"""Profiles: one table, and overrides that are refused by name where they do not fit."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from advfeat.experiments.profiles import PROFILES, get_profile
from advfeat.models import build_model
from advfeat.threats import L2
from advfeat.torchvision_networks import TORCHVISION


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_can_be_run(name):
    profile = get_profile(name)
    assert profile == PROFILES[name]
    assert profile.name == name
    assert profile.description
    assert profile.data.name in ("planted", "cifar10")
    build_model(profile.network.name, width=profile.network.width)  # raises where network or width do not exist
    build_model(profile.network.name, width=profile.network.source_width)
    training = profile.training
    ordinary = (training.standard, training.on_matched, training.on_rand, training.on_det)
    ordinary += (profile.transfer.standard, profile.transfer.det)
    for config in (*ordinary, training.robust, profile.matching.source, training.overfit):
        assert config.batch_size <= profile.data.train_images
        assert config.epochs >= 1
    assert profile.training.overfit.batch_size <= profile.training.overfit_images <= profile.data.train_images
    assert profile.training.on_matched.batch_size <= profile.matching.images
    assert profile.matching.images <= profile.data.train_images
    assert profile.training.robust.threat is not None
    assert all(config.threat is None for config in ordinary)
    assert min(profile.matching.sweep) < profile.matching.steps
    assert profile.matching.steps not in profile.matching.sweep
    assert all(type(steps) is int and steps >= 1 for steps in profile.matching.sweep)
    assert min(profile.matching.step_size, profile.matching.nonrobust_step_size) > 0
    assert profile.matching.start in ("other", "noise")
    assert 0 < profile.evaluation.images <= profile.data.test_images
    evaluation = profile.evaluation
    most = max(profile.watching.images, evaluation.autoattack_images, profile.transfer.images)
    assert most <= profile.data.test_images
    assert set(profile.transfer.architectures) <= set(TORCHVISION)
    for architecture, scale in profile.transfer.architectures.items():
        with torch.device("meta"):
            build_model(architecture, **dataclasses.asdict(scale)).eval()(torch.empty(1, 3, 32, 32))
    for radii in (evaluation.eps, evaluation.curve_eps, training.robust_eps, evaluation.autoattack_eps):
        assert list(radii) == sorted(radii)
    # The attack can reach the edge of its ball, and so can the one that trains the robust network.
    assert profile.targeting.steps * profile.targeting.step_size >= profile.targeting.eps
    for config in (training.robust, profile.matching.robust_source, training.overfit):
        assert config.attack_steps * config.attack_step_size >= config.threat.eps


def test_an_unknown_profile_lists_what_exists():
    with pytest.raises(ValueError, match=r"unknown profile 'cifar'; there are planted, .*cifar10-cpu"):
        get_profile("cifar")


def test_overrides_replace_single_numbers_and_leave_the_table():
    table = dict(PROFILES)
    changed = get_profile("planted", {"eps": 0.25, "train_images": 500, "standard": {"epochs": 3}, "eval_eps": [0, 1]})
    original = PROFILES["planted"]
    standard = dataclasses.replace(original.training.standard, epochs=3)
    assert changed == dataclasses.replace(
        original,
        targeting=dataclasses.replace(original.targeting, eps=0.25),
        data=dataclasses.replace(original.data, train_images=500),
        matching=dataclasses.replace(original.matching, images=500, sweep_images=500),  # there are no more
        evaluation=dataclasses.replace(original.evaluation, eps=(0.0, 1.0)),
        training=dataclasses.replace(original.training, standard=standard),
    )
    by_group = {"targeting": {"eps": 0.25}, "data": {"train_images": 500}, "training": {"standard": {"epochs": 3}}}
    assert get_profile("planted", {**by_group, "evaluation": {"eps": [0, 1]}}) == changed
    assert table == PROFILES
    assert get_profile("planted", {}) == get_profile("planted", None) == original


COUNTING = {
    "train_images": {"overfit_images", "match_images", "sweep_images"},
    "test_images": {
        "eval_images", "autoattack_images", "watch_images", "feature_images", "represent_images", "transfer_images"
    },
}  # fmt: skip


@pytest.mark.parametrize(("most", "names"), COUNTING.items())
def test_no_setting_counts_more_images_than_there_are(most, names):
    there = PROFILES["planted"].recorded()[most]
    for name in names:
        assert get_profile("planted", {name: there}).recorded()[name] == there
        with pytest.raises(ValueError, match=f"^{name}={there + 1} must be at most {most}={there}$"):
            get_profile("planted", {name: there + 1})
        with pytest.raises(ValueError, match=f"^{name}=60 must be at most {most}=50$"):
            get_profile("planted", {most: 50, name: 60})
        assert get_profile("planted", {most: there + 1, name: there + 1}).recorded()[name] == there + 1
    few = get_profile("planted", {most: 50}).recorded()
    before = PROFILES["planted"].recorded()
    assert {name: few[name] for name in names} == {name: min(50, before[name]) for name in names}
    assert {name for name in few if few[name] != before[name]} <= {most, *names}
    several = sorted(names)[:2]
    with pytest.raises(ValueError, match=f"must be at most {most}={there}$") as caught:
        get_profile("planted", dict.fromkeys(several, there + 1))
    assert {name for name in names if f"{name}={there + 1}" in str(caught.value)} == set(several)


def test_a_tuple_keeps_whole_numbers_whole():
    changed = get_profile("planted", {"match_sweep": [3, 5], "curve_eps": [0, 1], "autoattack_eps": [1]})
    sweep, evaluation = changed.matching.sweep, changed.evaluation
    assert (sweep, evaluation.curve_eps, evaluation.autoattack_eps) == ((3, 5), (0.0, 1.0), (1.0,))
    assert [type(value) for value in (*sweep, *evaluation.autoattack_eps)] == [int, int, float]


def test_an_override_reaches_into_the_threat():
    assert get_profile("planted", {"robust": {"threat": {"eps": 0.25}}}).training.robust.threat == L2(0.25)


def test_an_override_reaches_into_one_architecture_and_leaves_the_others():
    before = PROFILES["planted"].transfer.architectures
    after = get_profile("planted", {"architectures": {"vgg16": {"boost": 1}}}).transfer.architectures
    assert after["vgg16"] == dataclasses.replace(before["vgg16"], boost=1.0)
    assert {**after, "vgg16": before["vgg16"]} == before


def test_a_depth_may_be_given_where_there_is_none_and_taken_away_where_there_is_one():
    for name, depth in (("cifar10-cpu", 2), ("planted", None)):
        assert PROFILES[name].transfer.architectures["vgg16"].depth != depth
        changed = get_profile(name, {"architectures": {"vgg16": {"depth": depth}}})
        assert changed.transfer.architectures["vgg16"].depth == depth


def test_a_profile_is_checked_however_it_is_made():
    with pytest.raises(ValueError, match="data='mnist' must be one of planted, cifar10"):
        dataclasses.replace(PROFILES["planted"].data, name="mnist")


def test_a_whole_number_may_stand_for_a_float():
    eps = get_profile("planted", {"eps": 1}).targeting.eps
    assert eps == 1.0
    assert isinstance(eps, float)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"epsilon": 0.5}, "unknown override 'epsilon' in profile; there are .*eps, eval_eps"),
        ({"standard": {"epoch": 3}}, "unknown override 'epoch' in standard; there are .*epochs"),
        ({"name": "mine"}, "unknown override 'name'"),
        ({"architectures": {"vgg19": {}}}, "unknown override 'vgg19' in architectures; there are densenet, .*vgg16"),
        ({"architectures": {"vgg16": {"breadth": 8}}}, "unknown override 'breadth' in architectures.vgg16"),
        ({"data": "cifar10"}, "unknown override 'data'"),
        ({"standard": {"lr": -0.1}}, "lr=-0.1 is out of range"),
        ({"robust": {"threat": {"eps": -1.0}}}, "eps must be 0 or more"),
        ({"match_start": "nois"}, "match_start='nois' must be one of other, noise"),
        ({"network": "resnet10"}, "network='resnet10' must be one of cnn4, .*resnet9"),
        ({"eval_images": -1}, "eval_images=-1 must be a whole number, 1 or more"),
        ({"eval_images": 0}, "eval_images=0 must be a whole number, 1 or more"),
        ({"match_sweep": [12.5]}, r"match_sweep=\(12.5,\) must be one or more whole numbers, each 1 or more"),
        ({"match_sweep": []}, r"match_sweep=\(\) must be one or more whole numbers"),
        ({"match_sweep": [3, 0]}, r"match_sweep=\(3, 0\) must be one or more whole numbers, each 1 or more"),
        ({"match_step_size": 0}, "match_step_size=0.0 must be a positive number"),
        ({"construct_step_size": math.nan}, "construct_step_size=nan must be a positive number"),
        ({"eps": 0.04}, "construct_step_size=0.1 must be at most twice eps=0.04"),
        ({"eps": math.inf}, "eps=inf must be a positive number"),
        ({"robust_eps": [0, 1]}, r"robust_eps=\(0.0, 1.0\) must be positive numbers"),
        ({"eval_eps": [0, -1]}, r"eval_eps=\(0.0, -1.0\) must be numbers, each 0 or more"),
        ({"architectures": {"resnet18": 3}}, "'resnet18' in architectures must be like {'width': 16}, got 3"),
        ({"architectures": {"resnet18": {"depth": 0}}}, "depth must be 1 or more, got 0"),
    ],
)
def test_an_override_that_does_not_exist_or_fit_is_named(unchecked_types, overrides, message):
    with pytest.raises(ValueError, match=message):
        get_profile("planted", overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        {"train_images": 500.0}, {"train_images": "500"}, {"train_images": True}, {"eps": "0.5"}, {"eps": True},
        {"eps": None}, {"eval_eps": 0.5}, {"network": 9}, {"standard": {"flip": 1}}, {"standard": 3},
        {"standard": {"epochs": 2.5}}, {"standard": {"threat": {"eps": 0.5}}}, {"architectures": 3},
        {"architectures": {"vgg16": {"depth": True}}}, {"architectures": {"vgg16": {"depth": 1.5}}},
    ],
    ids=str,
)  # fmt: skip
def test_an_override_of_another_type_is_refused(overrides):
    with pytest.raises(TypeError, match=r"must be (a|like|left out|numbers|one of|whole numbers)\b"):
        get_profile("planted", overrides)
