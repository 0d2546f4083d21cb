"""What is wrong with a config, said before anything is written or trained."""

import contextlib
from collections.abc import Iterator

import numpy as np

from keras_epsched import callbacks, optional
from keras_epsched.configs.config import Settings, typed
from keras_epsched.configs.values import ConfigError
from keras_epsched.epsilons import check_epsilon
from keras_epsched.models import names
from keras_epsched.runs import build
from keras_epsched.runs.folder import RunUnderWay, check_output
from keras_epsched.schedules import WITH_HINGES

_KINDS = (ValueError, ImportError, OSError, RunUnderWay)


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Marks errors within as refusals: what to do is said by the message.

    A launcher prints such an error without a traceback, by its attribute
    `is_refusal`.
    """
    try:
        yield
    except _KINDS as error:
        error.is_refusal = True  # type: ignore[union-attr]
        raise


def check(config: Settings) -> None:
    """Refuses what would only fail later, before anything is loaded.

    Raises:
        ConfigError: If values do not go together, or nothing can be written to
            the run folder.
        ValueError: If there is no such backbone or model.
        ImportError: If a package is missing that a value needs.
    """
    check_output(config)
    check_epsilon(config.epsilon, config.norm, "epsilon")
    if config.epsilon == 0:
        raise ConfigError("`epsilon` must be above 0: it is the target")
    # A grid of its own needs neither this nor a number of points.
    if not getattr(config, "epsilons", ()):
        if config.default_epsilon_is_meant_for_digits():
            raise ConfigError(
                f"epsilon={config.epsilon:g}, the default, is meant for "
                f"digits. Give one for {config.dataset}, such as epsilon=4/255"
            )
        build.evaluation_grid(config)
    # The hinges are checked whatever the schedule.
    for schedule in ("scheduled", *config.trained_schedules()):
        _check_schedule(config, schedule)
    _check_hinges(config)
    build.make_training_attack(config)
    build.make_objective(config)
    if config.probe != "clean" and not config.probe_epochs:
        raise ConfigError(
            f"probe={config.probe} needs `probe_epochs`. Received: "
            "probe_epochs=0"
        )
    if config.decay_start is not None and config.decay_start < config.warmup:
        raise ConfigError(
            "`decay_start` must not be below `warmup`: the learning rate rises "
            f"until then. Received: decay_start={config.decay_start:g}, "
            f"warmup={config.warmup:g}"
        )
    if config.awp and config.ema:
        raise ConfigError(
            "`awp` with `ema` is not available: Keras would average the "
            "weights where `awp` has moved them to"
        )
    _check_evaluation(config)
    _check_monitors(config)
    # Last, for to know all names takes a second.
    for name in getattr(config, "model", (config.backbone,)):
        names.check(name)


def _check_schedule(config, name):
    scheduler = build.make_scheduler(config, name)
    if isinstance(scheduler, callbacks.EpsilonScheduler):
        highest = float(np.max(scheduler.schedule(np.linspace(0, 1, 1001))))
        try:
            check_epsilon(highest, config.norm, "epsilon")
        except ValueError as error:
            raise ConfigError(
                f"schedule={name} rises to {highest:g}, above "
                f"epsilon={config.epsilon:g}. {error}"
            ) from error


def _check_hinges(config):
    trained = config.trained_schedules()
    given = sorted({"ramp_start", "ramp_end"} & config.given)
    if given and "peak" in trained and not {*trained} & {*WITH_HINGES}:
        top, target = (
            typed("epsilon", share * config.epsilon) for share in (1.25, 1.0)
        )
        raise ConfigError(
            f"`{given[0]}` does not move schedule=peak, which has hinges of "
            "its own. Give its points instead, as "
            f"schedule=0.1:0;0.6:{top};0.8:{top};0.9:{target}, or use "
            "schedule=scheduled"
        )


def _check_evaluation(config):
    """Refuses values of the evaluation that none of its protocols heeds."""
    build.make_final_attack(config)
    swept = config.swept_protocols()
    if config.bisect and "nested" not in swept:
        raise ConfigError(
            f"`bisect` needs the protocol nested. Received: {', '.join(swept)}"
        )
    given = [n for n in ("eval_attack", "eval_steps") if n in config.given]
    own = config.eval_attack == "apgd" and config.eval_steps in (None, 10)
    if tuple(swept) == ("paper",) and given and not own:
        raise ConfigError(
            "the protocol paper attacks by APGD with 10 steps. Received: "
            + ", ".join(f"{name}={getattr(config, name)}" for name in given)
            + ". Leave that out, or take the protocol independent"
        )


def _check_monitors(config):
    overfitting = {"robust_overfitting", "catastrophic_overfitting"}
    if (
        config.monitor_action == "stop"
        and config.ema
        and overfitting & set(config.monitors)
    ):
        raise ConfigError(
            "monitor_action=stop with `ema` is not available: Keras would "
            "end the training with its average, not the last good weights"
        )
    if "images" in config.monitors:
        optional.package("tensorflow", "monitors=images")
