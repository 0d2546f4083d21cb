"""What a run will take: steps, passes, time and memory, before it begins."""

import dataclasses

import numpy as np

from keras_epsched import backend, batches, models
from keras_epsched.configs.config import Comparison, Config
from keras_epsched.configs.values import ConfigError
from keras_epsched.epsilons import format_epsilon
from keras_epsched.evaluation.progress import duration
from keras_epsched.runs import build, checks, costs, fitting, measuring
from keras_epsched.runs.cards import CARDS, EFFICIENCY
from keras_epsched.runs.costs import Passes
from keras_epsched.runs.device import computing_as, describe_device
from keras_epsched.runs.prepare import check_training

# Images of a step that is taken here for a card that is elsewhere.
_FEW = 16


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a run.

    Args:
        name: String.
        steps: Int. Steps of training, 0 for an evaluation.
        passes: `Passes` of images through the network.
        seconds: Float.
        at_most: Boolean. Whether it may take less.
    """

    name: str
    steps: int
    passes: Passes
    seconds: float
    at_most: bool = False


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a run will take; print it for a table.

    Args:
        parts: Tuple of `Part`s. One that is done several times counts all.
        parameters: String. How many parameters are trained, of how many.
        memory: `Memory` of a training step.
        bytes: Float. What a step of the config holds.
        fits: Tuple of what fits into `memory_gb`.
        memory_gb: Float or `None`.
        note: String. What the times rest on.
        memory_source: String. What `bytes` rest on, if not on `memory`.
    """

    parts: tuple[Part, ...]
    parameters: str
    memory: measuring.Memory
    bytes: float
    fits: tuple[fitting.Fit, ...]
    memory_gb: float | None
    note: str
    memory_source: str = ""

    @property
    def seconds(self) -> float:
        """How long all parts take together."""
        return sum(part.seconds for part in self.parts)

    def __str__(self):
        from tabulate import tabulate

        at_most = any(part.at_most for part in self.parts)
        rows = [
            (
                part.name,
                f"{part.steps:,}" if part.steps else "",
                f"{part.passes.forward:,}",
                f"{part.passes.backward:,}",
                _time(part.seconds, part.at_most),
            )
            for part in self.parts
        ]
        table = tabulate(
            [*rows, ("all", "", "", "", _time(self.seconds, at_most))],
            headers=("", "steps", "forward passes", "backward", "time"),
            colalign=("left", "right", "right", "right", "left"),
            disable_numparse=True,
        )
        lines = [
            self.parameters,
            f"a training step holds {self.bytes / fitting.GB:.2f} GB "
            f"({self.memory_source or self.memory.source})",
        ]
        if self.memory_gb is not None:
            lines.append(f"into {self.memory_gb:g} GB fit:")
            fits = self.fits or ("nothing, whatever the batch size",)
            lines += [f"  {each}" for each in fits]
            lines.append("  (larger batches are not considered)")
        return "\n".join([table, "", self.note, *lines])


def _time(seconds, at_most):
    return f"at most {duration(seconds)}" if at_most else duration(seconds)


def estimate(
    config: Config | Comparison,
    *,
    memory_gb: float | None = None,
    card: str | None = None,
) -> Estimate:
    """Says what a run will take, from a few of its steps.

    It counts steps and passes, times the trainer on batches of the data and an
    attack on one batch, and measures the memory of a step. Nothing is kept,
    and there is no run folder. It takes about a minute, or as long as some
    steps take.

    The time of an evaluation is that of a network which withstands every
    attack: images that are misclassified or broken take less. Passes of the
    validation are not counted; its time is.

    Args:
        config: `Config` or `Comparison`.
        memory_gb: Float or `None`. A memory, in units of 2**30 bytes, to say
            what fits into it. Defaults to that of the `card`.
        card: String or `None`. A graphics card that is not here, as `"T4"`.
            Times are rough estimates then, from its peak.

    Returns:
        An `Estimate`.

    Raises:
        ConfigError: If the config, the data or the backbone is not fit for it.

    Example:
    ```python
    config = keras_epsched.runs.Config(dataset="cub200", epsilon="4/255")
    print(keras_epsched.runs.estimate(config, memory_gb=15))
    ```
    """
    with checks.refusing():
        if memory_gb is not None and not memory_gb > 0:
            raise ConfigError(
                f"`memory_gb` must be above 0. Received: memory_gb={memory_gb}"
            )
        if card is not None:
            _check_card(card, config)
        checks.check(config)
    with computing_as(config):
        with checks.refusing():
            data = build.load_data(config, config.seed)
            check_training(config, data, verbose=0)
        if card is None:
            return _from_here(config, data, memory_gb)
        return _from_card(config, data, memory_gb, card)


