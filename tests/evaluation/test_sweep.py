"""Ensembles, bisection, windows and shards, against the plain sweep."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import keras
import numpy as np
import pytest
from networks import (
    SHAPE,
    conv_net,
    linear_net,
    logits_of,
    make_data,
    trained_net,
)

import keras_epsched as ke
from keras_epsched.attacks import (
    APGD,
    FAB,
    FGSM,
    PGD,
    AttackEnsemble,
    AutoAttack,
    Square,
    TargetedAPGD,
)
from keras_epsched.evaluation import merge, parts
from keras_epsched.evaluation.sweep import Sweep

GRID = np.linspace(0, 40 / 255, 9)
ENSEMBLE = AttackEnsemble(
    [PGD(2), TargetedAPGD(4), FAB(4, targets=2), Square(8)]
)


@pytest.fixture(scope="module")
def trained():
    return trained_net()


DATA = make_data(60, seed=4)


def evaluate(model, data=DATA, epsilons=GRID, attack=ENSEMBLE, **kwargs):
    arguments = {"self_check": False, "verbose": 0, **kwargs}
    return ke.evaluate(model, data, epsilons, attack, **arguments)


def multiclass_case():
    """A linear model of three classes, and the radius of each image."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 1e-3, (192, 3))
    images = rng.uniform(100, 155, (48, *SHAPE)).astype("float32")
    logits = images.reshape(48, -1).astype("float64") @ weights
    labels = logits.argmax(-1)
    differences = weights[:, labels][:, :, None] - weights[:, None]
    rows = np.arange(48)
    margins = logits[rows, labels][:, None] - logits
    margins[rows, labels] = np.inf
    dual = np.abs(differences).sum(0)
    dual[rows, labels] = 1.0
    radii = (margins / dual).min(1) / 255
    return linear_net(weights), (images, labels), radii


@pytest.mark.parametrize(
    "bisect", [False, pytest.param(True, marks=pytest.mark.ci)]
)
@pytest.mark.parametrize(
    "attack",
    [
        FAB(10, targets=2),
        FAB(10),
        TargetedAPGD(20, targets=2),
        AttackEnsemble([FGSM(), TargetedAPGD(20)]),
        AttackEnsemble([FGSM(), FAB(10, targets=2)]),
    ],
    ids=["fab-t", "fab", "apgd-t", "fgsm apgd-t", "fgsm fab-t"],
)
def test_three_classes_have_a_closed_form(attack, bisect):
    model, data, radii = multiclass_case()
    grid = np.array([0.0, *np.quantile(radii, np.arange(0.1, 1, 0.2))])
    report = evaluate(model, data, grid, attack, bisect=bisect, batch_size=9)
    near = np.abs(radii[:, None] / np.maximum(grid, 1e-9) - 1) < 0.02
    agrees = report.correct == (radii[:, None] > grid)
    assert (agrees | near).all()
    assert 0 < report.accuracy[-1] < report.accuracy[1] < 1


class Follower(FGSM):
    """Breaks an image unless it starts from where it was, moved outwards."""

    def search(self, logits_fn, images, labels, epsilon, *args, **kwargs):
        start, use_start = kwargs["start"], kwargs["use_start"]
        result = super().search(
            logits_fn, images, labels, epsilon, *args, **kwargs
        )
        outwards = images + 255.0 * epsilon[:, None, None, None]
        away = keras.ops.max(keras.ops.abs(start - outwards), axis=(1, 2, 3))
        lost = (epsilon > 1.5 * GRID[1]) & (~use_start | (away > 1e-2))
        return result._replace(best=outwards, broken=lost)


def test_warm_starts_follow_the_radius(trained):
    report = evaluate(trained, attack=Follower(), bisect=False)
    np.testing.assert_array_equal(report.accuracy, report.accuracy[0])


def test_an_ensemble_is_the_worst_case_of_its_members(trained):
    # Independent, so that no warm start comes between.
    attack = AttackEnsemble([FGSM(), TargetedAPGD(4), FAB(4, targets=2)])
    together = evaluate(trained, attack=attack, protocol="independent")
    alone = [
        evaluate(trained, attack=member, protocol="independent")
        for member in (FGSM(), FAB(4, targets=2))
    ]
    for report in alone:
        assert not (together.correct & ~report.correct).any()
    # Who is named did it: the first, wherever it breaks the image.
    first = together.broken_by == 0
    broken_by_fgsm = alone[0].broken_by == 0
    np.testing.assert_array_equal(first, broken_by_fgsm)
    assert (together.broken_by == 1).any()
    assert together.attack_members == [
        repr(member) for member in attack.members
    ]
    assert "images broken up to" in str(together)


