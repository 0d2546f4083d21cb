"""Grids, statistics, reports and plots, against answers known by hand."""

import ast
import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from records import CORRECT, GRID, make_report
from scipy import stats

import keras_epsched
from keras_epsched import attacks
from keras_epsched.epsilons import check_epsilon, epsilon_grid, format_epsilon
from keras_epsched.reports import (
    fields,
    merge,
    plot_curves,
    plot_training_story,
)
from keras_epsched.reports.density import density_weights
from keras_epsched.reports.examples import Examples
from keras_epsched.reports.fields import LATER, ROWS, SAME, SUM, role
from keras_epsched.reports.report import Report
from keras_epsched.reports.statistics import (
    bootstrap_interval,
    standard_error,
    wilson_interval,
)


@pytest.mark.parametrize(
    "target, points", [(4 / 255, 5), (8 / 255, 9), (0.3, 9), (17 / 255, 9)]
)
def test_grid_points(target, points):
    grid = epsilon_grid(target)
    assert grid.dtype == np.float64
    assert len(grid) == points
    assert grid[0] == 0 and grid[-1] == target
    np.testing.assert_allclose(np.diff(grid), target / (points - 1))


def test_grid_steps_are_exactly_255ths():
    assert epsilon_grid(16 / 255).tolist() == [k / 255 for k in range(17)]


def test_grid_num():
    np.testing.assert_array_equal(epsilon_grid(4 / 255, num=2), [0, 4 / 255])
    np.testing.assert_allclose(
        epsilon_grid(2.0, num=5, norm="l2"), [0, 0.5, 1, 1.5, 2]
    )


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_grid_of_other_norms_needs_num(norm):
    with pytest.raises(ValueError, match="`num` is required"):
        epsilon_grid(0.5, norm=norm)


@pytest.mark.parametrize("num", [1, 0, 2.5, True])
def test_grid_rejects_num(num):
    with pytest.raises(ValueError, match="`num`"):
        epsilon_grid(4 / 255, num=num)


def test_grid_rejects_zero():
    with pytest.raises(ValueError, match="above 0"):
        epsilon_grid(0)


def test_pixel_levels_for_epsilon_are_named():
    with pytest.raises(ValueError, match=r"8/255"):
        check_epsilon(8)
    with pytest.raises(ValueError, match=r"target_epsilon=8/255"):
        epsilon_grid(8)


@pytest.mark.parametrize(
    "epsilon", [-0.1, float("nan"), float("inf"), "0.1", None, True]
)
def test_check_epsilon_rejects(epsilon):
    with pytest.raises(ValueError, match="`radius`.*finite"):
        check_epsilon(epsilon, "l2", "radius")


def test_check_epsilon_accepts():
    for value in (0, 1, np.float32(0.5), np.array(0.25)):
        checked = check_epsilon(value)
        assert type(checked) is float and checked == value
    assert check_epsilon(75, "l1") == 75.0
    with pytest.raises(ValueError, match="`norm`"):
        check_epsilon(0.1, "l0")


def test_format_epsilon():
    assert format_epsilon(0.0) == "0"
    assert format_epsilon(8 / 255) == "8/255"
    # As a logged float32 variable gives it.
    assert format_epsilon(float(np.float32(4 / 255))) == "4/255"
    assert format_epsilon(0.123456) == "0.1235"
    assert format_epsilon(2.0, "l2") == "2"


def test_uniform_is_the_formula_of_the_paper():
    accuracy = np.array([0.9, 0.55, 0.5, 0.2, 0.1])
    # (1/4) sum over i of (Acc_i + Acc_(i+1)) / 2, appendix A.
    by_hand = (0.725 + 0.525 + 0.35 + 0.15) / 4
    assert density_weights(GRID) @ accuracy == pytest.approx(by_hand)
    np.testing.assert_allclose(
        density_weights(GRID), np.array([1, 2, 2, 2, 1]) / 8
    )


def test_uniform_on_an_uneven_grid():
    # Trapezoids of widths 1, 3 and 4: halves of the widths, over 8.
    weights = density_weights([0, 0.1, 0.4, 0.8])
    np.testing.assert_allclose(weights, [1 / 16, 4 / 16, 7 / 16, 4 / 16])


