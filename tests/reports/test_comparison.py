"""Comparing and pooling reports, against answers known by hand."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from keras_epsched.reports import compare, comparison, pool, pooling
from keras_epsched.reports.report import Report
from keras_epsched.reports.statistics import bootstrap_interval

GRID = np.arange(3) / 255
WEIGHTS = np.array([1, 2, 1]) / 4


def make_report(levels, order=None, **overrides):
    """A report of images that stand at the first `levels` epsilons."""
    levels = np.asarray(levels)
    order = np.arange(levels.size) if order is None else order
    labels = np.arange(levels.size) % 4
    correct = np.arange(GRID.size) < levels[:, None]
    arguments = {
        "epsilons": GRID,
        "correct": correct[order],
        "labels": labels[order],
        "predictions": np.where(levels > 0, labels, 4)[order],
        "image_ids": 10 + order,
        "norm": "linf",
        "protocol": "nested",
        "attack": {"class_name": "APGD", "config": {"steps": 10}},
        "attack_name": "APGD(steps=10)",
        "model_name": "tiny",
    }
    return Report(**{**arguments, **overrides})


def draw_levels(generator, num_images, first=0.0, second=0.0):
    """Levels of two models that find the same images hard."""
    ease = 1.5 + generator.normal(0, 1.5, num_images)
    noise = generator.normal(0, 1, (2, num_images))
    scores = ease + noise + np.array([[first], [second]])
    return np.clip(np.ceil(scores), 0, GRID.size).astype(int)


# Six images; per-image expected robustness of level k is 0, 1/4, 3/4, 1.
FIRST = [0, 1, 1, 2, 3, 3]
SECOND = [1, 2, 3, 3, 3, 2]


def test_compare_by_hand():
    found = compare(
        make_report(FIRST, model_name="a"), make_report(SECOND, model_name="b")
    )
    assert found.names == ("a", "b") and found.num_images == 6
    assert found.epsilons == tuple(GRID)
    np.testing.assert_allclose(
        found.accuracy, np.array([[5, 3, 2], [6, 5, 3]]) / 6
    )
    np.testing.assert_allclose(
        found.accuracy_difference, np.array([1, 2, 1]) / 6
    )
    np.testing.assert_allclose(found.expected_robustness, [3.25 / 6, 4.75 / 6])
    assert found.difference == pytest.approx(1.5 / 6)
    # Discordant images: 1 of 1, 2 of 2 and 2 of 3 in favour of the second.
    np.testing.assert_allclose(found.accuracy_p_value, [1, 0.5, 1])
    # Differences 1, 2, 3, 1, 0, -1 quarters: of the 32 signs of 1, 2, 3, 1, 1
    # the sum is 6 or more for none wrong, or one of the three ones.
    assert found.p_value == pytest.approx(2 * 4 / 32)
    assert found.notes == ()


def test_mcnemar_is_the_binomial_test():
    first = make_report([3] * 2 + [0] * 9 + [1] * 5)
    second = make_report([0] * 2 + [3] * 9 + [1] * 5)
    by_hand = 2 * sum(math.comb(11, k) for k in range(3)) / 2**11
    found = compare(first, second)
    np.testing.assert_allclose(found.accuracy_p_value, by_hand)
    # All differences are 1 or -1, so the sign-flip test is the same one.
    assert found.p_value == pytest.approx(by_hand)


def test_density_and_target():
    first, second = make_report(FIRST), make_report(SECOND)
    at_target = compare(first, second, density=2 / 255)
    assert at_target.difference == pytest.approx(1 / 6)
    assert at_target.expected_robustness == pytest.approx((2 / 6, 3 / 6))
    assert at_target.distribution == "epsilon = 2/255"
    to_one = compare(first, second, target_epsilon=1 / 255)
    assert to_one.difference == pytest.approx((1 + 2) / 2 / 6)
    assert to_one.distribution == "epsilon uniform on [0, 1/255]"
    given = pool([first], density=[0, 1, 0])
    assert given.expected_robustness == given.accuracy[1]
    assert "given density" in given.distribution


def test_the_same_model_does_not_differ():
    found = compare(make_report(FIRST), make_report(FIRST))
    assert found.difference == 0 and found.interval == (0, 0)
    assert found.p_value == 1 and set(found.accuracy_p_value) == {1}


def test_images_in_another_order():
    generator = np.random.default_rng(1)
    first, second = draw_levels(generator, 60, second=0.3)
    order = generator.permutation(60)
    straight = make_report(first), make_report(second)
    mixed = make_report(first), make_report(second, order)
    assert compare(*mixed) == compare(*straight)
    assert compare(*mixed, seed=1) != compare(*straight)
    assert pool(mixed) == pool(straight)


def test_swapping_the_reports_turns_the_sign():
    reports = [
        make_report(x) for x in draw_levels(np.random.default_rng(2), 80)
    ]
    there, back = compare(*reports), compare(*reversed(reports))
    assert there.difference == -back.difference != 0
    assert there.interval == pytest.approx(back.interval[::-1] * -np.ones(2))
    assert there.p_value == pytest.approx(back.p_value)
    assert there.accuracy_p_value == back.accuracy_p_value


def test_sampled_sign_flips_are_near_the_exact_test(monkeypatch):
    differences = np.array([1, 2, 3, 1, 2, 3, 1, 2, -3, 1, -2, 1]) / 4
    exact = comparison._sign_flip_p_value(differences, 0)
    monkeypatch.setattr(comparison, "_NUM_PERMUTATIONS", 4000)
    sampled = comparison._sign_flip_p_value(differences, 0)
    assert exact != sampled
    assert sampled == pytest.approx(exact, abs=0.02)


def test_sign_flips_do_not_depend_on_memory_or_images_alike(monkeypatch):
    differences = np.random.default_rng(3).choice([-1, 1, 2], 40) / 4
    p_value = comparison._sign_flip_p_value(differences, 0)
    padded = np.append(differences, np.zeros(1000))
    assert comparison._sign_flip_p_value(padded, 0) == p_value
    monkeypatch.setattr(comparison, "BATCH_ELEMENTS", 40 * 8 * 700)
    assert comparison._sign_flip_p_value(differences, 0) == p_value


def test_p_values_are_calibrated(monkeypatch):
    monkeypatch.setattr(comparison, "_NUM_PERMUTATIONS", 499)
    generator = np.random.default_rng(4)
    found = []
    for _ in range(400):
        levels = draw_levels(generator, 60)
        values = np.append(0, WEIGHTS.cumsum())[levels]
        stands = levels > 1
        gained = (stands[1] & ~stands[0]).sum()
        lost = (stands[0] & ~stands[1]).sum()
        found.append(
            (
                comparison._sign_flip_p_value(values[1] - values[0], 0),
                comparison._mcnemar_p_value(gained, lost),
            )
        )
    sign_flip, mcnemar = np.array(found).T
    assert 0.02 <= (sign_flip <= 0.05).mean() <= 0.07
    assert 0.4 <= (sign_flip <= 0.5).mean() <= 0.56
    # Exact on few images, hence conservative.
    assert (mcnemar <= 0.05).mean() <= 0.06


def test_power():
    generator = np.random.default_rng(5)
    first, second = draw_levels(generator, 400, second=0.5)
    found = compare(make_report(first), make_report(second))
    assert found.p_value < 0.001
    assert 0 < found.interval[0] < found.difference < found.interval[1]
    # Two samples of images would tell less than the one that both share.
    unpaired = math.hypot(
        *(
            np.ptp(make_report(levels).expected_robustness_interval())
            for levels in (first, second)
        )
    )
    assert np.ptp(found.interval) < 0.75 * unpaired


def expected_robustness(shift, spread):
    """Of levels drawn with that shift: P(score > k) under the weights."""
    return WEIGHTS @ stats.norm.sf(np.arange(3), 1.5 + shift, spread)


def test_interval_covers_the_difference(monkeypatch):
    monkeypatch.setattr(comparison, "_NUM_PERMUTATIONS", 1)
    generator = np.random.default_rng(6)
    spread = math.hypot(1.5, 1)
    truth = expected_robustness(0.4, spread) - expected_robustness(0, spread)
    held = []
    for _ in range(400):
        reports = map(make_report, draw_levels(generator, 150, second=0.4))
        low, high = compare(*reports, confidence=0.9).interval
        held.append(low <= truth <= high)
    assert 0.86 <= np.mean(held) <= 0.94


def test_pool_by_hand():
    reports = [make_report(FIRST), make_report(SECOND, model_name="other")]
    found = pool(reports)
    assert found.names == ("tiny", "other") and found.num_images == 6
    np.testing.assert_allclose(found.accuracy, np.array([11, 8, 5]) / 12)
    # Half the difference is the standard error of two.
    np.testing.assert_allclose(found.accuracy_error, np.array([1, 2, 1]) / 12)
    assert found.expected_robustness == pytest.approx(8 / 12)
    assert found.expected_robustness_error == pytest.approx(1.5 / 12)
    for mean, (low, high) in zip(
        found.accuracy, found.accuracy_interval, strict=True
    ):
        assert 0 <= low < mean < high <= 1
    assert pool(reports) == found != pool(reports, seed=1)


@pytest.mark.parametrize("num_reports", [1, 4])
def test_pool_of_equal_reports_is_the_bootstrap_of_one(num_reports):
    levels = draw_levels(np.random.default_rng(7), 300)[0]
    report = make_report(levels)
    found = pool([report] * num_reports, confidence=0.9)
    if num_reports == 1:
        assert math.isnan(found.expected_robustness_error)
        assert np.isnan(found.accuracy_error).all()
    else:
        assert found.expected_robustness_error == 0
        assert set(found.accuracy_error) == {0}
    np.testing.assert_allclose(
        found.expected_robustness_interval,
        report.expected_robustness_interval(confidence=0.9),
        atol=0.003,
    )
    np.testing.assert_allclose(
        found.accuracy_interval,
        [bootstrap_interval(x, 0.9) for x in report.correct.T],
        atol=0.005,
    )


def test_pool_is_wider_where_seeds_differ():
    generator = np.random.default_rng(8)
    shifts = [-1, -0.4, 0.2, 0.9]
    reports = [
        make_report(draw_levels(generator, 400, first=shift)[0])
        for shift in shifts
    ]
    found = pool(reports)
    values = np.mean([report.correct @ WEIGHTS for report in reports], axis=0)
    width = np.diff(found.expected_robustness_interval)
    assert width > 2 * np.diff(bootstrap_interval(values))
    # Four draws of four show 3/4 of the variance between them.
    normal = 2 * 1.96 * found.expected_robustness_error * math.sqrt(3 / 4)
    assert normal * 0.9 < width < normal * 1.3


def test_pool_covers_the_recipe(monkeypatch):
    monkeypatch.setattr(pooling, "_NUM_RESAMPLES", 500)
    generator = np.random.default_rng(9)
    truth = expected_robustness(0, math.hypot(1.5, 1, 0.2))
    held = []
    for _ in range(100):
        ease = 1.5 + generator.normal(0, 1.5, 150)
        run = generator.normal(0, 0.2, (8, 1))
        scores = ease + run + generator.normal(0, 1, (8, 150))
        levels = np.clip(np.ceil(scores), 0, 3).astype(int)
        low, high = pool(
            map(make_report, levels), confidence=0.9
        ).expected_robustness_interval
        held.append(low <= truth <= high)
    assert 0.83 <= np.mean(held) <= 0.97


def test_pool_in_little_memory(monkeypatch):
    reports = [
        make_report(x) for x in draw_levels(np.random.default_rng(3), 90)
    ]
    whole = pool(reports)
    monkeypatch.setattr(pooling, "BATCH_ELEMENTS", 2500)
    np.testing.assert_allclose(
        pool(reports).accuracy_interval, whole.accuracy_interval, atol=0.02
    )


def test_text_of_a_comparison():
    first = make_report(FIRST, model_name="fixed")
    second = make_report(SECOND, model_name="scheduled", seed=3)
    text = str(compare(first, second))
    assert "scheduled" in text and "6, the same for both" in text
    assert "54.17 % (first), 79.17 % (second), epsilon uniform on" in text
    assert "+25.00 points (95 % interval " in text
    assert "p = 0.25 (sign-flip test)" in text
    row = next(row for row in text.splitlines() if "1/255" in row)
    assert row.split() == ["1/255", "50.00", "83.33", "+33.33", "0.5"]
    assert "NOTE: the seeds of the attacks differ: 0 and 3" in text
    assert max(map(len, text.splitlines())) <= 100


def test_text_of_a_pool():
    text = str(pool([make_report(FIRST), make_report(SECOND)], confidence=0.9))
    assert "2, on the same 6 images" in text
    assert "66.67 %, standard error 12.50 (90 % interval " in text
    row = next(row for row in text.splitlines() if "1/255" in row)
    assert row.split()[:3] == ["1/255", "66.67", "16.67"]
    assert "NOTE" not in text
    assert "standard error nan" in str(pool([make_report(FIRST)]))


def test_results_cannot_be_changed():
    found = pool([make_report(FIRST)])
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.accuracy = ()


@pytest.mark.parametrize(
    "changes, note",
    [
        (
            {"attack": {"class_name": "PGD"}, "attack_name": "PGD()"},
            "the attacks differ: APGD(steps=10) and PGD()",
        ),
        ({"seed": 1}, "the seeds of the attacks differ: 0 and 1"),
        ({"dataset": {"dataset": "digits"}}, None),
        ({"epsilons": GRID.astype("float32")}, None),
    ],
)
def test_differences_that_are_allowed(changes, note):
    reports = [make_report(FIRST), make_report(FIRST, **changes)]
    notes = () if note is None else (note,)
    assert compare(*reports).notes == notes
    assert pool([*reports, reports[1]]).notes == notes


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"norm": "l2"}, "norm: 'linf' and 'l2'"),
        ({"protocol": "independent"}, "protocol: 'nested' and 'independent'"),
        ({"dataset": {"dataset": "digits"}}, "dataset: .*dogs.*digits"),
        (
            {"epsilons": GRID * 2},
            "epsilons: 0, 1/255, 2/255 and 0, 2/255, 4/255",
        ),
        ({"epsilons": GRID[:2], "correct": np.ones((6, 2), bool)}, "epsilons"),
        (
            {"image_ids": np.arange(6) + 13},
            "image_ids: 6 and 6 images, with 3",
        ),
        ({"labels": [0, 1, 2, 3, 0, 0]}, "labels: 1 images"),
    ],
)
def test_reports_that_do_not_match(changes, message):
    first = make_report([3] * 6, dataset={"dataset": "dogs"})
    base = {"predictions": changes.get("labels", first.labels)}
    other = make_report([3] * 6, **{**base, **changes}, model_name="other")
    message = f"'tiny' and 'other', which differ in {message}"
    with pytest.raises(ValueError, match=message):
        compare(first, other)
    with pytest.raises(ValueError, match=message):
        pool([first, first, other])


def test_all_that_differs_is_named():
    other = make_report(FIRST[:4], norm="l2", epsilons=GRID * 2)
    with pytest.raises(ValueError, match="norm.*epsilons.*image_ids: 6 and 4"):
        compare(make_report(FIRST), other)


def test_one_image_decides_nothing():
    better = [FIRST[0] + 1, *FIRST[1:]]
    compared = compare(make_report(FIRST), make_report(better))
    assert compared.difference > 0 and compared.p_value == 1.0


def test_what_is_no_report():
    with pytest.raises(ValueError, match="Report.load.*Received: none"):
        pool([])
    with pytest.raises(ValueError, match="Report.load.*Received: Report, str"):
        compare(make_report(FIRST), "runs/second")


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_confidence_is_checked(confidence):
    reports = [make_report(FIRST), make_report(SECOND)]
    with pytest.raises(ValueError, match="`confidence`"):
        compare(*reports, confidence=confidence)
    with pytest.raises(ValueError, match="`confidence`"):
        pool(reports, confidence=confidence)