def test_bisection_finds_the_same_for_less(trained):
    # A deterministic attack, monotone on this network.
    attack = APGD(10, random_start=False)
    up = evaluate(trained, attack=attack, protocol="independent")
    halved = evaluate(trained, attack=attack, bisect=True)
    assert halved.protocol == "nested"
    assert halved.bisect and "with bisection" in str(halved)
    assert not up.bisect
    assert (up.correct != halved.correct).mean() < 0.01
    assert halved.backward_passes < 0.5 * up.backward_passes
    # At most 1 + floor(log2(8)) attacks an image.
    clean = halved.correct[:, 0].sum()
    assert halved.backward_passes <= clean * 4 * 10


def test_bisection_of_an_ensemble_tries_the_others_below(trained):
    attack = AttackEnsemble([FGSM(), APGD(10)])
    up = evaluate(trained, attack=attack, bisect=False)
    halved = evaluate(trained, attack=attack)
    assert halved.bisect and not up.bisect
    assert (up.correct != halved.correct).mean() < 0.05
    # FGSM alone leaves more standing.
    assert (
        halved.accuracy.mean()
        < evaluate(trained, attack=FGSM()).accuracy.mean()
    )
    assert halved.backward_passes < up.backward_passes


class Harmless(FGSM):
    """Breaks nothing."""

    def search(self, *args, **kwargs):
        result = super().search(*args, **kwargs)
        return result._replace(broken=keras.ops.zeros_like(result.broken))


class LastTarget(TargetedAPGD):
    """Its last target breaks images from the third epsilon on.

    Below the end of the grid only from where it broke them before.
    """

    def num_variants(self, num_classes):
        return 4

    def search(self, logits_fn, images, labels, epsilon, *args, **kwargs):
        kwargs["variant"], variant = None, kwargs["variant"]
        result = super().search(
            logits_fn, images, labels, epsilon, *args, **kwargs
        )
        start, use_start = kwargs["start"], kwargs["use_start"]
        outwards = images + 255.0 * epsilon[:, None, None, None]
        away = keras.ops.max(keras.ops.abs(start - outwards), axis=(1, 2, 3))
        follows = use_start & (away < 1e-2) | (epsilon > GRID[-2] + 1e-4)
        broken = (variant == 3) & (epsilon > GRID[3] - 1e-4) & follows
        return result._replace(adversarial=outwards, broken=broken)


def test_what_broke_an_image_is_tried_first_below_from_there(trained):
    attack = AttackEnsemble([Harmless(), LastTarget(1, targets=2)])
    report = evaluate(trained, attack=attack)
    np.testing.assert_array_equal(report.accuracy[:3], report.clean_accuracy)
    np.testing.assert_array_equal(report.accuracy[3:], 0.0)
    clean = int(report.correct[:, 0].sum())
    # Four of the first; four targets at the end of the grid, one each at the
    # five epsilons below, and four where none breaks.
    assert report.backward_passes == clean * (4 + 4 + 5 + 4)


def test_bisection_is_the_default_of_a_nested_sweep_alone(trained):
    assert evaluate(trained, attack=FGSM()).bisect
    assert not evaluate(trained, attack=FGSM(), bisect=False).bisect
    independent = evaluate(trained, attack=FGSM(), protocol="independent")
    assert not independent.bisect
    with pytest.raises(ValueError, match="nested"):
        evaluate(trained, protocol="independent", bisect=True)


def test_the_protocol_of_the_paper_has_a_name(trained):
    paper = evaluate(trained, attack=None, protocol="paper")
    plain = evaluate(trained, attack=APGD(10), protocol="independent")
    assert (paper.protocol, paper.attack) == (plain.protocol, plain.attack)
    np.testing.assert_array_equal(paper.correct, plain.correct)
    with pytest.raises(ValueError, match="APGD"):
        evaluate(trained, attack=APGD(20), protocol="paper")