def test_target_on_and_between_grid_points():
    np.testing.assert_allclose(
        density_weights(GRID, target_epsilon=2 / 255),
        [0.25, 0.5, 0.25, 0, 0],
    )
    # Accuracy 1 - x (x in levels) is linear, so its mean on [0, 2.5] is its
    # value at 1.25, whatever the grid.
    weights = density_weights(GRID, target_epsilon=2.5 / 255)
    assert weights @ (1 - np.arange(5)) == pytest.approx(1 - 1.25)
    assert weights[4] == 0 and weights.sum() == pytest.approx(1)


def test_point_masses():
    np.testing.assert_array_equal(density_weights(GRID, 0), [1, 0, 0, 0, 0])
    np.testing.assert_allclose(
        density_weights(GRID, 2.25 / 255), [0, 0, 0.75, 0.25, 0]
    )
    np.testing.assert_array_equal(
        density_weights(GRID, np.float32(4 / 255)), [0, 0, 0, 0, 1]
    )
    np.testing.assert_array_equal(
        density_weights(GRID, target_epsilon=0), [1, 0, 0, 0, 0]
    )


def test_beta_density_against_dense_numeric_integration():
    beta = stats.beta(2, 5, scale=4 / 255)
    accuracy = np.array([0.9, 0.55, 0.5, 0.2, 0.1])
    dense = np.linspace(0, 4 / 255, 200_001)
    curve = np.interp(dense, GRID, accuracy)
    expected = np.trapezoid(curve * beta.pdf(dense), dense)
    weights = density_weights(GRID, beta)
    assert weights @ accuracy == pytest.approx(expected, rel=1e-6)
    assert weights.sum() == pytest.approx(1)
    # The closed form: accuracy linear in epsilon gives that of the mean.
    assert weights @ GRID == pytest.approx(beta.mean())


def test_density_is_normalised_on_the_interval():
    # Proportional to epsilon on [0, 2/255]: hat integrals by hand.
    weights = density_weights(GRID, lambda e: 7 * e, target_epsilon=2 / 255)
    np.testing.assert_allclose(weights, np.array([1, 6, 5, 0, 0]) / 12)
    constant = density_weights(GRID, lambda e: 3.0)
    np.testing.assert_allclose(constant, density_weights(GRID))


def test_density_with_infinite_ends():
    # Mean of Beta(1/2, 1/2) is 1/2; its density is infinite at both ends.
    beta = stats.beta(0.5, 0.5, scale=4 / 255)
    weights = density_weights(GRID, beta)
    assert weights @ GRID == pytest.approx(2 / 255)


def test_weights_as_density():
    weights = density_weights(GRID, [1, 0, 0, 0, 3])
    np.testing.assert_allclose(weights, [0.25, 0, 0, 0, 0.75])


@pytest.mark.parametrize(
    "density, target, message",
    [
        (5 / 255, None, "`density` must lie between"),
        (3 / 255, 2 / 255, "`density` must lie between"),
        (None, 5 / 255, "`target_epsilon` must lie between"),
        ([1, 1], None, "one weight for each"),
        ([1, 1, 1, 1, -1], None, "nonnegative"),
        ([0, 0, 0, 0, 0], None, "not all be 0"),
        ([0, 0, 0, 0, 1], 2 / 255, "above `target_epsilon`"),
        (lambda e: -1.0, None, "nonnegative"),
        (lambda e: 0.0, None, "must be positive"),
        ("uniform", None, "`density` must be"),
    ],
)
def test_density_rejects(density, target, message):
    with pytest.raises(ValueError, match=message):
        density_weights(GRID, density, target)


@pytest.mark.parametrize("grid", [[], [0.1, 0.2], [0, 0.2, 0.2]])
def test_density_rejects_grid(grid):
    with pytest.raises(ValueError, match="`epsilons`"):
        density_weights(grid)


