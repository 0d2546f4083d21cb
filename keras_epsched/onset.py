"""The onset of task adaptation: the epoch at which a run starts to learn."""

from collections.abc import Iterable


def onset_threshold(num_classes: int) -> float:
    """Returns the clean validation accuracy that marks the onset.

    It is 5 % as in the paper, or twice the accuracy of chance if that is
    higher. It is never higher than half way between chance and 100 %, which
    matters for two classes.

    Args:
        num_classes: Int. Number of classes.

    Returns:
        A float, a fraction.
    """
    chance = 1.0 / num_classes
    return max(0.05, min(2.0 * chance, (1.0 + chance) / 2.0))


def onset(accuracies: Iterable[float], num_classes: int) -> int | None:
    """Returns the first epoch whose accuracy reaches `onset_threshold`.

    Reference: arXiv 2509.23325, section 4, which calls it the delay.

    Args:
        accuracies: Floats, the clean validation accuracy after each epoch, as
            fractions.
        num_classes: Int. Number of classes.

    Returns:
        An int, counted from 1, or `None` if no epoch reaches it.
    """
    for epoch, accuracy in enumerate(accuracies, 1):
        if accuracy >= onset_threshold(num_classes):
            return epoch
    return None
