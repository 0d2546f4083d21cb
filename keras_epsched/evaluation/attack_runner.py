"""Runs attacks on a classifier. Each attack is compiled once.

The compiled functions are kept as long as the classifier exists. Later
evaluations use them again, with another grid, dataset, seed or protocol, and
with other values of the weights.
"""

import copy
import weakref

import keras
import numpy as np

from keras_epsched import backend, checks
from keras_epsched.attacks import noise
from keras_epsched.attacks.base import Attack
from keras_epsched.attacks.tracker import SearchResult
from keras_epsched.identity import identify, identify_model

# One evaluation needs fewer. Without a limit, a user who tries many attacks on
# one classifier would run out of memory.
_MOST_KEPT = 32

# For each classifier its identity and its compiled functions, with the latest
# used at the end. The functions must not refer to the classifier, which would
# then never be freed.
_kept: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def forget_compiled(classifier: keras.Model) -> None:
    """Removes the compiled attacks of a classifier.

    Call it after a change to a classifier that `evaluate` does not notice:
    a change of an attribute whose name begins with an underscore, or of
    something outside of the classifier that its `call` reads.

    `evaluate` compiles an attack on a classifier once. It compiles again by
    itself if the variables, the layers or their public attributes change. If
    only the values of the weights change, it does not need to.

    Args:
        classifier: `keras.Model` that was evaluated.

    Example:
    ```python
    classifier._temperature = 2.0
    keras_epsched.evaluation.forget_compiled(classifier)
    report = keras_epsched.evaluate(classifier, data.test, grid)
    ```
    """
    _kept.pop(classifier, None)


class AttackRunner:
    """Runs attacks on a classifier, and compiles them if necessary.

    A runner uses the layers that the classifier has when the runner is made.
    Make a new runner after the layers have changed, which takes almost no
    time.

    Args:
        classifier: `keras.Model` from pixels to logits.
        value_range: Pair. Lowest and highest pixel value.
        batch_size: Int. Number of images to attack together.
        jit_compile: Boolean or `"auto"`, see `backend.resolve_jit_compile`.

    Example:
    ```python
    runner = AttackRunner(classifier, batch_size=64)
    result = runner.search(
        keras_epsched.attacks.APGD(steps=10),
        images[:64],
        labels[:64],
        np.full(64, 4 / 255),
        draws=(seed, np.arange(64)),
    )
    ```
    """

    def __init__(
        self,
        classifier: keras.Model,
        value_range: tuple[float, float] = (0, 255),
        batch_size: int = 64,
        jit_compile: bool | str = "auto",
    ):
        self.classifier = classifier
        self.value_range = checks.check_value_range(value_range)
        self.batch_size = batch_size
        self.jit_compile = backend.resolve_jit_compile(jit_compile)
        now = identify_model(classifier)
        before, compiled = _kept.get(classifier, (None, {}))
        if before != now:
            compiled = {}
            _kept[classifier] = now, compiled
        self._compiled = compiled

    def predict(self, pixels, eot: int = 1) -> np.ndarray:
        """Returns the logits of any number of images.

        Args:
            pixels: Array `(count, ...)` within the value range.
            eot: Int. Number of outputs of a randomised network to average.

        Returns:
            A float32 array of shape `(count, num_classes)`.
        """
        pixels = np.asarray(pixels, "float32")
        run = self._get("predict", pixels, (), self._make_predict)
        size = self.batch_size
        batches = [
            sum(run(pixels[at : at + size]) for _ in range(eot)) / eot
            for at in range(0, len(pixels), size)
        ]
        return np.concatenate(batches)

    def search(
        self,
        attack: Attack,
        pixels,
        labels,
        epsilons,
        draws,
        start=None,
        use_start=None,
        variants=None,
    ) -> SearchResult:
        """Runs an attack on one batch.

        Args:
            attack: `Attack`.
            pixels: Array `(count, ...)` of at most `batch_size` images.
            labels: Integer array of shape `(count,)`.
            epsilons: Array of shape `(count,)`, on the [0, 1] scale.
            draws: Sequence of integers or integer arrays of shape `(count,)`.
                They decide the random numbers, for example a seed and the
                numbers of the images, see `noise.make_key`.
            start: Array of the shape of `pixels`, points to start from, or
                `None`.
            use_start: Boolean array of shape `(count,)`: true for images that
                begin at `start`.
            variants: Integer array of shape `(count,)`: the numbers of the
                attack's variants. Defaults to 0.

        Returns:
            A `SearchResult` of arrays.
        """
        pixels = np.asarray(pixels, "float32")
        count = len(pixels)
        if start is None:
            start, use_start = pixels, np.zeros(count, bool)
        if variants is None:
            variants = np.zeros(count)
        # The seed is an input of the compiled function, not a constant.
        draws = tuple(
            np.broadcast_to(np.asarray(draw, "int64"), (count,)).astype(
                backend.HASH_DTYPE
            )
            for draw in draws
        )
        key = identify(attack), self.value_range, len(draws)
        run = self._get(
            "search", pixels, key, lambda: self._make_search(attack)
        )
        return run(
            pixels,
            np.asarray(labels, "int32"),
            np.asarray(epsilons, "float32"),
            draws,
            np.asarray(start, "float32"),
            np.asarray(use_start, "bool"),
            np.asarray(variants, "int32"),
        )

    def find_broken(
        self, attack: Attack, pixels, labels, epsilons, draws, variant: int = 0
    ) -> np.ndarray:
        """Returns which of any number of images an attack breaks.

        Args:
            attack: `Attack`.
            pixels: Array `(count, ...)`.
            labels: Integer array of shape `(count,)`.
            epsilons: Array of shape `(count,)`, on the [0, 1] scale.
            draws: As in `search`.
            variant: Int. Number of the attack's variant.

        Returns:
            A boolean array of shape `(count,)`.
        """
        count = len(pixels)
        draws = [np.broadcast_to(np.asarray(draw), (count,)) for draw in draws]
        found = []
        for at in range(0, count, self.batch_size):
            part = slice(at, at + self.batch_size)
            result = self.search(
                attack,
                pixels[part],
                labels[part],
                epsilons[part],
                [draw[part] for draw in draws],
                variants=np.full(len(pixels[part]), variant),
            )
            found.append(np.asarray(result.broken))
        return np.concatenate(found)

    def _get(self, name, pixels, key, make):
        """Returns a compiled function, and compiles it if necessary."""
        # Without XLA, one function takes batches of any size.
        size = self.batch_size if self.jit_compile else None
        key = name, self.jit_compile, size, pixels.shape[1:], *key
        run = self._compiled.pop(key, None)
        if run is None:
            run = backend.compile(
                make(),
                self.jit_compile,
                self.classifier.variables,
                self.batch_size,
            )
        self._compiled[key] = run
        if len(self._compiled) > _MOST_KEPT:
            del self._compiled[next(iter(self._compiled))]
        return run

    def _make_predict(self):
        classifier = weakref.ref(self.classifier)

        def predict(images):
            return checks.single_output(classifier()(images, training=False))

        return predict

    def _make_search(self, attack):
        predict, value_range = self._make_predict(), self.value_range
        # Later changes of the attack must not change the compiled function.
        attack = copy.copy(attack)

        def search(pixels, labels, epsilons, draws, start, use_start, variants):
            return attack.search(
                predict,
                pixels,
                labels,
                epsilons,
                noise.make_key(*draws),
                value_range,
                start=start,
                use_start=use_start,
                variant=variants,
            )

        return search
