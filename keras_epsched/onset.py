"""When a task counts as adapted to."""

from collections.abc import Iterable


def onset_threshold(num_classes: int) -> float:
    """Clean validation accuracy from which a task counts as adapted to.

    The paper's 5 %, or twice chance where that is more; with two classes half
    way from chance to 1.

    Args:
        num_classes: Int. Number of classes.
    """
    chance = 1.0 / num_classes
    return max(0.05, min(2.0 * chance, (1.0 + chance) / 2.0))


def onset(accuracies: Iterable[float], num_classes: int) -> int | None:
    """First epoch, from 1, that reaches `onset_threshold`; `None` if none.

    Reference: arXiv 2509.23325, section 4, which calls it the delay.

    Args:
        accuracies: Clean validation accuracy after each epoch.
        num_classes: Int. Number of classes.
    """
    for epoch, accuracy in enumerate(accuracies, 1):
        if accuracy >= onset_threshold(num_classes):
            return epoch
    return None
