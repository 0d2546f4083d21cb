"""The evaluation of saved classifiers."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable

import keras

from keras_epsched import datasets, models, reports
from keras_epsched.configs.config import Evaluation
from keras_epsched.configs.values import ConfigError
from keras_epsched.evaluation.inputs import check_grid, check_target
from keras_epsched.runs import (
    build,
    caveats,
    checks,
    finetuning,
    folder,
    outcome,
)
from keras_epsched.runs.device import computing_as, describe_device
from keras_epsched.runs.prepare import Run, announce, describe_data


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What an evaluation gives; print it for comparisons and caveats.

    Args:
        folder: `pathlib.Path` of the run folder.
        reports: Dict from the names of models to `Report`s.
        config: `Evaluation`.
    """

    folder: pathlib.Path
    reports: dict[str, reports.Report]
    config: Evaluation

    def text(self, spell=caveats.as_python) -> str:
        """Returns the results, paired comparisons and caveats.

        One model has its whole report, several share a table.

        Args:
            spell: See `caveats.text`.
        """
        first, *others = found = list(self.reports.values())
        if others:
            protocol = str(self.config.protocol)
            rows = [
                (name, {protocol: [each]})
                for name, each in self.reports.items()
            ]
            parts = [
                outcome.heading(found),
                outcome.table("model", rows),
                outcome.explained({protocol: first}),
                *(str(reports.compare(first, other)) for other in others),
            ]
        else:
            parts = [str(first)]
        parts.append(caveats.text(self.reports, self.config, spell))
        parts.append(outcome.pictures(self.folder))
        return "\n\n".join(parts)

    def __str__(self):
        return self.text()


def evaluate_one(run: Run[Evaluation], classifier: keras.Model, **arguments):
    """Evaluates one classifier of a run, in this process."""
    return finetuning.evaluate(
        run.config,
        classifier,
        getattr(run.data, run.config.split),
        run.config.protocol,
        verbose=run.verbose,
        **arguments,
    )


def evaluate(
    config: Evaluation,
    *,
    command: str | None = None,
    verbose: int = 1,
    by: Callable = evaluate_one,
) -> Evaluated:
    """Measures the robustness of saved classifiers on a dataset.

    Leaves a run folder with report.html to look at, beside report.json,
    per_image.parquet and the curve; of several models each has a folder of its
    own. With `config.resume` it goes on where it was interrupted.

    Args:
        config: `Evaluation`.
        command: String or `None`. What config.json states as the command.
        verbose: Int. 0 for silence.
        by: Function of a `Run`, a classifier and arguments of
            `keras_epsched.evaluate`, which returns the `Report`.

    Returns:
        An `Evaluated`.

    Raises:
        ConfigError: If the config, the data or a model is not fit for it.

    Example:
    ```python
    config = keras_epsched.runs.Evaluation(
        model=("runs/digits/model.keras",), epsilon=0.3
    )
    result = keras_epsched.runs.evaluate(config)
    print(result)
    ```
    """
    with contextlib.ExitStack() as stack:
        with checks.refusing():
            if not config.model:
                raise ConfigError("`model` must name one model or more")
            config, points = with_grid(config)
            stack.enter_context(computing_as(config))
            # First, for a run goes on by the defaults that it was begun with.
            config = folder.check_begun(config)
            checks.check(config)
            if verbose:
                announce(config)
            data = build.load_data(config, config.seed)
            if verbose:
                print(describe_data(data), flush=True)
            classifiers = {
                name: load_classifier(config, model, data)
                for name, model in names(config.model).items()
            }
            where, config = stack.enter_context(
                folder.opened(config, "evaluate", command)
            )
        run = Run(config, where, data, command, verbose)
        run.say(describe_device())
        run.say(f"run folder: {where}\n")
        run.write_config()
        found = {}
        for name, model in names(config.model).items():
            found[name] = by(
                run,
                classifiers[name],
                epsilons=points,
                target_epsilon=config.epsilon,
                folder=where / name if len(classifiers) > 1 else where,
                resume=config.resume,
                trained_on=trained_on(pathlib.Path(model)),
                model_name=name,
            )
            one = {str(config.protocol): found[name]}
            run.say(f"{name}: {outcome.in_short(one)}")
        reports.plot_curves(found, [where / "curve.png", where / "curve.svg"])
        title = f"Robustness on {data.name}"
        reports.write_html(found, where / "report.html", title)
    return Evaluated(where, found, config)


def with_grid(config: Evaluation):
    """Returns the config with its target, and the grid, which has it."""
    if not config.epsilons:
        return config, build.evaluation_grid(config)
    points = check_grid(list(config.epsilons), config.norm)
    # The default of a target must not refuse a grid.
    if "epsilon" not in config.given:
        config = config.replace(epsilon=float(points[-1]))
    check_target(config.epsilon, points)
    return config, points


def names(models: tuple[str, ...]) -> dict[str, str]:
    """Returns a short name for each model, all different."""
    paths = [pathlib.Path(model) for model in models]
    short = [
        path.parent.name if path.name == finetuning.MODEL else path.stem
        for path in paths
    ]
    if len(set(short)) < len(short):
        short = [f"{number}-{name}" for number, name in enumerate(short, 1)]
    return dict(zip(short, models, strict=True))


def load_classifier(
    config: Evaluation, model: str, data: datasets.ImageData
) -> keras.Model:
    """Loads a classifier, which must fit the data."""
    if model.endswith(".keras"):
        classifier = models.load(model)
    else:
        classifier = build.make_classifier(
            config.replace(backbone=model), None, config.seed
        )
    num_classes = classifier.output_shape[-1]
    if num_classes != data.num_classes:
        raise ConfigError(
            f"model={model} knows {num_classes} classes, but "
            f"{data.name} has {data.num_classes}: evaluate it on the classes "
            "that it was trained on"
        )
    sides = classifier.input_shape[1:3]
    if any(
        side not in (None, size)
        for side, size in zip(sides, data.image_size, strict=True)
    ):
        raise ConfigError(
            f"model={model} takes images of {sides}: pass "
            f"image_size={sides[0]}. Received: image_size={config.image_size}"
        )
    return classifier


def trained_on(path: pathlib.Path) -> list[datasets.SplitInfo]:
    """Returns the splits that the run of a model says it has seen."""
    for parent in list(path.resolve().parents)[:5]:
        config = parent / folder.CONFIG
        if config.exists():
            splits = json.loads(config.read_text()).get("splits", {})
            if "train" in splits:
                return [datasets.SplitInfo(**splits["train"])]
    return []