def test_wilson_textbook_value():
    # Newcombe (1998), table I, method 3.
    low, high = wilson_interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    low, high = wilson_interval(0, 20)
    assert low == pytest.approx(0) and round(high, 4) == 0.1611


@pytest.mark.parametrize("successes, total", [(3, 2), (-1, 2), (0, 0)])
def test_wilson_rejects(successes, total):
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(successes, total)


def test_bootstrap_covers_as_it_claims():
    generator = np.random.default_rng(1)
    samples = generator.integers(0, 5, (200, 60)) / 4  # Mean 1/2.
    intervals = [
        bootstrap_interval(sample, 0.9, num_resamples=400) for sample in samples
    ]
    covered = np.mean([low <= 0.5 <= high for low, high in intervals])
    # 180 of 200 expected, with a standard deviation of 4.2.
    assert 0.82 <= covered <= 0.97


def test_bootstrap_is_near_the_normal_interval_and_repeats():
    values = np.random.default_rng(0).random(500)
    low, high = bootstrap_interval(values, seed=3)
    half = 1.96 * values.std(ddof=1) / np.sqrt(500)
    assert low == pytest.approx(values.mean() - half, abs=0.004)
    assert high == pytest.approx(values.mean() + half, abs=0.004)
    assert (low, high) == bootstrap_interval(values, seed=3)
    assert (low, high) != bootstrap_interval(values, seed=4)


@pytest.mark.filterwarnings("error")
def test_bootstrap_of_equal_values_is_a_point():
    assert bootstrap_interval(np.full(10, 0.3)) == (0.3, 0.3)
    assert bootstrap_interval([0.7]) == (0.7, 0.7)


@pytest.mark.parametrize("values", [[], [[1.0]], [float("nan")]])
def test_bootstrap_rejects(values):
    with pytest.raises(ValueError, match="`values`"):
        bootstrap_interval(values)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_confidence_is_a_fraction(confidence):
    with pytest.raises(ValueError, match="`confidence`"):
        wilson_interval(1, 2, confidence)


def test_standard_error_is_of_the_mean():
    values = np.array([[1.0, 2.0], [3.0, 2.0], [8.0, 2.0]])
    found = standard_error(values)
    np.testing.assert_allclose(found, [np.sqrt(13 / 3), 0.0])
    assert np.isnan(standard_error(values[:1])).tolist() == [True, True]
    assert np.isnan(standard_error([0.5]))


def test_report_figures():
    report = make_report()
    assert report.num_images == 5
    assert report.clean_accuracy == pytest.approx(0.8)
    np.testing.assert_allclose(report.accuracy, [0.8, 0.6, 0.4, 0.4, 0.2])
    assert report.accuracy_at(np.float32(1 / 255)) == pytest.approx(0.6)
    assert report.accuracy_interval(2 / 255) == wilson_interval(2, 5)
    np.testing.assert_allclose(
        report.critical_epsilon * 255, [np.inf, 4, 2, 1, 0]
    )
    assert report.violations == 0
    assert report.saving_factor == pytest.approx(2.5)
    # (0.7 + 0.5 + 0.4 + 0.3) / 4.
    assert report.expected_robustness() == pytest.approx(0.475)
    assert report.expected_robustness(4 / 255) == pytest.approx(0.2)
    half = report.expected_robustness(target_epsilon=2 / 255)
    assert half == pytest.approx(0.6)


def test_expected_robustness_interval_is_over_images():
    report = make_report()
    weights = np.array([1, 2, 2, 2, 1]) / 8
    expected = bootstrap_interval(CORRECT @ weights, 0.8, seed=2)
    assert expected == report.expected_robustness_interval(
        confidence=0.8, seed=2
    )


def test_accuracy_off_the_grid_lists_the_grid():
    with pytest.raises(ValueError, match="0, 1/255, 2/255, 3/255, 4/255"):
        make_report().accuracy_at(1.5 / 255)