def test_naive_passes_are_those_of_a_sweep_that_starts_afresh(trained):
    # Without FAB, and without randomness, nothing tells them apart.
    attack = AttackEnsemble(
        [FGSM(random_start=False), TargetedAPGD(3, random_start=False)]
    )
    report = evaluate(trained, attack=attack, protocol="independent")
    assert (report.broken_by == 1).any()
    assert report.forward_passes == report.naive_forward_passes
    assert report.backward_passes == report.naive_backward_passes


def test_fab_runs_once_for_all_epsilons(trained):
    attack = FAB(4, targets=2)
    for protocol in ("nested", "independent"):
        report = evaluate(trained, attack=attack, protocol=protocol)
        clean = report.correct[:, 0].sum()
        forward, backward = attack.passes(3)
        # Two targets: at most two runs an image, of eight epsilons.
        assert report.backward_passes <= 2 * backward * clean
        assert report.forward_passes <= 60 + 2 * forward * clean
        assert report.naive_backward_passes > 4 * report.backward_passes


@pytest.mark.parametrize(
    "attack",
    [ENSEMBLE, APGD(2, "l1")],
    ids=["ensemble", "apgd l1"],
)
def test_neither_batches_nor_order_nor_shards_change_the_result(
    trained, attack
):
    grid = GRID * {"linf": 1, "l2": 8, "l1": 60}[attack.norm]
    whole = evaluate(trained, epsilons=grid, attack=attack, batch_size=64)

    def same(report):
        order = np.argsort(report.image_ids)
        equal = (report.correct[order] == whole.correct).all(1)
        assert equal.mean() >= 0.995
        np.testing.assert_array_equal(report.labels[order], whole.labels)

    same(evaluate(trained, DATA, grid, attack, batch_size=7))
    mixed = np.random.default_rng(0).permutation(60)
    images, labels = DATA
    same(
        evaluate(
            trained,
            (images[mixed], labels[mixed]),
            grid,
            attack,
            image_ids=mixed,
            batch_size=16,
        )
    )
    shards = [
        evaluate(trained, DATA, grid, attack, shard=(index, 2), batch_size=16)
        for index in range(2)
    ]
    joined = merge(shards[::-1])
    same(joined)
    assert joined.num_images == 60
    assert joined.backward_passes == sum(
        each.backward_passes for each in shards
    )
    np.testing.assert_array_equal(joined.image_ids, np.arange(60))


def test_the_ids_decide_the_draws(trained):
    attack = PGD(1, step_ratio=1e-3)

    def correct(**kwargs):
        return evaluate(
            trained, epsilons=[200 / 255], attack=attack, **kwargs
        ).correct

    np.testing.assert_array_equal(correct(), correct(image_ids=np.arange(60)))
    assert not np.array_equal(correct(), correct(image_ids=np.arange(60) + 99))


def test_merge_refuses_what_does_not_belong_together(trained):
    first = evaluate(trained, attack=FGSM(), shard=(0, 2))
    with pytest.raises(ValueError, match="the 2 shards"):
        merge([first, first])
    whole = evaluate(trained, attack=FGSM())
    with pytest.raises(ValueError, match="share images"):
        merge([whole, whole])
    with pytest.raises(ValueError, match="the 2 shards"):
        merge([first])
    other = evaluate(trained, attack=FGSM(), shard=(1, 2), seed=1)
    with pytest.raises(ValueError, match="seed: 0 and 1"):
        merge([first, other])
    other = evaluate(trained, epsilons=GRID[:3], attack=FGSM(), shard=(1, 2))
    with pytest.raises(ValueError, match="epsilons"):
        merge([first, other])
    with pytest.raises(ValueError, match="no report"):
        merge([])


def test_merged_checks_fire_if_one_did(trained):
    reports = [evaluate(trained, attack=FGSM(), shard=(i, 2)) for i in (0, 1)]
    for report, status in zip(reports, ("passed", "fired"), strict=True):
        report.checks = [{"name": "a", "status": status, "message": status}]
    assert [each["status"] for each in merge(reports).checks] == ["fired"]


# === Folders ===


def small_windows(monkeypatch):
    monkeypatch.setattr("keras_epsched.evaluation.evaluator._WINDOW", 2)


