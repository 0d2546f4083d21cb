"""What the launchers share: their flags, and what these make."""

import json
import os
import pathlib
import sys

import flag_types
import monitors
import recipes
import refusals
import run_folders
from absl import flags

FLAGS = flags.FLAGS


def _define_fraction(name, default, help_text):
    serializer = flag_types.FractionSerializer()
    flags.DEFINE(
        flag_types.Fraction(), name, default, help_text, serializer=serializer
    )


flags.DEFINE_string(
    "recipe",
    None,
    f"Defaults of a published recipe ({', '.join(recipes.RECIPES)}), or a file "
    "that tune.py has written. Flags given here override it.",
)

# === Data and network ===
flags.DEFINE_string(
    "dataset",
    "digits",
    "A dataset of the paper (caltech256, cub200, stanford_dogs, stanford_cars, "
    "fgvc_aircraft, imagenette), any tfds name, a tfds-prepared folder, or an "
    "image folder (root/split/class/*.png). 'digits' and 'letters' are built "
    "in.",
)
flags.DEFINE_string(
    "data_dir", None, "Folder of prepared tfds datasets; default: tfds' own."
)
flags.DEFINE_bool("download", False, "Let tfds download the dataset.")
flags.DEFINE_enum(
    "splits",
    None,
    ["paper", "stratified", "contiguous"],
    "Splits of the dataset; default: the paper's where it uses the dataset, "
    "see keras_epsched.datasets.load.",
)
flags.DEFINE_float(
    "validation_split",
    None,
    "Share of the training images to hold out where the dataset has no "
    "validation split; default: 0.2.",
)
flags.DEFINE_float(
    "test_split",
    None,
    "Share of the training images to test on, of a dataset that stores no "
    "others.",
)
flags.DEFINE_integer(
    "test_examples", None, "Size of a stratified subsample of the test images."
)
flags.DEFINE_bool(
    "skip_corrupt",
    False,
    "Leave out files of an image folder that cannot be used; they are named.",
)
flags.DEFINE_string(
    "backbone",
    "resnet_letters",
    "Any name, folder or file that keras_epsched.models.classifier takes: "
    "ViT-B/16, a keras-hub preset, keras.applications.NAME, a Hugging Face "
    "folder, a .keras file. All names: python -m keras_epsched.models.table.",
)
flags.DEFINE_string(
    "weights",
    "pretrained",
    "'pretrained' (downloaded where needed), 'random', or a file of weights.",
)
flags.DEFINE_bool(
    "robust_backbone",
    False,
    "The backbone is robust already: says what to expect of a schedule then.",
)
flags.DEFINE_string(
    "backbone_config",
    "{}",
    "JSON with further arguments of a keras.applications backbone, as "
    "'{\"alpha\": 0.75}'.",
)
_define_fraction(
    "scale", None, "pixels * scale + offset is what the backbone was trained on"
)
_define_fraction(
    "offset", None, "See --scale; what has a name or a converter brings both."
)
flags.DEFINE_integer("image_size", 32, "Height and width of the images.")