def test_violations_of_an_independent_sweep():
    correct = CORRECT.copy()
    correct[3] = [1, 0, 1, 0, 1]
    report = make_report(correct=correct, protocol="independent")
    assert report.violations == 2
    assert report.critical_epsilon[3] == 1 / 255
    assert "2 (an image withstood the attack" in str(report)
    with pytest.raises(ValueError, match="nested"):
        make_report(correct=correct)


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"correct": CORRECT[:, :4]}, "`correct` must have shape"),
        ({"correct": CORRECT.astype(int)}, "boolean"),
        ({"labels": [0, 1, 2]}, "`correct` must have shape"),
        ({"predictions": [0]}, "`predictions` must have shape"),
        ({"predictions": [1, 1, 2, 3, 0]}, "without an attack"),
        ({"image_ids": [1, 1, 2, 3, 4]}, "different"),
        ({"epsilons": GRID + 0.1}, "starts at 0"),
        ({"epsilons": GRID[::-1]}, "starts at 0"),
        ({"epsilons": np.arange(5)}, "4/255"),
        ({"norm": "inf"}, "`norm`"),
        ({"protocol": "fast"}, "`protocol`"),
        ({"attack": {"config": object()}}, "`attack`"),
    ],
)
def test_report_rejects(overrides, message):
    with pytest.raises(ValueError, match=message):
        make_report(**overrides)


def test_table():
    checks = [
        {"name": "zero gradients", "status": "fired", "message": "on 3 of 4"},
        {"name": "unbounded attack", "status": "passed", "message": "0 %"},
        {"name": "random outputs", "status": "not run", "message": "too dear"},
    ]
    text = str(make_report(checks=checks, notes=["odd batch"]))
    rows = [line.split() for line in text.splitlines()]
    low, high = (f"{100 * end:.2f}" for end in wilson_interval(3, 5))
    assert ["1/255", "60.00", low, "to", high] in rows
    assert ["accuracy", "at", "4/255", "20.00", "%"] in rows
    for part in (
        "stanford_dogs:0.2.0, split test",
        "5 of 8,580",
        "APGD(steps=10)",
        "linf",
        "nested (an image that is broken at one epsilon counts as",
        "expected robustness  47.50 % (95 % interval ",
        "110 forward and 90 backward",
        "260 forward and 240 backward",
        "2.5 times as many",
        "1.2 s",
        "WARNING: self-check 'zero gradients' failed: on 3 of 4",
        "self-checks passed: unbounded attack",
        "self-check not run: random outputs (too dear)",
        "NOTE: odd batch",
    ):
        assert part in text
    independent = str(make_report(protocol="independent", dataset=None))
    assert "each epsilon is attacked from scratch" in independent
    assert "WARNING" not in independent


def test_the_curve_goes_beyond_the_target(tmp_path):
    report = make_report(target_epsilon=2 / 255)
    assert report.expected_robustness() == pytest.approx(0.6)
    assert report.expected_robustness(target_epsilon=GRID[-1]) < 0.6
    # A single epsilon may be asked for beyond it.
    assert report.expected_robustness(4 / 255) == pytest.approx(0.2)
    assert report.expected_robustness(stats.uniform(0, 1)) == pytest.approx(0.6)
    assert "accuracy at 2/255    40.00 %" in str(report)
    assert "3/255" in str(report)
    report.save(tmp_path)
    assert Report.load(tmp_path).target_epsilon == report.target_epsilon
    with pytest.raises(ValueError, match="target_epsilon.*point of the grid"):
        make_report(target_epsilon=2.5 / 255)


def test_who_broke_what():
    broken_by = np.where(CORRECT, -1, 1)
    broken_by[2] = [-1, -1, 0, 0, 1]
    broken_by[4] = -1
    arguments = {"broken_by": broken_by, "attack_members": ["FGSM", "APGD"]}
    report = make_report(**arguments)
    np.testing.assert_array_equal(
        report.broken_counts, [[0, 0, 1, 1, 0], [0, 1, 1, 1, 3]]
    )
    rows = [line.split() for line in str(report).splitlines()]
    assert ["FGSM", "0", "1", "1", "0"] in rows
    assert ["APGD", "1", "1", "1", "3"] in rows
    assert report != make_report(attack_members=["FGSM", "APGD"])
    broken_by[4, 0] = 0
    with pytest.raises(ValueError, match="broken_by"):
        make_report(**arguments)
    with pytest.raises(ValueError, match="broken_by"):
        make_report(**{**arguments, "attack_members": ["APGD"]})


