"""The trainer: perturb the batch, then Keras' own training step."""

import contextlib
import inspect
import operator
import warnings

import keras
from keras import ops

from keras_epsched import backend, checks, provenance
from keras_epsched.attacks import noise
from keras_epsched.attacks.base import Attack
from keras_epsched.attacks.pgd import PGD
from keras_epsched.configurable import register
from keras_epsched.epsilons import check_epsilon
from keras_epsched.training import (
    batchnorm,
    first_batch,
    objectives,
    validation,
)
from keras_epsched.training import weight_perturbation as perturbation
from keras_epsched.training.look import CompiledLook

# Arguments of `fit` after `validation_data`.
_LATER_ARGUMENTS = (
    "shuffle",
    "class_weight",
    "sample_weight",
    "initial_epoch",
    "steps_per_epoch",
)
_ATTACK_MODES = ("inference", "training")
_SEED_KEY = "seed_state"


@register
class AdversarialTrainer(backend.TrainerSteps, keras.Model):
    """Trains a classifier on adversarial images, by an ordinary `fit`.

    A training device around a classifier: each step perturbs the batch within
    the current epsilon, then does what Keras does. Sample and class weights,
    loss scaling, gradient accumulation, weight averaging, metrics and
    distribution are Keras' own. The trained classifier is `trainer.model`:
    export, serve and evaluate that one.

    Epsilon is a weight, driven by the `EpsilonScheduler` callback and read
    inside the compiled step: no retracing, and every checkpoint has it. At
    epsilon 0 no attack runs, and a step of the default objective costs what
    plain training costs.

    **What the logs mean.** In training, `loss` and `accuracy` are those of
    the *adversarial* images at the current epsilon (`clean_accuracy` stands
    beside them when asked for). In validation, `val_loss` and `val_accuracy`
    are *clean*, and `val_robust_accuracy` (with a `validation_attack`) is
    always at the *target* epsilon of the schedule. A checkpoint chosen by
    `val_accuracy` comes from the phase of epsilon 0 and is not robust: use
    `keras_epsched.callbacks.RobustCheckpoint`.

    **BatchNorm.** The attack sees the network in `attack_mode`; its own
    passes never change moving statistics or seeds. The usual advice is
    inference mode. In a short fine-tuning of a network with BatchNorm it
    fools stale moving statistics, not the network that is being trained, and
    the result is not robust; hence the default. docs/how-to/methods.md has a
    table.

    Reference: Madry et al., ICLR 2018 (arXiv 1706.06083).

    Args:
        model: `keras.Model` from pixels in `value_range` to logits of shape
            `(batch, num_classes)`, as `keras_epsched.models.classifier` makes.
        attack: `Attack`. Defaults to `PGD(steps=7)`.
        objective: `"adversarial"`, `"mixed"`, `"trades"`, `"mart"`, `"alp"`,
            `"twins"`, `"autolora"` or an `Objective` of
            `keras_epsched.training`.
        epsilon: Float. Strength until a scheduler sets it, on the [0, 1]
            scale.
        attack_mode: `"inference"` or `"training"`: whether the attack sees
            the moving statistics of BatchNorm (and no dropout), or those of
            the batch (and one dropout mask for all its steps). The same for
            networks with neither.
        batchnorm_momentum: Float or `None`. Sets the momentum of all the
            BatchNorm layers of `model`. With `None` they keep their own, but
            where it is too high for short epochs: `fit` then lowers it to
            `0.2 ** (1 / steps)`, for `steps` in an epoch (0.9 if their number
            is unknown), so that what is validated and saved has statistics
            that belong to its weights.
        freeze_batchnorm: Boolean. Keep statistics, scale and offset of all
            the BatchNorm layers as they are.
        weight_perturbation: Float. Each step goes down at the worst weights
            nearby: kernels move up the loss first, by this share of their
            norm, and back afterwards (AWP, arXiv 2004.05884, with 0.005 to
            0.01). It costs one more forward and backward pass; 0 does not.
        clean_accuracy: Boolean. Also log the accuracy on the clean images of
            training, in inference mode; costs one more forward pass.
        validation_attack: `Attack` or `None`. Attack of `evaluate` and of the
            validation in `fit`, for `robust_accuracy`. To judge epochs take a
            loss of margins, as `APGD(steps=10, loss="probability_margin")`:
            at the cost of cross-entropy it is closer to what strong attacks
            leave. `fit` prints which attack it is.
        value_range: Pair or `None`. Lowest and highest pixel value; by default
            that of a classifier which knows it, or `(0, 255)`.
        seed: Int or `None`. Seed of the random starts.
        name: String. Name of the model.
        **kwargs: Other arguments of `keras.Model`, as `dtype`.

    Raises:
        ValueError: If an argument is not as described.

    Example:
    ```python
    trainer = keras_epsched.AdversarialTrainer(
        classifier,
        attack=keras_epsched.attacks.PGD(steps=7),
        validation_attack=keras_epsched.attacks.APGD(
            steps=10, loss="probability_margin"
        ),
    )
    trainer.compile(
        optimizer=keras.optimizers.AdamW(1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    schedule = keras_epsched.schedules.TwoHinge(4 / 255)
    trainer.fit(
        data.train,
        validation_data=data.validation,
        epochs=50,
        callbacks=[keras_epsched.callbacks.EpsilonScheduler(schedule)],
    )
    trainer.model.save("classifier.keras")
    ```
    """

    def __init__(
        self,
        model,
        attack=None,
        objective="adversarial",
        epsilon=0.0,
        attack_mode="training",
        batchnorm_momentum=None,
        freeze_batchnorm=False,
        weight_perturbation=0.0,
        clean_accuracy=False,
        validation_attack=None,
        value_range=None,
        seed=None,
        name="adversarial_trainer",
        **kwargs,
    ):
        if not isinstance(model, keras.Model):
            raise ValueError(
                "`model` must be a `keras.Model`, see "
                "`keras_epsched.models.classifier`. Received: "
                f"{type(model).__name__}"
            )
        checks.check_takes_pixels(model)
        if "dtype" not in kwargs and _computes_in_float16(model):
            # By the policy of the trainer, `compile` decides to scale the
            # loss; without it the gradients of float16 layers underflow.
            kwargs["dtype"] = "mixed_float16"
        # Pixels must reach the network in float32, whatever the policy.
        super().__init__(name=name, autocast=False, **kwargs)
        attack = PGD() if attack is None else attack
        for each in filter(None, (attack, validation_attack)):
            if not isinstance(each, Attack):
                raise ValueError(
                    "expected an attack of `keras_epsched.attacks`. Received: "
                    f"{each!r}"
                )
        if not attack.can_train:
            raise ValueError(
                f"{attack!r} is for evaluation only: it gives no images to "
                "train on. Use `FGSM`, `PGD` or `APGD`."
            )
        if validation_attack and not validation_attack.can_evaluate:
            raise ValueError(
                f"{validation_attack!r} is for training only: its images may "
                "lie outside of the ball. Validate with "
                '`APGD(steps=10, loss="probability_margin")`.'
            )
        if validation_attack and validation_attack.norm != attack.norm:
            raise ValueError(
                "`validation_attack` must have the norm of `attack`, for they "
                f"share epsilon. Received: {validation_attack.norm!r} and "
                f"{attack.norm!r}"
            )
        if attack_mode not in _ATTACK_MODES:
            raise ValueError(
                f"`attack_mode` must be one of {_ATTACK_MODES}. Received: "
                f"attack_mode={attack_mode!r}"
            )
        if not weight_perturbation >= 0:
            raise ValueError(
                "`weight_perturbation` must be at least 0. Received: "
                f"weight_perturbation={weight_perturbation!r}"
            )
        if weight_perturbation and _computes_in_float16(model):
            raise ValueError(
                "`weight_perturbation` is not available in float16, where its "
                "gradients may vanish unseen: use bfloat16 or float32. "
                f"Received: weight_perturbation={weight_perturbation}"
            )
        self.model = model
        self.attack = attack
        self.objective = objectives.get(objective)
        self.objective.check_attack(attack)
        self.attack_mode = attack_mode
        self.batchnorm_momentum = batchnorm_momentum
        self.freeze_batchnorm = bool(freeze_batchnorm)
        self.weight_perturbation = float(weight_perturbation)
        self.clean_accuracy = bool(clean_accuracy)
        self.validation_attack = validation_attack
        known = provenance.value_range_of(model)
        if value_range is None:
            value_range = (0, 255) if known is None else known
        self.value_range = checks.check_value_range(value_range)
        if known is not None and known != self.value_range:
            warnings.warn(
                f"the classifier was made for pixels in {known}, and is "
                f"trained on pixels in {self.value_range}. Leave out "
                "`value_range` if your images are as it expects.",
                stacklevel=2,
            )
        # For `evaluate`, which is given the classifier alone.
        provenance.remember_value_range(model, self.value_range)
        # NumPy's integers as well, which Keras does not take.
        self.seed = seed = None if seed is None else operator.index(seed)
        batchnorm.configure(model, batchnorm_momentum, self.freeze_batchnorm)

        self.seed_generator = keras.random.SeedGenerator(seed)
        self._epsilon = self.add_state("epsilon", 0.0)
        self._target_epsilon = self.add_state("target_epsilon", 0.0)
        self.epsilon = epsilon
        self.target_epsilon = epsilon
        self._clean_accuracy = self._robust_accuracy = None
        self._training_metrics = []
        if self.clean_accuracy:
            self._clean_accuracy = self.add_training_metric("clean_accuracy")
        if validation_attack is not None:
            self._robust_accuracy = keras.metrics.Mean(name="robust_accuracy")
        self._validating = False
        # Views of an image whose losses on activities are in `losses`.
        self._counted_views = 1
        # Images in the largest batch of a validation so far.
        self.validation_batch_size = 0
        # Number of logits, known once it has seen an image.
        self.num_classes = None
        self._takes_training = _takes_training(model)
        # Of the last `fit`: the momentum of BatchNorm within a step.
        self._keep_up = None
        # Of `BatchNormMonitor` and `reestimate_batchnorm`: they outlast both.
        self._mode_losses = CompiledLook()
        self._perturbation = CompiledLook()
        if model.built:
            self.built = True
        self.objective.prepare(self)

    def add_state(self, name, value):
        """Adds a weight that is saved and not trained, in float32."""
        value = ops.convert_to_numpy(value)
        weight = self.add_weight(
            shape=value.shape,
            initializer="zeros",
            dtype="float32",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
            name=name,
        )
        weight.assign(value)
        return weight

    def add_training_metric(self, name):
        """Adds a mean that is logged in training, not in validation."""
        metric = keras.metrics.Mean(name=name)
        self._training_metrics.append(metric)
        return metric

    # === Epsilon ===

    @property
    def epsilon(self) -> float:
        """Current perturbation strength, on the [0, 1] scale."""
        return self._read(self._epsilon)

    @epsilon.setter
    def epsilon(self, value):
        epsilon = check_epsilon(value, self.attack.norm)
        backend.synchronise(self)
        self._epsilon.assign(epsilon)

    @property
    def target_epsilon(self) -> float:
        """Strength of robust validation, on the [0, 1] scale."""
        return self._read(self._target_epsilon)

    @target_epsilon.setter
    def target_epsilon(self, value):
        epsilon = check_epsilon(value, self.attack.norm, "target_epsilon")
        backend.synchronise(self)
        self._target_epsilon.assign(epsilon)

    def _read(self, variable):
        backend.synchronise(self)
        return float(variable.numpy())

    # === The network ===

    def build(self, input_shape):
        """Builds the classifier for batches of this shape."""
        if not self.model.built:
            self.model.build(input_shape)
        self.built = True

    def call(self, inputs, training=None):
        """Returns the logits of images, or of each view of a `dict`."""
        if not isinstance(inputs, dict):
            return self._logits(inputs, training)
        logits, counts = {}, []
        for name, view in inputs.items():
            logits[name] = self.objective.logits(
                name, self._logits, view, training
            )
            counts.append(
                sum(
                    len(layer._get_own_losses())
                    for layer in self.model._flatten_layers()
                )
            )
        # On JAX those of the last view alone.
        self._counted_views = counts[-1] / counts[0] if counts[0] else 1
        return logits

    def _logits(self, images, training, values=()):
        """Logits, with other values for some of the network's variables."""
        images = ops.cast(images, "float32")
        if values:
            values = {id(variable): value for variable, value in values}
            return self._logits_by(values, images, training)
        if self._takes_training:
            return self.model(images, training=bool(training))
        return self.model(images)

    def _logits_by(self, values, images, training):
        variables = self.model.variables
        # All of them: a scope hides what the one around it says of the others.
        scope = keras.StatelessScope(
            [(v, values.get(id(v), v.value)) for v in variables]
        )
        before = [scope.get_current_value(v) for v in variables]
        with scope:
            logits = self._logits(images, training)
        for variable, old in zip(variables, before, strict=True):
            new = scope.get_current_value(variable)
            # Moving statistics and seeds, as without the scope.
            if new is not old and id(variable) not in values:
                variable.assign(new)
        return logits

    def frozen_logits(self, training):
        """Returns a function to logits that changes no variable."""

        def logits_fn(images):
            # Its own as well: an objective may read some of them.
            own = self._trainable_variables + self._non_trainable_variables
            variables = [
                (v, backend.frozen(v)) for v in (*self.model.variables, *own)
            ]
            # Through the trainer, whose call context passes `training` on to
            # layers of a model that has no such argument.
            with keras.StatelessScope(variables):
                return self(images, training=training)

        return logits_fn

    @property
    def output_names(self):
        """Names of the classifier's outputs, to which a loss may refer."""
        return getattr(self.model, "output_names", None)

    def class_labels(self, labels, images):
        """Returns the class of each image, from any form of labels."""
        if self.num_classes is None:
            # Of one image: in a compiled step nothing of it is left.
            logits = self.frozen_logits(False)(images[:1])
            self.num_classes = logits.shape[-1]
        return checks.class_labels(labels, self.num_classes)

    # === Steps ===

    def attacked(self, images, labels, seed, mode=None):
        """The adversarial view at the current epsilon; free at 0.

        Args:
            images: Float32 tensor `(batch, ...)` of pixels.
            labels: Integer tensor of shape `(batch,)`.
            seed: Two integers, the seed of the random starts.
            mode: String or `None`. What the attack sees, `attack_mode` by
                default.

        Returns:
            A tensor like `images`, and `images` itself at epsilon 0.
        """
        epsilon = ops.convert_to_tensor(self._epsilon)
        places = ops.arange(ops.shape(images)[0])
        key = noise.make_key(seed[0], seed[1], backend.replica_id(), places)
        network = self.frozen_logits((mode or self.attack_mode) == "training")

        def logits_fn(images):
            return self.objective.attacked_logits(network, images)

        def attack():
            loss = self.objective.attack_loss(logits_fn, images)
            return self.attack.perturb(
                logits_fn, images, labels, epsilon, key, self.value_range, loss
            )

        return backend.cond(epsilon > 0, attack, lambda: images)

    def perturb(self, data):
        """Replaces the images of a batch by what the objective trains on.

        Args:
            data: `(x, y)` or `(x, y, sample_weight)`, as `train_step` gets.

        Returns:
            The same tuple with the images perturbed within the current
            epsilon; `y` and `sample_weight` are untouched. Weights never
            reach the attack: an image of weight 0 is attacked like any other.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if y is None:
            raise ValueError(
                "adversarial training needs labels: data must yield (x, y)"
            )
        images = checks.static_images(x)
        labels = self.class_labels(y, images)
        if self._clean_accuracy is not None:
            logits = self.frozen_logits(False)(images)
            hits = ops.cast(ops.argmax(logits, axis=-1), "int32") == labels
            self._clean_accuracy.update_state(ops.cast(hits, "float32"))
        # Drawn outside the condition on epsilon: runs with different schedules
        # draw the same.
        seed = ops.cast(self.seed_generator.next(), backend.HASH_DTYPE)
        adversarial = self.attacked(images, labels, seed)
        views = self.objective.views(images, adversarial)
        return views, y, sample_weight

    def in_step(self):
        """A context for the part of a step that moves statistics."""
        if self._keep_up is None:
            return contextlib.nullcontext()
        return self._keep_up.in_step()

    def weight_moves(self, data):
        """How far the weights move up the loss of a batch before a step.

        Returns:
            A dict from the `id` of a variable to a tensor; empty without
            `weight_perturbation`.
        """
        if not self.weight_perturbation:
            return {}
        if backend.num_replicas() > 1:
            raise ValueError(
                "`weight_perturbation` is not available under a strategy of "
                "`tf.distribute` with several replicas, whose weights would "
                "move apart. Use one, or `keras.distribution` on JAX."
            )
        if getattr(self.optimizer, "use_ema", False):
            raise ValueError(
                "`weight_perturbation` with an optimizer that averages the "
                "weights (`use_ema=True`) is not available: Keras would "
                "average them where they have moved to."
            )
        moved = perturbation.kernels(self)
        moves = perturbation.deltas(self, data)
        return {id(v): move for v, move in zip(moved, moves, strict=True)}

    def _validation_epsilon(self):
        target = ops.convert_to_tensor(self._target_epsilon)
        # Without a scheduler there is no target but the current epsilon.
        current = ops.convert_to_tensor(self._epsilon)
        return ops.where(target > 0, target, current)

    def measure_robustness(self, data, count=None):
        """Updates `robust_accuracy` by the `validation_attack` on a batch.

        Args:
            data: `(x, y)` or `(x, y, sample_weight)`, as `test_step` gets.
            count: Integer tensor or `None`: how many of the images count, all
                by default. The others fill up the batch.
        """
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        images = checks.static_images(x)
        result = self.validation_attack.search(
            self.frozen_logits(False),
            images,
            self.class_labels(y, images),
            self._validation_epsilon(),
            # The same starts at every validation: values are comparable.
            noise.make_key(0, ops.arange(ops.shape(images)[0])),
            self.value_range,
        )
        counts = None
        if count is not None:
            places = ops.arange(ops.shape(images)[0])
            counts = ops.cast(places < count, "float32")
        self._robust_accuracy.update_state(
            1.0 - ops.cast(result.broken, "float32"), counts
        )

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """The objective's loss in training, the compiled one otherwise."""
        views = self._counted_views if isinstance(y_pred, dict) else 1

        def compiled_loss(y, y_pred, sample_weight):
            loss = super(AdversarialTrainer, self).compute_loss(
                x, y, y_pred, sample_weight, training=training
            )
            return loss - self._repeated_losses(views)

        if not training:
            return compiled_loss(y, y_pred, sample_weight)
        return self.objective.compute_loss(
            compiled_loss, y, y_pred, sample_weight
        )

    def _repeated_losses(self, views):
        """What several views add too much of the layers' own losses.

        Each view adds the losses on activities once more, those on weights not.
        The mean over the views is to count.
        """
        if views == 1:
            return 0.0
        on_weights = self._get_regularization_losses()
        added = sum(map(self._aggregate_additional_loss, self.losses))
        kept = sum(map(self._aggregate_additional_loss, on_weights))
        return (1.0 - 1.0 / views) * (added - kept)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Updates the metrics with the outputs that they are meant to see."""
        if isinstance(y_pred, dict):
            self.objective.update_metrics(y, y_pred)
            y_pred = self.objective.predictions(y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_metrics_result(self):
        """Results of the metrics that belong to this phase."""
        results = super().get_metrics_result()
        hidden = ["robust_accuracy"]
        if self._validating:
            hidden = [metric.name for metric in self._training_metrics]
        return {k: v for k, v in results.items() if k not in hidden}

    # === Loops ===

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        *args,
        **kwargs,
    ):
        """Trains the classifier; as `keras.Model.fit`, after some checks.

        Before the first step the data and the validation data (arrays whole,
        all else by its first batch, which a generator does not lose), the
        logits and the compiled loss are checked. An `EpsilonScheduler` is
        called before the other callbacks, so that they find epsilon in the
        logs. Data of `keras_epsched.datasets` is remembered, so that an
        evaluation on a split that was trained on warns.

        Data with a method or attribute `seek(epoch, batch=0)`, as that of
        `keras_epsched.datasets`, is told which epoch begins, by its number:
        who calls `fit` for one epoch after the other passes `initial_epoch`.
        With `steps_per_epoch` it is left alone.

        Args:
            x: As in `keras.Model.fit`.
            y: As in `keras.Model.fit`.
            batch_size: As in `keras.Model.fit`.
            epochs: As in `keras.Model.fit`.
            verbose: As in `keras.Model.fit`.
            callbacks: List of callbacks; an `EpsilonScheduler` among them.
            validation_split: As in `keras.Model.fit`.
            validation_data: As in `keras.Model.fit`.
            *args: As in `keras.Model.fit`.
            **kwargs: As in `keras.Model.fit`.

        Raises:
            ValueError: If data, logits or loss are not fit for an attack.
        """
        from keras_epsched.callbacks.epsilon_scheduler import EpsilonScheduler
        from keras_epsched.callbacks.exact_backup import ExactBackup

        callbacks = first_batch.as_list(callbacks)
        callbacks.sort(key=lambda each: not isinstance(each, EpsilonScheduler))
        first_batch.set_directions(callbacks)
        given = {**dict(zip(_LATER_ARGUMENTS, args, strict=False)), **kwargs}
        # Keras spreads an epoch of the data over several of its own then.
        spread = given.get("steps_per_epoch") is not None
        seek = None if spread else getattr(x, "seek", None)
        if seek is not None:
            # What is looked at here is then the same when a training goes on.
            seek(0)
        most = min(batch_size or 64, 64)
        batch, x = first_batch.check(self, x, y, most)
        if isinstance(validation_data, (tuple, list)):
            if len(validation_data) not in (2, 3) or isinstance(
                validation_data[0], (tuple, list)
            ):
                raise ValueError(
                    "`validation_data` must be a pair of arrays (images, "
                    "labels), with weights behind, or a dataset. Received: a "
                    f"list of {len(validation_data)} others"
                )
            first_batch.check(self, *validation_data[:2], most)
        else:
            _, validation_data = first_batch.check(self, validation_data)
        if self.epsilon == 0 and not any(
            isinstance(each, EpsilonScheduler) for each in callbacks
        ):
            warnings.warn(
                "epsilon is 0 and no `EpsilonScheduler` is among the "
                "callbacks: this is standard fine-tuning, without any attack. "
                "If you mean it, pass EpsilonScheduler(Constant(0.0)).",
                stacklevel=2,
            )
        adapts = any(
            layer.trainable for layer in batchnorm.batchnorm_layers(self.model)
        )
        if batch is not None and adapts:
            # First, so that the others find its values in the logs.
            callbacks.insert(0, batchnorm.BatchNormMonitor(*batch))
        if not spread:
            callbacks.insert(0, first_batch.EpochSeeker(x, validation_data))
        # Before those of the user, which may want what they set.
        callbacks = [*self.objective.callbacks(), *callbacks]
        backups = [each for each in callbacks if isinstance(each, ExactBackup)]
        others = [each for each in callbacks if each not in backups]
        if (
            backups
            and isinstance(x, keras.utils.PyDataset)
            and given.get("shuffle", True)
        ):
            raise ValueError(
                "pass `shuffle=False` with `ExactBackup`: by default Keras "
                "shuffles the order of the batches by a generator that no "
                "backup holds. `ImageBatches` shuffles its examples itself."
            )
        for backup in backups:
            backup.seek, backup.others = seek, others
        if self.validation_attack is not None and (
            validation_data is not None or validation_split
        ):
            # After the scheduler, which knows the target.
            others.append(validation.AttackNote())
        # They come last, so that they find what the others have done.
        callbacks = [*others, first_batch.StateBuilder(batch), *backups]
        provenance.remember_split(self.model, provenance.split_of(x))
        if adapts and self.batchnorm_momentum is None:
            callbacks.insert(0, batchnorm.KeepUp())
        return super().fit(
            x,
            y,
            batch_size,
            epochs,
            verbose,
            callbacks,
            validation_split,
            validation_data,
            *args,
            **kwargs,
        )

    @contextlib.contextmanager
    def _validation(self):
        at_zero = max(self.target_epsilon, self.epsilon) == 0
        if self.validation_attack is not None and at_zero:
            warnings.warn(
                "epsilon and its target are 0, so `robust_accuracy` is the "
                "clean accuracy. Train with an `EpsilonScheduler`, or set "
                "`trainer.target_epsilon`.",
                stacklevel=3,
            )
        before, self._validating = self._validating, True
        self.validation_batch_size = 0
        try:
            yield
        finally:
            self._validating = before

    def evaluate(self, *args, **kwargs):
        """Clean and, with a `validation_attack`, robust metrics."""
        with self._validation():
            return super().evaluate(*args, **kwargs)

    def test_on_batch(self, *args, **kwargs):
        """As `evaluate`, on one batch."""
        with self._validation():
            return super().test_on_batch(*args, **kwargs)

    # === Saving ===

    def _seed_states(self):
        """State of every seed generator below the trainer, in fixed order."""
        weights = {id(v) for v in self.model.weights}
        metrics = {id(v) for v in self.model.metrics_variables}
        seeds = [
            v
            for v in self.model.variables
            if id(v) not in weights and id(v) not in metrics
        ]
        return [self.seed_generator.state, *seeds]

    def save_own_variables(self, store):
        """Saves the weights, and the seeds that Keras leaves out."""
        super().save_own_variables(store)
        for index, state in enumerate(self._seed_states()):
            store[f"{_SEED_KEY}_{index}"] = state

    def load_own_variables(self, store):
        """Loads the weights and the seeds."""
        own = {}
        seeds = {}
        for key in store.keys():
            (seeds if key.startswith(_SEED_KEY) else own)[key] = store[key]
        super().load_own_variables(own)
        for index, state in enumerate(self._seed_states()):
            if f"{_SEED_KEY}_{index}" in seeds:
                state.assign(seeds[f"{_SEED_KEY}_{index}"])

    def get_config(self):
        """Returns the constructor's arguments."""
        config = super().get_config()
        serialize = keras.saving.serialize_keras_object
        config.update(
            model=serialize(self.model),
            attack=serialize(self.attack),
            objective=serialize(self.objective),
            epsilon=self.epsilon,
            attack_mode=self.attack_mode,
            batchnorm_momentum=self.batchnorm_momentum,
            freeze_batchnorm=self.freeze_batchnorm,
            weight_perturbation=self.weight_perturbation,
            clean_accuracy=self.clean_accuracy,
            validation_attack=serialize(self.validation_attack),
            value_range=self.value_range,
            seed=self.seed,
        )
        return config

    @classmethod
    def from_config(cls, config):
        """Builds a trainer from what `get_config` returned."""
        config = dict(config)
        for name in ("model", "attack", "objective", "validation_attack"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)


def _computes_in_float16(model):
    return any(
        layer.compute_dtype == "float16" for layer in model._flatten_layers()
    )


def _takes_training(model):
    parameters = inspect.signature(model.call).parameters.values()
    return any(
        each.name == "training" or each.kind is each.VAR_KEYWORD
        for each in parameters
    )
