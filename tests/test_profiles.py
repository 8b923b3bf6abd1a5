"""Profiles: one table, and overrides that are refused by name where they do not fit."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from advfeat.attacks import L2
from advfeat.models import build_model
from advfeat.networks import TORCHVISION
from advfeat.profiles import PROFILES, get_profile


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_can_be_run(name):
    profile = get_profile(name)
    assert profile == PROFILES[name]
    assert profile.name == name
    assert profile.description
    assert profile.data in ("planted", "cifar10")
    build_model(profile.network, width=profile.width)  # raises where network or width do not exist
    build_model(profile.network, width=profile.source_width)
    ordinary = (profile.standard, profile.on_matched, profile.on_rand, profile.on_det)
    ordinary += (profile.architecture_standard, profile.architecture_det)
    for config in (*ordinary, profile.robust, profile.match_source, profile.overfit):
        assert config.batch_size <= profile.train_images
        assert config.epochs >= 1
    assert profile.overfit.batch_size <= profile.overfit_images <= profile.train_images
    assert profile.on_matched.batch_size <= profile.match_images
    assert profile.match_images <= profile.train_images
    assert profile.robust.threat is not None
    assert all(config.threat is None for config in ordinary)
    assert min(profile.match_sweep) < profile.match_steps
    assert profile.match_steps not in profile.match_sweep
    assert all(type(steps) is int and steps >= 1 for steps in profile.match_sweep)
    assert min(profile.match_step_size, profile.nonrobust_step_size) > 0
    assert profile.match_start in ("other", "noise")
    assert 0 < profile.eval_images <= profile.test_images
    assert max(profile.watch_images, profile.autoattack_images, profile.transfer_images) <= profile.test_images
    assert set(profile.architectures) <= set(TORCHVISION)
    for architecture, scale in profile.architectures.items():
        with torch.device("meta"):
            build_model(architecture, **dataclasses.asdict(scale)).eval()(torch.empty(1, 3, 32, 32))
    for radii in (profile.eval_eps, profile.curve_eps, profile.robust_eps, profile.autoattack_eps):
        assert list(radii) == sorted(radii)
    # The attack can reach the edge of its ball, and so can the one that trains the robust network.
    assert profile.construct_steps * profile.construct_step_size >= profile.eps
    for config in (profile.robust, profile.matched_with, profile.overfit):
        assert config.attack_steps * config.attack_step_size >= config.threat.eps


def test_an_unknown_profile_lists_what_exists():
    with pytest.raises(ValueError, match=r"unknown profile 'cifar'; there are planted, .*cifar10-cpu"):
        get_profile("cifar")


def test_overrides_replace_single_numbers_and_leave_the_table():
    table = dict(PROFILES)
    changed = get_profile("planted", {"eps": 0.25, "train_images": 500, "standard": {"epochs": 3}, "eval_eps": [0, 1]})
    original = PROFILES["planted"]
    assert changed == dataclasses.replace(
        original, eps=0.25, train_images=500, eval_eps=(0.0, 1.0),
        standard=dataclasses.replace(original.standard, epochs=3),
    )  # fmt: skip
    assert table == PROFILES
    assert get_profile("planted", {}) == get_profile("planted", None) == original


def test_a_tuple_keeps_whole_numbers_whole():
    changed = get_profile("planted", {"match_sweep": [3, 5], "curve_eps": [0, 1], "autoattack_eps": [1]})
    assert (changed.match_sweep, changed.curve_eps, changed.autoattack_eps) == ((3, 5), (0.0, 1.0), (1.0,))
    assert [type(value) for value in (*changed.match_sweep, *changed.autoattack_eps)] == [int, int, float]


def test_an_override_reaches_into_the_threat():
    assert get_profile("planted", {"robust": {"threat": {"eps": 0.25}}}).robust.threat == L2(0.25)


def test_an_override_reaches_into_one_architecture_and_leaves_the_others():
    before, after = PROFILES["planted"], get_profile("planted", {"architectures": {"vgg16": {"boost": 1}}})
    assert after.architectures["vgg16"] == dataclasses.replace(before.architectures["vgg16"], boost=1.0)
    assert {**after.architectures, "vgg16": before.architectures["vgg16"]} == before.architectures


def test_a_depth_may_be_given_where_there_is_none_and_taken_away_where_there_is_one():
    for name, depth in (("cifar10-cpu", 2), ("planted", None)):
        assert PROFILES[name].architectures["vgg16"].depth != depth
        assert get_profile(name, {"architectures": {"vgg16": {"depth": depth}}}).architectures["vgg16"].depth == depth


def test_a_profile_is_checked_however_it_is_made():
    with pytest.raises(ValueError, match="data='mnist' must be one of planted, cifar10"):
        dataclasses.replace(PROFILES["planted"], data="mnist")


def test_a_whole_number_may_stand_for_a_float():
    eps = get_profile("planted", {"eps": 1}).eps
    assert eps == 1.0
    assert isinstance(eps, float)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"epsilon": 0.5}, "unknown override 'epsilon' in profile; there are .*eps, eval_eps"),
        ({"standard": {"epoch": 3}}, "unknown override 'epoch' in standard; there are .*epochs"),
        ({"name": "mine"}, "unknown override 'name'"),
        ({"architectures": {"vgg19": {}}}, "unknown override 'vgg19' in architectures; there are densenet, .*vgg16"),
        ({"architectures": {"vgg16": {"breadth": 8}}}, "unknown override 'breadth' in vgg16"),
        ({"data": "cifar10"}, "unknown override 'data'"),
        ({"standard": {"lr": -0.1}}, "lr=-0.1 is out of range"),
        ({"robust": {"threat": {"eps": -1.0}}}, "eps must be 0 or more"),
        ({"match_start": "nois"}, "match_start='nois' must be one of other, noise"),
        ({"network": "resnet10"}, "network='resnet10' must be one of cnn4, .*resnet9"),
        ({"eval_images": -1}, "eval_images=-1 must be a whole number, 1 or more"),
        ({"eval_images": 0}, "eval_images=0 must be a whole number, 1 or more"),
        ({"match_sweep": [12.5]}, r"match_sweep=\(12.5,\) must be whole numbers, each 1 or more"),
        ({"match_sweep": [3, 0]}, r"match_sweep=\(3, 0\) must be whole numbers, each 1 or more"),
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
    with pytest.raises(TypeError, match="must be like"):
        get_profile("planted", overrides)