# === Threat model ===
_define_fraction(
    "epsilon",
    "0.3",
    "Target strength on [0, 1], as 4/255; the default is for digits alone.",
)
flags.DEFINE_enum("norm", "linf", ["linf", "l2", "l1"], "Norm of the ball.")
flags.DEFINE_integer(
    "num_epsilons", None, "Points of the evaluation grid; default: 1/255 steps."
)
flags.DEFINE_enum(
    "train_attack",
    "pgd",
    ["fgsm", "nfgsm", "pgd", "apgd"],
    "Training attack; fgsm starts at random and nfgsm adds noise (fast "
    "adversarial training).",
)
flags.DEFINE_integer("train_steps", 7, "Steps of the training attack.")
flags.DEFINE_enum(
    "objective",
    "adversarial",
    ["adversarial", "mixed", "trades", "mart", "alp", "twins", "autolora"],
    "What a step minimises: the loss of adversarial images; of half clean ones "
    "(mixed); of clean ones, and the divergence of the two predictions "
    "(trades); of adversarial ones, and a divergence that counts where the "
    "clean prediction is wrong (mart); mixed, and equal logits (alp). Half of "
    "them by the BatchNorm of the pretraining (twins); or clean ones by a "
    "low-rank branch, and a divergence (autolora).",
)
flags.DEFINE_float(
    "beta",
    None,
    "Weight of the second part of trades, mart, alp and autolora, and of the "
    "second half of twins; default: 6, 6, 0.5, 6 and 0.4.",
    lower_bound=0.0,
)
flags.DEFINE_float(
    "label_smoothing",
    0.0,
    "Share of each label that is spread over all classes.",
    lower_bound=0.0,
    upper_bound=0.99,
)
flags.DEFINE_float(
    "awp",
    0.0,
    "Adversarial weight perturbation: the share of their norm that weights "
    "move up the loss before each step, as 0.005.",
    lower_bound=0.0,
)
flags.DEFINE_enum(
    "eval_attack",
    "margin_ensemble",
    ["margin_ensemble", "margin_ensemble-thorough"]
    + ["fgsm", "pgd", "apgd", "apgdt", "fab", "square"]
    + ["autoattack", "autoattack-plus", "autoattack-rand"],
    "Final attack. 'apgdt' and 'fab' aim at nine classes. The default and "
    "AutoAttack are ensembles with budgets of their own. The protocol 'paper' "
    "has its own attack.",
)
flags.DEFINE_integer(
    "eval_steps",
    None,
    "Steps of the final attack, queries of Square; default: 10 for pgd and "
    "apgd, those of AutoAttack for the others. Not for fgsm and ensembles.",
    lower_bound=1,
)
flags.DEFINE_bool(
    "bisect",
    None,
    "Bisect in a nested sweep; default: yes. --nobisect goes up from one "
    "epsilon to the next, which takes an ensemble about three times the "
    "passes.",
)

# === Training ===
flags.DEFINE_integer("epochs", 20, "Epochs.", lower_bound=1)
flags.DEFINE_integer("batch_size", 64, "Images in a batch.", lower_bound=1)
flags.DEFINE_integer(
    "accumulate",
    1,
    "Batches whose gradients are averaged for one step of the optimizer. The "
    "attack and BatchNorm still see one batch.",
    lower_bound=1,
)
flags.DEFINE_enum(
    "dtype",
    "float32",
    ["float32", "mixed_bfloat16", "mixed_float16"],
    "What a new network computes in; pixels, logits and the loss of the attack "
    "stay in float32. A saved model keeps its own.",
)
flags.DEFINE_float("weight_decay", 1e-4, "Weight decay of AdamW.")
flags.DEFINE_float(
    "ema",
    0.0,
    "Momentum of a moving average of the weights, which the training ends "
    "with, as 0.99; validation sees the weights themselves.",
    lower_bound=0.0,
    upper_bound=0.99999,
)
flags.DEFINE_float(
    "head_multiplier", 1.0, "Learning rate of the head, in multiples."
)
flags.DEFINE_float(
    "layer_decay",
    1.0,
    "Factor of the learning rate from each block to the one before.",
)
flags.DEFINE_enum(
    "adaptation",
    "full",
    ["full", "head", "last", "lora"],
    "What is trained: everything, the head (a linear probe), the head and the "
    "--last_blocks, or the head and a low-rank update of --lora_rank.",
)
flags.DEFINE_integer("last_blocks", 1, "See --adaptation.", lower_bound=1)
flags.DEFINE_integer("lora_rank", 8, "See --adaptation.", lower_bound=1)
flags.DEFINE_integer(
    "probe_epochs",
    0,
    "Epochs of a linear probe before the fine-tuning, which then starts from "
    "its head.",
    lower_bound=0,
)
flags.DEFINE_enum(
    "probe",
    "clean",
    ["clean", "adversarial"],
    "What the linear probe is trained on; adversarial images at --epsilon are "
    "RoLI's, for robust backbones: on others they fail (arXiv 2509.23325).",
)
flags.DEFINE_float(
    "warmup", 0.05, "Share of the training over which the rate rises."
)
flags.DEFINE_float("ramp_start", 0.25, "First hinge, share of the training.")
flags.DEFINE_float("ramp_end", 0.75, "Second hinge, share of the training.")
flags.DEFINE_enum(
    "update_freq", "epoch", ["epoch", "batch"], "How often epsilon is set."
)
flags.DEFINE_list(
    "augment", [], "Any of flip, color, rotation, separated by commas."
)
flags.DEFINE_enum(
    "attack_mode",
    "training",
    ["inference", "training"],
    "Mode of the network that the training attack sees: moving statistics of "
    "BatchNorm, or those of the batch.",
)
flags.DEFINE_float(
    "batchnorm_momentum",
    None,
    "Momentum of BatchNorm; default: its own, or lower if epochs are short.",
)
flags.DEFINE_bool("freeze_batchnorm", False, "Keep BatchNorm as pretrained.")
flags.DEFINE_bool(
    "reestimate_batchnorm",
    False,
    "After the training, estimate BatchNorm's statistics again, on all the "
    "training images as they are attacked at the end.",
)
flags.DEFINE_integer("seed", 0, "First seed: head, data order, starts.")
flags.DEFINE_string("output", None, "Run folder; default: runs/NAME-TIME.")
flags.DEFINE_bool(
    "resume",
    False,
    "Continue the run that --output holds; all but a search begin if there is "
    "none. All flags must be as before, but those of time and place.",
)
flags.DEFINE_float(
    "backup_minutes",
    10.0,
    "Minutes between two backups of a training; one more ends each epoch.",
    lower_bound=0.0,
)
flags.DEFINE_bool(
    "deterministic",
    False,
    "The same numbers bit by bit from run to run on this machine, if slower.",
)


