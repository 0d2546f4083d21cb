# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your data, your model
#
# From images and a pretrained backbone to a robust classifier that is saved,
# exported and served. As it stands: 5 kinds of flowers (tfds `tf_flowers`, 218
# MB) and a ResNet-50 at 160 px, 10 epochs. On a free T4 we expect half an hour
# (an estimate, not a measurement); without a GPU, hours. In Colab choose
# *Runtime > Change runtime type > T4 GPU* first.

# %%
import os
import sys

if "google.colab" in sys.modules:
    # Where the package is: git+https://... or a folder that you uploaded.
    PACKAGE = "/content/keras_epsched"
    # %pip install --quiet {PACKAGE}

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import keras_epsched as ke

print(ke.runs.describe_device())

# %%
SMOKE = bool(os.environ.get("KERAS_EPSCHED_SMOKE"))  # a quick run, for tests
# Any tfds name, a folder that tfds prepared, or images in
# folder/split/class/*.png.
DATASET = "digits" if SMOKE else "tf_flowers"
# tf_flowers has no images to test on; `None` where there is a test split.
TEST_SPLIT = None if SMOKE else 0.15
# Any KerasHub preset, keras.applications.NAME, a Hugging Face folder, a file.
BACKBONE = "resnet_letters" if SMOKE else "resnet_50_imagenet"
SIZE = 32 if SMOKE else 160
# The checkpoint is written from the epoch on that reaches the target.
EPOCHS = 4 if SMOKE else 10
EPSILON = 4 / 255  # on the [0, 1] scale: four grey levels

# %% [markdown]
# ## Data
#
# Images are squashed to one size; *pixel space*, in which epsilon is measured,
# is the image after that. Splits follow from a seed, and reports carry them.

# %%
data = ke.datasets.load(
    DATASET,
    image_size=(SIZE, SIZE),
    batch_size=32,
    validation_split=0.15,
    test_split=TEST_SPLIT,
    test_examples=64 if SMOKE else None,
    augment=() if SMOKE else ("flip", "color"),
    download=not SMOKE,
)
print(data)

images, labels = next(iter(data.train))
figure, grid = plt.subplots(2, 8, figsize=(9, 2.6), layout="constrained")
for axes, image, label in zip(grid.flat, images, labels, strict=False):
    axes.imshow(np.asarray(image) / 255)
    axes.set_title(data.class_names[int(label)], fontsize=8)
    axes.axis("off")
plt.show()

# %% [markdown]
# ## Model
#
# `classifier` puts the normalisation of the backbone inside, and a new head on
# top. Of your own Keras model say how it normalises:
# `ke.models.classifier(model, classes, scale=1 / 127.5, offset=-1.0)`.

# %%
keras.utils.set_random_seed(0)
net = ke.models.classifier(
    BACKBONE, data.num_classes, image_size=(SIZE, SIZE), seed=0
)
print(ke.models.trainable_parameters(net))

# %% [markdown]
# ## Fine-tuning
#
# Callbacks are Keras' own, beside ours: the schedule, a checkpoint of the most
# *robust* epoch (one chosen by `val_accuracy` comes from the phase of epsilon 0
# and is not robust), and a monitor that says what to change. Robust epochs are
# judged by an attack on the margin of probabilities: it costs what one on the
# loss of the training does, and leaves less standing that strong attacks break.

# %%
trainer = ke.AdversarialTrainer(
    net,
    attack=ke.attacks.PGD(steps=1 if SMOKE else 3),
    validation_attack=ke.attacks.APGD(
        steps=1 if SMOKE else 5, loss="probability_margin"
    ),
    seed=0,
)
trainer.compile(
    optimizer=keras.optimizers.AdamW(3e-4, weight_decay=1e-4),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
monitor = ke.callbacks.TransferMonitor(data.num_classes)
history = trainer.fit(
    data.train,
    validation_data=data.validation,
    epochs=EPOCHS,
    shuffle=False,  # the dataset shuffles
    verbose=2,
    callbacks=[
        ke.callbacks.EpsilonScheduler(ke.schedules.TwoHinge(EPSILON)),
        ke.callbacks.RobustCheckpoint("robust.keras"),
        monitor,
    ],
).history
print(monitor.verdict, "-", monitor.advice)

# %%
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
epochs = range(1, EPOCHS + 1)
axes.plot(epochs, history["val_accuracy"], label="clean")
axes.plot(epochs, history["val_robust_accuracy"], label="at the target")
axes.plot(
    epochs, np.array(history["epsilon"]) / EPSILON, "k:", label="epsilon, share"
)
axes.set(xlabel="epoch", ylabel="validation accuracy", ylim=(0, 1.05))
axes.legend()
plt.show()

# %% [markdown]
# ## Measure
#
# The network as the best epoch left it, by accuracy at the target; now under
# the default attack, which is stronger than that of the validation.

# %%
net = ke.models.load("robust.keras")
report = ke.evaluate(
    net,
    data.test,
    ke.epsilon_grid(EPSILON, 3 if SMOKE else None),
    verbose=0,
)
print(report)
report.plot()

# %% [markdown]
# ## Save, export, serve
#
# A `.keras` file for Python, with a model card beside it; and an export that
# TensorFlow Serving takes, with pixels as its input. (KerasHub's own tasks keep
# the normalisation outside; these classifiers hold it, so that they cannot be
# attacked past it.)

# %%
os.makedirs("flowers", exist_ok=True)
net.save("flowers/model.keras")
ke.evaluation.write_model_card(
    report,
    "flowers/README.md",
    {"backbone": BACKBONE, "dataset": DATASET, "epochs": EPOCHS},
    classes=data.class_names,
)
again = ke.models.load("flowers/model.keras")

net.export("flowers/serving", verbose=False)
served = tf.saved_model.load("flowers/serving")
images, labels = next(iter(data.test))
logits = served.serve(tf.cast(images, "float32"))
assert np.allclose(logits, again.predict(images, verbose=0), atol=1e-2)
for guess, label in zip(np.argmax(logits, -1)[:4], labels[:4], strict=True):
    print(
        f"served: {data.class_names[guess]}, is {data.class_names[int(label)]}"
    )