def serialized(attack):
    import keras

    return keras.saving.serialize_keras_object(attack)


def titled_report(attack, **overrides):
    return make_report(
        attack=serialized(attack),
        attack_name=repr(attack),
        attack_title=attack.title,
        **overrides,
    )


def test_the_attack_has_a_title(tmp_path):
    arguments = {
        "attack_title": "Two attacks",
        "attack_members": ["A()", "B()"],
    }
    report = make_report(**arguments, member_titles=["A-1", "B-2"])
    text = str(report)
    assert "Two attacks" in text and "APGD(steps=10)" not in text
    assert "A-1" in text and "B-2" in text and "A()" not in text
    report.save(tmp_path)
    assert Report.load(tmp_path) == report
    assert report.attack_name == "APGD(steps=10)"
    assert report.attack_members == ["A()", "B()"]
    with pytest.raises(ValueError, match="member_titles.*1 titles for 2"):
        make_report(**arguments, member_titles=["A-1"])


def test_files_from_before_titles_are_read(tmp_path):
    report = make_report()
    report.save(tmp_path)
    path = tmp_path / "report.json"
    summary = json.loads(path.read_text())
    assert summary.pop("attack_title") == "APGD(steps=10)"
    assert summary.pop("member_titles") == ["APGD(steps=10)"]
    path.write_text(json.dumps(summary))
    loaded = Report.load(tmp_path)
    assert loaded == report
    assert loaded.attack_title == "APGD(steps=10)"


LOOSE = "is known to be loose"


@pytest.mark.parametrize(
    "attack, loose",
    [
        (attacks.APGD(10), True),
        (attacks.APGD(100, restarts=5), True),
        (attacks.FGSM("l2"), True),
        (attacks.AttackEnsemble([attacks.PGD(2), attacks.APGD(3)]), True),
        (attacks.APGD(10, loss="margin"), False),
        (attacks.TargetedAPGD(10), False),
        (attacks.AttackEnsemble([attacks.PGD(2), attacks.Square(5)]), False),
        (attacks.AutoAttack(), False),
    ],
)
def test_a_bound_that_is_loose_is_called_so(attack, loose):
    text = str(titled_report(attack, norm=attack.norm))
    assert (LOOSE in text) is loose
    assert ("MarginEnsemble" in text) is loose
    assert text.lower().count("upper bound") == 1


@pytest.mark.parametrize(
    "attack, protocol, same",
    [
        (attacks.APGD(10), "independent", True),
        (attacks.APGD(10), "nested", False),
        (attacks.APGD(20), "independent", False),
        (attacks.APGD(10, loss="dlr"), "independent", False),
        (attacks.APGD(10, restarts=2), "independent", False),
        (attacks.PGD(10), "independent", False),
    ],
)
def test_the_protocol_of_the_paper_is_named(attack, protocol, same):
    text = str(titled_report(attack, protocol=protocol))
    assert ("the protocol of the paper (arXiv 2509.23325)" in text) is same
    assert "as in the paper" not in text


def make_examples():
    images = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 1))
    return Examples(
        clean=images.astype("float32"),
        adversarial=images.astype("float32") + 1,
        epsilon=GRID[1:3],
        label=np.array([1, 2]),
        prediction=np.array([0, 0]),
    )


def test_examples_travel_with_the_report(tmp_path):
    report = make_report(examples=make_examples())
    report.save(tmp_path)
    assert Report.load(tmp_path) == report != make_report()


def test_kept_images_are_said_to_be_of_this_precision_and_device():
    report = make_report(
        examples=make_examples(), precision="float32", device="GPU"
    )
    assert "images were found in float32 on a GPU. They may be less" in str(
        report
    )
    older = make_report(examples=make_examples())
    assert "device of this evaluation. They may be less" in str(older)
    assert "They may be less" not in str(make_report(precision="float32"))


