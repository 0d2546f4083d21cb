"""A classifier with attacks, which are compiled once.

What was compiled is kept as long as the classifier lives, and serves every
evaluation of it: with another grid, dataset, seed or protocol, and with other
values of its weights.
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

# More than one evaluation needs. Who tries attack after attack on one
# classifier would otherwise fill the memory.
_MOST_KEPT = 32

# For each classifier what identifies it, and its compiled functions, those
# used last at the end. They must not refer to it, or it would never go.
_kept: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def forget_compiled(classifier: keras.Model) -> None:
    """Forgets the attacks that were compiled for a classifier.

    `evaluate` compiles an attack on a classifier once, and again where its
    variables, its layers or their public attributes are others than before.
    Values of weights may change freely. Call this after a change that cannot
    be seen: of an attribute whose name begins with an underscore, or of
    something outside of the classifier that its `call` reads.

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
    """Runs attacks on a classifier, and compiles what was not yet.

    It sees the classifier as it is when the runner is made: make another one
    after its layers have changed. That costs next to nothing.

    Args:
        classifier: `keras.Model` from pixels to logits.
        value_range: Pair. Lowest and highest pixel value.
        batch_size: Int. Images attacked together.
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
        self.jit_compile = backend.resolve_jit_compile(jit_compile, classifier)
        now = identify_model(classifier)
        before, compiled = _kept.get(classifier, (None, {}))
        if before != now:
            compiled = {}
            _kept[classifier] = now, compiled
        self._compiled = compiled

    def predict(self, pixels, eot: int = 1) -> np.ndarray:
        """Logits of any number of images.

        Args:
            pixels: Array `(count, ...)` within the value range.
            eot: Int. Draws of a randomised network that are averaged.

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
            pixels: Array `(count, ...)`, of `batch_size` images at most.
            labels: Integer array of shape `(count,)`.
            epsilons: Array of shape `(count,)`, on the [0, 1] scale.
            draws: Sequence of integers or integer arrays of shape `(count,)`
                that identify the random numbers, as a seed and the numbers of
                the images; see `noise.make_key`.
            start: Array like `pixels`, points to start from, or `None`.
            use_start: Boolean array of shape `(count,)`: which images do.
            variants: Integer array of shape `(count,)`: which run of the
                attack, the first by default.

        Returns:
            A `SearchResult` of arrays.
        """
        pixels = np.asarray(pixels, "float32")
        count = len(pixels)
        if start is None:
            start, use_start = pixels, np.zeros(count, bool)
        if variants is None:
            variants = np.zeros(count)
        # The seed too is no constant of what is compiled.
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
        """Which of any number of images an attack breaks.

        Args:
            attack: `Attack`.
            pixels: Array `(count, ...)`.
            labels: Integer array of shape `(count,)`.
            epsilons: Array of shape `(count,)`, on the [0, 1] scale.
            draws: As in `search`.
            variant: Int. Which run of the attack.

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
        """A compiled function, made if it is not there yet."""
        # Elsewhere one function takes batches of any size.
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
        # What is kept must not follow an attack that is changed later.
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
