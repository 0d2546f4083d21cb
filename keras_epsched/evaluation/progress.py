"""The progress of an evaluation, and its cost before it starts."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from keras_epsched.attacks.base import Attack
from keras_epsched.attacks.fab import FAB
from keras_epsched.epsilons import format_epsilon

# Seconds until the first line of a log, and the least and the most between two
# lines. In this range, a line is printed when the time has doubled.
_FIRST_LINE = 15.0
_BETWEEN_LINES = 30.0
_MOST_BETWEEN_LINES = 600.0
# From this number of passes per image on, the cost is printed in advance.
_EXPENSIVE = 5000
# If a window takes longer than the earlier ones, this share of their time is
# taken as its remaining time.
_LAST_SHARE = 0.05


def most_runs(
    attacks: Sequence[Attack],
    num_classes: int,
    num_epsilons: int,
    bisect: bool = False,
) -> list[int]:
    """Returns how often each attack runs on an image that withstands them.

    Each variant of an attack is a run of its own. With bisection the numbers
    are approximate: if a later attack breaks the image, it continues at a
    smaller epsilon, and two epsilons are counted for each later attack.

    Args:
        attacks: List of `Attack`, in the order of the sweep.
        num_classes: Int. Number of classes.
        num_epsilons: Int. Number of epsilons above 0.
        bisect: Boolean. Whether the sweep uses bisection.

    Returns:
        A list of ints, one for each attack.
    """
    found = []
    for number, attack in enumerate(attacks):
        runs = num_epsilons
        if bisect:
            runs = min(runs, 2 if number else num_epsilons.bit_length())
        if isinstance(attack, FAB):
            # It finds a distance, which holds for every epsilon.
            runs = 1
        found.append(runs * attack.num_variants(num_classes))
    return found


def most_passes(
    attacks: Sequence[Attack],
    num_classes: int,
    num_epsilons: int,
    bisect: bool = False,
) -> int:
    """Returns the passes for an image that withstands every attack.

    A forward pass and a backward pass count one each. The arguments are those
    of `most_runs`.
    """
    runs = most_runs(attacks, num_classes, num_epsilons, bisect)
    return sum(
        times * sum(attack.passes(num_classes))
        for attack, times in zip(attacks, runs, strict=True)
    )


class Progress:
    """Shows the progress of an evaluation on standard error.

    A terminal and a notebook get a progress bar. Other outputs get a line
    every half minute. If the attack is expensive, its cost is printed before
    it starts.

    The estimate of the time left counts the attacked batches. The number of
    finished images would not be enough, because the images that withstand the
    attack all finish at the end of a window.

    Args:
        sweep: `Sweep` that is about to run.
        title: String. Title of the attack.
        total: Int, the number of images, or `None` if it is unknown.
        verbose: Int. 0 prints nothing.
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
        # Number of images in all windows so far, of those the finished
        # images, and of those the broken images.
        self.begun = self.done = self.broken = 0
        # The current window: its images, the passes of the attacks, its start.
        self.window = self.window_passes = 0
        self.window_began = 0.0
        # Images and seconds of the finished windows in which attacks ran.
        self.attacked, self.attacked_seconds = 0, 0.0
        # Passes and seconds of batches that compiled nothing, for the speed.
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
        """Call it before each window.

        Args:
            count: Int. Number of images in the window.
        """
        self.begun += count
        self.window, self.window_passes = count, 0
        self.window_began = time.monotonic()

    def advance(self, stands: bool) -> None:
        """Call it for each finished image.

        Args:
            stands: Boolean. Whether the image withstood the largest epsilon.
        """
        self.done += 1
        self.broken += not stands
        share = 1.0 - self.broken / self.done
        self.bar.set_postfix(surviving=f"{share:.3f}", refresh=False)
        self.bar.update(1)
        # A window that was read from a file does not show the speed.
        if self.done == self.begun and self.window_passes:
            self.attacked += self.window
            self.attacked_seconds += time.monotonic() - self.window_began
        self._write_line()

    @contextlib.contextmanager
    def _watch(self, attack: Attack, count: int) -> Iterator[None]:
        """A context around each attack on a batch of `count` images."""
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
            f"{images}, for all {len(self.sweep.epsilons) - 1} epsilons "
            "together. An image that breaks early takes fewer passes.",
            file=sys.stderr,
        )

    def _write_line(self):
        now = time.monotonic()
        if self.writes_lines and now >= self.next_line:
            between = min(now - self.began, _MOST_BETWEEN_LINES)
            self.next_line = now + max(between, _BETWEEN_LINES)
            tqdm.write(self.line(), file=sys.stderr)

    def line(self) -> str:
        """Returns the progress of the evaluation in words."""
        total = "" if self.total is None else f" of {self.total:,}"
        end = format_epsilon(
            self.sweep.epsilons[-1], self.sweep.attacks[0].norm
        )
        # The attack may still break unfinished images.
        at_most = "" if self.done == self.begun else "at most "
        stand = 100 * (1 - self.broken / max(self.begun, 1))
        text = (
            f"evaluation: {self.done:,}{total} images done, accuracy so far "
            f"{at_most}{stand:.0f} % at epsilon {end}"
        )
        left = self._seconds_left()
        if left is None:
            return text
        about = "about" if self.attacked else "at most about"
        return f"{text}, {about} {duration(left)} left"

    def _seconds_left(self):
        """The estimated seconds left, or `None` if they cannot be estimated.

        The estimate comes from the finished windows. In the first window it
        comes from the passes that are left if no other image breaks.
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
    """Returns a time as text, rounded as an estimate should be.

    Args:
        seconds: Float.
    """
    if seconds < 90:
        return f"{max(10 * round(seconds / 10), 10)} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