def test_save_and_load_give_an_equal_report(tmp_path):
    report = make_report(notes=["one", "two"], zero_gradient_images=1)
    report.save(tmp_path / "run")
    loaded = Report.load(tmp_path / "run")
    assert loaded == report
    assert loaded.correct.dtype == bool
    assert str(loaded) == str(report)
    assert loaded != make_report(seed=1)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"report.json", "per_image.parquet"}


def test_saved_files_can_be_read_without_the_library(tmp_path):
    import keras
    import pandas

    make_report().save(tmp_path)
    table = pandas.read_parquet(tmp_path / "per_image.parquet")
    assert list(table.columns) == [
        "image",
        "label",
        "prediction",
        "critical_epsilon",
        "correct",
        "broken_by",
    ]
    assert table["broken_by"][1].tolist() == [-1, -1, -1, -1, 0]
    assert table["image"].tolist() == [7, 5, 11, 2, 3]
    assert table["critical_epsilon"][0] == np.inf
    assert table["correct"][2].tolist() == [True, True, False, False, False]
    summary = json.loads((tmp_path / "report.json").read_text())
    assert summary["clean_accuracy"] == pytest.approx(0.8)
    assert summary["expected_robustness"]["value"] == pytest.approx(0.475)
    assert summary["curve"][1]["text"] == "1/255"
    assert summary["curve"][1]["low"] == wilson_interval(3, 5)[0]
    assert summary["versions"]["keras"] == keras.__version__
    assert summary["versions"]["backend"] == keras.config.backend()
    assert summary["attack"]["config"]["steps"] == 10


def test_the_file_holds_its_fields_in_their_order(tmp_path):
    """So that a file that is read and saved again stays as it is."""
    make_report().save(tmp_path)
    summary = json.loads((tmp_path / "report.json").read_text())
    passes = "forward_passes backward_passes".split()
    assert list(summary) == [
        *"format created model_name dataset value_range norm protocol".split(),
        *"attack attack_name attack_members bisect shard".split(),
        *"model_fingerprint target_epsilon seed".split(),
        *[
            f"{kind}{name}"
            for kind in ("", "naive_", "check_")
            for name in passes
        ],
        *"seconds zero_gradient_images checks notes versions".split(),
        *"attack_title member_titles precision device".split(),
        *"num_images epsilons clean_accuracy expected_robustness".split(),
        *"confidence curve violations broken_counts per_image_sha256".split(),
    ]


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class LaterReport(Report):
    """A report of a later version, with one more field."""

    energy: float | None = dataclasses.field(
        default=None, metadata=role(float, LATER)
    )


def test_a_new_field_is_saved_by_its_role_alone(tmp_path):
    make_report().save(tmp_path)
    assert LaterReport.load(tmp_path).energy is None
    arguments = {
        name: getattr(make_report(), name) for name in fields.names(Report)
    }
    LaterReport(**arguments, energy="2.5").save(tmp_path)
    assert LaterReport.load(tmp_path).energy == 2.5


def half(first, **overrides):
    """The report of the first or the last images of `make_report`."""
    rows = slice(0, 2) if first else slice(2, 5)
    whole = make_report()
    columns = {
        name: getattr(whole, name)[rows]
        for name in fields.names(Report, merge=ROWS)
    }
    return make_report(**{**columns, **overrides})


@pytest.mark.parametrize("name", fields.names(Report, merge=SUM))
def test_what_is_counted_is_summed(name):
    merged = merge([half(True, **{name: 3}), half(False, **{name: 4})])
    assert getattr(merged, name) == 7
    assert merged.image_ids.tolist() == [2, 3, 5, 7, 11]
    np.testing.assert_array_equal(
        merged.correct, CORRECT[np.argsort(make_report().image_ids)]
    )


OTHERS = {
    "epsilons": GRID * 1.5,
    "model_name": "other",
    "dataset": {"dataset": "other"},
    "value_range": (0, 1),
    "norm": "l2",
    "protocol": "independent",
    "attack": {"class_name": "PGD"},
    "bisect": True,
    "model_fingerprint": "abc",
    "target_epsilon": 3 / 255,
    "seed": 1,
    "versions": {"keras": "0"},
    "precision": "float16",
}