PROTOCOLS = ("nested", "independent", "paper")


def define_protocols(default):
    """Defines --protocols, of which each launcher has its own default."""
    flags.DEFINE_list(
        "protocols",
        default,
        "How the final attack sweeps over epsilon, separated by commas: "
        "'nested' looks for the smallest epsilon that breaks an image, "
        "'independent' attacks afresh at each, and 'paper' is the protocol of "
        "arXiv 2509.23325: independent, by APGD with 10 steps on "
        "cross-entropy whatever --eval_attack is, a loose upper bound. The "
        "first makes curve.png and the model card.",
        allow_overwrite=False,
    )
    flags.register_validator(
        "protocols",
        lambda names: (
            bool(names)
            and set(names) <= set(PROTOCOLS)
            and len(set(names)) == len(names)
        ),
        f"expected different ones of {', '.join(PROTOCOLS)}, as nested,paper",
    )


_ROBUST_BACKBONE = (
    "The backbone is robust already: the schedule is not a free win here. It "
    "was made for non-robust backbones. On robust ones it traded robustness "
    "for clean accuracy: at 4/255, expected robustness fell in 6 of the 12 "
    "cells of arXiv 2509.23325, table 3, against a fixed epsilon. Compare both "
    "(launch/compare.py) before you choose."
)


def prepare(name):
    """Checks flags, data and backbone; then opens the run folder.

    What is wrong with any of them is said before anything is written. With
    --resume it is the folder of the run that goes on.

    Returns:
        The run folder and the data.
    """
    with refusals.checking():
        apply_recipe()
        set_up_keras()
        check_flags()
        print_flags()
        data = load_data(FLAGS.seed)
        print(f"\n{data}", flush=True)
        batches = FLAGS.epochs * len(data.train)
        if FLAGS.accumulate > batches:
            raise ValueError(
                f"the training has {batches} batches, so it would take no "
                f"step. Received: --accumulate={FLAGS.accumulate}"
            )
        if FLAGS.robust_backbone:
            print(f"\n{_ROBUST_BACKBONE}", flush=True)
        classifier = make_classifier(data.num_classes, FLAGS.seed)
        adapt(classifier)
        # Not every objective goes with every network.
        make_trainer(classifier, FLAGS.seed)
        return run_folders.run_folder(name), data


