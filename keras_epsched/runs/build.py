"""What a config describes, made: data, network, attacks, schedule, trainer."""

import json

import keras

from keras_epsched import (
    attacks,
    callbacks,
    datasets,
    models,
    schedules,
    training,
)
from keras_epsched.configs.config import Settings
from keras_epsched.configs.values import ConfigError
from keras_epsched.epsilons import epsilon_grid

_ADAPTIVE = {
    "auto": callbacks.AutoEpsilonScheduler,
    "paced": callbacks.PacedEpsilonScheduler,
}
_WITH_BETA = {
    "trades": training.TRADES,
    "mart": training.MART,
    "alp": training.ALP,
    "autolora": training.AutoLoRa,
    "twins": training.TWINS,
}
_ITERATIVE = {"pgd": attacks.PGD, "apgd": attacks.APGD}
# Attacks that bring their numbers of steps.
_OWN_STEPS = ("margin_ensemble", "autoattack", "fgsm")


# === Data and network ===


def load_data(config: Settings, seed: int) -> datasets.ImageData:
    """Loads the dataset, in the order of a seed."""
    return datasets.load(
        config.dataset,
        image_size=(config.image_size, config.image_size),
        batch_size=config.batch_size,
        data_dir=config.data_dir,
        download=config.download,
        splits=config.splits,
        validation_split=config.validation_split,
        test_split=config.test_split,
        test_examples=config.test_examples,
        skip_corrupt=config.skip_corrupt,
        augment=config.augment,
        seed=seed,
    )


def make_classifier(
    config: Settings, num_classes: int | None, seed: int
) -> keras.Model:
    """Makes the pixel-space classifier, with a new head.

    Without `num_classes` it is a preset with its own head.
    """
    try:
        backbone_config = json.loads(config.backbone_config)
    except ValueError as error:
        raise ConfigError(
            "`backbone_config` must be JSON, as '{\"alpha\": 0.75}'. Received: "
            f"backbone_config={config.backbone_config} ({error})"
        ) from error
    return models.classifier(
        config.backbone,
        num_classes,
        image_size=(config.image_size, config.image_size),
        seed=seed,
        weights=None if config.weights == "random" else config.weights,
        backbone_config=backbone_config,
        scale=config.scale,
        offset=config.offset,
    )


def adapt(config: Settings, classifier: keras.Model) -> None:
    """Chooses what is trained."""
    models.adapt(
        classifier,
        config.adaptation,
        last=config.last_blocks,
        rank=config.lora_rank,
    )


# === Attacks ===


def make_attack(
    name: str, norm: str, steps: int | None = None
) -> attacks.Attack | attacks.AttackEnsemble:
    """Makes an attack by the name that configs use."""
    name, _, version = name.partition("-")
    if name == "margin_ensemble":
        return attacks.MarginEnsemble(version or "standard", norm)
    if name == "autoattack":
        return attacks.AutoAttack(version or "standard", norm)
    if name == "fgsm":
        return attacks.FGSM(norm)
    if name == "square":
        return attacks.Square(steps or 5000, norm)
    if name == "apgdt":
        return attacks.TargetedAPGD(steps or 100, norm)
    if name == "fab":
        return attacks.FAB(steps or 100, norm, targets=9)
    return _ITERATIVE[name](steps or 10, norm)


def make_final_attack(config: Settings, protocol: str = "nested"):
    """Makes the attack that measures what came out."""
    if protocol == "paper":
        return make_attack("apgd", config.norm, 10)
    name = config.eval_attack
    if config.eval_steps is not None and name.partition("-")[0] in _OWN_STEPS:
        raise ConfigError(
            f"eval_attack={name} has a budget of its own. Received: "
            f"eval_steps={config.eval_steps}. Leave it out, or take a single "
            "attack, such as eval_attack=apgd"
        )
    return make_attack(name, config.norm, config.eval_steps)


def make_choosing_attack(config: Settings):
    """Makes the attack that trainings are chosen by before the final one.

    It only has to rank them: an attack on the margin does so at a fraction of
    the passes of the default ensemble.
    """
    if config.eval_attack.startswith("margin_ensemble"):
        return attacks.APGD(10, config.norm, "probability_margin")
    return make_final_attack(config)


def make_training_attack(config: Settings) -> attacks.Attack:
    """Makes the attack that training uses."""
    norm, loss = config.norm, config.train_attack_loss
    if config.train_attack == "nfgsm":
        return attacks.NFGSM(norm, loss)
    if config.train_attack == "fgsm":
        return attacks.FGSM(norm, loss, step_ratio=1.25, random_start=True)
    return _ITERATIVE[config.train_attack](config.train_steps, norm, loss)


