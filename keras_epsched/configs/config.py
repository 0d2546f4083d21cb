"""What a run is made of: plain values, each with the role that it plays."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, Literal, Self, TypeVar

from keras_epsched import schedules
from keras_epsched.configs import recipes
from keras_epsched.configs.values import Card, ConfigError, Role, entries, value

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
    if name not in ADAPTIVE_SCHEDULES:
        try:
            # Whatever the target: the points of a schedule bring their own.
            schedules.check_name(name)
        except ValueError as error:
            known = ", ".join((*schedules.NAMES, "random", *ADAPTIVE_SCHEDULES))
            raise ValueError(
                f"expected one of {known}, or two hinges as 12/50:37/50. "
                f"{error}"
            ) from error


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
    "No attack (standard); the target from the start (fixed); a ramp between "
    "`ramp_start` and `ramp_end` that is straight (scheduled), half a cosine "
    "(cosine) or polynomial at first (smooth); a ramp from the start (warmup); "
    "a jump at `ramp_start` (step); another uniform draw in each epoch "
    "(random); a ramp that waits until the task is adapted to (auto); one that "
    "goes on while clean accuracy holds (paced); a ramp with hinges of its "
    "own, as shares of the training (12/50:37/50); or straight lines through "
    "points of progress and epsilon (0.1:0;0.4:1/255;0.8:4/255)."
)
_PROTOCOLS_HELP = (
    "How the final attack sweeps over epsilon: 'nested' looks for the smallest "
    "epsilon that breaks an image, 'independent' attacks afresh at each, and "
    "'paper' is the protocol of arXiv 2509.23325: independent, by APGD with 10 "
    "steps on cross-entropy whatever `eval_attack` is, a loose upper bound. "
    "The first one makes curve.png and the model card."
)


Kind = TypeVar("Kind", bound="Settings")


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
        f"Defaults of a published recipe ({', '.join(recipes.RECIPES)}), or a "
        "file that a search has written. Values that are given override it.",
    )

    # === Data and network ===
    dataset: str = value(
        "digits",
        "A dataset of the paper (caltech256, cub200, stanford_dogs, "
        "stanford_cars, fgvc_aircraft, imagenette), any tfds name, a "
        "tfds-prepared folder, or an image folder (root/split/class/*.png). "
        "'digits' and 'letters' are built in.",
        card=Card.ALWAYS,
    )
    data_dir: str | None = value(
        None,
        "Folder of prepared tfds datasets; default: tfds' own.",
        Role.MACHINE,
    )
    download: bool = value(False, "Let tfds download the dataset.", Role.PLACE)
    splits: Literal["paper", "stratified", "contiguous"] | None = value(
        None,
        "Splits of the dataset; default: the paper's where it uses the "
        "dataset, see keras_epsched.datasets.load.",
    )
    validation_split: float | None = value(
        None,
        "Share of the training images to hold out where the dataset has no "
        "validation split; default: 0.2.",
    )
    test_split: float | None = value(
        None,
        "Share of the training images to test on, of a dataset that stores no "
        "test images.",
    )
    test_examples: int | None = value(
        None,
        "Size of a stratified subsample of the test images.",
        card=Card.NEVER,
    )
    skip_corrupt: bool = value(
        False,
        "Leave out files of an image folder that cannot be used; they are "
        "named.",
        card=Card.NEVER,
    )
    backbone: str = value(
        "resnet_letters",
        "Any name, folder or file that keras_epsched.models.classifier takes: "
        "ViT-B/16, a keras-hub preset, keras.applications.NAME, a Hugging Face "
        "folder, a .keras file. All names: python -m "
        "keras_epsched.models.table.",
        card=Card.ALWAYS,
    )
    weights: str = value(
        "pretrained",
        "'pretrained' (downloaded where needed), 'random', or a file of "
        "weights.",
        card=Card.ALWAYS,
    )
    robust_backbone: bool = value(
        False,
        "The backbone is robust already: says what to expect of a schedule "
        "then.",
    )
    backbone_config: str = value(
        "{}",
        "JSON with further arguments of a keras.applications backbone, as "
        "'{\"alpha\": 0.75}'.",
    )
    scale: float | None = value(
        None, "pixels * `scale` + `offset` is what the backbone was trained on."
    )
    offset: float | None = value(
        None,
        "See `scale`; a backbone with a name or a converter brings both.",
    )
    image_size: int = value(
        32, "Height and width of the images.", card=Card.ALWAYS
    )

    # === Threat model ===
    epsilon: float = value(
        _DEFAULT_EPSILON,
        "Target strength on [0, 1], as 4/255; the default is for digits alone.",
        card=Card.ALWAYS,
        of_attack=True,
    )
    norm: Literal["linf", "l2", "l1"] = value(
        "linf", "Norm of the ball.", card=Card.ALWAYS, of_attack=True
    )
    num_epsilons: int | None = value(
        None,
        "Points of the evaluation grid; default: 1/255 steps.",
        card=Card.NEVER,
    )
    train_attack: Literal["fgsm", "nfgsm", "pgd", "apgd"] = value(
        "pgd",
        "Training attack; fgsm starts at random and nfgsm adds noise (fast "
        "adversarial training).",
        card=Card.ALWAYS,
        of_attack=True,
    )
    train_steps: int = value(
        7, "Steps of the training attack.", card=Card.ALWAYS, of_attack=True
    )
    objective: Literal[
        "adversarial", "mixed", "trades", "mart", "alp", "twins", "autolora"
    ] = value(
        "adversarial",
        "What a step minimises: the loss of adversarial images (adversarial); "
        "of half clean and half adversarial ones (mixed); of clean ones, and "
        "the divergence of the two predictions (trades); of adversarial ones, "
        "and a divergence that counts where the clean prediction is wrong "
        "(mart); as mixed, and equal logits (alp); half of them by the "
        "BatchNorm of the pretraining (twins); clean ones by a low-rank "
        "branch, and a divergence (autolora).",
        card=Card.ALWAYS,
        of_attack=True,
    )
    beta: float | None = value(
        None,
        "Weight of the second part of trades, mart, alp and autolora, and of "
        "the second half of twins; default: 6, 6, 0.5, 6 and 0.4.",
        at_least=0.0,
    )
    label_smoothing: float = value(
        0.0,
        "Share of each label that is spread over all classes.",
        at_least=0.0,
        at_most=0.99,
    )
    awp: float = value(
        0.0,
        "Adversarial weight perturbation: the share of their norm that weights "
        "move up the loss before each step, as 0.005.",
        at_least=0.0,
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
        "Final attack. 'apgdt' and 'fab' aim at nine classes. The default and "
        "AutoAttack are ensembles with budgets of their own. The protocol "
        "'paper' has its own attack.",
        Role.MEASUREMENT,
        before="apgd",
    )
    eval_steps: int | None = value(
        None,
        "Steps of the final attack, queries of Square; default: 10 for pgd and "
        "apgd, those of AutoAttack for the others. Not for fgsm and ensembles.",
        Role.MEASUREMENT,
        at_least=1,
    )
    bisect: bool | None = value(
        None,
        "Bisect in a nested sweep; default: yes. Without it the sweep goes up "
        "from one epsilon to the next, which takes an ensemble about three "
        "times the passes.",
        Role.MEASUREMENT,
        before=False,
    )

    # === Training ===
    epochs: int = value(20, "Epochs.", at_least=1, card=Card.ALWAYS)
    batch_size: int = value(
        64, "Images in a batch.", at_least=1, card=Card.ALWAYS
    )
    accumulate: int = value(
        1,
        "Batches whose gradients are averaged for one step of the optimizer. "
        "The attack and BatchNorm still see one batch.",
        at_least=1,
    )
    dtype: Literal["float32", "mixed_bfloat16", "mixed_float16"] = value(
        "float32",
        "What a new network computes in; pixels, logits and the loss of the "
        "attack stay in float32. A saved model keeps its own.",
    )
    weight_decay: float = value(1e-4, "Weight decay of AdamW.")
    ema: float = value(
        0.0,
        "Momentum of a moving average of the weights, which the training ends "
        "with, as 0.99; validation sees the weights themselves.",
        at_least=0.0,
        at_most=0.99999,
    )
    head_multiplier: float = value(
        1.0, "Learning rate of the head, in multiples."
    )
    layer_decay: float = value(
        1.0,
        "Factor of the learning rate from each block to the one before.",
    )
    adaptation: Literal["full", "head", "last", "lora"] = value(
        "full",
        "What is trained: everything (full), the head (a linear probe), the "
        "head and the `last_blocks` (last), or the head and a low-rank update "
        "of `lora_rank` (lora).",
    )
    last_blocks: int = value(1, "See `adaptation`.", at_least=1)
    lora_rank: int = value(8, "See `adaptation`.", at_least=1)
    probe_epochs: int = value(
        0,
        "Epochs of a linear probe before the fine-tuning, which then starts "
        "from its head.",
        at_least=0,
    )
    probe: Literal["clean", "adversarial"] = value(
        "clean",
        "What the linear probe is trained on; adversarial images at `epsilon` "
        "are RoLI's, for robust backbones: on others they fail (arXiv "
        "2509.23325).",
    )
    warmup: float = value(
        0.05, "Share of the training over which the learning rate rises."
    )
    ramp_start: float = value(
        12 / 50, "First hinge, share of the training.", earlier_default=0.25
    )
    ramp_end: float = value(
        37 / 50, "Second hinge, share of the training.", earlier_default=0.75
    )
    update_freq: Literal["epoch", "batch"] = value(
        "epoch", "How often epsilon is set."
    )
    augment: tuple[str, ...] = value((), "Any of flip, color, rotation.")
    attack_mode: Literal["inference", "training"] = value(
        "training",
        "Mode of the network that the training attack sees: moving statistics "
        "of BatchNorm (inference), or those of the batch (training).",
    )
    batchnorm_momentum: float | None = value(
        None,
        "Momentum of BatchNorm; default: its own, or lower if epochs are "
        "short.",
    )
    freeze_batchnorm: bool = value(False, "Keep BatchNorm as pretrained.")
    reestimate_batchnorm: bool = value(
        False,
        "After the training, estimate BatchNorm's statistics again, on all the "
        "training images as they are attacked at the end.",
    )
    seed: int = value(
        0, "First seed: head, data order, random starts.", card=Card.ALWAYS
    )

    # === The run ===
    monitors: tuple[str, ...] = value(
        ("transfer",),
        "What is watched: whether the task is adapted to, with a verdict at "
        "the end, which costs nothing (transfer); robustness that is lost "
        "again (robust_overfitting); a training attack that the network learns "
        "to mislead (catastrophic_overfitting); eight adversarial images an "
        "epoch, in TensorBoard (images). All but the first attack images of "
        "the validation split after each epoch. Empty for none.",
        Role.MACHINE,
        check=_check_monitors,
    )
    monitor_action: Literal["warn", "stop"] = value(
        "warn",
        "What follows when a kind of overfitting is seen; 'stop' ends the "
        "training with the last good weights.",
    )
    monitor_images: int = value(
        256,
        "Images that are attacked; see `monitors`.",
        Role.MACHINE,
        at_least=1,
    )
    output: str | None = value(
        None, "Run folder; default: runs/NAME-TIME.", Role.PLACE
    )
    resume: bool = value(
        False,
        "Resume the run that `output` holds; all but a search begin if there "
        "is none. All values must be as before, but those of time and place.",
        Role.PLACE,
    )
    backup_minutes: float = value(
        10.0,
        "Minutes between two backups of a training; one more ends each epoch.",
        Role.PLACE,
        at_least=0.0,
    )
    deterministic: bool = value(
        False,
        "The same numbers bit by bit from run to run on this machine, if "
        "slower.",
        Role.MACHINE,
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

    def named_schedules(self) -> tuple[str, ...]:
        """Schedules that the run trains by."""
        return ("scheduled",)

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
        from tabulate import tabulate

        rows = sorted(self.as_dict().items())
        return tabulate(rows, headers=("name", "value"))


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
        "scheduled", SCHEDULE_HELP, card=Card.ALWAYS, check=check_schedule
    )
    learning_rate: float = value(
        3e-3, "Peak learning rate of AdamW.", card=Card.ALWAYS
    )
    protocols: tuple[str, ...] = value(
        ("nested",),
        _PROTOCOLS_HELP,
        Role.MEASUREMENT,
        # The result itself says it.
        column=False,
        check=_check_protocols,
    )

    def swept_protocols(self):
        return self.protocols

    def named_schedules(self):
        return ("scheduled", self.schedule)


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

    seeds: int = value(1, "Number of seeds.", card=Card.NEVER, at_least=1)
    learning_rates: tuple[float, ...] = value(
        (3e-3,),
        "Learning rates; the best of several is taken.",
        card=Card.NEVER,
        check=_check_rates,
    )
    schedules: tuple[str, ...] = value(
        ("standard", "fixed", "scheduled"),
        "What is compared, as the `schedule` of one fine-tuning.",
        card=Card.NEVER,
        check=_check_schedules,
    )
    protocols: tuple[str, ...] = value(
        ("nested", "paper"),
        _PROTOCOLS_HELP,
        Role.MEASUREMENT,
        check=_check_protocols,
    )

    def swept_protocols(self):
        return self.protocols

    def named_schedules(self):
        return ("scheduled", *self.schedules)


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
        "A .keras file (a classifier from pixels in [0, 255] to logits, or a "
        "trainer), or a keras-hub preset with its own head. Several are "
        "compared.",
    )
    epsilons: tuple[float, ...] = value(
        (),
        "The grid, as 1/255,2/255; default: even steps up to `epsilon`, the "
        "target. It may go beyond the target, where expected robustness ends.",
    )
    protocol: Literal["nested", "independent", "paper"] = value(
        "nested",
        "Sweep over epsilon; 'paper' is that of arXiv 2509.23325: independent, "
        "by APGD with 10 steps on cross-entropy.",
        Role.MEASUREMENT,
    )
    split: Literal["validation", "test"] = value("test", "Split.")

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
