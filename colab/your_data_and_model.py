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
# This tutorial makes a robust classifier from your images and a pretrained
# backbone. Then it measures, saves, exports and serves the classifier.
#
# Without changes, it uses photos of 5 kinds of flowers (the tfds dataset
# `tf_flowers`, 218 MB), a ResNet-50, images of 160 x 160 pixels and 10 epochs.
# On a free T4 GPU, we estimate half an hour; nobody has measured it. Without a
# GPU, it takes hours. In Colab, choose *Runtime > Change runtime type > T4 GPU*
# first.
#
# The cell after the imports holds everything you may want to change.

# %%
import os
import sys

if "google.colab" in sys.modules:
    # The address of the package (git+https://...) or an uploaded folder.
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
# tf_flowers has no test images. Use `None` if there is a test split.
TEST_SPLIT = None if SMOKE else 0.15
# A KerasHub preset, keras.applications.NAME, a Hugging Face folder, a file.
BACKBONE = "resnet_letters" if SMOKE else "resnet_50_imagenet"
SIZE = 32 if SMOKE else 160
# Checkpoints are saved only in epochs that train at the target epsilon.
EPOCHS = 4 if SMOKE else 10
EPSILON = 4 / 255  # on the [0, 1] scale: four grey levels

# %% [markdown]
# ## Data
#
# All images are resized to the same size. Epsilon refers to the pixels of the
# resized images. The training, validation and test images are chosen with a
# fixed seed, and every report says which images were tested.

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
# Check that the labels fit the images, and that you can recognise the classes
# at this size. The printed line lists the number of images in each part, and
# the number of classes.

# %% [markdown]
# ## Model
#
# `ke.models.classifier` adds a new head with one output for each class. It also
# puts the normalisation of the backbone inside the model, so that attacks
# change the pixels you see. To use your own Keras model, say how it normalises
# pixels:
# `ke.models.classifier(model, num_classes, scale=1 / 127.5, offset=-1.0)`.

# %%
keras.utils.set_random_seed(0)
net = ke.models.classifier(
    BACKBONE, data.num_classes, image_size=(SIZE, SIZE), seed=0
)
print(ke.models.trainable_parameters(net))

# %% [markdown]
# ## Fine-tune
#
# `AdversarialTrainer` trains with Keras' own `compile` and `fit`. Three
# callbacks are added:
#
# - `EpsilonScheduler` raises epsilon during the training.
# - `RobustCheckpoint` saves the epoch with the best *robust* validation
#   accuracy. Do not choose an epoch by `val_accuracy`: it is usually highest
#   while epsilon is 0, when the network is not robust.
# - `TransferMonitor` says after the training whether the network adapted to the
#   task, and what to change if it did not.
#
# The `validation_attack` measures robust validation accuracy. It is an attack
# on the probability margin: it costs as much as one on the training loss, and
# breaks more of the images that a strong attack would break.
#
# The learning rate is constant here. One that falls when epsilon has reached the
# target gives more robustness: see `ke.training.HeldCosineDecay`.

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
    shuffle=False,  # the dataset shuffles by itself
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
# The line "at the target" is the robust accuracy at the final epsilon. It
# should rise while epsilon rises. If the clean accuracy falls a lot at the same
# time, the ramp may be too steep: the last line that the training printed says
# what to change.

# %% [markdown]
# ## Measure
#
# Load the best epoch and test it. `ke.evaluate` uses the default attack, which
# is stronger than the attack of the validation. On the same images, it would
# report a lower robust accuracy.

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
# The table lists the accuracy at each epsilon, and the picture draws it, with
# 95 % intervals. Compare the first row (clean accuracy) with the last (accuracy
# at the target). The lines under the tables say whether the self-checks passed.
# A failed one means that the attack may not work on this network, so its
# numbers may be too high.

# %% [markdown]
# ## Save, export and serve
#
# Save a `.keras` file for Python, with a model card beside it. Then export the
# model for TensorFlow Serving. Both take pixels: the normalisation is inside
# the model, so you cannot forget it when you serve the model. (A KerasHub task
# keeps its normalisation outside the model.)
#
# The printed lines compare the predictions of the served model with the true
# classes of the first four test images.

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