@pytest.mark.parametrize("name", fields.names(Report, merge=SAME))
def test_only_reports_that_agree_are_merged(name):
    with pytest.raises(ValueError, match=f"differ in .*{name}: "):
        merge([half(True), half(False, **{name: OTHERS[name]})])


def test_a_report_knows_no_attack_model_or_backend():
    """The arrow goes from evaluation to reports, and never back."""
    folder = pathlib.Path(keras_epsched.reports.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named = []
            if isinstance(node, ast.Import):
                named = [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom):
                named = [f"{node.module}.{each.name}" for each in node.names]
            for name in named:
                room = name.split(".")[:2]
                assert room[0] not in BACKENDS, (path.name, name)
                if room[0] == "keras_epsched":
                    assert room[1] in ALLOWED, (path.name, name)


BACKENDS = {"keras", "keras_hub", "tensorflow", "jax", "torch"}
ALLOWED = {"epsilons", "files", "reports", "versions"}


def test_interrupted_save_leaves_the_old_report(tmp_path, monkeypatch):
    report = make_report()
    report.save(tmp_path)

    def fail(source, destination):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(OSError, match="disk full"):
            make_report(seed=9).save(tmp_path)
    assert Report.load(tmp_path) == report
    assert len(list(tmp_path.iterdir())) == 2


def test_load_rejects_what_is_not_a_report(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"report\.json"):
        Report.load(tmp_path)
    make_report().save(tmp_path)
    other = make_report(image_ids=[1, 2, 3, 4, 5])
    other.save(tmp_path / "other")
    (tmp_path / "other" / "per_image.parquet").replace(
        tmp_path / "per_image.parquet"
    )
    with pytest.raises(ValueError, match="does not belong"):
        Report.load(tmp_path)
    (tmp_path / "report.json").write_text('{"accuracy": 1}')
    with pytest.raises(ValueError, match="was not written by"):
        Report.load(tmp_path)
    (tmp_path / "per_image.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"per_image\.parquet"):
        Report.load(tmp_path)


def test_an_interrupted_figure_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "curve.png"
    axes = make_report().plot(path)
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(axes.figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        make_report().plot(path, ax=axes)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def is_png(path):
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_report_plot(tmp_path):
    axes = make_report().plot(tmp_path / "new" / "curve.png")
    assert is_png(tmp_path / "new" / "curve.png")
    x, y = axes.get_lines()[0].get_data()
    np.testing.assert_allclose(x, GRID)
    np.testing.assert_allclose(y, [80, 60, 40, 40, 20])
    assert axes._repr_png_()[:4] == b"\x89PNG"
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    assert sorted(ticks) == ["0", "1/255", "2/255", "3/255", "4/255"]
    same = make_report().plot(ax=axes, label="second", color="red")
    assert same is axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [
        "tiny: expected robustness 47.5 %",
        "second: expected robustness 47.5 %",
    ]


def test_plot_curves(tmp_path):
    worse = make_report(correct=CORRECT & (GRID < 2 / 255))
    paths = [tmp_path / "curves.png", str(tmp_path / "curves.svg")]
    figure = plot_curves(
        {"seeds": [make_report(), worse], "single": make_report()},
        paths,
        title="Dogs",
        target_epsilon=2 / 255,
    )
    assert is_png(paths[0])
    assert "<svg" in (tmp_path / "curves.svg").read_text()
    lines = figure.axes[0].get_lines()
    np.testing.assert_allclose(lines[0].get_ydata(), [80, 60, 20, 20, 10])
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    # Means 60 and 50 on [0, 2/255]: standard error 5.
    assert labels == ["seeds: 55.0 ± 5.0 % (2 seeds)", "single: 60.0 %"]
    title = legend.get_title().get_text()
    assert title.endswith("[0, 2/255]\nunder APGD(steps=10)")
    other = make_report(attack_title="PGD-7 on $a$")
    figure = plot_curves({"one": make_report(), "other": other})
    assert "under" not in figure.legends[0].get_title().get_text()
    figure = plot_curves({"other": other}, tmp_path / "other.png")
    assert "PGD-7 on" in figure.legends[0].get_title().get_text()


def test_any_name_can_be_plotted(tmp_path):
    names = ["_hidden", "a$^b$c"]
    path = tmp_path / "names.png"
    figure = plot_curves({name: make_report() for name in names}, path)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "_hidden" in texts[0] and r"a\$^b\$c" in texts[1]
    make_report(model_name="$^").plot(path)


def test_plot_curves_rejects(tmp_path):
    short = make_report(epsilons=GRID[:3], correct=CORRECT[:, :3])
    with pytest.raises(ValueError, match="one grid"):
        plot_curves({"seeds": [make_report(), short]})
    with pytest.raises(ValueError, match="same norm"):
        plot_curves({"a": make_report(), "b": make_report(norm="l2")})
    with pytest.raises(ValueError, match="at least one"):
        plot_curves({})
    with pytest.raises(ValueError, match=r"\.png"):
        plot_curves({"a": short}, tmp_path / "curve.pdf")
    assert not list(tmp_path.iterdir())


def make_arm(onset, epsilon=4 / 255):
    # Rounded as the logs of a float32 variable are.
    return {
        "epoch": list(range(10)),
        "val_accuracy": np.linspace(0.01, 0.4, 10),
        "epsilon": np.linspace(0, epsilon, 10, dtype="float32").tolist(),
        "onset": onset,
    }


def test_plot_training_story(tmp_path):
    figure = plot_training_story(
        {
            "fixed": make_arm(9),
            "scheduled": make_arm(2),
            "never": make_arm(None),
        },
        tmp_path / "story.png",
        chance=0.01,
        onset_threshold=0.05,
    )
    assert is_png(tmp_path / "story.png")
    top, bottom = figure.axes
    np.testing.assert_allclose(top.get_lines()[0].get_ydata()[-1], 40)
    ticks = [tick.get_text() for tick in bottom.get_yticklabels()]
    assert "4/255" in ticks
    assert {text.get_text() for text in top.texts} == {
        "onset: epoch 2",
        "onset: epoch 9",
    }
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "fixed",
        "scheduled",
        "never (no onset)",
        "chance (1 %)",
        "onset threshold (5 %)",
    ]


@pytest.mark.parametrize("onsets", [(2, 2, 3), (9, 9, 8), (0, 5, 9)])
def test_texts_of_onsets_do_not_overlap(onsets):
    arms = {str(i): make_arm(onset) for i, onset in enumerate(onsets)}
    figure = plot_training_story(arms, title="title")
    figure._repr_png_()  # Lays it out.
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 3
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert box.x1 <= figure.bbox.x1


def test_decimal_ticks_when_epsilon_is_no_255th():
    figure = plot_training_story({"one": make_arm(1, epsilon=0.3)})
    figure._repr_png_()
    labels = [tick.get_text() for tick in figure.axes[1].get_yticklabels()]
    assert labels and not any("/" in label for label in labels)


def test_plot_training_story_rejects():
    with pytest.raises(ValueError, match="at least one run"):
        plot_training_story({})
    with pytest.raises(ValueError, match="'a'.*equal length"):
        plot_training_story({"a": {**make_arm(1), "epoch": [0, 1]}})
    with pytest.raises(ValueError, match="missing"):
        plot_training_story({"a": {"epoch": [0]}})


@pytest.mark.ci
def test_imports_stay_light():
    # Of what this room uses; the backend is imported by Keras itself.
    code = (
        "import sys, keras; before = set(sys.modules)\n"
        "import keras_epsched.reports.report\n"
        "import keras_epsched.reports.curves\n"
        "import keras_epsched.epsilons\n"
        "new = set(sys.modules) - before\n"
        "heavy = {'matplotlib', 'scipy', 'pandas', 'pyarrow', 'tabulate'}\n"
        "assert not heavy & new, heavy & new\n"
    )
    folder = pathlib.Path(keras_epsched.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder)