def _check_card(name, config):
    if name not in CARDS:
        raise ConfigError(
            f"`card` must be one of {', '.join(CARDS)}. Received: card={name}"
        )
    if config.dtype == "mixed_bfloat16" and not CARDS[name].bfloat16:
        raise ConfigError(
            f"a {name} does not compute in bfloat16: take dtype=mixed_float16. "
            f"Received: dtype={config.dtype}"
        )


def _from_here(config, data, memory_gb):
    """The estimate for the device that this process computes on."""
    steps = len(data.train)
    attacked = [
        count
        for _, _, scheduler in _trainings(config)
        for count in costs.attacked_steps(scheduler, config.epochs, steps)
    ]
    epsilons = (
        0.0 if min(attacked) < steps else config.epsilon,
        config.epsilon if max(attacked) else 0.0,
    )
    training = measuring.measure_training(config, data, epsilons)
    images, _ = batches.as_arrays(next(iter(data.test)))
    attack = measuring.measure_attack(
        training.trainer.model, images, config.norm, build.jit_compile(config)
    )
    times = dict(zip(epsilons, training.steps, strict=True))
    note = (
        f"{describe_device()}\na step takes "
        + ", ".join(
            f"{seconds:.3g} s at epsilon {format_epsilon(each, config.norm)}"
            for each, seconds in times.items()
        )
        + f"; an epoch {training.epoch:.2g} s besides"
    )
    return _estimate(
        config,
        data,
        training,
        _Here(training, attack),
        training.memory,
        "mixed_bfloat16",
        memory_gb,
        note,
    )


def _from_card(config, data, memory_gb, name):
    """The estimate for a card that is elsewhere."""
    card = CARDS[name]
    # The memory of a step is measured here, on few images.
    few = config.replace(batch_size=min(config.batch_size, _FEW))
    training = measuring.measure_training(
        few, build.load_data(few, few.seed), (0.0, 0.0)
    )
    memory = dataclasses.replace(training.memory, fixed=training.memory.state)
    network = training.trainer.model
    image = np.zeros((1, *data.image_size, 3), "float32")
    flops = backend.flops(lambda x: network(x, training=False), image)
    peak = card.float32 if config.dtype == "float32" else card.half
    note = (
        f"rough, as nothing ran on a {name}: {flops / 1e9:.3g} GFLOP a pass, "
        f"at {EFFICIENCY:.0%} of {peak:g} TFLOPS. Loading, start-up and "
        "compiling come on top, and small batches do not fill the card"
    )
    return _estimate(
        config,
        data,
        training,
        _OnCard(flops / (EFFICIENCY * peak * 1e12)),
        memory,
        "mixed_bfloat16" if card.bfloat16 else "mixed_float16",
        memory_gb or card.memory,
        note,
        f"scaled from a step here, not measured on a {name}",
    )


class _Here:
    """Seconds by what was measured.

    Args:
        training: `measuring.Training`.
        attack: `measuring.Attack`.
    """

    def __init__(self, training, attack):
        self._training, self._attack = training, attack

    def training(self, passes, plain, attacked, epochs):
        first, second = self._training.steps
        return (
            self._training.startup
            + plain * first
            + attacked * second
            + epochs * self._training.epoch
        )

    def evaluation(self, passes, attacks):
        alone = passes.forward - passes.backward
        return (
            attacks * self._attack.startup
            + alone * self._attack.forward
            + passes.backward * self._attack.gradient
        )


