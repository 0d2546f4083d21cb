"""What a run is made of: plain values, each with the role that it plays."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, TypeVar

from keras_epsched import schedules
from keras_epsched.configs import recipes
from keras_epsched.configs.values import (
    Card,
    ConfigError,
    Group,
    Role,
    as_text,
    entries,
    parse_number,
    value,
)
from keras_epsched.epsilons import format_epsilon

PROTOCOLS = ("nested", "independent", "paper")
# Schedules that the epochs seen so far decide: callbacks of their own.
ADAPTIVE_SCHEDULES = ("auto", "paced")
MONITORS = (
    "transfer",
    "robust_overfitting",
    "catastrophic_overfitting",
    "images",
)
# Datasets that the default target is meant for.
_EASY = ("digits", "letters")
_DEFAULT_EPSILON = 0.3


def check_schedule(name: str) -> None:
    """Raises a `ValueError` if there is no such schedule."""
    if "," in name:
        raise ValueError(
            "expected one schedule: several are compared by launch/compare.py, "
            f"in Python by keras_epsched.runs.compare. Received: {name}"
        )
    known = (*schedules.NAMES, "random", *ADAPTIVE_SCHEDULES)
    if ":" in name:
        # Whatever the target: the points of a schedule bring their own.
        schedules.check_name(name)
    elif name not in known:
        near = difflib.get_close_matches(name, known, 1)
        raise ValueError(
            f"expected one of {', '.join(known)}, or two hinges as "
            f"12/50:37/50. Received: {name!r}."
            + (f" Did you mean {near[0]}?" if near else "")
        )


def _check_schedules(names):
    if not names or len({*names}) < len(names):
        raise ValueError("expected different schedules")
    for name in names:
        check_schedule(name)


def _check_protocols(names):
    if not names or set(names) - set(PROTOCOLS) or len(set(names)) < len(names):
        raise ValueError(
            f"expected different ones of {', '.join(PROTOCOLS)}, as "
            "nested,paper"
        )


def _check_monitors(names):
    if set(names) - set(MONITORS):
        raise ValueError(f"expected any of {', '.join(MONITORS)}")


def _check_rates(rates):
    if not rates or not all(rate > 0 for rate in rates):
        raise ValueError("expected positive numbers, as 1e-4,1e-3")


SCHEDULE_HELP = (
    "How epsilon changes during the training. 'standard': no attack. 'fixed': "
    "the target from the first step on. 'scheduled': 0 until `ramp_start`, a "
    "straight rise until `ramp_end`, then the target. 'cosine' and 'smooth': "
    "the same with a rise along half a cosine, or one that begins slowly. "
    "'warmup': a straight rise from the start. 'step': a jump to the target at "
    "`ramp_start`. 'peak': up to 1.25 times the target, and down to it before "
    "the end. 'random': another random epsilon in each epoch. 'auto': the "
    "rise begins when the network has learned the task. 'paced': epsilon rises "
    "as long as clean accuracy holds. '12/50:37/50': as 'scheduled', with "
    "these two hinges as shares of the training. '0.1:0;0.4:1/255;0.8:4/255': "
    "straight lines through points progress:epsilon."
)
_PROTOCOLS_HELP = (
    "How the final attack goes through the epsilons. 'nested': it looks for "
    "the smallest epsilon that breaks each image. 'independent': it attacks "
    "each image afresh at each epsilon. 'paper': the protocol of arXiv "
    "2509.23325, which is independent, by APGD with 10 steps on cross-entropy "
    "whatever `eval_attack` is; its accuracies are a loose upper bound. The "
    "first protocol makes curve.png and the model card."
)


Kind = TypeVar("Kind", bound="Settings")


def typed(name: str, value: Any) -> str:
    """Returns a value as a user types it, an epsilon as 4/255.

    Args:
        name: String. The name of the value.
        value: The value.
    """
    if name == "epsilon":
        text = format_epsilon(value)
        if parse_number(text) == value:
            return text
    return as_text(value)


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Settings:
    """What the configs of all kinds of runs share.

    A config is frozen, and made of plain values: strings, numbers, booleans
    and tuples of strings. Each value may be given as a text too, as
    `epsilon="4/255"`. Values that are not given are those of the recipe, or
    the defaults.

    Args:
        **given: Values by name.

    Raises:
        ConfigError: If there is no such value, or one is not as it must be.
    """

    recipe: str | None = value(
        None,
        "A published recipe, whose values replace the defaults: "
        f"{', '.join(recipes.RECIPES)}; or a JSON file that launch/tune.py has "
        "written. Values that you give go before those of the recipe.",
        group=Group.TRAINING,
    )

    # === Data ===
    dataset: str = value(
        "digits",
        "'digits' or 'letters', which are built in; a dataset of the paper "
        "(caltech256, cub200, stanford_dogs, stanford_cars, fgvc_aircraft, "
        "imagenette); any other name of TensorFlow Datasets; a folder that "
        "TensorFlow Datasets has prepared; or a folder of images laid out as "
        "class/image.png or split/class/image.png.",
        group=Group.DATA,
        card=Card.ALWAYS,
    )
    data_dir: str | None = value(
        None,
        "Folder of prepared datasets. Default: the folder of TensorFlow "
        "Datasets, ~/tensorflow_datasets.",
        Role.MACHINE,
        group=Group.DATA,
    )
    download: bool = value(
        False,
        "Download the dataset if it is not there.",
        Role.PLACE,
        group=Group.DATA,
    )
    splits: Literal["paper", "stratified", "contiguous"] | None = value(
        None,
        "How training, validation and test images are chosen. Default: as in "
        "the paper for its datasets, otherwise the dataset's own splits, with "
        "the same share of each class in what is held out. "
        "keras_epsched.datasets.load says more.",
        group=Group.DATA,
    )
    validation_split: float | None = value(
        None,
        "Share of the training images to hold out for validation, if the "
        "dataset has no validation split. Default: 0.2.",
        group=Group.DATA,
    )
    test_split: float | None = value(
        None,
        "Share of the training images to hold out for the test, if the "
        "dataset has no test images.",
        group=Group.DATA,
    )
    test_examples: int | None = value(
        None,
        "Test on this many of the test images, with the same share of each "
        "class. Default: all.",
        group=Group.DATA,
        card=Card.NEVER,
    )
    skip_corrupt: bool = value(
        False,
        "Leave out files of an image folder that cannot be read, and list "
        "them.",
        group=Group.DATA,
        card=Card.NEVER,
    )
    image_size: int = value(
        32,
        "Height and width in pixels to which all images are resized.",
        group=Group.DATA,
        card=Card.ALWAYS,
    )
    augment: tuple[str, ...] = value(
        (),
        "Random changes of the training images: any of flip, color, rotation.",
        group=Group.TRAINING,
    )

    # === Model ===
    backbone: str = value(
        "resnet_letters",
        "The pretrained network: a name as ViT-B/16, a KerasHub preset, "
        "keras.applications.NAME, a folder with a Hugging Face checkpoint, or "
        "a .keras file. `python -m keras_epsched.models.table` lists all "
        "names.",
        group=Group.MODEL,
        card=Card.ALWAYS,
    )
    weights: str = value(
        "pretrained",
        "'pretrained' (downloaded if needed), 'random', or a file of weights.",
        group=Group.MODEL,
        card=Card.ALWAYS,
    )
    robust_backbone: bool = value(
        False,
        "Say that the backbone is robust already. The run then prints what to "
        "expect of a schedule.",
        group=Group.ADAPTATION,
    )
    backbone_config: str = value(
        "{}",
        "JSON with further arguments of a keras.applications network, as "
        "'{\"alpha\": 0.75}'.",
        group=Group.MODEL,
    )
    scale: float | None = value(
        None,
        "The network receives pixels * `scale` + `offset`, where pixels go "
        "from 0 to 255. Default: as the backbone was pretrained.",
        group=Group.MODEL,
    )
    offset: float | None = value(None, "See `scale`.", group=Group.MODEL)
    dtype: Literal["float32", "mixed_bfloat16", "mixed_float16"] = value(
        "float32",
        "Precision of a new network. Pixels, logits and the loss of the attack "
        "stay in float32. A saved model keeps its own precision.",
        group=Group.MODEL,
    )
    adaptation: Literal["full", "head", "last", "lora"] = value(
        "full",
        "What is trained. 'full': all weights. 'head': the head alone (a "
        "linear probe). 'last': the head and the `last_blocks`. 'lora': the "
        "head and a low-rank update of rank `lora_rank`.",
        group=Group.ADAPTATION,
    )
    last_blocks: int = value(
        1,
        "Number of blocks to train with adaptation=last.",
        group=Group.ADAPTATION,
        at_least=1,
    )
    lora_rank: int = value(
        8, "Rank with adaptation=lora.", group=Group.ADAPTATION, at_least=1
    )
    batchnorm_momentum: float | None = value(
        None,
        "Momentum of BatchNorm. Default: that of the network, or a lower one "
        "if an epoch has few steps.",
        group=Group.ADAPTATION,
    )
    freeze_batchnorm: bool = value(
        False,
        "Keep the statistics of BatchNorm from the pretraining.",
        group=Group.ADAPTATION,
    )
    reestimate_batchnorm: bool = value(
        False,
        "After the training, compute the statistics of BatchNorm again from "
        "all training images, attacked as at the end of the training.",
        group=Group.ADAPTATION,
    )

    # === Epsilon schedule and training attack ===
    epsilon: float = value(
        _DEFAULT_EPSILON,
        "The target: the largest change of a pixel that the model must "
        "withstand, on the [0, 1] scale, as 4/255. The default is for the "
        "datasets 'digits' and 'letters' only.",
        group=Group.TARGET,
        card=Card.ALWAYS,
        of_attack=True,
    )
    norm: Literal["linf", "l2", "l1"] = value(
        "linf",
        "The norm in which epsilon bounds a perturbation.",
        group=Group.TARGET,
        card=Card.ALWAYS,
        of_attack=True,
    )
    ramp_start: float = value(
        12 / 50,
        "Share of the training after which epsilon begins to rise; 'peak' has "
        "its own.",
        group=Group.ATTACK,
        earlier_defaults=(0.25,),
    )
    ramp_end: float = value(
        37 / 50,
        "Share of the training after which epsilon has reached its target; "
        "'peak' has its own.",
        group=Group.ATTACK,
        earlier_defaults=(0.75,),
    )
    update_freq: Literal["epoch", "batch"] = value(
        "epoch",
        "Whether epsilon is set once an epoch or before each batch.",
        group=Group.ATTACK,
    )
    train_attack: Literal["fgsm", "nfgsm", "pgd", "apgd"] = value(
        "pgd",
        "The attack of the training. 'fgsm' and 'nfgsm' take one step (fast "
        "adversarial training): 'fgsm' starts at a random point, 'nfgsm' adds "
        "noise.",
        group=Group.ATTACK,
        card=Card.ALWAYS,
        of_attack=True,
    )
    train_steps: int = value(
        7,
        "Steps of the training attack, for 'pgd' and 'apgd'.",
        group=Group.ATTACK,
        card=Card.ALWAYS,
        of_attack=True,
    )
    train_attack_loss: Literal["ce", "margin", "dlr", "probability_margin"] = (
        value(
            "ce",
            "The loss that the attack of the training maximises: 'ce' is "
            "cross-entropy, 'margin' the margin of logits, "
            "'probability_margin' that of probabilities, and 'dlr' the ratio "
            "of AutoAttack. 'trades' attacks its divergence instead.",
            group=Group.ATTACK,
            of_attack=True,
        )
    )
    objective: Literal[
        "adversarial", "mixed", "trades", "mart", "alp", "twins", "autolora"
    ] = value(
        "adversarial",
        "The loss that a step minimises. 'adversarial': the loss of "
        "adversarial images. 'mixed': the loss of clean and of adversarial "
        "images, half each. "
        "'trades': the loss of clean images, and the divergence of the two "
        "predictions. 'mart': the loss of adversarial images, and a divergence "
        "with more weight where the clean prediction is wrong. 'alp': as "
        "'mixed', and equal logits. 'twins': half of the batch uses the "
        "statistics of BatchNorm from the pretraining. 'autolora': the loss of "
        "clean images through a low-rank branch, the loss of adversarial "
        "images, and a divergence.",
        group=Group.ATTACK,
        card=Card.ALWAYS,
        of_attack=True,
    )
    beta: float | None = value(
        None,
        "Weight of the second part of the objective. Default: 6 for 'trades', "
        "'mart' and 'autolora', 0.5 for 'alp', 0.4 for 'twins'.",
        group=Group.ATTACK,
        at_least=0.0,
    )
    awp: float = value(
        0.0,
        "Adversarial weight perturbation: before each step, weights move up "
        "the loss by this share of their norm, as 0.005. 0: none.",
        group=Group.ATTACK,
        at_least=0.0,
    )
    attack_mode: Literal["inference", "training"] = value(
        "training",
        "Statistics of BatchNorm that the training attack sees: the moving "
        "averages ('inference'), or those of the batch ('training').",
        group=Group.ATTACK,
    )

    # === Training ===
    epochs: int = value(
        20,
        "Number of epochs.",
        group=Group.TRAINING,
        at_least=1,
        card=Card.ALWAYS,
    )
    batch_size: int = value(
        64,
        "Images in a batch, in the training and in the evaluation.",
        group=Group.DATA,
        at_least=1,
        card=Card.ALWAYS,
    )
    accumulate: int = value(
        1,
        "Number of batches whose gradients are averaged for one step of the "
        "optimizer. The attack and BatchNorm still see one batch.",
        group=Group.TRAINING,
        at_least=1,
    )
    weight_decay: float = value(
        1e-4, "Weight decay of AdamW.", group=Group.TRAINING
    )
    warmup: float = value(
        0.05,
        "Share of the training during which the learning rate rises. It falls "
        "along half a cosine from `decay_start` on.",
        group=Group.TRAINING,
    )
    decay_start: float | None = value(
        0.74,
        "Share of the training after which the learning rate falls. Recipes of "
        "published trainings have none: it falls from the end of the warm-up.",
        group=Group.TRAINING,
        earlier_defaults=(None,),
        at_least=0.0,
        at_most=1.0,
    )
    head_multiplier: float = value(
        1.0,
        "Learning rate of the head, as a multiple of that of the backbone.",
        group=Group.TRAINING,
    )
    layer_decay: float = value(
        1.0,
        "Factor by which the learning rate falls from each block to the block "
        "before it.",
        group=Group.TRAINING,
    )
    label_smoothing: float = value(
        0.0,
        "Share of each label that is spread over all classes.",
        group=Group.TRAINING,
        at_least=0.0,
        at_most=0.99,
    )
    ema: float = value(
        0.0,
        "Momentum of a moving average of the weights, as 0.99. The training "
        "ends with the average; validation during the training sees the "
        "weights themselves. 0: none.",
        group=Group.TRAINING,
        at_least=0.0,
        at_most=0.99999,
    )
    probe_epochs: int = value(
        0,
        "Epochs in which the head alone is trained first (a linear probe). "
        "The fine-tuning starts from this head.",
        group=Group.TRAINING,
        at_least=0,
    )
    probe: Literal["clean", "adversarial"] = value(
        "clean",
        "Images of the linear probe. 'adversarial', at `epsilon`, is the "
        "method RoLI, for robust backbones. On other backbones it fails "
        "(arXiv 2509.23325).",
        group=Group.TRAINING,
    )
    seed: int = value(
        0,
        "Seed of the head, the data order and the random starts of attacks. "
        "With several seeds, the first one.",
        group=Group.RUN,
        card=Card.ALWAYS,
    )

    # === Evaluation ===
    num_epsilons: int | None = value(
        None,
        "Number of epsilons, from 0 to the target, at which accuracy is "
        "measured. Default: steps of 1/255 for a target k/255 up to 16/255, "
        "otherwise 9.",
        group=Group.EVALUATION,
        card=Card.NEVER,
    )
    eval_attack: Literal[
        "margin_ensemble",
        "margin_ensemble-thorough",
        "fgsm",
        "pgd",
        "apgd",
        "apgdt",
        "fab",
        "square",
        "autoattack",
        "autoattack-plus",
        "autoattack-rand",
    ] = value(
        "margin_ensemble",
        "The final attack. The default and AutoAttack are ensembles with "
        "fixed budgets. 'apgdt' and 'fab' aim at nine classes. The protocol "
        "'paper' always uses its own attack.",
        Role.MEASUREMENT,
        group=Group.EVALUATION,
        before="apgd",
    )
    eval_steps: int | None = value(
        None,
        "Steps of the final attack, or queries of 'square'. Default: 10 for "
        "'pgd' and 'apgd', as in AutoAttack for the others. 'fgsm' and the "
        "ensembles take none.",
        Role.MEASUREMENT,
        group=Group.EVALUATION,
        at_least=1,
    )
    bisect: bool | None = value(
        None,
        "Find the smallest epsilon by bisection in a nested sweep. Default: "
        "yes. Without it the sweep tries one epsilon after the other, and an "
        "ensemble needs about three times the passes.",
        Role.MEASUREMENT,
        group=Group.EVALUATION,
        before=False,
    )

    # === Monitoring ===
    monitors: tuple[str, ...] = value(
        ("transfer",),
        "What is watched during the training. 'transfer': whether the network "
        "learns the task, with a verdict at the end; it takes no time. "
        "'robust_overfitting': whether robust accuracy falls again. "
        "'catastrophic_overfitting': whether the network learns to mislead the "
        "training attack. 'images': eight adversarial images an epoch, for "
        "TensorBoard. All but the first attack `monitor_images` images of the "
        "validation split after each epoch. Empty: none.",
        Role.MACHINE,
        group=Group.MONITORS,
        check=_check_monitors,
    )
    monitor_action: Literal["warn", "stop"] = value(
        "warn",
        "What happens when overfitting is found: a warning, or the end of the "
        "training with the last good weights.",
        group=Group.MONITORS,
    )
    monitor_images: int = value(
        256,
        "Number of validation images that the monitors attack.",
        Role.MACHINE,
        group=Group.MONITORS,
        at_least=1,
    )

    # === The run ===
    output: str | None = value(
        None,
        "The run folder. Default: runs/NAME-TIME.",
        Role.PLACE,
        group=Group.RUN,
    )
    resume: bool = value(
        False,
        "Resume the run in `output`, or begin it if there is none. All values "
        "must be as before, except those of the run folder and the download.",
        Role.PLACE,
        group=Group.RUN,
    )
    backup_minutes: float = value(
        10.0,
        "Minutes between two backups of a training. Each epoch ends with a "
        "backup as well.",
        Role.PLACE,
        group=Group.RUN,
        at_least=0.0,
    )
    jit_compile: Literal["auto", "true", "false"] = value(
        "auto",
        "Whether XLA compiles training and evaluation. 'auto': on a GPU; on a "
        "CPU in trainings where it is expected or measured to be faster.",
        Role.MACHINE,
        group=Group.RUN,
    )
    deterministic: bool = value(
        False,
        "Compute the same numbers bit by bit each time on this machine. This "
        "may be slower.",
        Role.MACHINE,
        group=Group.RUN,
    )

    def __init__(self, **given: Any):
        known = entries(self)
        unknown = sorted(set(given) - set(known))
        if unknown:
            close = difflib.get_close_matches(unknown[0], known, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ConfigError(
                f"{type(self).__name__} has no value {unknown[0]!r}.{hint}"
            )
        values = {**self._recipe_values(given), **given}
        for name, entry in known.items():
            found = entry.parse(values[name]) if name in values else None
            # Frozen for everybody else.
            object.__setattr__(
                self, name, found if name in values else entry.default
            )
        # What the caller has decided, whatever its value.
        object.__setattr__(self, "_given", frozenset(given))

    def _recipe_values(self, given) -> Mapping[str, Any]:
        if given.get("recipe") is None:
            return {}
        return recipes.for_config(given["recipe"], type(self)).flags

    @property
    def given(self) -> frozenset[str]:
        """Names of the values that were given, at their defaults or not."""
        return self.__dict__["_given"]

    def replace(self, **changes: Any) -> Self:
        """Returns the config with other values.

        What neither was given nor changes is decided again, as the values of
        another recipe.
        """
        kept = {name: getattr(self, name) for name in self.given}
        return type(self)(**{**kept, **changes})

    def as_dict(self) -> dict[str, Any]:
        """Returns all values as JSON has them."""
        found = {name: getattr(self, name) for name in entries(self)}
        return {
            name: list(each) if isinstance(each, tuple) else each
            for name, each in found.items()
        }

    def swept_protocols(self) -> tuple[str, ...]:
        """Protocols of the final evaluation."""
        return ("nested",)

    def trained_schedules(self) -> tuple[str, ...]:
        """Schedules that the run trains by."""
        return ()

    def default_epsilon_is_meant_for_digits(self) -> bool:
        """Whether the target is the default, and the data are others."""
        return (
            "epsilon" not in self.given
            and self.epsilon == _DEFAULT_EPSILON
            and self.dataset not in _EASY
        )

    def __repr__(self):
        changed = ", ".join(
            f"{name}={getattr(self, name)!r}"
            for name, entry in entries(self).items()
            if getattr(self, name) != entry.default
        )
        return f"{type(self).__name__}({changed})"

    def __str__(self):
        return self.text()

    def text(self, spell: Callable[[str, Any], str] | None = None) -> str:
        """Returns the values that differ from the defaults, in one line.

        Args:
            spell: Function from a name and its value to how the reader writes
                them. Defaults to `name=value`.
        """
        spell = spell or (lambda name, value: f"{name}={typed(name, value)}")
        changed = [
            spell(name, getattr(self, name))
            for name, entry in entries(self).items()
            if getattr(self, name) != entry.default
        ]
        return " ".join(changed) or "all values are the defaults"


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Config(Settings):
    """One robust fine-tuning and its evaluation.

    Example:
    ```python
    config = keras_epsched.runs.Config(
        dataset="cub200", backbone="ViT-B/16", image_size=224, epsilon=4 / 255
    )
    result = keras_epsched.runs.finetune(config)
    print(result)
    ```
    """

    schedule: str = value(
        "scheduled",
        SCHEDULE_HELP,
        group=Group.ATTACK,
        card=Card.ALWAYS,
        check=check_schedule,
        earlier_defaults=("scheduled", "peak"),
    )
    learning_rate: float = value(
        3e-3,
        "Peak learning rate of AdamW.",
        group=Group.TRAINING,
        card=Card.ALWAYS,
    )
    protocols: tuple[str, ...] = value(
        ("nested",),
        _PROTOCOLS_HELP,
        Role.MEASUREMENT,
        group=Group.EVALUATION,
        # The result itself says it.
        column=False,
        check=_check_protocols,
    )

    def swept_protocols(self):
        return self.protocols

    def trained_schedules(self):
        return (self.schedule,)


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Comparison(Settings):
    """Fine-tunings by several schedules, alike in all else.

    Example:
    ```python
    config = keras_epsched.runs.Comparison(
        schedules=("fixed", "scheduled"), seeds=3
    )
    print(keras_epsched.runs.compare(config))
    ```
    """

    seeds: int = value(
        1,
        "Number of seeds: each schedule is trained once with each.",
        group=Group.RUN,
        card=Card.NEVER,
        at_least=1,
    )
    # The default is the best of seven rates on the digits, chosen as
    # `runs.compare` says, with APGD with 10 steps on cross-entropy and a rate
    # that falls from the warm-up on. Clean accuracy and expected robustness of
    # the fixed schedule on the validation images: 1e-4: 30.1 %, 0.019; 3e-4:
    # 73.0 %, 0.077; 1e-3: 76.8 %, 0.284; 3e-3: 62.9 %, 0.374; 1e-2: 48.6 %,
    # 0.312; 3e-2: 51.4 %, 0.265; 1e-1: 5.4 %, 0.054. With
    # attack_mode="inference" the best of them is 3e-2 (52.5 %, 0.363).
    learning_rates: tuple[float, ...] = value(
        (3e-3,),
        "Peak learning rate of AdamW: one or several. Of several, the best is "
        "chosen first, and used for all schedules.",
        group=Group.TRAINING,
        flag="learning_rate",
        card=Card.NEVER,
        check=_check_rates,
    )
    schedules: tuple[str, ...] = value(
        ("standard", "fixed", "scheduled", "peak"),
        f"The schedules to compare: one or several. {SCHEDULE_HELP}",
        group=Group.ATTACK,
        flag="schedule",
        card=Card.NEVER,
        check=_check_schedules,
        # As it is stored.
        earlier_defaults=(["standard", "fixed", "scheduled"],),
    )
    protocols: tuple[str, ...] = value(
        ("nested", "paper"),
        _PROTOCOLS_HELP,
        Role.MEASUREMENT,
        group=Group.EVALUATION,
        check=_check_protocols,
    )

    def swept_protocols(self):
        return self.protocols

    def trained_schedules(self):
        return self.schedules


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Evaluation(Settings):
    """The evaluation of classifiers that are there.

    Example:
    ```python
    config = keras_epsched.runs.Evaluation(
        model=("runs/NAME/model.keras",), eval_attack="autoattack"
    )
    print(keras_epsched.runs.evaluate(config))
    ```
    """

    model: tuple[str, ...] = value(
        (),
        "The classifier to measure: a .keras file that takes pixels from 0 to "
        "255 and returns logits, a saved trainer, or a KerasHub preset with "
        "its own head. Several models are compared.",
        group=Group.MODEL,
    )
    epsilons: tuple[float, ...] = value(
        (),
        "The epsilons at which accuracy is measured, as 1/255,2/255. Default: "
        "even steps up to `epsilon`. They may go beyond it; expected "
        "robustness is then still that up to `epsilon`.",
        group=Group.EVALUATION,
    )
    protocol: Literal["nested", "independent", "paper"] = value(
        "nested",
        "How the attack goes through the epsilons. 'nested': it looks for the "
        "smallest epsilon that breaks each image. 'independent': it attacks "
        "each image afresh at each epsilon. 'paper': the protocol of arXiv "
        "2509.23325, which is independent, by APGD with 10 steps on "
        "cross-entropy.",
        Role.MEASUREMENT,
        group=Group.EVALUATION,
    )
    split: Literal["validation", "test"] = value(
        "test", "The images to evaluate on.", group=Group.DATA
    )

    def swept_protocols(self):
        return (self.protocol,)


def as_comparison(config: Settings) -> Comparison:
    """Returns the comparison of schedules in the setting of one fine-tuning."""
    if isinstance(config, Comparison):
        return config
    shared = set(entries(Settings)) & config.given
    values = {name: getattr(config, name) for name in shared}
    if "learning_rate" in config.given and isinstance(config, Config):
        values["learning_rates"] = (config.learning_rate,)
    return Comparison(**values)