def apply_recipe():
    """Makes the recipe of the flags their defaults, and prints it."""
    if FLAGS.recipe:
        print(f"{recipes.apply(FLAGS.recipe, FLAGS)}\n", flush=True)


def set_up_keras():
    """Does as --dtype and --deterministic say."""
    if FLAGS.deterministic:
        # Read when JAX is imported, which nothing has done before.
        os.environ["XLA_FLAGS"] = (
            os.environ.get("XLA_FLAGS", "")
            + " --xla_gpu_deterministic_ops=true"
        )
    import keras

    keras.config.set_dtype_policy(FLAGS.dtype)
    if not FLAGS.deterministic:
        return
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif keras.backend.backend() == "torch":
        import torch

        torch.use_deterministic_algorithms(True)


def flags_of(module):
    """Names and values of the flags that a module defines."""
    found = FLAGS.get_flags_for_module(module)
    return {flag.name: flag.value for flag in found}


def flag_arguments():
    """The flags, but those of the search, as on a command line."""
    names = [*flags_of(sys.modules[__name__]), "schedule"]
    names += ["select_images"] if "select_images" in FLAGS else []
    own = ("output", "resume")
    texts = [FLAGS[name].serialize() for name in names if name not in own]
    return [text for text in texts if text]


def print_flags():
    """Prints the resolved flags, a line each, and quietens tfds."""
    from absl import logging
    from tabulate import tabulate

    # tfds warns of its own deprecations at every load.
    logging.set_verbosity(logging.ERROR)

    rows = sorted(run_folders.resolved_flags().items())
    print(tabulate(rows, headers=("flag", "value")), flush=True)


def print_device():
    """Prints where operations run: an accelerator may go unused in silence.

    For the process that trains or evaluates; that of a search has no GPU.
    """
    import keras

    ones = keras.ops.ones((2, 2))
    device = str(keras.ops.matmul(ones, ones).device).rsplit("/", 1)[-1]
    print(f"\ncomputes on {device}, by {keras.backend.backend()}", flush=True)


def load_data(seed):
    """The dataset of the flags."""
    import keras_epsched as ke

    return ke.datasets.load(
        FLAGS.dataset,
        image_size=(FLAGS.image_size, FLAGS.image_size),
        batch_size=FLAGS.batch_size,
        data_dir=FLAGS.data_dir,
        download=FLAGS.download,
        splits=FLAGS.splits,
        validation_split=FLAGS.validation_split,
        test_split=FLAGS.test_split,
        test_examples=FLAGS.test_examples,
        skip_corrupt=FLAGS.skip_corrupt,
        augment=tuple(FLAGS.augment),
        seed=seed,
    )


def make_classifier(num_classes, seed):
    """The pixel-space classifier of the flags, with a new head."""
    import keras_epsched as ke

    return ke.models.classifier(
        FLAGS.backbone,
        num_classes,
        image_size=(FLAGS.image_size, FLAGS.image_size),
        seed=seed,
        **backbone_arguments(),
    )


def backbone_arguments():
    """Arguments of `classifier` that every launcher takes as flags."""
    return {
        "weights": None if FLAGS.weights == "random" else FLAGS.weights,
        "backbone_config": _backbone_config(),
        "scale": FLAGS.scale,
        "offset": FLAGS.offset,
    }


def _backbone_config():
    try:
        return json.loads(FLAGS.backbone_config)
    except ValueError as error:
        raise ValueError(
            "expected JSON, as '{\"alpha\": 0.75}'. Received: "
            f"--backbone_config={FLAGS.backbone_config} ({error})"
        ) from error


