r"""Measures the robustness of a saved classifier on any dataset.

Examples:
  python launch/evaluate.py --model=runs/NAME/seed0/scheduled/model.keras
  python launch/evaluate.py --model=resnet_50_imagenet --image_size=224 \
      --dataset=imagenette --epsilon=4/255 --protocol=independent
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
    "A .keras file (a classifier from pixels to logits, or a trainer), or a "
    "keras-hub preset with its own head.",
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


def main(_):
    import keras_epsched as ke

    common.check_flags()
    common.print_flags()
    path = pathlib.Path(FLAGS.model)
    if path.suffix == ".keras":
        classifier = ke.models.load(path)
    else:
        classifier = ke.models.classifier(FLAGS.model)
    data = common.load_data(FLAGS.seed)
    folder = common.run_folder("evaluate")
    common.write_config(folder, splits=common.splits_config(data))
    report = ke.evaluate(
        classifier,
        getattr(data, FLAGS.split),
        common.evaluation_grid(),
        common.make_attack(FLAGS.eval_attack, FLAGS.eval_steps),
        protocol=FLAGS.protocol,
        seed=FLAGS.seed,
        trained_on=trained_on(path),
        verbose=int(sys.stderr.isatty()),
    )
    report.save(folder)
    for name in ("curve.png", "curve.svg"):
        report.plot(folder / name)
    print(f"\n{report}")
    print(json.dumps({"run_folder": str(folder)}))


if __name__ == "__main__":
    app.run(main)