def test_parts_are_written_merged_and_removed(trained, tmp_path, monkeypatch):
    small_windows(monkeypatch)
    seen = []
    write = parts.write

    def spy(folder, number, part, pixels):
        write(folder, number, part, pixels)
        seen.append(sorted(path.name for path in folder.rglob("*.parquet")))

    monkeypatch.setattr(parts, "write", spy)
    folder = tmp_path / "run"
    report = evaluate(trained, batch_size=10, folder=folder)
    assert seen[-1] == [f"part-0000{number}.parquet" for number in range(3)]
    assert report == ke.Report.load(folder)
    assert {path.name for path in folder.iterdir()} == {
        "report.json",
        "per_image.parquet",
        "evaluation.json",
        "examples.npz",
    }
    plain = evaluate(trained, batch_size=10)
    np.testing.assert_array_equal(report.correct, plain.correct)
    # A finished evaluation is read, not repeated.
    monkeypatch.setattr(Sweep, "run", None)
    again = evaluate(trained, batch_size=10, folder=folder, resume=True)
    assert again == report
    for other in (
        (DATA[0][:40], DATA[1][:40]),
        (DATA[0] * 0.5, DATA[1]),
        (DATA[0], (DATA[1] + 1) % 3),
    ):
        with pytest.raises(ValueError, match="other images"):
            evaluate(trained, other, batch_size=10, folder=folder, resume=True)


def test_an_interrupted_evaluation_continues(trained, tmp_path, monkeypatch):
    small_windows(monkeypatch)
    whole = evaluate(trained, batch_size=10, folder=tmp_path / "whole")
    run, count = Sweep.run, [0]

    def dies(self, *args):
        count[0] += 1
        if count[0] == 3:
            raise KeyboardInterrupt
        return run(self, *args)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Sweep, "run", dies)
        with pytest.raises(KeyboardInterrupt):
            evaluate(trained, batch_size=10, folder=folder)
    assert len(list((folder / "per_image").iterdir())) == 2
    with pytest.raises(ValueError, match="resume=True"):
        evaluate(trained, batch_size=10, folder=folder)
    # Other batches, the same windows.
    report = evaluate(trained, batch_size=12, folder=folder, resume=True)
    for name in ("correct", "labels", "predictions", "image_ids", "broken_by"):
        np.testing.assert_array_equal(
            getattr(report, name), getattr(whole, name)
        )
    for name in ("forward_passes", "naive_backward_passes", "examples"):
        assert getattr(report, name) == getattr(whole, name)


@pytest.fixture
def half_done(trained, tmp_path, monkeypatch):
    small_windows(monkeypatch)

    def dies(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parts, "join", dies)
        with pytest.raises(KeyboardInterrupt):
            evaluate(trained, attack=FGSM(), batch_size=10, folder=tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attack": PGD(2)}, "attack"),
        ({"seed": 1}, "seed: 0 then, 1 now"),
        ({"epsilons": GRID[:4]}, "epsilons"),
        ({"data": tuple(each[::-1] for each in DATA)}, "other images"),
        ({"data": (DATA[0] * 0.5, DATA[1])}, "other images"),
    ],
)
def test_other_settings_do_not_continue(trained, half_done, arguments, message):
    arguments = {"attack": FGSM(), **arguments}
    with pytest.raises(ValueError, match=message):
        evaluate(
            trained, batch_size=10, folder=half_done, resume=True, **arguments
        )


def test_another_model_does_not_continue(half_done):
    with pytest.raises(ValueError, match="model"):
        evaluate(
            conv_net(batchnorm=False),
            attack=FGSM(),
            batch_size=10,
            folder=half_done,
            resume=True,
        )


def test_another_normalisation_does_not_continue(trained, half_done):
    inputs = keras.Input(SHAPE)
    x = keras.layers.Rescaling(-1.0, 255.0)(inputs)
    with pytest.raises(ValueError, match="predictions differ"):
        evaluate(
            keras.Model(inputs, trained(x)),
            attack=FGSM(),
            batch_size=10,
            folder=half_done,
            resume=True,
        )


def test_a_folder_without_results_is_started_again(trained, tmp_path):
    arguments = {"attack": FGSM(), "folder": tmp_path}
    with pytest.raises(ValueError, match="value_range"):
        evaluate(trained, value_range=(0, 1), **arguments)
    assert evaluate(trained, **arguments).num_images == 60


