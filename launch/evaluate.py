r"""Measures the robustness of saved classifiers on any dataset.

Examples:
  python launch/evaluate.py --model=runs/NAME/seed0/scheduled/model.keras
  # Two models side by side, by the attack that papers report:
  python launch/evaluate.py --attack=autoattack \
      --model=runs/NAME/seed0/fixed/model.keras \
      --model=runs/NAME/seed0/scheduled/model.keras
  # Where the last tenths of a point matter:
  python launch/evaluate.py --attack=margin_ensemble-thorough --model=...
  # A preset with its own head, on the classes that it was trained on, by the
  # protocol of the paper, which leaves a loose upper bound:
  python launch/evaluate.py --model=resnet_letters --dataset=letters \
      --epsilon=0.1 --protocol=paper
  # A curve beyond the target, for an evaluation that may be interrupted:
  python launch/evaluate.py --model=... --epsilon=4/255 \
      --epsilons=1/255,2/255,4/255,8/255,16/255 --output=runs/far --resume

Leaves report.html to look at, beside report.json, per_image.parquet and the
curve; of several models, each in a folder of its own.
"""

import json
import pathlib

import caveats
import common
import flag_types
import refusals
import run_folders
from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_multi_string(
    "model",
    None,
    "A .keras file (a classifier from pixels in [0, 255] to logits, or a "
    "trainer), or a keras-hub preset with its own head. Repeat it to compare "
    "several.",
    required=True,
)
flags.DEFINE_alias("attack", "eval_attack")
flags.DEFINE_list(
    "epsilons",
    [],
    "The grid, as 1/255,2/255; default: even steps up to --epsilon, the "
    "target. It may go beyond the target, where expected robustness ends.",
)
flags.DEFINE_enum(
    "protocol",
    "nested",
    common.PROTOCOLS,
    "Sweep over epsilon; 'paper' is that of arXiv 2509.23325: independent, by "
    "APGD with 10 steps on cross-entropy.",
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


def names(models):
    """A short name for each model, all different."""
    paths = [pathlib.Path(model) for model in models]
    short = [
        path.parent.name if path.name == "model.keras" else path.stem
        for path in paths
    ]
    if len(set(short)) < len(short):
        short = [f"{number}-{name}" for number, name in enumerate(short, 1)]
    return short


def load_classifier(model):
    """The classifier of the flags."""
    import keras_epsched as ke

    if model.endswith(".keras"):
        return ke.models.load(model)
    return ke.models.classifier(
        model,
        image_size=(FLAGS.image_size, FLAGS.image_size),
        **common.backbone_arguments(),
    )


def check_fit(model, classifier, data):
    """Refuses a classifier and data that do not belong together."""
    num_classes = classifier.output_shape[-1]
    if num_classes != data.num_classes:
        raise ValueError(
            f"--model={model} knows {num_classes} classes, but "
            f"{data.name} has {data.num_classes}: evaluate it on the classes "
            "that it was trained on"
        )
    sides = classifier.input_shape[1:3]
    if any(
        side not in (None, size)
        for side, size in zip(sides, data.image_size, strict=True)
    ):
        raise ValueError(
            f"--model={model} takes images of {sides}: pass "
            f"--image_size={sides[0]}. Received: "
            f"--image_size={FLAGS.image_size}"
        )


def grid():
    """The grid of the flags, which the target must be a point of."""
    from keras_epsched.evaluation.inputs import check_grid, check_target

    if not FLAGS.epsilons:
        return common.evaluation_grid()
    fraction = flag_types.Fraction()
    points = check_grid(
        [fraction.parse(each) for each in FLAGS.epsilons], FLAGS.norm
    )
    # The default of a target must not refuse a grid.
    if not FLAGS["epsilon"].present:
        FLAGS.epsilon = float(points[-1])
    check_target(FLAGS.epsilon, points)
    return points


def main(_):
    import keras_epsched as ke

    with refusals.checking():
        common.apply_recipe()
        points = grid()
        if FLAGS.resume and FLAGS.output is None:
            raise ValueError("--resume needs the --output of the evaluation")
        common.set_up_keras()
        common.check_flags()
        common.print_flags()
        data = common.load_data(FLAGS.seed)
        classifiers = {}
        for name, model in zip(names(FLAGS.model), FLAGS.model, strict=True):
            classifiers[name] = load_classifier(model)
            check_fit(model, classifiers[name], data)
        folder = run_folders.run_folder("evaluate")
    common.print_device()
    run_folders.write_config(
        folder,
        splits=common.splits_config(data),
        evaluation=common.evaluation_config(),
    )
    reports = {}
    for (name, classifier), model in zip(
        classifiers.items(), FLAGS.model, strict=True
    ):
        reports[name] = common.evaluate(
            classifier,
            getattr(data, FLAGS.split),
            FLAGS.protocol,
            epsilons=points,
            target_epsilon=FLAGS.epsilon,
            folder=folder / name if len(classifiers) > 1 else folder,
            resume=FLAGS.resume,
            trained_on=trained_on(pathlib.Path(model)),
            model_name=name,
        )
        print(f"\n{reports[name]}", flush=True)
    paths = [folder / "curve.png", folder / "curve.svg"]
    ke.evaluation.plot_curves(reports, paths)
    title = f"Robustness on {data.name}"
    ke.evaluation.write_html(reports, folder / "report.html", title)
    first, *others = reports.values()
    for other in others:
        print(f"\n{ke.evaluation.compare(first, other)}")
    print(f"\n{caveats.text(reports)}")
    print(json.dumps({"run_folder": str(folder)}))


if __name__ == "__main__":
    refusals.run(main)
