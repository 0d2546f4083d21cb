"""Types of flags that absl does not have."""

from absl import flags


class Fraction(flags.ArgumentParser):
    """A number, or a fraction such as 4/255."""

    def parse(self, argument):
        """Returns a float."""
        try:
            above, _, below = str(argument).partition("/")
            return float(above) / (float(below) if below else 1.0)
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError(
                f"expected a number or a fraction, as 0.3 or 4/255. Received: "
                f"{argument}"
            ) from error

    def flag_type(self):
        """The type's name in --help."""
        return "number or fraction"


class FractionSerializer(flags.ArgumentSerializer):
    """Writes a number so that it is read as the same."""

    def serialize(self, value):
        """Returns a text."""
        return repr(value)


class ScheduleName(Fraction):
    """The name of a schedule, or two hinges such as 12/50:37/50."""

    def parse(self, argument):
        """Returns the name, once it is one."""
        if argument in SCHEDULES:
            return argument
        if str(argument).count(":") != 1:
            raise ValueError(
                f"expected one of {', '.join(SCHEDULES)}, or two hinges as "
                f"12/50:37/50. Received: {argument}"
            )
        start, end = self.hinges(argument)
        if not 0 <= start <= end <= 1:
            raise ValueError(
                "expected two hinges as shares of the training, the first not "
                f"after the second. Received: {argument}"
            )
        return argument

    def hinges(self, name):
        """The two shares of the training that a name states."""
        return [
            super(ScheduleName, self).parse(each) for each in name.split(":")
        ]

    def flag_type(self):
        """The type's name in --help."""
        return f"<{'|'.join(SCHEDULES)}|T1:T2>"


SCHEDULES = ("standard", "fixed", "scheduled", "random", "auto", "paced")