def make_attack(name, steps=None):
    """An attack of the flags."""
    from keras_epsched import attacks

    name, _, version = name.partition("-")
    if name == "margin_ensemble":
        return attacks.MarginEnsemble(version or "standard", FLAGS.norm)
    if name == "autoattack":
        return attacks.AutoAttack(version or "standard", FLAGS.norm)
    if name == "fgsm":
        return attacks.FGSM(FLAGS.norm)
    if name == "square":
        return attacks.Square(steps or 5000, FLAGS.norm)
    if name == "apgdt":
        return attacks.TargetedAPGD(steps or 100, FLAGS.norm)
    if name == "fab":
        return attacks.FAB(steps or 100, FLAGS.norm, targets=9)
    attack = {"pgd": attacks.PGD, "apgd": attacks.APGD}[name]
    return attack(steps or 10, FLAGS.norm)


def make_final_attack(protocol="nested"):
    """The attack of the flags that measures what came out."""
    if protocol == "paper":
        return make_attack("apgd", 10)
    name = FLAGS.eval_attack
    fixed = name.partition("-")[0] in ("margin_ensemble", "autoattack", "fgsm")
    if FLAGS.eval_steps is not None and fixed:
        raise ValueError(
            f"--eval_attack={name} has a budget of its own. Received: "
            f"--eval_steps={FLAGS.eval_steps}. Leave it out, or take a single "
            "attack, such as --eval_attack=apgd"
        )
    return make_attack(name, FLAGS.eval_steps)


def make_choosing_attack():
    """The attack that trainings are chosen by before the final one.

    It only has to rank them: an attack on the margin does so at a fraction
    of the passes of the default ensemble.
    """
    from keras_epsched import attacks

    if FLAGS.eval_attack.startswith("margin_ensemble"):
        return attacks.APGD(10, FLAGS.norm, "probability_margin")
    return make_final_attack()


def make_training_attack():
    """The attack of the flags that training uses."""
    from keras_epsched import attacks

    if FLAGS.train_attack == "nfgsm":
        return attacks.NFGSM(FLAGS.norm)
    if FLAGS.train_attack == "fgsm":
        return attacks.FGSM(FLAGS.norm, random_start=True, step_ratio=1.25)
    return make_attack(FLAGS.train_attack, FLAGS.train_steps)


def make_objective():
    """The objective of the flags."""
    import keras_epsched as ke

    if FLAGS.beta is None:
        return ke.training.objectives.get(FLAGS.objective)
    with_beta = {
        "trades": ke.training.TRADES,
        "mart": ke.training.MART,
        "alp": ke.training.ALP,
        "autolora": ke.training.AutoLoRa,
        "twins": ke.training.TWINS,
    }
    if FLAGS.objective not in with_beta:
        raise ValueError(
            f"--beta is a part of {', '.join(with_beta)}. Received: "
            f"--beta={FLAGS.beta:g} with --objective={FLAGS.objective}"
        )
    return with_beta[FLAGS.objective](FLAGS.beta)


def make_loss():
    """The loss of the flags, in every objective."""
    import keras

    import keras_epsched as ke

    if FLAGS.label_smoothing:
        return ke.training.SmoothedCrossentropy(FLAGS.label_smoothing)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make_scheduler(name, seed=0):
    """The callback of a schedule by its name, or by its two hinges."""
    import keras_epsched as ke

    adaptive = {
        "auto": ke.callbacks.AutoEpsilonScheduler,
        "paced": ke.callbacks.PacedEpsilonScheduler,
    }
    if name in adaptive:
        if FLAGS.update_freq != "epoch":
            raise ValueError(
                f"--schedule={name} sets epsilon once an epoch. Received: "
                f"--update_freq={FLAGS.update_freq}"
            )
        return adaptive[name](FLAGS.epsilon)
    return ke.callbacks.EpsilonScheduler(
        make_schedule(name, seed), FLAGS.update_freq
    )


def make_schedule(name, seed):
    """A schedule that is known beforehand."""
    import keras_epsched as ke

    if name == "standard":
        return ke.schedules.Constant(0.0)
    if name == "fixed":
        return ke.schedules.Constant(FLAGS.epsilon)
    if name == "random":
        return ke.schedules.RandomUniform(FLAGS.epsilon, FLAGS.epochs, seed)
    hinges = FLAGS.ramp_start, FLAGS.ramp_end
    if name != "scheduled":
        hinges = flag_types.ScheduleName().hinges(name)
    return ke.schedules.TwoHinge(FLAGS.epsilon, *hinges)


