"""What every object that a user configures has in common."""

import keras


class Configurable:
    """A small immutable-by-convention object described by its configuration.

    Schedules, attacks and objectives derive from it. Subclasses implement
    `get_config()`, which returns exactly the constructor's arguments; saving,
    printing and comparing follow from that.
    """

    def get_config(self) -> dict:
        """Returns the constructor's arguments as a serialisable `dict`."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement `get_config()` and return "
            "its constructor's arguments."
        )

    @classmethod
    def from_config(cls, config: dict):
        """Builds the object from what `get_config()` returned."""
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
