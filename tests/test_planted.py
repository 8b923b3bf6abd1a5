"""The planted world: the drawn images have the declared properties, and the features behave as the book says."""

import dataclasses
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advfeat.construct import (
    deterministic_target_dataset,
    nonrobust_dataset,
    random_target_dataset,
    robust_dataset,
)
from advfeat.experiments.profiles import get_profile
from advfeat.measures import accuracy, signal_kept
from advfeat.models import build_model
from advfeat.planted import PlantedWorld, planted
from advfeat.robustness import robust_accuracy
from advfeat.threats import L2
from advfeat.train import train

pytestmark = pytest.mark.numbers

WORLD = PlantedWorld()
PROFILE = get_profile("planted")


# Drawing


def test_same_seed_same_bits():
    assert planted(WORLD, 40, seed=3).fingerprint() == planted(WORLD, 40, seed=3).fingerprint()
    assert planted(WORLD, 40, seed=3).fingerprint() != planted(WORLD, 40, seed=4).fingerprint()


def test_global_random_state_is_neither_read_nor_changed():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = planted(WORLD, 5, seed=0).fingerprint()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert planted(WORLD, 5, seed=0).fingerprint() == first


def test_world_seed_changes_textures_only():
    other = PlantedWorld(seed=1)
    assert not torch.equal(other.textures(), WORLD.textures())
    assert torch.equal(other.shapes(), WORLD.shapes())
    bare = planted(WORLD, 20, seed=0, textures=False)
    # The room left for the texture depends on its amplitude, which depends a little on its phase.
    difference = (planted(other, 20, seed=0, textures=False).images - bare.images).abs().max()
    assert difference <= (other.textures().abs().max() - WORLD.textures().abs().max()).abs() + 1e-6


@settings(max_examples=10, deadline=None)
@given(
    n=st.integers(0, 12),
    seed=st.integers(0, 2**32 - 1),
    shapes=st.booleans(),
    textures=st.booleans(),
    norm=st.floats(0.05, 2.0),
    noise=st.floats(0.0, 0.4),
)
def test_every_image_is_a_picture(n, seed, shapes, textures, norm, noise):
    world = PlantedWorld(texture_norm=norm, noise=noise)
    dataset = planted(world, n, seed=seed, shapes=shapes, textures=textures)
    assert dataset.images.shape == (n, 3, 32, 32)
    assert dataset.images.isfinite().all()
    assert ((dataset.images >= 0) & (dataset.images <= 1)).all()
    counts = torch.bincount(dataset.labels, minlength=10)
    assert counts.max() - counts.min() <= 1
    assert set(dataset.truth) == {"shape", "texture"}
    assert all(values.min() >= 0 and values.max() < 10 for values in dataset.truth.values() if n)


def test_images_hold_exactly_their_texture():
    """Even under noise that clips, the two datasets differ by the declared grating and nothing else."""
    world = PlantedWorld(noise=0.3, texture_norm=1.0)
    bare, full = planted(world, 200, seed=0, textures=False), planted(world, 200, seed=0)
    expected = world.textures()[full.truth["texture"]]
    # One rounding of a value below 1 (half an ulp is 2**-25), and one of the bound it is clipped to.
    assert (full.images - bare.images - expected).abs().max() <= 2**-23


def test_truth_survives_subset():
    dataset = planted(WORLD, 100, seed=0)
    rows = torch.arange(90, 10, -7)
    part = dataset.subset(rows)
    for key in ("shape", "texture"):
        assert torch.equal(part.truth[key], dataset.truth[key][rows])
    assert torch.equal(part.labels, dataset.labels[rows])


