"""The trainer: perturbs each batch, then takes a training step of Keras."""

import contextlib
import inspect
import operator
import warnings

import keras
from keras import ops

from keras_epsched import backend, checks, provenance
from keras_epsched.attacks import noise
from keras_epsched.attacks.pgd import PGD
from keras_epsched.configurable import register
from keras_epsched.epsilons import check_epsilon
from keras_epsched.training import (
    arguments,
    batchnorm,
    objectives,
    passes,
    validation,
)
from keras_epsched.training.compiled import CompiledFunction
from keras_epsched.training.fit import arrange

# An epsilon this close to its target, relatively, is at the target.
_ROUNDING = 1e-6
_SEED_KEY = "seed_state"


@register
class AdversarialTrainer(backend.TrainerSteps, keras.Model):
    """Trains a classifier on adversarial images, with an ordinary `fit`.

    Wrap a classifier in it, then call `compile` and `fit` as usual. Each step
    first perturbs the batch within the current epsilon, and then takes a
    training step of Keras on the result. Sample weights, class weights, loss
    scaling, gradient accumulation, weight averaging, metrics and distribution
    work as in Keras. Export, serve and evaluate `trainer.model`, the trained
    classifier.

    Epsilon is a weight of the trainer. The `EpsilonScheduler` callback sets
    it, and every checkpoint contains it. A new value needs no new compilation.
    At epsilon 0 no attack runs, and a step of the default objective costs as
    much as plain training.

    **Names in the logs.** In training, `loss` and `accuracy` are measured on
    *adversarial* images at the current epsilon; `clean_accuracy=True` adds the
    accuracy on clean images. In validation, `val_loss` and `val_accuracy` are
    measured on *clean* images. With a `validation_attack`,
    `val_robust_accuracy` is measured at the *target* epsilon of the schedule.
    Do not choose a checkpoint by `val_accuracy`: it is usually highest while
    epsilon is 0, and such a checkpoint is not robust. Use
    `keras_epsched.callbacks.RobustCheckpoint`.

    **BatchNorm.** `attack_mode` decides which statistics the attack sees. Its
    passes never change moving statistics or seeds. Most publications use
    inference mode. In a short fine-tuning of a network with BatchNorm, such an
    attack misleads old moving statistics instead of the network that is being
    trained, and the network ends less robust. The default is therefore
    training mode. [BatchNorm](../how-to/methods.md#batchnorm) has the
    measurements.

    Reference: Madry et al., ICLR 2018 (arXiv 1706.06083).

    Args:
        model: `keras.Model` from pixels in `value_range` to logits of shape
            `(batch, num_classes)`, as `keras_epsched.models.classifier` makes.
        attack: `Attack`. Defaults to `PGD(steps=7)`.
        objective: `"adversarial"`, `"mixed"`, `"trades"`, `"mart"`, `"alp"`,
            `"twins"`, `"autolora"` or an `Objective` of
            `keras_epsched.training`.
        epsilon: Float. Epsilon until a scheduler sets it, on the [0, 1] scale.
        attack_mode: String. With `"training"`, the attack sees the BatchNorm
            statistics of the batch, and one dropout mask for all its steps.
            With `"inference"`, it sees the moving statistics and no dropout.
            Without BatchNorm and dropout both are the same.
        batchnorm_momentum: Float or `None`. The momentum of all BatchNorm
            layers of `model`. With `None` the layers keep their own, except in
            short epochs: `fit` then lowers it to `0.2 ** (1 / steps)`, where
            `steps` is the number of steps in an epoch, or to 0.9 if that is
            unknown. The validated and saved network then has statistics that
            fit its weights.
        freeze_batchnorm: Boolean. Whether statistics, scale and offset of all
            BatchNorm layers stay as they are.
        weight_perturbation: Float. If above 0, each step computes its gradient
            at the worst weights nearby (adversarial weight perturbation, AWP,
            arXiv 2004.05884): kernels move up the loss by this share of their
            norm before the step, and back after it. 0.005 to 0.01 are usual.
            It costs one more forward and backward pass.
        clean_accuracy: Boolean. Whether to log the accuracy on clean training
            images, in inference mode. It costs one more forward pass.
        validation_attack: `Attack` or `None`. The attack for
            `robust_accuracy`, in `evaluate` and in the validation of `fit`. To
            compare epochs, use a margin loss, such as
            `APGD(steps=10, loss="probability_margin")`. It costs as much as
            cross-entropy, and its accuracy is closer to that under strong
            attacks. `fit` prints the attack.
        value_range: Pair or `None`. Lowest and highest pixel value. Defaults
            to the range that the classifier was made for, or `(0, 255)`.
        seed: Int or `None`. Seed of the random starts of the attack.
        name: String. Name of the model.
        **kwargs: Other arguments of `keras.Model`, such as `dtype`.

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
        attack = PGD() if attack is None else attack
        arguments.check_model(model)
        arguments.check_attacks(attack, validation_attack, attack_mode)
        arguments.check_weight_perturbation(weight_perturbation, model)
        if "dtype" not in kwargs and arguments.computes_in_float16(model):
            # By the policy of the trainer, `compile` decides to scale the
            # loss; without it the gradients of float16 layers underflow.
            kwargs["dtype"] = "mixed_float16"
        # Pixels must reach the network in float32, whatever the policy.
        super().__init__(name=name, autocast=False, **kwargs)
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
        # `ShortEpochMomentum` of the last `fit`.
        self._short_epochs = None
        # For `BatchNormMonitor`, `reestimate_batchnorm` and the look at the
        # first batch: the functions outlast all of them.
        self._mode_losses = CompiledFunction()
        self._compiled_statistics = CompiledFunction()
        self._compiled_look = CompiledFunction()
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
        """Current epsilon, on the [0, 1] scale."""
        return self._read(self._epsilon)

    @epsilon.setter
    def epsilon(self, value):
        epsilon = check_epsilon(value, self.attack.norm)
        backend.synchronise(self)
        self._epsilon.assign(epsilon)

    @property
    def target_epsilon(self) -> float:
        """Epsilon of the robust validation, on the [0, 1] scale."""
        return self._read(self._target_epsilon)

    @target_epsilon.setter
    def target_epsilon(self, value):
        epsilon = check_epsilon(value, self.attack.norm, "target_epsilon")
        backend.synchronise(self)
        self._target_epsilon.assign(epsilon)

    @property
    def at_target(self) -> bool:
        """Whether there is a target and epsilon has reached it."""
        return self.target_epsilon > 0 and self.reaches_target(self.epsilon)

    def reaches_target(self, epsilon: float) -> bool:
        """Whether an epsilon is at least the target, up to rounding."""
        return epsilon >= self.target_epsilon * (1 - _ROUNDING)

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
        if values:
            return passes.with_values(
                values, self.model, lambda: self._logits(images, training)
            )
        images = ops.cast(images, "float32")
        if self._takes_training:
            logits = self.model(images, training=bool(training))
        else:
            logits = self.model(images)
        # Several outputs have no shape, and are refused by the checks.
        self.num_classes = getattr(logits, "shape", (None,))[-1]
        return logits

    @property
    def output_names(self):
        """Names of the classifier's outputs, to which a loss may refer."""
        return getattr(self.model, "output_names", None)

    def class_labels(self, labels, images):
        """Returns the class of each image, from any form of labels."""
        if self.num_classes is None:
            # No pass was before this, as in the first `train_on_batch`.
            self.infer_outputs(tuple(images.shape))
        return checks.class_labels(labels, self.num_classes)

    def infer_outputs(self, shape):
        """Builds the network and counts its logits, without a pass of images.

        Args:
            shape: Tuple of integers, that of a batch; its size may be `None`.
        """
        images = keras.KerasTensor(shape, "float32")
        outputs = self.compute_output_spec(images, training=False)
        checks.single_output(outputs)

    # === Steps ===

    def adversarial_view(self, images, labels, seed, mode=None):
        """Returns the adversarial images. At epsilon 0 no attack runs.

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
        training = (mode or self.attack_mode) == "training"
        network = passes.frozen_logits(self, training)

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
            logits = passes.frozen_logits(self, False)(images)
            hits = ops.cast(ops.argmax(logits, axis=-1), "int32") == labels
            self._clean_accuracy.update_state(ops.cast(hits, "float32"))
        # Drawn outside the condition on epsilon: runs with different schedules
        # draw the same.
        seed = ops.cast(self.seed_generator.next(), backend.HASH_DTYPE)
        adversarial = self.adversarial_view(images, labels, seed)
        views = self.objective.views(images, adversarial)
        return views, y, sample_weight

    def weight_perturbations(self, data):
        """Returns how far each weight moves before a step, by its `id`."""
        return passes.weight_perturbations(self, data)

    def in_step(self):
        """A context for the part of a step that moves statistics."""
        if self._short_epochs is None:
            return contextlib.nullcontext()
        return self._short_epochs.in_step()

    def measure_robustness(self, data, count=None):
        """Updates `robust_accuracy` by the `validation_attack` on a batch."""
        broken, counts = validation.attack_batch(self, data, count)
        self._robust_accuracy.update_state(1.0 - broken, counts)

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
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
    ):
        """Trains the classifier. Takes the arguments of `keras.Model.fit`.

        Before the first step, `fit` checks the training and the validation
        data, the logits and the compiled loss. It checks arrays whole, and the
        first batch of all other data; a generator does not lose that batch.
        `fit` also remembers on which split of `keras_epsched.datasets` it
        trained, so that an evaluation on the same split warns.

        Callbacks are called in the order in which they are given, except that
        an `EpsilonScheduler` comes first, and an `ExactBackup` last. `fit` adds
        these itself:

        - On TensorFlow on a CPU, with `jit_compile="auto"`: a trial of both
          compilers on a few steps. It runs only in trainings so long that it
          costs about 2 % of them at most. `fit` prints the choice.
        - With BatchNorm layers that adapt:
          `keras_epsched.callbacks.BatchNormMonitor`, on up to 64 training
          images. At the end of each epoch it takes about as long as one step,
          and at the first one also the time to compile.
        - With BatchNorm layers that adapt and `batchnorm_momentum=None`: a
          lower momentum in short epochs. `fit` prints it.
        - With a `validation_attack` and validation data: a line that names the
          attack of `val_robust_accuracy`.
        - If data have a method `seek`, as those of `keras_epsched.datasets`:
          the call `seek(epoch)` when an epoch begins, but not with
          `steps_per_epoch`. If you call `fit` once for each epoch, pass
          `initial_epoch`.
        - What the objective needs: `"autolora"` sets its shares in each epoch.

        Args:
            x: As in `keras.Model.fit`.
            y: As in `keras.Model.fit`.
            batch_size: As in `keras.Model.fit`.
            epochs: As in `keras.Model.fit`.
            verbose: As in `keras.Model.fit`.
            callbacks: List of callbacks, with an `EpsilonScheduler`.
            validation_split: As in `keras.Model.fit`.
            validation_data: As in `keras.Model.fit`.
            shuffle: As in `keras.Model.fit`.
            class_weight: As in `keras.Model.fit`.
            sample_weight: As in `keras.Model.fit`.
            initial_epoch: As in `keras.Model.fit`.
            steps_per_epoch: As in `keras.Model.fit`.
            validation_steps: As in `keras.Model.fit`.
            validation_batch_size: As in `keras.Model.fit`.
            validation_freq: As in `keras.Model.fit`.

        Returns:
            `keras.callbacks.History`, as `keras.Model.fit`.

        Raises:
            ValueError: If data, logits or loss do not allow an attack.
        """
        x, validation_data, callbacks = arrange(
            self,
            x,
            y,
            batch_size=batch_size,
            callbacks=callbacks,
            validation_split=validation_split,
            validation_data=validation_data,
            shuffle=shuffle,
            steps_per_epoch=steps_per_epoch,
        )
        return super().fit(
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_split=validation_split,
            validation_data=validation_data,
            shuffle=shuffle,
            class_weight=class_weight,
            sample_weight=sample_weight,
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
            validation_freq=validation_freq,
        )

    def evaluate(self, *args, **kwargs):
        """Clean and, with a `validation_attack`, robust metrics."""
        with validation.validating(self):
            return super().evaluate(*args, **kwargs)

    def test_on_batch(self, *args, **kwargs):
        """As `evaluate`, on one batch."""
        with validation.validating(self):
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


def _takes_training(model):
    parameters = inspect.signature(model.call).parameters.values()
    return any(
        each.name == "training" or each.kind is each.VAR_KEYWORD
        for each in parameters
    )
