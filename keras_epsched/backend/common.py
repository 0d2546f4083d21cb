"""What several backends share."""

import keras


class TrainerSteps:
    """The steps of a trainer whose variables are changed in place.

    A mixin before `keras.Model`, for a class that has `perturb(data)` and
    `measure_robustness(data)`.
    """

    def train_step(self, data):
        """One step: perturb, then the step of `keras.Model`."""
        return super().train_step(self.perturb(data))

    def test_step(self, data):
        """One step of validation: clean, and robust if asked for."""
        logs = super().test_step(data)
        if self.validation_attack is None:
            return logs
        self.measure_robustness(data)
        return self.get_metrics_result()


def independent():
    """The error for logits that no gradient leads through."""
    return ValueError(
        "the logits do not depend on the image by differentiable "
        "operations, so no gradient attack is possible. Preprocess "
        "inside the model with Keras layers, not with rounding, "
        "integer casts or NumPy functions."
    )


def current(scope: keras.StatelessScope, variable):
    """Value of a variable at the end of a scope."""
    value = scope.get_current_value(variable)
    return variable.value if value is None else value