def test_a_corrupt_part_is_evaluated_again(trained, half_done):
    part = half_done / "per_image" / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.warns(UserWarning, match="part-00001.*evaluated again"):
        report = evaluate(
            trained, attack=FGSM(), batch_size=10, folder=half_done, resume=True
        )
    plain = evaluate(trained, attack=FGSM())
    np.testing.assert_array_equal(report.correct, plain.correct)


def test_a_report_without_its_settings_is_not_overwritten(trained, tmp_path):
    report = evaluate(trained, attack=FGSM())
    report.save(tmp_path)
    with pytest.raises(ValueError, match="another folder"):
        evaluate(trained, attack=FGSM(), folder=tmp_path, resume=True)
    assert ke.Report.load(tmp_path) == report


def test_labels_of_one_class_are_evaluated(trained):
    chosen = DATA[1] == 1
    report = evaluate(trained, [tuple(x[chosen] for x in DATA)], attack=FGSM())
    whole = evaluate(trained, attack=FGSM())
    np.testing.assert_array_equal(report.correct, whole.correct[chosen])


def test_resume_needs_a_folder(trained):
    with pytest.raises(ValueError, match="folder"):
        evaluate(trained, resume=True)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import time
import numpy as np
from networks import conv_net, make_data, trained_net
import keras_epsched as ke
from keras_epsched.evaluation import evaluator, parts

evaluator._WINDOW = 1
write = parts.write
def slowly(*args):
    write(*args)
    time.sleep(0.3)
