"""Values of configs as flags: absl's parsers, which ask the config."""

from absl import flags

from keras_epsched.configs.values import ConfigError, Entry, as_text


class ValueParser(flags.ArgumentParser):
    """Reads a value of a config.

    Args:
        entry: `Entry`.
    """

    def __init__(self, entry: Entry):
        super().__init__()
        self.entry = entry

    def parse(self, argument):
        """Returns the value."""
        name = self.entry.name
        try:
            return self.entry.parse(argument)
        except ConfigError as error:
            raise ValueError(
                str(error).replace(f"`{name}`", f"--{name}")
            ) from error

    def flag_type(self):
        """The type's name in --help."""
        kind = self.entry.kind
        return "list" if kind is tuple else kind.__name__


class ValueSerializer(flags.ArgumentSerializer):
    """Writes a value so that it is read as the same."""

    def serialize(self, value):
        """Returns a text."""
        return repr(value) if isinstance(value, float) else as_text(value)
