"""The base class of objects that a user configures."""

import keras


class Configurable:
    """An object that is fully described by its configuration.

    Schedules, attacks and objectives are subclasses. A subclass implements
    `get_config()`, which returns exactly the arguments of the constructor.
    Saving, printing and comparing use that. Do not change an object after it
    is made.
    """

    def get_config(self) -> dict:
        """Returns the constructor's arguments as a serialisable `dict`."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement `get_config()` and return "
            "its constructor's arguments."
        )

    @classmethod
    def from_config(cls, config: dict):
        """Builds an object from the result of `get_config()`."""
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(
            f"{key}={value!r}" for key, value in self.get_config().items()
        )
        return f"{type(self).__name__}({arguments})"

    def __eq__(self, other):
        if type(self) is not type(other):
            return NotImplemented
        return self.get_config() == other.get_config()

    def __hash__(self):
        return hash(repr(self))


register = keras.saving.register_keras_serializable(package="keras_epsched")
