"""What callbacks remember of a training, as a backup holds it."""

import keras
import numpy as np

# What Keras' own callbacks would forget.
_OF_KERAS = {
    keras.callbacks.EarlyStopping: (
        "wait",
        "stopped_epoch",
        "best",
        "best_epoch",
        "best_weights",
    ),
    keras.callbacks.ReduceLROnPlateau: ("wait", "cooldown_counter", "best"),
    keras.callbacks.ModelCheckpoint: ("best",),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
}


def pack(callbacks: list) -> tuple[list, dict]:
    """Returns the states of callbacks, and the arrays in them.

    Args:
        callbacks: List of callbacks. Those without a state are left out.

    Returns:
        A list of pairs of a class name and a `dict` that JSON holds, and a
        `dict` of the arrays.
    """
    states, arrays = [], {}
    for index, (each, state) in enumerate(_with_state(callbacks)):
        for name, value in state.items():
            if isinstance(value, list):
                for i, array in enumerate(value):
                    arrays[_key(index, name, i)] = array
                state[name] = {"arrays": len(value)}
        states.append((type(each).__name__, state))
    return states, arrays


def restore(callbacks: list, states: list, arrays: dict) -> None:
    """Gives callbacks the states that `pack` returned.

    Args:
        callbacks: List of callbacks, which must be of the same kinds.
        states: As of `pack`.
        arrays: As of `pack`; there may be others.

    Raises:
        ValueError: If other callbacks have a state.
    """
    callbacks = [each for each, _ in _with_state(callbacks)]
    expected = [name for name, _ in states]
    names = [type(each).__name__ for each in callbacks]
    if expected != names:
        raise ValueError(
            "the backup is of a training with other callbacks that have "
            f"something to remember. Expected: {expected}. Received: {names}"
        )
    for index, (each, (_, state)) in enumerate(
        zip(callbacks, states, strict=True)
    ):
        _set_state(
            each,
            {
                name: [
                    arrays[_key(index, name, i)] for i in range(value["arrays"])
                ]
                if isinstance(value, dict)
                else value
                for name, value in state.items()
            },
        )


def get_state(callback) -> dict:
    """Returns what a callback remembers; empty for one without a state."""
    if hasattr(callback, "get_state"):
        return dict(callback.get_state())
    for kind, names in _OF_KERAS.items():
        if isinstance(callback, kind):
            return {
                # NumPy's numbers are no JSON.
                name: value.item() if isinstance(value, np.generic) else value
                for name in names
                for value in [getattr(callback, name)]
            }
    return {}


def _set_state(callback, state):
    if hasattr(callback, "set_state"):
        callback.set_state(state)
    else:
        for name, value in state.items():
            setattr(callback, name, value)


def _with_state(callbacks):
    """Pairs of a callback and its state, of those that have one."""
    return [(each, state) for each in callbacks if (state := get_state(each))]


def _key(index, name, place):
    return f"callback_{index}_{name}_{place}"
