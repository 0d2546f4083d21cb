"""What an evaluation says while it runs: its cost, and how far it is."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from keras_epsched.attacks.base import Attack
from keras_epsched.attacks.fab import FAB
from keras_epsched.epsilons import format_epsilon

# Seconds to the first line of a log, and the least and the most from one line
# to the next. In between, a line comes when the time has doubled.
_FIRST_LINE = 15.0
_BETWEEN_LINES = 30.0
_MOST_BETWEEN_LINES = 600.0
# Passes an image from which the cost is told before the first attack.
_EXPENSIVE = 5000
# What is left of a window that takes longer than those before, of their time.
_LAST_SHARE = 0.05


def most_runs(
    attacks: Sequence[Attack],
    num_classes: int,
    num_epsilons: int,
    bisect: bool = False,
) -> list[int]:
    """Returns how often each attack runs on an image that withstands them.

    Each variant is a run. With bisection it is about the
    most: where a later attack breaks the image, it goes on at a smaller
    epsilon, and two epsilons are counted for each.

    Args:
        attacks: The attacks of the sweep, in their order.
        num_classes: Int. Number of logits.
        num_epsilons: Int. Epsilons above 0.
        bisect: Boolean. Whether the sweep bisects.

    Returns:
        A list of ints.
    """
    found = []
    for number, attack in enumerate(attacks):
        runs = num_epsilons
        if bisect:
            runs = min(runs, 2 if number else num_epsilons.bit_length())
        if isinstance(attack, FAB):
            # It finds a distance, which answers every epsilon.
            runs = 1
        found.append(runs * attack.num_variants(num_classes))
    return found


def most_passes(
    attacks: Sequence[Attack],
    num_classes: int,
    num_epsilons: int,
    bisect: bool = False,
) -> int:
    """Returns the passes of an image that withstands every attack.

    Forward and backward passes count one each. See `most_runs`.
    """
    runs = most_runs(attacks, num_classes, num_epsilons, bisect)
    return sum(
        times * sum(attack.passes(num_classes))
        for attack, times in zip(attacks, runs, strict=True)
    )


class Progress:
    """Tells how an evaluation goes on, on standard error.

    On a terminal and in a notebook by a bar, elsewhere by a line every half
    minute. Before an expensive attack it states the cost.

    It follows the batches that the sweep attacks, and not only
    the images that are done: those that withstand the attack are all done
    at the end of a window.

    Args:
        sweep: `Sweep` that is about to run.
        title: String. Title of the attack.
        total: Int, the number of images, or `None` if it is unknown.
        verbose: Int. 0 for silence.
    """

    def __init__(self, sweep, title: str, total: int | None, verbose: int):
        live = sys.stderr.isatty() or "ipykernel" in sys.modules
        self.sweep = sweep
        self.title = title
        self.total = total
        self.verbose = bool(verbose)
        self.writes_lines = self.verbose and not live
        self.bar = tqdm(
            total=total,
            unit="image",
            disable=not (self.verbose and live),
            desc="robustness",
        )
        # Images of the windows so far, those done, and the broken ones.
        self.begun = self.done = self.broken = 0
        # The window under way: images, passes of attacks, and its beginning.
        self.window = self.window_passes = 0
        self.window_began = 0.0
        # Images that were attacked in windows that are done, and their time.
        self.attacked, self.attacked_seconds = 0, 0.0
        # What the pace is known from: batches that compile nothing.
        self.paced_passes, self.paced_seconds = 0, 0.0
        self.compiled: set[Attack] = set()
        self.began = self.next_line = 0.0

    def __enter__(self):
        self.began = time.monotonic()
        self.next_line = self.began + _FIRST_LINE
        if self.verbose:
            self.sweep.watch = self._watch
        return self

    def __exit__(self, *_):
        self.bar.close()

    def begin_window(self, count: int) -> None:
        """A window of images follows."""
        self.begun += count
        self.window, self.window_passes = count, 0
        self.window_began = time.monotonic()

    def advance(self, stands: bool) -> None:
        """An image is done.

        Args:
            stands: Boolean. Whether it stands at the largest epsilon.
        """
        self.done += 1
        self.broken += not stands
        share = 1.0 - self.broken / self.done
        self.bar.set_postfix(surviving=f"{share:.3f}", refresh=False)
        self.bar.update(1)
        # A window that was read from its file says nothing of the time.
        if self.done == self.begun and self.window_passes:
            self.attacked += self.window
            self.attacked_seconds += time.monotonic() - self.window_began
        self._write_line()

    @contextlib.contextmanager
    def _watch(self, attack: Attack, count: int) -> Iterator[None]:
        """Around an attack on a batch of so many images."""
        if not (self.window_passes or self.attacked):
            self._state_cost()
        began = time.monotonic()
        yield
        passes = count * sum(attack.passes(self.sweep.num_classes))
        self.window_passes += passes
        # The first batch of an attack is compiled.
        if attack in self.compiled:
            self.paced_passes += passes
            self.paced_seconds += time.monotonic() - began
        self.compiled.add(attack)
        self._write_line()

    def _most_passes(self):
        return most_passes(
            self.sweep.attacks,
            self.sweep.num_classes,
            len(self.sweep.epsilons) - 1,
            self.sweep.bisect,
        )

    def _state_cost(self):
        most = self._most_passes()
        if most < _EXPENSIVE:
            return
        images = "the images"
        if self.total is not None:
            images = f"{self.total:,} images"
        tqdm.write(
            f"evaluation: {self.title} takes up to about "
            f"{float(f'{most:.2g}'):,.0f} passes of the network for each of "
            f"{images}, over {len(self.sweep.epsilons) - 1} epsilons. Images "
            "that it breaks early take fewer.",
            file=sys.stderr,
        )

    def _write_line(self):
        now = time.monotonic()
        if self.writes_lines and now >= self.next_line:
            between = min(now - self.began, _MOST_BETWEEN_LINES)
            self.next_line = now + max(between, _BETWEEN_LINES)
            tqdm.write(self.line(), file=sys.stderr)

    def line(self) -> str:
        """Returns how far the evaluation is, in words."""
        total = "" if self.total is None else f" of {self.total:,}"
        end = format_epsilon(
            self.sweep.epsilons[-1], self.sweep.attacks[0].norm
        )
        # Those under attack may still be broken.
        at_most = "" if self.done == self.begun else "at most "
        stand = 100 * (1 - self.broken / max(self.begun, 1))
        text = (
            f"evaluation: {self.done:,}{total} images done, {at_most}"
            f"{stand:.0f} % stand at epsilon {end}"
        )
        left = self._seconds_left()
        if left is None:
            return text
        about = "about" if self.attacked else "at most about"
        return f"{text}, {about} {duration(left)} left"

    def _seconds_left(self):
        """Estimate of the time left, `None` where nothing is known of it.

        By the windows that are done; in the first window by the passes that
        are left if no further image is broken.
        """
        if self.total is None or self.done >= self.total:
            return None
        later = max(self.total - self.begun, 0)
        if self.attacked:
            each = self.attacked_seconds / self.attacked
            if self.done == self.begun:
                return each * later
            usual = each * self.window
            here = usual - (time.monotonic() - self.window_began)
            return each * later + max(here, _LAST_SHARE * usual)
        if not self.paced_passes:
            return None
        most = self._most_passes()
        made = self.window_passes / self.window
        waiting = self.begun - self.done
        passes = waiting * max(most - made, 0) + later * most
        return passes * self.paced_seconds / self.paced_passes


def duration(seconds: float) -> str:
    """Returns a time in words, as exact as an estimate is."""
    if seconds < 90:
        return f"{max(10 * round(seconds / 10), 10)} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