def make_trainer(classifier, seed):
    """The trainer of the flags, not compiled."""
    import keras_epsched as ke

    return ke.AdversarialTrainer(
        classifier,
        attack=make_training_attack(),
        objective=make_objective(),
        attack_mode=FLAGS.attack_mode,
        batchnorm_momentum=FLAGS.batchnorm_momentum,
        freeze_batchnorm=FLAGS.freeze_batchnorm,
        weight_perturbation=FLAGS.awp,
        seed=seed,
    )


def make_optimizer(learning_rate, steps, trainer):
    """AdamW by groups, with a short warm-up and cosine decay."""
    import keras

    import keras_epsched as ke

    warmup = int(FLAGS.warmup * steps)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else learning_rate,
        max(steps - warmup, 1),
        warmup_target=learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    # Without multiples too: Keras does not store exclude_from_weight_decay,
    # and groups take no time.
    options = {}
    if FLAGS.ema:
        # Keras averages with each batch, also where several make a step.
        momentum = FLAGS.ema ** (1 / FLAGS.accumulate)
        options |= {"use_ema": True, "ema_momentum": momentum}
    if FLAGS.accumulate > 1:
        options["gradient_accumulation_steps"] = FLAGS.accumulate
    groups = ke.models.parameter_groups(
        trainer.model,
        head_multiplier=FLAGS.head_multiplier,
        layer_decay=FLAGS.layer_decay,
    )
    grouped = {path for group in groups for path in group["variables"]}
    # Those of the objective.
    others = [v.path for v in trainer.trainable_variables]
    others = [path for path in others if path not in grouped]
    if others:
        groups.append(
            {"variables": others, "multiplier": 1.0, "weight_decay": None}
        )
    return ke.training.GroupOptimizer(
        keras.optimizers.AdamW(
            rate, weight_decay=FLAGS.weight_decay, **options
        ),
        groups,
    )


def adapt(classifier):
    """Chooses what is trained, and says how much that is."""
    import keras_epsched as ke

    ke.models.adapt(
        classifier,
        FLAGS.adaptation,
        last=FLAGS.last_blocks,
        rank=FLAGS.lora_rank,
    )
    print(ke.models.trainable_parameters(classifier), flush=True)


def evaluation_grid():
    """The grid of epsilons of the flags."""
    import keras_epsched as ke

    return ke.epsilon_grid(FLAGS.epsilon, FLAGS.num_epsilons, FLAGS.norm)


def evaluate(classifier, dataset, protocol="nested", attack=None, **arguments):
    """One evaluation by the flags.

    Args:
        classifier: Pixels to logits.
        dataset: Batches of images and labels.
        protocol: One of `PROTOCOLS`.
        attack: `Attack`. Defaults to the final one of the flags.
        **arguments: Others of `keras_epsched.evaluate`.
    """
    import keras_epsched as ke

    arguments = {
        "epsilons": evaluation_grid(),
        "bisect": FLAGS.bisect if protocol == "nested" else None,
        "seed": FLAGS.seed,
        "verbose": 1,
        **arguments,
    }
    attack = attack or make_final_attack(protocol)
    return ke.evaluate(
        classifier, dataset, attack=attack, protocol=protocol, **arguments
    )


def protocols():
    """The protocols of the flags; a launcher without them sweeps nested."""
    if "protocol" in FLAGS:
        return [FLAGS.protocol]
    return FLAGS.protocols if "protocols" in FLAGS else ["nested"]


def evaluation_config():
    """What config.json says of the final attack."""
    return {each: make_final_attack(each).title for each in protocols()}


