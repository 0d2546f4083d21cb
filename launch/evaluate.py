r"""Measures the robustness of a saved classifier on any dataset.

Examples:
  python launch/evaluate.py --model=runs/NAME/seed0/scheduled/model.keras
  # A preset with its own head, on the classes that it was trained on:
  python launch/evaluate.py --model=resnet_letters --dataset=letters \
      --epsilon=0.1 --protocol=independent
"""

import json
import pathlib
import sys

import common
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "model",
    None,
    "A .keras file (a classifier from pixels in [0, 255] to logits, or a "
    "trainer), or a keras-hub preset with its own head.",
    required=True,
)
flags.DEFINE_enum(
    "protocol", "nested", ["nested", "independent"], "Sweep over epsilon."
)
flags.DEFINE_enum("split", "test", ["validation", "test"], "Split.")


def trained_on(path):
    """Splits that config.json of a run folder says the model has seen."""
    import keras_epsched as ke

    for folder in list(path.resolve().parents)[:5]:
        config = folder / "config.json"
        if config.exists():
            splits = json.loads(config.read_text()).get("splits", {})
            if "train" in splits:
                return [ke.datasets.SplitInfo(**splits["train"])]
    return []


def load_classifier():
    """The classifier of the flags."""
    import keras_epsched as ke

    if FLAGS.model.endswith(".keras"):
        return ke.models.load(FLAGS.model)
    return ke.models.classifier(
        FLAGS.model,
        image_size=(FLAGS.image_size, FLAGS.image_size),
        scale=FLAGS.scale,
        offset=FLAGS.offset,
    )


def check_fit(classifier, data):
    """Refuses a classifier and data that do not belong together."""
    num_classes = classifier.output_shape[-1]
    if num_classes != data.num_classes:
        raise ValueError(
            f"--model={FLAGS.model} knows {num_classes} classes, but "
            f"{data.name} has {data.num_classes}: evaluate it on the classes "
            "that it was trained on"
        )
    sides = classifier.input_shape[1:3]
    if any(
        side not in (None, size)
        for side, size in zip(sides, data.image_size, strict=True)
    ):
        raise ValueError(
            f"--model={FLAGS.model} takes images of {sides}: pass "
            f"--image_size={sides[0]}. Received: "
            f"--image_size={FLAGS.image_size}"
        )


def main(_):
    import keras_epsched as ke

    common.check_flags()
    common.print_flags()
    classifier = load_classifier()
    data = common.load_data(FLAGS.seed)
    check_fit(classifier, data)
    folder = common.run_folder("evaluate")
    common.write_config(folder, splits=common.splits_config(data))
    report = ke.evaluate(
        classifier,
        getattr(data, FLAGS.split),
        common.evaluation_grid(),
        common.make_attack(FLAGS.eval_attack, FLAGS.eval_steps),
        protocol=FLAGS.protocol,
        seed=FLAGS.seed,
        trained_on=trained_on(pathlib.Path(FLAGS.model)),
        verbose=int(sys.stderr.isatty()),
    )
    report.save(folder)
    for name in ("curve.png", "curve.svg"):
        report.plot(folder / name)
    print(f"\n{report}")
    print(json.dumps({"run_folder": str(folder)}))


if __name__ == "__main__":
    app.run(main)
