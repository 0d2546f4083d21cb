"""Any Keras optimizer, with a learning rate for each group of weights."""

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
    """A Keras optimizer whose rate and weight decay differ between groups.

    Fine-tuning often wants small steps for the backbone and large ones for the
    new head, or steps that shrink from block to block towards the input. The
    learning rate, or its schedule, is that of the given optimizer, times the
    multiplier of the group.

    Biases, and scales of normalisation layers, never decay: what has a single
    axis or none, or "bias" in its name (those of attention have two axes).

    Clipping, moving averages and gradient accumulation are those of the given
    optimizer, over all weights together.

    Loaded with its model, it knows the weights by their order, as Keras does
    for the state of optimizers: paths of inner layers may differ by then.

    Args:
        optimizer: `keras.optimizers.Optimizer`, of any kind. It is copied.
        groups: List of `dict`s, as `keras_epsched.models.parameter_groups`
            makes them: `"variables"`, a list of variable paths;
            `"multiplier"`, of the learning rate; `"weight_decay"`, or `None`
            for that of `optimizer`. Each trained variable is in one group.
        name: String. Name of the optimizer.

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
                "pass the optimizer itself: `compile` scales the loss where "
                f"float16 needs it. Received: {optimizer!r}"
            )
        if hasattr(optimizer, "_exclude_from_weight_decay"):
            raise ValueError(
                "`exclude_from_weight_decay` of the given optimizer would be "
                'lost: give such variables a group with "weight_decay": 0.0'
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
                        f"the variable {path!r} is in two groups: give the "
                        "layers of the model names that differ"
                    )
        # They only step: all else is done here, for all groups together.
        plain = {key: None for key in _SHARED if key in config}
        plain |= {"use_ema": False, "ema_momentum": 0.99, "learning_rate": 1.0}
        self._members = [
            type(optimizer).from_config({**config, **plain})
            for _ in self.groups
        ]

    def build(self, variables):
        """Makes the state of all groups."""
        super().build(variables)
        paths = [variable.path for variable in variables]
        if self._order and _names(self._order) == _names(paths):
            paths = self._order
        unknown = [path for path in paths if path not in self._group_of_path]
        if unknown:
            raise ValueError(
                f"{len(unknown)} trained variables are in no group: "
                f"{unknown[:3]}. Make the groups from the model that is "
                "trained, after choosing what is trained. (Files do not say "
                "what was frozen: load such a model with `compile=False`.)"
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
        """State of this optimizer and of its members."""
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
        """Builds the optimizer from what `get_config()` returned."""
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