def test_info_rebuilds_the_dataset():
    dataset = planted(PlantedWorld(noise=0.1, seed=5), 20, seed=7, shapes=False)
    info = json.loads(json.dumps(dataset.info))
    world = PlantedWorld(
        **{key: tuple(value) if isinstance(value, list) else value for key, value in info["world"].items()}
    )
    again = planted(world, 20, seed=info["seed"], shapes=info["shapes"], textures=info["textures"])
    assert again.fingerprint() == dataset.fingerprint()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shape_reliability", 1.1),
        ("texture_reliability", -0.1),
        ("texture_norm", 0.0),
        ("texture_norm", math.nan),
        ("noise", -1.0),
        ("radius", (12.0, 10.0)),
        ("radius", (10.0, 20.0)),
        ("shift", 9.0),
        ("turn", -1.0),
        ("seed", -1),
    ],
)
def test_world_refuses_bad_numbers(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got ") as error:
        PlantedWorld(**{name: value})
    assert repr(value) in str(error.value)


@pytest.mark.parametrize(("name", "changes"), [("n", {"n": -1}), ("seed", {"seed": -1}), ("seed", {"seed": 2**32})])
def test_planted_refuses_bad_numbers(name, changes):
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got "):
        planted(WORLD, **{"n": 1, "seed": 0, **changes})


# Features


@pytest.mark.parametrize("seed", range(5))
def test_textures_have_the_declared_norm_and_are_orthogonal(seed):
    world = dataclasses.replace(WORLD, seed=seed)
    textures = world.textures().double().flatten(1)
    gram = textures @ textures.T
    # float32 entries: each is off by at most 2**-24 of itself, so a normalised product by at most about 2**-23.
    bound = world.texture_norm**2 * 2**-23
    assert (gram - world.texture_norm**2 * torch.eye(10, dtype=torch.float64)).abs().max() <= bound
    assert textures.sum(1).abs().max() <= 2**-24 * textures.abs().sum(1).max()


def test_shapes_dwarf_the_threat_and_textures_do_not():
    eps = 0.5
    shapes = WORLD.shapes().flatten(1)
    assert shapes.norm(dim=1).min() > 20 * eps
    assert torch.pdist(shapes).min() > 8 * eps
    assert WORLD.texture_norm < eps


@pytest.mark.parametrize("key", ["shape", "texture"])
def test_reliabilities_are_the_declared_ones(key):
    n = 4000
    dataset = planted(WORLD, n, seed=11)
    rate = getattr(WORLD, f"{key}_reliability")
    wrong = dataset.truth[key] != dataset.labels
    # Four standard deviations of a binomial share: one seed in 16,000 would miss.
    assert abs(1 - wrong.double().mean() - rate) <= 4 * math.sqrt(rate * (1 - rate) / n)
    step = (dataset.truth[key] - dataset.labels)[wrong] % 10
    share = torch.bincount(step, minlength=10)[1:].double() / wrong.sum()
    assert (share - 1 / 9).abs().max() <= 4.5 * math.sqrt(1 / 9 * 8 / 9 / int(wrong.sum()))


def test_shape_and_texture_err_independently():
    n = 5000
    world = PlantedWorld(shape_reliability=0.7, texture_reliability=0.6, noise=0.0)
    dataset = planted(world, n, seed=0, shapes=False, textures=False)
    both = ((dataset.truth["shape"] != dataset.labels) & (dataset.truth["texture"] != dataset.labels)).double().mean()
    assert abs(both - 0.3 * 0.4) <= 4 * math.sqrt(0.12 * 0.88 / n)


def test_matched_filter_finds_the_texture():
    n = 2000
    dataset = planted(WORLD, n, seed=2, shapes=False)
    found = (dataset.images.flatten(1) @ WORLD.textures().flatten(1).T).argmax(1)
    # Two responses differ by N(norm², 2 norm² noise²), so a pair is mistaken with probability Q(norm / (√2 noise)).
    mistaken = 9 * 0.5 * math.erfc(WORLD.texture_norm / (2 * WORLD.noise))
    assert (found != dataset.truth["texture"]).double().mean() <= mistaken + 3 / n
    rate = WORLD.texture_reliability
    assert abs((found == dataset.labels).double().mean() - rate) <= mistaken + 4 * math.sqrt(rate * (1 - rate) / n)


def test_the_shape_is_where_truth_says():
    """Nearest canonical silhouette, found from darkness alone, is the drawn shape: 'truth' is not merely declared."""
    world = PlantedWorld(radius=(11.25, 11.25), shift=0.0, turn=0.0)
    dataset = planted(world, 300, seed=0)
    dark = 1 - dataset.images.mean(1).flatten(1)
    dark = dark - dark.mean(1, keepdim=True)
    silhouettes = -world.shapes().mean(1).flatten(1)
    silhouettes = silhouettes - silhouettes.mean(1, keepdim=True)
    found = (dark @ (silhouettes / silhouettes.norm(dim=1, keepdim=True)).T).argmax(1)
    assert torch.equal(found, dataset.truth["shape"])


@pytest.fixture(scope="module")
def filters():
    """Linear features of every kind: shapes, textures, brightness, a colour, a corner, an edge, and random ones."""
    generator = torch.Generator().manual_seed(4)
    plain = torch.zeros(4, 3, 32, 32)
    plain[0] = 1
    plain[1, 0] = 1
    plain[2, :, :8, :8] = 1
    plain[3, :, :, 16:] = 1
    weights = torch.cat([WORLD.shapes(), WORLD.textures(), plain, torch.randn(4, 3, 32, 32, generator=generator)])
    return weights / weights.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


@pytest.mark.parametrize("noise", [0.0, WORLD.noise])
def test_moments_are_those_of_the_drawn_images(filters, noise):
    """Fails for a colour left out, a covariance with n - 1, a texture that errs with the shape, a wrong noise."""
    # Features that err often: some hundred images would not show the variance of a rare error.
    world = dataclasses.replace(WORLD, noise=noise, shape_reliability=0.6, texture_reliability=0.7)
    dataset = planted(world, 3000, seed=8)
    drawn = (dataset.images.flatten(1) @ filters.flatten(1).T).double()
    mean, variance = world.moments(filters)
    deviations = drawn - mean[dataset.labels]
    for label in range(10):
        rows = deviations[dataset.labels == label]
        # 280 comparisons: five standard errors, and the clipping of one value in ten thousand.
        assert (rows.mean(0).abs() / (variance[label] / len(rows)).sqrt()).max() < 5
    # The variances of all labels together: of one label, a few extreme images would decide.
    excess = deviations.square() - variance[dataset.labels]
    assert (excess.mean(0).abs() / (excess.var(0) / len(excess)).sqrt()).max() < 5


def test_moments_do_not_depend_on_the_number_of_points(filters):
    some = filters[[0, 6, 10, 20]]
    coarse, fine = WORLD.moments(some), WORLD.moments(some, points=2048)
    assert (coarse[0] - fine[0]).abs().max() < 0.002
    # Textures catch a little of a shape's edges, which turns from dark to bright within a pixel.
    relative = (coarse[1] / fine[1] - 1).abs().amax(0)
    assert relative[[0, 1, 3]].max() < 0.001
    assert relative[2] < 0.05


def test_moments_follow_the_numbers_of_the_world(filters):
    weights = filters[[0, 10, 20]]
    mean, variance = WORLD.moments(weights, points=64)
    scaled_mean, scaled_variance = WORLD.moments(-4 * weights, points=64)
    assert (scaled_mean + 4 * mean).abs().max() < 1e-9
    assert (scaled_variance - 16 * variance).abs().max() < 1e-9
    noisier = dataclasses.replace(WORLD, noise=0.05).moments(weights, points=64)[1]
    # Unit norm up to float32.
    assert (noisier - variance - (0.05**2 - WORLD.noise**2)).abs().max() < 1e-8
    # Shapes and textures that ignore the label: nothing tells one label from another.
    blind = dataclasses.replace(WORLD, shape_reliability=0.1, texture_reliability=0.1).moments(weights, points=64)
    for moment in blind:
        assert (moment - moment[0]).abs().max() < 1e-9


# Networks in it: the claims of the paper, at the scale that the chapters run live


def _trained(dataset, config, seed=0):
    model = build_model(PROFILE.network.name, width=PROFILE.network.width, seed=seed)
    train(model, dataset, config, seed=seed)
    return model


@pytest.fixture(scope="module")
def training_set():
    return planted(WORLD, PROFILE.data.train_images, seed=1)


@pytest.fixture(scope="module")
def test_set():
    return planted(WORLD, 1000, seed=2)


@pytest.fixture(scope="module")
def standard(training_set):
    return _trained(training_set, PROFILE.training.standard)


def test_shapes_alone_make_standard_training_robust():
    model = _trained(planted(WORLD, PROFILE.data.train_images, seed=1, textures=False), PROFILE.training.standard)
    unseen = planted(WORLD, 500, seed=2, textures=False)
    assert accuracy(model, unseen).value >= WORLD.shape_reliability - 0.05
    assert robust_accuracy(model, unseen, L2(0.25), steps=20).value >= 0.5


def test_with_textures_it_is_accurate_and_fragile(standard, test_set):
    assert accuracy(standard, test_set).value >= 0.93
    assert robust_accuracy(standard, test_set.subset(slice(500)), L2(0.25), steps=20).value <= 0.05


def test_adversarial_training_falls_back_on_shapes(training_set, test_set):
    model = _trained(training_set, PROFILE.training.robust)
    assert abs(accuracy(model, test_set).value - WORLD.shape_reliability) <= 0.05
    assert robust_accuracy(model, test_set.subset(slice(500)), L2(0.5), steps=20).value >= 0.7


@pytest.mark.parametrize("target", ["random", "next"])
def test_non_robust_features_suffice(target, standard, training_set, test_set):
    attack = {"steps": PROFILE.targeting.steps, "step_size": PROFILE.targeting.step_size}
    if target == "random":
        dataset, config = (
            random_target_dataset(standard, training_set, L2(0.5), seed=3, **attack),
            PROFILE.training.on_rand,
        )
        # Its labels agree with the textures that the attack wrote, and with no shape.
        assert signal_kept(dataset, training_set, WORLD.textures()).value >= 0.9
        assert abs(signal_kept(dataset, training_set, WORLD.shapes()).value) <= 0.1
    else:
        dataset, config = (
            deterministic_target_dataset(standard, training_set, L2(0.5), **attack),
            PROFILE.training.on_det,
        )
    assert accuracy(_trained(dataset, config, seed=10), test_set).value >= 0.6


def test_matching_with_a_robust_network_keeps_shapes_and_drops_textures(training_set, test_set):
    """Swapped networks, labels of the start image or a search inside a ball would each fail one of these lines."""
    few = training_set.subset(slice(PROFILE.matching.images))
    source = _trained(training_set, PROFILE.matching.robust_source)
    dataset = robust_dataset(source, few, steps=PROFILE.matching.steps, step_size=PROFILE.matching.step_size, seed=0)
    assert signal_kept(dataset, few, WORLD.shapes()).value >= 0.9
    assert signal_kept(dataset, few, WORLD.textures()).value <= 0.1
    model, subset = _trained(dataset, PROFILE.training.on_matched), test_set.subset(slice(500))
    # The same training on either set; one network is robust, the other is not.
    of_original = robust_accuracy(_trained(few, PROFILE.training.on_matched), subset, L2(0.25), steps=20).value
    assert robust_accuracy(model, subset, L2(0.25), steps=20).value >= of_original + 0.4


def test_matching_with_an_ordinary_network_keeps_textures_and_drops_shapes(standard, training_set, test_set):
    few = training_set.subset(slice(PROFILE.matching.images))
    size = PROFILE.matching.nonrobust_step_size
    dataset = nonrobust_dataset(standard, few, steps=PROFILE.matching.steps, step_size=size, seed=0)
    assert signal_kept(dataset, few, WORLD.textures()).value >= 0.8
    assert abs(signal_kept(dataset, few, WORLD.shapes()).value) <= 0.1
    model = _trained(dataset, PROFILE.training.on_matched)
    assert accuracy(model, test_set).value >= 0.6
    assert robust_accuracy(model, test_set.subset(slice(500)), L2(0.25), steps=20).value <= 0.05
