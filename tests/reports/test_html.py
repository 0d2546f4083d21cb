"""The web page of evaluations: what it says, and that it is one safe file."""

import base64
import html
import html.parser
import io
import re

import numpy as np
import pytest
from networks import make_data, trained_net
from PIL import Image

import keras_epsched as ke
from keras_epsched.reports import compare, wording
from keras_epsched.reports.examples import Examples
from keras_epsched.reports.html import write_html
from keras_epsched.reports.report import Report

GRID = np.arange(5) / 255

# Each row is an image; accuracies are 4/5, 3/5, 2/5, 2/5, 1/5.
CORRECT = np.array(
    [
        [1, 1, 1, 1, 1],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ],
    bool,
)

PASSED = {"name": "random outputs", "status": "passed", "message": "equal"}
FIRED = {"name": "unbounded attack", "status": "fired", "message": "misled"}
NOT_RUN = {"name": "more steps", "status": "not run", "message": "too dear"}

VOID = {"img", "meta", "br", "link", "input", "hr"}


class Page(html.parser.HTMLParser):
    """The elements and texts of a page; raises where tags do not balance."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open, self.elements, self.texts = [], [], []
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        if data.strip() and "style" not in self.open:
            self.texts.append(" ".join(data.split()))

    @property
    def text(self):
        return " ".join(self.texts)

    def section(self, identifier):
        """Text of one section, or `None` if the page has none such."""
        found = re.search(
            rf'<(section|p) [^>]*id="{identifier}">(.*?)</\1>',
            self.source,
            re.DOTALL,
        )
        if found is None:
            return None
        without_tags = re.sub(r"<[^>]*>", " ", found[2])
        return " ".join(html.unescape(without_tags).split())

    def pictures(self):
        """The pictures of the gallery, as arrays."""
        sources = [a["src"] for tag, a in self.elements if tag == "img"]
        prefix = "data:image/png;base64,"
        return [
            np.asarray(
                Image.open(io.BytesIO(base64.b64decode(source[len(prefix) :])))
            )
            for source in sources
            if source.startswith(prefix)
        ]


def make_report(**overrides):
    arguments = {
        "epsilons": GRID,
        "correct": CORRECT,
        "labels": [0, 1, 2, 3, 4],
        "predictions": [0, 1, 2, 3, 0],
        "image_ids": [7, 5, 11, 2, 3],
        "norm": "linf",
        "protocol": "nested",
        "attack": {"class_name": "APGD", "config": {"steps": 10}},
        "attack_name": "APGD(steps=10)",
        "attack_title": "APGD-10 on cross-entropy",
        "dataset": {
            "dataset": "stanford_dogs:0.2.0",
            "split": "test",
            "num_examples": 8580,
        },
        "forward_passes": 1100,
        "backward_passes": 90,
        "naive_forward_passes": 2600,
        "naive_backward_passes": 2160,
        "check_forward_passes": 17,
        "check_backward_passes": 13,
        "seconds": 1.25,
        "seed": 3,
        "model_name": "tiny",
        "created": "2026-01-02T03:04:05+00:00",
        "versions": {"keras": "3.15.0", "backend": "tensorflow"},
    }
    return Report(**{**arguments, **overrides})


def make_examples(shape=(2, 4, 4, 3), norm="linf", value_range=(0, 255)):
    low, high = value_range
    generator = np.random.default_rng(0)
    clean = generator.uniform(0.2, 0.8, shape)
    epsilon = np.array([2, 4])[: shape[0]] / 255
    radius = epsilon.reshape(-1, *[1] * (len(shape) - 1))
    sign = generator.choice([-1, 1], shape)
    step = radius * sign if norm == "linf" else 0.01 * sign
    return Examples(
        clean=(low + (high - low) * clean).astype("float32"),
        adversarial=(low + (high - low) * (clean + step)).astype("float32"),
        epsilon=epsilon,
        label=np.array([17, 3])[: shape[0]],
        prediction=np.array([42, 4])[: shape[0]],
    )


@pytest.fixture(scope="module")
def trained_report():
    data = make_data(24)
    return ke.evaluate(
        trained_net(), data, [8 / 255], ke.attacks.FGSM(), verbose=0
    )


@pytest.fixture
def write(tmp_path):
    def write(reports, **kwargs):
        path = tmp_path / "new" / "page.html"
        write_html(reports, path, **kwargs)
        return Page(path)

    return write


def test_values(write):
    report = make_report()
    page = write({"tiny": report})
    assert "Robustness of tiny" in page.texts
    subject = page.section("subject")
    for text in (
        "model tiny",
        "stanford_dogs:0.2.0, split test",
        "5 of 8,580",
        "APGD-10 on cross-entropy",
        "linf",
        "nested (an image",
    ):
        assert text in subject
    table = page.section("accuracies")
    for epsilon, accuracy in zip(GRID, (80, 60, 40, 40, 20), strict=True):
        low, high = report.accuracy_interval(epsilon)
        text = f"{round(255 * epsilon)}/255" if epsilon else "0"
        text += f" {accuracy}.00 {100 * low:.2f} to {100 * high:.2f}"
        assert text in table
    low, high = report.expected_robustness_interval()
    assert (
        f"expected robustness {100 * report.expected_robustness():.2f} "
        f"{100 * low:.2f} to {100 * high:.2f}"
    ) in table
    assert "clean accuracy 80.00" in table
    assert "uniformly from [0, 4/255]" in page.text
    cost = page.section("cost")
    for text in (
        "1,100 forward",
        "1.2 s",
        "4.0 times as many",
        "17 forward and 13",
    ):
        assert text in cost
    for text in (
        "2026-01-02T03:04:05+00:00",
        "keras 3.15.0, backend tensor",
        "APGD(steps=10)",
    ):
        assert text in page.text
    assert page.section("breakers") is None
    assert page.section("comparisons") is None
    bound = page.section("bound")
    assert bound.startswith("Accuracy under attack is an upper bound on ")
    assert page.text.count("upper bound") == 1


def test_a_loose_bound_is_told_for_each_model_that_has_one(write):
    loose = {"class_name": "PGD", "config": {"loss": "ce"}}
    reports = {"a": make_report(), "b": make_report(attack=loose)}
    bound = write(reports).section("bound")
    assert re.match(r"a: Accuracy .* images\. b: Accuracy .* loose", bound)
    both = {name: reports["b"] for name in "ab"}
    assert write(both).section("bound").count("upper bound") == 1


def test_headline_of_one_model(write):
    report = make_report()
    interval = report.expected_robustness_interval()
    low, high = (f"{100 * end:.1f}" for end in interval)
    assert write({"tiny": report}).section("headline") == (
        "The expected robustness of tiny is 47.5 % (95 % interval "
        f"{low} to {high}) for epsilon up to 4/255 on stanford_dogs. Its clean "
        "accuracy is 80 % and its accuracy at epsilon 4/255 is 20 %. Measured "
        "on 5 images with APGD-10 on cross-entropy."
    )
    page = write({"tiny": report}, target_epsilon=2.5 / 255)
    assert "accuracy is 80 %. Measured on" in page.section("headline")
    folder = {"dataset": "image_folder:/home/me/flowers"}
    page = write({"tiny": make_report(norm="l2", dataset=folder)})
    assert "up to 0.01569 (l2) on flowers. " in page.section("headline")
    page = write({"tiny": make_report(dataset=None)})
    assert "for epsilon up to 4/255. " in page.section("headline")


def many(accuracy, **overrides):
    """A report of 100 images, of which so many stand at every epsilon."""
    correct = np.zeros((100, 5), bool)
    correct[:, 0] = True
    correct[:accuracy] = True
    return make_report(
        correct=correct,
        labels=np.zeros(100, int),
        predictions=np.zeros(100, int),
        image_ids=np.arange(100),
        **overrides,
    )


def test_headline_of_several_models(write):
    reports = {"low": many(10), "high": many(50), "middle": many(49)}
    headline = write(reports).section("headline")
    assert "high has the highest expected robustness for epsilon up" in headline
    assert "more than middle. A paired test does not confirm" in headline
    assert "(p = 1, 95 % interval" in headline and "chance" in headline
    assert headline.endswith("on 100 images with APGD-10 on cross-entropy.")
    del reports["middle"]
    headline = write(reports).section("headline")
    assert re.search(
        r"35\.0 points more than low\. A paired test confirms the "
        r"difference \(p = 0\.0002, 95 % interval \+2\d\.\d to "
        r"\+4\d\.\d points\)",
        headline,
    )
    headline = write({"a": many(10), "b": many(10)}).section("headline")
    assert "a and b have the same expected robustness" in headline
    assert "paired test" not in headline


def test_headline_of_models_that_were_not_evaluated_alike(write):
    reports = {"a": many(10), "b": many(50, protocol="independent")}
    headline = write(reports).section("headline")
    assert (
        "A paired comparison is not possible, because the reports differ in "
        in (headline)
    )
    reports = {"a": many(10), "b": many(50, attack_title="FGSM")}
    reports["b"].attack = {"class_name": "FGSM"}
    assert "The models were attacked differently" in write(reports).section(
        "headline"
    )
    reports = {"a": many(10), "b": make_report()}
    headline = write(reports).section("headline")
    assert headline.endswith("Measured with APGD-10 on cross-entropy.")


def test_paired_comparisons(write):
    reports = {
        "first": many(50),
        "worse": many(40, seed=4),
        "other": many(50, protocol="independent"),
    }
    text = write(reports).section("comparisons")
    compared = compare(reports["first"], reports["worse"])
    low, high = (f"{100 * end:+.2f}" for end in compared.interval)
    assert (
        "worse compared with first Expected robustness of worse minus "
        f"expected robustness of first: -8.75 points (95 % interval {low} to "
        f"{high}), p = {compared.p_value:.2g} (sign-flip test), on the same "
        "100 images."
    ) in text
    assert "the seeds of the attacks differ: 3 and 4" in text
    assert "4/255 50.00 40.00 -10.00 0.002" in text
    assert (
        "other compared with first A paired comparison is not possible, "
        "because the reports differ in protocol: 'nested' and 'independent'."
    ) in text
    assert text.count("not corrected") == 1
    del reports["worse"]
    text = write(reports).section("comparisons")
    assert "McNemar" not in text and "compared with" not in text


def test_one_file_that_loads_nothing_and_runs_nothing(write):
    report = make_report(examples=make_examples(), checks=[FIRED])
    page = write({"tiny": report})
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object")
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("src", "data:").startswith("data:")
    assert "url(" not in page.source and "@import" not in page.source
    links = [a["href"] for _, a in page.elements if "href" in a]
    assert links == ["https://arxiv.org/abs/2509.23325"]
    assert len(re.findall("https?://", page.source)) == len(links)


def test_curves_are_a_picture_of_all_models(write):
    page = write({"a": make_report(), "b": make_report()})
    prefix = "data:image/svg+xml;base64,"
    sources = [a["src"] for tag, a in page.elements if tag == "img"]
    (svg,) = (source for source in sources if source.startswith(prefix))
    drawing = base64.b64decode(svg[len(prefix) :]).decode()
    for text in ("a: 47.5 %", "b: 47.5 %"):
        assert text in drawing


def test_names_are_text(write):
    evil = '<script>alert("1")</script>'
    note = "<b>bold</b> & more"
    page = write(
        {
            evil: make_report(
                model_name=evil,
                attack_name=evil,
                attack_members=[evil, "other"],
                notes=[note],
                dataset={"dataset": evil},
                checks=[{**FIRED, "name": evil, "message": evil}],
                examples=make_examples(),
            ),
            '" onload="x': make_report(checks=[PASSED]),
            r"$\nonsense$": make_report(),
        },
        title=evil,
    )
    assert not any(tag == "script" for tag, _ in page.elements)
    assert not any("onload" in attributes for _, attributes in page.elements)
    assert note in page.texts
    assert page.texts.count(evil) >= 4


def test_fired_checks_and_notes_lead(write):
    page = write(
        {"tiny": make_report(checks=[PASSED, FIRED, NOT_RUN], notes=["odd"])}
    )
    alarms = page.section("alarms")
    assert "self-checks failed" in alarms
    assert "unbounded attack. misled" in alarms and "odd" in alarms
    assert "equal" not in alarms
    assert page.section("verdict") is None
    assert page.source.index('id="alarms"') < page.source.index('id="curves"')
    assert ("section", {"class": "alarm fired", "id": "alarms"}) in (
        page.elements
    )
    assert "A self-check failed" in page.section("headline")
    assert re.fullmatch(
        "Self-checks unbounded attack failed misled Lets the attack .* "
        "more steps not run too dear random outputs passed equal Calls .*",
        page.section("checks"),
    )


def test_a_check_is_explained_once(write):
    reports = {name: make_report(checks=[PASSED, NOT_RUN]) for name in "ab"}
    checks = write(reports).section("checks")
    assert checks.count("random outputs passed equal") == 2
    assert checks.count("Calls the network twice") == 1


def test_every_check_is_explained(trained_report):
    names = [check["name"] for check in trained_report.checks]
    assert len(names) > 5
    assert all(wording.check_purpose(name) for name in names), names
    assert wording.check_purpose("of tomorrow") == ""


def test_notes_alone_are_no_fired_check(write):
    page = write({"tiny": make_report(checks=[PASSED], notes=["odd"])})
    assert page.section("alarms") == "Notes on the results odd"
    assert page.section("verdict") == "All self-checks passed."


@pytest.mark.parametrize(
    "checks, verdict",
    [
        ([PASSED], "All self-checks passed."),
        ([PASSED, NOT_RUN], "Self-checks: 1 passed, 1 not run, none failed."),
        ([], "No self-checks were run."),
    ],
)
def test_quiet_verdict(write, checks, verdict):
    page = write({"tiny": make_report(checks=checks)})
    assert page.section("alarms") is None
    assert page.section("verdict") == verdict


def test_verdict_names_the_model_without_checks(write):
    page = write({"a": make_report(checks=[PASSED]), "b": make_report()})
    assert page.section("verdict") == "No self-checks were run for b."


def test_several_models_side_by_side(write):
    coarse = make_report(
        epsilons=GRID[[0, 2, 4]],
        correct=CORRECT[:, [0, 2, 4]],
        model_name="resnet",
        seconds=9.0,
    )
    page = write({"fine": make_report(model_name=None), "coarse": coarse})
    # What all share is said once, what differs for each.
    assert "model fine, coarse (resnet)" in page.section("subject")
    assert page.section("subject").count("stanford_dogs") == 1
    cost = page.section("cost")
    assert "fine: 1,100 forward" in cost and "coarse: 1,100 forward" in cost
    table = page.section("accuracies")
    assert re.search(r"epsilon fine coarse", table)
    assert re.search(r"2/255 40.00 \S+ to \S+ 40.00 \S+ to \S+ 3/255", table)
    assert re.search(r"1/255 60.00 \S+ to \S+ – 2/255", table)


def test_target_epsilon(write):
    report = make_report()
    page = write({"tiny": report}, target_epsilon=2 / 255)
    expected = report.expected_robustness(target_epsilon=2 / 255)
    table = page.section("accuracies")
    assert f"expected robustness {100 * expected:.2f}" in table
    assert "2/255]" in table


def test_ensemble_says_which_attack_broke_what(write):
    broken_by = np.where(CORRECT[:, :1] & ~CORRECT, 1, -1)
    broken_by[3, 1:] = 0
    report = make_report(attack_members=["first", "last"], broken_by=broken_by)
    assert (
        write({"tiny": report})
        .section("breakers")
        .startswith(
            "Which attack broke the images images broken up to 1/255 2/255 "
            "3/255 4/255 first 1 1 1 1 last 0 1 1 2 "
        )
    )


def test_accuracy_that_rises_is_told(write):
    correct = CORRECT.copy()
    correct[3, 4] = True
    report = make_report(correct=correct, protocol="independent")
    table = write({"tiny": report}).section("accuracies")
    assert "attack failures 1 (an image withstood" in table


@pytest.mark.parametrize("value_range", [(0, 255), (-1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_gallery_linf(write, value_range, channels):
    examples = make_examples((2, 4, 6, channels), value_range=value_range)
    report = make_report(examples=examples, value_range=value_range)
    page = write({"tiny": report})
    gallery = page.section("gallery")
    assert "class 17, predicted class 42 at epsilon 2/255" in gallery
    assert "class 3, predicted class 4 at epsilon 4/255" in gallery
    assert "amplified 63.8 ×" in page.text
    pictures = page.pictures()
    assert len(pictures) == 6
    low, high = value_range
    for index in range(2):
        clean, adversarial, amplified = pictures[3 * index : 3 * index + 3]
        for picture, images in (
            (clean, examples.clean),
            (adversarial, examples.adversarial),
        ):
            expected = 255 * (images[index] - low) / (high - low)
            # A single channel is a grey picture.
            picture = picture.reshape(4, 6, channels)
            np.testing.assert_allclose(picture, expected, atol=0.501)
        increased = examples.adversarial[index] > examples.clean[index]
        np.testing.assert_array_equal(
            amplified.reshape(4, 6, channels), np.where(increased, 255, 0)
        )


def test_a_gallery_says_where_its_images_were_found(write):
    there = make_report(
        examples=make_examples(), precision="float32", device="CPU"
    )
    other = make_report(
        examples=make_examples(), precision="float16, float32", device="GPU"
    )
    gallery = write({"a": there}).section("gallery")
    assert "images were found in float32 on a CPU. They may be less" in gallery
    reports = {"a": there, "b": other, "c": make_report()}
    gallery = write(reports).section("gallery")
    assert "b: The stored adversarial images were found in float16" in (gallery)
    assert gallery.count("They may be less") == 2


def test_gallery_of_other_norms_spans_the_largest_change(write):
    examples = make_examples(norm="l2")
    examples.adversarial[0, 0, 0] = examples.clean[0, 0, 0]
    # An image that nothing changed divides by nothing.
    examples.adversarial[1] = examples.clean[1]
    page = write({"tiny": make_report(examples=examples, norm="l2")})
    pictures = page.pictures()
    assert set(np.unique(pictures[2])) == {0, 128, 255}
    assert (pictures[5] == 128).all()
    assert "amplified 50 ×" in page.text


def test_only_small_pictures_are_pixelated(write):
    for size, small in ((32, True), (160, False)):
        examples = make_examples((1, size, size, 1))
        page = write({"tiny": make_report(examples=examples)})
        pictures = [
            attributes
            for tag, attributes in page.elements
            if tag == "img" and "image/png" in attributes["src"]
        ]
        assert len(pictures) == 3
        assert all((a.get("class") == "small") is small for a in pictures)


@pytest.mark.parametrize("shape", [None, (2, 10), (2, 4, 4, 5), (0, 4, 4, 3)])
def test_no_gallery_without_images(write, shape):
    examples = None if shape is None else make_examples(shape)
    page = write({"tiny": make_report(examples=examples)})
    assert page.section("gallery") is None
    assert page.pictures() == []


def test_file_is_replaced_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")
    write_html({"tiny": make_report()}, str(path), title="First")
    assert "<title>First</title>" in path.read_text()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_html({"tiny": make_report()}, path, title="Second")
    assert "<title>First</title>" in path.read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    "reports, message",
    [
        ({}, "none"),
        ({"a": [make_report()]}, r"\['a'\]"),
        ({"a": make_report(), "b": make_report(norm="l2")}, "same norm"),
    ],
)
def test_errors(tmp_path, reports, message):
    with pytest.raises(ValueError, match=message.replace(" ", r"\s")):
        write_html(reports, tmp_path / "page.html")
    with pytest.raises(ValueError, match="target"):
        write_html(
            {"a": make_report()}, tmp_path / "page.html", target_epsilon=0.5
        )
    assert not list(tmp_path.iterdir())