# What a model card says of each training; of the other flags those that are
# not at their defaults.
_RECIPE = (
    "dataset backbone weights image_size schedule objective train_attack "
    "train_steps epsilon norm epochs batch_size learning_rate seed"
).split()
_ATTACK = ("objective", "train_attack", "train_steps", "epsilon", "norm")
# Of place, time and evaluation, which the card states otherwise.
_NO_RECIPE = (
    "data_dir download test_examples skip_corrupt num_epsilons eval_attack "
    "eval_steps bisect output resume backup_minutes deterministic protocols "
    "schedules seeds learning_rates study monitors monitor_images"
).split()


def write_card(folder, report, data, **chosen):
    """The model card of a training, with what was chosen beside the flags."""
    import keras_epsched as ke

    values = {**run_folders.resolved_flags(), **chosen}
    standard = values["schedule"] == "standard"
    names = [n for n in _RECIPE if not (standard and n in _ATTACK)]
    names += [
        name
        for name, value in sorted(values.items())
        if name not in (*_RECIPE, *_NO_RECIPE) and value != FLAGS[name].default
    ]
    ke.evaluation.write_model_card(
        report,
        folder / "README.md",
        {name: _short(values[name]) for name in names},
        classes=data.class_names,
        robust=not standard,
    )


def _short(value):
    """The name of a file or folder; other values as they are."""
    is_path = isinstance(value, str) and os.path.exists(value)
    return pathlib.Path(value).name if is_path else value


def splits_config(data):
    """What config.json says of the data."""
    import dataclasses

    return {
        name: dataclasses.asdict(getattr(data, name).split_info)
        for name in ("train", "validation", "test")
    }


def _check_default_epsilon():
    """Refuses what is meant for digits where the images are others."""
    # A recipe may have brought another default.
    at_default = FLAGS["epsilon"].using_default_value and FLAGS.epsilon == 0.3
    if at_default and FLAGS.dataset not in ("digits", "letters"):
        raise ValueError(
            f"--epsilon={FLAGS.epsilon:g}, the default, is meant for digits. "
            f"Give one for {FLAGS.dataset}, such as --epsilon=4/255"
        )


def check_flags():
    """Refuses what would only fail after the first epochs."""
    from keras_epsched.epsilons import check_epsilon

    check_epsilon(FLAGS.epsilon, FLAGS.norm, "--epsilon")
    if FLAGS.epsilon == 0:
        raise ValueError("--epsilon must be above 0: it is the target")
    # A grid of its own needs neither this nor a number of points.
    if not ("epsilons" in FLAGS and FLAGS.epsilons):
        _check_default_epsilon()
        evaluation_grid()
    # Those of the flags, even where a launcher takes another.
    schedules = ["scheduled"]
    schedules += [FLAGS.schedule] if "schedule" in FLAGS else []
    schedules += FLAGS.schedules if "schedules" in FLAGS else []
    for schedule in schedules:
        make_scheduler(schedule)
    make_training_attack()
    make_objective()
    if FLAGS.probe != "clean" and not FLAGS.probe_epochs:
        raise ValueError(
            f"--probe={FLAGS.probe} needs --probe_epochs. Received: "
            "--probe_epochs=0"
        )
    if FLAGS.awp and FLAGS.ema:
        raise ValueError(
            "--awp with --ema is not available: Keras would average the "
            "weights where --awp has moved them to"
        )
    _check_evaluation()
    monitors.check()


def _check_evaluation():
    """Refuses flags of the evaluation that none of its protocols heeds."""
    make_final_attack()
    swept = protocols()
    if FLAGS.bisect and "nested" not in swept:
        raise ValueError(
            f"--bisect needs the protocol nested. Received: {', '.join(swept)}"
        )
    given = [n for n in ("eval_attack", "eval_steps") if FLAGS[n].present]
    own = FLAGS.eval_attack == "apgd" and FLAGS.eval_steps in (None, 10)
    if swept == ["paper"] and given and not own:
        raise ValueError(
            "the protocol paper attacks by APGD with 10 steps. Received: "
            + ", ".join(f"--{name}={FLAGS[name].value}" for name in given)
            + ". Leave that out, or take the protocol independent"
        )
