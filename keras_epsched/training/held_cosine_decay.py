"""A learning rate that stays at its peak, and then falls."""

import math
from typing import Any

import keras
from keras import ops

from keras_epsched.configurable import register


@register
class HeldCosineDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises, stays at its peak, and falls to 0.

    It rises on a line, and falls along half a cosine.

    A schedule of epsilon reaches the target late. With a cosine decay over the
    whole training, the learning rate is then at a sixth of its peak. Here it
    falls only from `decay_start` on.

    Args:
        peak: Float. The largest learning rate.
        steps: Integer. Steps of the training.
        warmup_steps: Integer. Steps in which the learning rate rises.
        decay_start: Integer. The step after which it falls.

    Raises:
        ValueError: If the steps are not in order.

    Example:
    ```python
    steps = 20 * len(data.train)
    rate = keras_epsched.training.HeldCosineDecay(
        1e-3, steps, decay_start=int(0.74 * steps)
    )
    optimizer = keras.optimizers.AdamW(rate)
    ```
    """

    def __init__(
        self,
        peak: float,
        steps: int,
        warmup_steps: int = 0,
        *,
        decay_start: int,
    ):
        super().__init__()
        if not 0 <= warmup_steps <= decay_start <= steps:
            raise ValueError(
                "expected 0 <= `warmup_steps` <= `decay_start` <= `steps`. "
                f"Received: warmup_steps={warmup_steps}, "
                f"decay_start={decay_start}, steps={steps}"
            )
        self.peak = peak
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.decay_start = decay_start

    def __call__(self, step: Any) -> Any:
        """Returns the learning rate of a step.

        Args:
            step: Integer or integer tensor, from 0 on.

        Returns:
            A scalar `float32` tensor.
        """
        step = ops.cast(step, "float32")
        rise = ops.minimum(step / max(self.warmup_steps, 1), 1.0)
        if not self.warmup_steps:
            rise = ops.ones_like(rise)
        fallen = (step - self.decay_start) / max(
            self.steps - self.decay_start, 1
        )
        fallen = ops.clip(fallen, 0.0, 1.0)
        return self.peak * rise * 0.5 * (1.0 + ops.cos(math.pi * fallen))

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "decay_start": self.decay_start,
        }
