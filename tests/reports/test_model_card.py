"""Model cards: what the hub reads of them, and what people do."""

import copy

import huggingface_hub
import pytest
from networks import make_data, trained_net

import keras_epsched as ke


@pytest.fixture(scope="module")
def report():
    images, labels = make_data(24)
    return ke.evaluate(
        trained_net(),
        [(images, labels)],
        [0.0, 4 / 255, 8 / 255],
        ke.attacks.PGD(2),
        target_epsilon=4 / 255,
    )


def test_the_hub_reads_the_results(report, tmp_path):
    path = tmp_path / "my-net" / "README.md"
    ke.evaluation.write_model_card(
        report,
        path,
        {"backbone": "ResNet-50", "schedule": "two: hinges", "epochs": 50},
        classes=["a", "b", "c"],
        license="apache-2.0",
    )
    card = huggingface_hub.ModelCard.load(path)
    assert card.data.library_name == "keras"
    assert card.data.license == "apache-2.0"
    found = {each.metric_name: each for each in card.data.eval_results}
    assert found["Clean accuracy"].metric_value == round(
        report.clean_accuracy, 4
    )
    at_target = found["Accuracy at epsilon 4/255 (linf)"]
    assert at_target.metric_value == round(report.accuracy_at(4 / 255), 4)
    (expected,) = [n for n in found if n.startswith("Expected")]
    assert found[expected].metric_value == pytest.approx(
        report.expected_robustness(), abs=1e-4
    )
    text = card.content
    low, high = (100 * x for x in report.accuracy_interval(8 / 255))
    assert f"{low:.2f} to {high:.2f}" in text
    assert "| two: hinges" in text and "Classes: a, b, c." in text
    assert "# my-net\n" in text and text.count("upper bound") == 1
    assert "attack: PGD-2 on cross-entropy\n" in text
    assert "known to be loose" in text and "MarginEnsemble" in text
    # What the evaluation says against itself stands in the card.
    for check in report.checks:
        said = f"{check['name']}" in text
        assert said == (check["status"] != "passed"), check
    assert all(note in text for note in report.notes)


def test_what_speaks_against_it_is_said(report, tmp_path):
    against = copy.copy(report)
    against.checks = [
        {"name": "zero gradients", "status": "fired", "message": "of 9 images"}
    ]
    against.notes = ["seen in training: 3 images"]
    path = tmp_path / "README.md"
    ke.evaluation.write_model_card(against, path, {}, robust=False)
    text = path.read_text(encoding="utf-8")
    assert "failed**: zero gradients: of 9 images" in text
    assert "seen in training: 3 images" in text
    assert "without adversarial training" in text


def test_a_card_names_no_folder(report, tmp_path):
    of_images = copy.copy(report)
    of_images.dataset = {
        "dataset": "image_folder:/home/me/flowers",
        "split": "test[0:24]",
    }
    path = tmp_path / "README.md"
    ke.evaluation.write_model_card(of_images, path, {"seed": 0})
    text = path.read_text(encoding="utf-8")
    assert "/home/me" not in text
    assert "image_folder:flowers, split test[0:24]" in text
    assert "| seed | 0" in text


def test_a_card_of_arrays_names_the_dataset_of_the_recipe(report, tmp_path):
    of_arrays = copy.copy(report)
    of_arrays.dataset = None
    path = tmp_path / "README.md"
    ke.evaluation.write_model_card(of_arrays, path, {"dataset": "my digits"})
    text = path.read_text(encoding="utf-8")
    assert "- dataset: my digits" in text and "unnamed" not in text
    assert of_arrays.dataset is None


def test_a_card_needs_a_report(tmp_path):
    with pytest.raises(ValueError, match="Report"):
        ke.evaluation.write_model_card({}, tmp_path / "README.md", {})
    assert not (tmp_path / "README.md").exists()
