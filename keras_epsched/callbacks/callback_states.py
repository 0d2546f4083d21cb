"""Saves and restores the states of callbacks in a backup."""

import keras
import numpy as np

# The attributes of Keras' own callbacks that a resumed training needs.
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
        A list of pairs of a class name and a `dict` of JSON values, and a
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
    """Restores the states that `pack` returned.

    Args:
        callbacks: List of callbacks of the same classes, in the same order.
        states: The list from `pack`.
        arrays: The `dict` from `pack`. It may contain other arrays.

    Raises:
        ValueError: If the callbacks with a state are of other classes.
    """
    callbacks = [each for each, _ in _with_state(callbacks)]
    expected = [name for name, _ in states]
    names = [type(each).__name__ for each in callbacks]
    if expected != names:
        raise ValueError(
            "The backup was made with other callbacks. Pass the same "
            "callbacks, in the same order, or use another backup folder. "
            f"Expected these callbacks with a state: {expected}. Received: "
            f"{names}"
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
    """Returns the state of a callback, empty if it has none."""
    if hasattr(callback, "get_state"):
        return dict(callback.get_state())
    for kind, names in _OF_KERAS.items():
        if isinstance(callback, kind):
            return {
                # JSON does not take NumPy's numbers.
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
    """Returns pairs of callback and state, for callbacks with a state."""
    return [(each, state) for each in callbacks if (state := get_state(each))]


def _key(index, name, place):
    return f"callback_{index}_{name}_{place}"