parts.write = slowly
ke.evaluate(
    conv_net(batchnorm=False), make_data(60, seed=4), {grid!r},
    ke.attacks.PGD(2), batch_size=6, folder={folder!r}, self_check=False,
    verbose=0,
)
"""


@pytest.mark.ci
def test_a_killed_process_loses_nothing_that_was_written(tmp_path):
    folder = tmp_path / "run"
    here = os.path.dirname(os.path.dirname(__file__))
    script = textwrap.dedent(KILLED).format(
        tests=here, grid=GRID.tolist(), folder=str(folder)
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    parts_folder = folder / "per_image"
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if parts_folder.exists() and len(list(parts_folder.glob("p*"))) >= 2:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    written = len(list(parts_folder.glob("part-*.parquet")))
    assert 2 <= written < 10
    model = conv_net(batchnorm=False)
    arguments = {"attack": PGD(2), "batch_size": 6}
    report = evaluate(model, folder=folder, resume=True, **arguments)
    plain = evaluate(model, **arguments)
    np.testing.assert_array_equal(report.correct, plain.correct)
    assert report.num_images == 60
    assert json.loads((folder / "report.json").read_text())["num_images"] == 60


# === AutoAttack ===


def test_autoattack_is_made_of_what_was_published():
    names = [type(each).__name__ for each in AutoAttack().members]
    assert names == ["APGD", "TargetedAPGD", "FAB", "Square"]
    standard = AutoAttack(norm="l2").members
    assert {each.norm for each in standard} == {"l2"}
    assert [each.num_variants(10) for each in standard] == [1, 9, 9, 1]
    assert [each.num_variants(2) for each in standard] == [1, 1, 1, 1]
    assert standard[3].steps == 5000 and standard[0].steps == 100
    sparse = AutoAttack(norm="l1").members
    assert [each.num_variants(10) for each in sparse] == [5, 5, 9, 1]
    plus = AutoAttack("plus").members
    assert [each.num_variants(10) for each in plus] == [5, 5, 5, 1, 9, 9]
    rand = AutoAttack("rand").members
    assert [each.eot for each in rand] == [20, 20]
    assert [each.loss for each in rand] == ["ce", "dlr"]


def test_the_default_attack():
    for version, passes in (("standard", 1030), ("thorough", 2040)):
        attack = ke.attacks.MarginEnsemble(version, "l2")
        assert {each.norm for each in attack.members} == {"l2"}
        losses = [each.loss for each in attack.members]
        assert losses == ["probability_margin", "ce", "margin"]
        assert passes == sum(
            sum(each.passes(10)) * each.num_variants(10)
            for each in attack.members
        )
        config = keras.saving.serialize_keras_object(attack)
        assert keras.saving.deserialize_keras_object(config) == attack
    with pytest.raises(ValueError, match="version"):
        ke.attacks.MarginEnsemble("plus")


def test_the_default_attack_is_the_default(trained):
    report = evaluate(trained, attack=None)
    same = evaluate(trained, attack=ke.attacks.MarginEnsemble())
    assert report.attack_title == "MarginEnsemble (standard)" and report.bisect
    np.testing.assert_array_equal(report.correct, same.correct)
    # At least as strong as what it stands for, and cheaper than AutoAttack.
    assert (
        report.accuracy.mean()
        <= evaluate(trained, attack=APGD(10)).accuracy.mean()
    )


def small(attack):
    """The same attack with a small budget."""
    for member in attack.members:
        member.steps = min(member.steps, 3)
    return attack


@pytest.mark.parametrize(
    ("version", "norm", "classes"),
    [
        ("standard", "linf", 2),
        pytest.param("standard", "l1", 3, marks=pytest.mark.ci),
        pytest.param("plus", "l2", 2, marks=pytest.mark.ci),
        pytest.param("rand", "linf", 3, marks=pytest.mark.ci),
    ],
)
def test_autoattack_works_on_anything(version, norm, classes):
    shape = (5, 7, 1)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Flatten(),
            keras.layers.Dense(classes),
        ]
    )
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (10, *shape)).astype("float32")
    labels = np.argmax(logits_of(model, images), -1)
    report = evaluate(
        model,
        (images, labels),
        np.array([0.0, 0.02, 0.5]) * {"linf": 1, "l2": 4, "l1": 20}[norm],
        small(AutoAttack(version, norm)),
        value_range=(-1, 1),
    )
    assert report.accuracy[0] == 1 and report.accuracy[-1] < 0.5


def test_ensembles_are_printed_compared_and_saved():
    assert repr(AutoAttack("plus", "l2")) == "AutoAttack('plus', norm='l2')"
    assert "Square" in repr(ENSEMBLE)
    for attack in (ENSEMBLE, AutoAttack("rand", "l1")):
        config = keras.saving.serialize_keras_object(attack)
        copy = keras.saving.deserialize_keras_object(config)
        assert copy == attack and json.dumps(config)
    assert AutoAttack() != AutoAttack("plus")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AttackEnsemble([]), "list of attacks"),
        (lambda: AttackEnsemble([PGD(2), "apgd"]), "list of attacks"),
        (lambda: AttackEnsemble([PGD(2), PGD(2, "l2")]), "one norm"),
        (lambda: AutoAttack("fast"), "version"),
        (lambda: AutoAttack(norm="l0"), "l0"),
    ],
)
def test_wrong_ensembles(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bisect": True, "protocol": "independent"}, "bisect"),
        ({"shard": (2, 2)}, "shard"),
        ({"target_epsilon": 0.0123}, "target_epsilon"),
        ({"image_ids": np.arange(59)}, "image_ids"),
        ({"image_ids": np.arange(99)}, "99 numbers for 60"),
        ({"attack": "autoattack"}, "keras_epsched.attacks"),
        ({"batch_size": -1}, "batch_size"),
        ({"data": [(DATA[0][0], DATA[1][0])]}, "batches"),
        ({"image_ids": np.zeros(60)}, "image_ids.*differ"),
        ({"image_ids": np.arange(60) / 2}, "image_ids.*whole"),
        (
            {
                "data": [
                    (DATA[0][:8], DATA[1][:8]),
                    (DATA[0][:8, 1:], DATA[1][:8]),
                ]
            },
            "the same size",
        ),
    ],
)
def test_mistakes_are_named(trained, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(trained, **{"attack": FGSM(), **arguments})


def test_several_outputs_are_refused(trained):
    model = keras.Model(trained.inputs, [trained.output, trained.output])
    with pytest.raises(ValueError, match="one output"):
        evaluate(model, attack=FGSM())


def test_one_hot_labels_and_odd_dtypes_are_read(trained):
    images, labels = DATA
    expected = evaluate(trained, attack=FGSM()).correct
    for same in (np.eye(3)[labels], labels.astype("uint8"), labels * 1.0):
        report = evaluate(trained, (images, same), attack=FGSM())
        np.testing.assert_array_equal(report.correct, expected)
