"""Makes the bundled preset: a tiny ResNet, pretrained on letters.

The network is trained without attacks. It is the non-robust backbone of the
demonstration. Nothing is downloaded: the letters are rendered with the fonts
that matplotlib ships.

Examples:
  python launch/pretrain.py --output=/tmp/resnet_letters
  python launch/pretrain.py --output=/tmp/quick --epochs=1
"""

import json
import pathlib

import app
import usage
from absl import flags

from keras_epsched.runs.checks import refusing

_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder to write the preset to.", required=True
)
_EPOCHS = flags.DEFINE_integer("epochs", 15, "Number of epochs.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images in a batch.")
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", 3e-3, "Learning rate of AdamW."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of weights and data order.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared datasets. Default: that of tfds."
)
for _flag in (_OUTPUT, _EPOCHS, _BATCH_SIZE, _LEARNING_RATE, _SEED, _DATA_DIR):
    usage.add(_flag.name)

_SIZE = 32

_CARD = """\
# {name}

A KerasHub `ResNetImageClassifier` for {size} x {size} images, {parameters:,}
parameters, trained with the standard (non-robust) loss on `letters`: 26
classes, rendered with the fonts that matplotlib ships, with random affine
distortions. It exists so that examples and tests have a pretrained, non-robust
backbone without any download.

- Training: {epochs} epochs, AdamW, learning rate {rate:g} with cosine decay,
  weight decay 1e-4, batch {batch}, seed {seed}; Keras {keras}.
- Accuracy on the {images:,} test images: {accuracy:.2f} %.
- PGD-10 with l-infinity epsilon 8/255 leaves {robust:.2f} % of the first 500,
  with epsilon 0.1 {robust_far:.2f} %.
- Made by `python launch/pretrain.py --output={name}`; running it again gives
  the same to within noise.
- Licence: Apache-2.0, as the package.
"""


def build(keras_hub):
    """A small residual network, and how its pixels are normalised."""
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64, 64],
        stackwise_num_blocks=[1, 1, 1],
        stackwise_num_strides=[1, 2, 2],
        block_type="basic_block",
        image_shape=(None, None, 3),
    )
    converter = keras_hub.layers.ResNetImageConverter(
        image_size=(_SIZE, _SIZE), scale=1 / 127.5, offset=-1.0
    )
    preprocessor = keras_hub.models.ResNetImageClassifierPreprocessor(converter)
    return keras_hub.models.ResNetImageClassifier(
        backbone, num_classes=26, preprocessor=preprocessor
    )


def main():
    output = pathlib.Path(_OUTPUT.value)
    with refusing():
        # Before the training: it may be a place where nothing can be written.
        output.mkdir(parents=True, exist_ok=True)

    import keras
    import keras_hub

    import keras_epsched as ke
    from keras_epsched.models import bundled

    keras.utils.set_random_seed(_SEED.value)
    data = ke.datasets.load(
        "letters",
        image_size=(_SIZE, _SIZE),
        batch_size=_BATCH_SIZE.value,
        data_dir=_DATA_DIR.value,
        validation_split=0.05,
        seed=_SEED.value,
    )
    task = build(keras_hub)
    classifier = ke.models.classifier(task)
    steps = _EPOCHS.value * len(data.train)
    classifier.compile(
        optimizer=keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(_LEARNING_RATE.value, steps),
            weight_decay=1e-4,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    classifier.fit(
        data.train,
        validation_data=data.validation,
        epochs=_EPOCHS.value,
        verbose=2,
    )
    accuracy = classifier.evaluate(data.test, verbose=0, return_dict=True)
    few = data.test.unbatch().take(500).batch(100)
    report = ke.evaluate(
        classifier,
        few,
        epsilons=[8 / 255, 0.1],
        attack=ke.attacks.PGD(steps=10),
        verbose=0,
    )
    task.save_to_preset(str(output))
    # For where KerasHub is not installed.
    bundled.save_graph(task.backbone, output)
    card = _CARD.format(
        name=output.name,
        size=_SIZE,
        parameters=task.count_params(),
        epochs=_EPOCHS.value,
        rate=_LEARNING_RATE.value,
        batch=_BATCH_SIZE.value,
        seed=_SEED.value,
        keras=keras.__version__,
        images=data.test.split_info.num_examples,
        accuracy=100 * accuracy["accuracy"],
        robust=100 * report.accuracy[1],
        robust_far=100 * report.accuracy[2],
    )
    (output / "README.md").write_text(card, encoding="utf-8")
    print(card)
    print(json.dumps({"preset": str(output)}))


if __name__ == "__main__":
    app.run(main)