def evaluation_grid(config: Settings):
    """Makes the grid of epsilons up to the target."""
    return epsilon_grid(config.epsilon, config.num_epsilons, config.norm)


# === Training ===


def make_objective(config: Settings) -> training.Objective:
    """Makes what a step minimises."""
    if config.objective == "trades" and config.train_attack_loss != "ce":
        raise ConfigError(
            "objective=trades attacks its divergence. Leave out "
            f"`train_attack_loss`. Received: {config.train_attack_loss}"
        )
    if config.beta is None:
        return training.objectives.get(config.objective)
    if config.objective not in _WITH_BETA:
        raise ConfigError(
            f"`beta` is a part of {', '.join(_WITH_BETA)}. Received: "
            f"beta={config.beta:g} with objective={config.objective}"
        )
    return _WITH_BETA[config.objective](config.beta)


def make_loss(config: Settings) -> keras.losses.Loss:
    """Makes the loss, the same in every objective."""
    if config.label_smoothing:
        return training.SmoothedCrossentropy(config.label_smoothing)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make_scheduler(
    config: Settings, name: str, seed: int = 0
) -> callbacks.EpsilonScheduler:
    """Makes the callback that drives epsilon by a schedule of that name."""
    if name in _ADAPTIVE:
        if config.update_freq != "epoch":
            raise ConfigError(
                f"schedule={name} sets epsilon once an epoch. Received: "
                f"update_freq={config.update_freq}"
            )
        return _ADAPTIVE[name](config.epsilon)
    schedule = schedules.named(
        name,
        config.epsilon,
        config.ramp_start,
        config.ramp_end,
        config.epochs,
        seed,
    )
    return callbacks.EpsilonScheduler(schedule, config.update_freq)


def make_trainer(
    config: Settings, classifier: keras.Model, seed: int
) -> training.AdversarialTrainer:
    """Makes the trainer, not compiled."""
    return training.AdversarialTrainer(
        classifier,
        attack=make_training_attack(config),
        objective=make_objective(config),
        attack_mode=config.attack_mode,
        batchnorm_momentum=config.batchnorm_momentum,
        freeze_batchnorm=config.freeze_batchnorm,
        weight_perturbation=config.awp,
        seed=seed,
    )


def compiled_trainer(
    config: Settings,
    classifier: keras.Model,
    learning_rate: float,
    seed: int,
    steps: int,
) -> training.AdversarialTrainer:
    """Makes the trainer, compiled for a training of so many steps."""
    adapt(config, classifier)
    trainer = make_trainer(config, classifier, seed)
    trainer.compile(
        optimizer=make_optimizer(config, learning_rate, steps, trainer),
        loss=make_loss(config),
        metrics=["accuracy"],
        jit_compile=jit_compile(config),
    )
    return trainer


def jit_compile(config: Settings) -> bool | str:
    """Returns the argument of that name, of `compile` and `evaluate`."""
    return {"true": True, "false": False}.get(config.jit_compile, "auto")


def make_optimizer(
    config: Settings,
    learning_rate: float,
    steps: int,
    trainer: training.AdversarialTrainer,
) -> keras.optimizers.Optimizer:
    """Makes AdamW by groups, with a warm-up and a late cosine decay."""
    warmup = int(config.warmup * steps)
    # None in recipes, and in runs from before it had a default.
    share = config.decay_start
    start = warmup if share is None else int(share * steps)
    rate = training.HeldCosineDecay(
        learning_rate, steps, warmup, decay_start=start
    )
    # Without multiples too: Keras does not store exclude_from_weight_decay,
    # and groups take no time.
    options = {}
    if config.ema:
        # Keras averages with each batch, also where several make a step.
        momentum = config.ema ** (1 / config.accumulate)
        options |= {"use_ema": True, "ema_momentum": momentum}
    if config.accumulate > 1:
        options["gradient_accumulation_steps"] = config.accumulate
    groups = models.parameter_groups(
        trainer.model,
        head_multiplier=config.head_multiplier,
        layer_decay=config.layer_decay,
    )
    grouped = {path for group in groups for path in group["variables"]}
    # Those of the objective.
    others = [v.path for v in trainer.trainable_variables]
    others = [path for path in others if path not in grouped]
    if others:
        groups.append(
            {"variables": others, "multiplier": 1.0, "weight_decay": None}
        )
    return training.GroupOptimizer(
        keras.optimizers.AdamW(
            rate, weight_decay=config.weight_decay, **options
        ),
        groups,
    )
