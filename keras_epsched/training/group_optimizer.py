"""A Keras optimizer with a learning rate for each group of weights."""

import keras
from keras import ops

from keras_epsched.configurable import register

_SHARED = (
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
    "loss_scale_factor",
    "gradient_accumulation_steps",
)


@register
class GroupOptimizer(keras.optimizers.Optimizer):
    """A Keras optimizer with its own learning rate for each group of weights.

    Use it in fine-tuning to train the new head with a larger learning rate
    than the backbone, or with learning rates that shrink from block to block
    towards the input. The learning rate of a group is that of the given
    optimizer (a number or a schedule) times the group's multiplier. Weight
    decay may also differ between groups.

    Weight decay never applies to biases and to scales of normalisation layers:
    variables with fewer than two axes, or with "bias" in their name (biases of
    attention have two axes).

    Gradient clipping, moving averages of the weights and gradient accumulation
    work as in the given optimizer, over all weights together.

    When the optimizer is loaded with its model, it matches the weights by
    their order, as Keras does, because the paths of inner layers may have
    changed.

    Args:
        optimizer: `keras.optimizers.Optimizer` of any class. It is copied.
        groups: List of `dict`s, as `keras_epsched.models.parameter_groups`
            returns them. The keys are `"variables"`, a list of variable
            paths; `"multiplier"`, the factor on the learning rate; and
            `"weight_decay"`, where `None` means that of `optimizer`. Each
            trained variable must be in exactly one group.
        name: String. Name of the optimizer.

    Raises:
        ValueError: If `optimizer` is not a plain Keras optimizer, or a
            variable is in two groups. When it is built: if a trained variable
            is in no group.

    Example:
    ```python
    optimizer = keras_epsched.training.GroupOptimizer(
        keras.optimizers.AdamW(1e-4, weight_decay=0.05),
        keras_epsched.models.parameter_groups(net, head_multiplier=10.0),
    )
    trainer.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    ```
    """

    def __init__(self, optimizer, groups, name="group_optimizer"):
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise ValueError(
                "`optimizer` must be a `keras.optimizers.Optimizer`. "
                f"Received: {optimizer!r}"
            )
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                "For `optimizer`, pass the optimizer itself, not a "
                "`LossScaleOptimizer`: `compile` scales the loss if float16 "
                f"needs it. Received: {optimizer!r}"
            )
        if hasattr(optimizer, "_exclude_from_weight_decay"):
            raise ValueError(
                "`exclude_from_weight_decay` of the given optimizer would be "
                "lost. Do not call it; instead, put these variables into a "
                'group with "weight_decay": 0.0.'
            )
        config = optimizer.get_config()
        rate = config["learning_rate"]
        if isinstance(rate, dict):
            rate = keras.saving.deserialize_keras_object(rate)
        super().__init__(
            learning_rate=rate,
            name=name,
            **{key: config[key] for key in _SHARED if key in config},
        )
        self._template = keras.saving.serialize_keras_object(optimizer)
        self.weight_decay = config.get("weight_decay")
        self.groups = [dict(group) for group in groups]
        self._order = None
        self._group_of_path = {}
        for number, group in enumerate(self.groups):
            for path in group["variables"]:
                if self._group_of_path.setdefault(path, number) != number:
                    raise ValueError(
                        f"The variable path {path!r} is in two groups. If two "
                        "layers share this path, give them different names."
                    )
        # The members only make the steps. Clipping, averages and the rest
        # happen here, for all groups together.
        plain = {key: None for key in _SHARED if key in config}
        plain |= {"use_ema": False, "ema_momentum": 0.99, "learning_rate": 1.0}
        self._members = [
            type(optimizer).from_config({**config, **plain})
            for _ in self.groups
        ]

    def build(self, variables):
        """Creates the state of all groups."""
        super().build(variables)
        paths = [variable.path for variable in variables]
        if self._order and _names(self._order) == _names(paths):
            paths = self._order
        unknown = [path for path in paths if path not in self._group_of_path]
        if unknown:
            raise ValueError(
                f"{len(unknown)} trained variables are in no group: "
                f"{unknown[:3]}. Choose the trained weights first (`adapt`), "
                "then make the groups from the same model with "
                "`parameter_groups`. If the model comes from a file, load it "
                "with `compile=False`, because a file does not record which "
                "weights were frozen."
            )
        self._order = paths
        self._group_of = {
            self._var_key(variable): self._group_of_path[path]
            for variable, path in zip(variables, paths, strict=True)
        }
        for number, member in enumerate(self._members):
            mine = [v for v in variables if self._number(v) == number]
            if mine:
                member.build(mine)

    def _number(self, variable):
        return self._group_of[self._var_key(variable)]

    @property
    def variables(self):
        """The state of this optimizer and of the optimizers of the groups."""
        inner = [each for member in self._members for each in member.variables]
        return super().variables + inner

    def _apply_weight_decay(self, variables):
        rate = self._get_current_learning_rate()
        for variable in variables:
            group = self.groups[self._number(variable)]
            decay = group["weight_decay"]
            decay = self.weight_decay if decay is None else decay
            if decay and _decays(variable):
                factor = ops.cast(
                    rate * group["multiplier"] * decay, variable.dtype
                )
                self.assign_sub(variable, variable * factor)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        pairs = [*zip(grads, trainable_variables, strict=True)]
        for number, member in enumerate(self._members):
            mine = [pair for pair in pairs if self._number(pair[1]) == number]
            if mine:
                rate = learning_rate * self.groups[number]["multiplier"]
                its_grads, its_variables = map(list, zip(*mine, strict=True))
                member._backend_update_step(its_grads, its_variables, rate)
                member._iterations.assign_add(1)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            "optimizer": self._template,
            "groups": self.groups,
            "name": self.name,
            "order": self._order,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Builds the optimizer from the result of `get_config()`."""
        optimizer = keras.saving.deserialize_keras_object(
            config["optimizer"], custom_objects
        )
        made = cls(optimizer, config["groups"], config["name"])
        made._order = config.get("order")
        return made


def _decays(variable):
    return len(variable.shape) > 1 and "bias" not in variable.name


def _names(paths):
    return [path.rpartition("/")[2] for path in paths]