class _OnCard:
    """Seconds by the peak of a card.

    Args:
        seconds: Float. Seconds of a forward pass of one image.
    """

    def __init__(self, seconds):
        self._seconds = seconds

    def training(self, passes, *_):
        return passes.work * self._seconds

    def evaluation(self, passes, _):
        return passes.work * self._seconds


def _estimate(
    config, data, training, pace, memory, half, memory_gb, note, source=""
):
    fits = ()
    if memory_gb is not None:
        fits = fitting.find(config, memory, half, memory_gb)
    return Estimate(
        parts=(
            *_training_parts(config, data, training.trainer, pace),
            *_evaluation_parts(config, data, pace),
        ),
        parameters=models.trainable_parameters(training.trainer.model),
        memory=memory,
        bytes=memory.of(config.batch_size),
        fits=fits,
        memory_gb=memory_gb,
        note=note,
        memory_source=source,
    )


def _trainings(config) -> list[tuple]:
    """Names of trainings, how many there are, and their schedulers."""
    if isinstance(config, Config):
        found = [("training", config.schedule, 1)]
    else:
        found = [("training", each, config.seeds) for each in config.schedules]
        rates = len(config.learning_rates)
        if rates > 1:
            found.insert(0, ("choice of the rate", "fixed", rates))
    return [
        (
            f"{name}, {schedule}",
            times,
            build.make_scheduler(config, schedule, config.seed),
        )
        for name, schedule, times in found
    ]


def _training_parts(config, data, trainer, pace):
    steps, size = len(data.train), config.batch_size
    total = 0
    for name, times, scheduler in _trainings(config):
        total += times
        attacked = costs.attacked_steps(scheduler, config.epochs, steps)
        if config.reestimate_batchnorm:
            # All images once more, attacked as at the end.
            attacked.append(attacked[-1])
        passes = costs.of_epochs(trainer, attacked, steps, size)
        some = sum(attacked)
        plain = len(attacked) * steps - some
        seconds = pace.training(passes, plain, some, config.epochs)
        yield Part(
            f"{name} ({times} times)" if times > 1 else name,
            times * config.epochs * steps,
            passes * times,
            times * seconds,
            at_most=costs.is_adaptive(scheduler),
        )
    if config.probe_epochs:
        attack = config.probe == "adversarial"
        count = config.probe_epochs * steps
        passes = costs.of_probe(trainer, attack) * (count * size)
        of_each = (0, count) if attack else (count, 0)
        seconds = pace.training(passes, *of_each, config.probe_epochs)
        # Its steps are timed as those that train more than the head.
        yield Part(
            f"linear probe ({total} times)" if total > 1 else "linear probe",
            total * count,
            passes * total,
            total * seconds,
            at_most=True,
        )


def _evaluations(config, data) -> list[tuple]:
    """Names, how many there are, attacks, splits, and whether they bisect."""
    times, rates = 1, 1
    if isinstance(config, Comparison):
        times = len(config.schedules) * config.seeds
        rates = len(config.learning_rates)
    bisects = config.bisect is not False
    found = [
        (
            f"evaluation, {protocol}",
            times,
            build.make_final_attack(config, protocol),
            data.test,
            bisects and protocol == "nested",
        )
        for protocol in config.swept_protocols()
    ]
    if rates > 1:
        attack = build.make_choosing_attack(config)
        name = "evaluation of the rates"
        found.insert(0, (name, rates, attack, data.validation, bisects))
    return found


def _evaluation_parts(config, data, pace):
    num_epsilons = int(np.count_nonzero(build.evaluation_grid(config)))
    for name, times, attack, split, bisects in _evaluations(config, data):
        passes = costs.of_evaluation(
            attack,
            data.num_classes,
            num_epsilons,
            bisects,
            split.split_info.num_examples,
        )
        members = len(getattr(attack, "members", (attack,)))
        yield Part(
            f"{name} ({times} times)" if times > 1 else name,
            0,
            passes * times,
            times * pace.evaluation(passes, members),
            at_most=True,
        )
