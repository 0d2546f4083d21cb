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
# # How robust is it, really?
#
# This tutorial measures the robustness of a Keras classifier: its accuracy at
# every strength of attack, the result under AutoAttack, the self-checks that find
# attacks which failed, and a paired comparison of two models. It first
# fine-tunes two small networks on built-in digits. It takes about 20 minutes on
# two CPU cores. A free T4 should be faster, which we did not measure. You can put
# your own models in their place.

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
from IPython.display import Markdown

import keras_epsched as ke

print(ke.runs.describe_device())

# %%
SMOKE = bool(os.environ.get("KERAS_EPSCHED_SMOKE"))  # a quick run, for tests
EPSILON = 0.2  # on the [0, 1] scale of pixels

# %% [markdown]
# ## Two models
#
# To measure your own model, use `ke.models.load("model.keras")`, or any Keras
# model from pixels to *logits*. A model that ends in a softmax is refused,
# because a softmax hides the gradients that attacks follow.

# %%
data = ke.datasets.load(
    "digits",
    image_size=(32, 32),
    batch_size=64,
    test_examples=48 if SMOKE else 250,
)


def fine_tune(schedule):
    keras.utils.set_random_seed(0)
    net = ke.models.classifier("resnet_letters", 10, image_size=(32, 32))
    trainer = ke.AdversarialTrainer(
        net, attack=ke.attacks.PGD(1 if SMOKE else 5), seed=0
    )
    trainer.compile(
        optimizer=keras.optimizers.AdamW(3e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    trainer.fit(
        data.train,
        epochs=2 if SMOKE else 12,
        shuffle=False,
        verbose=0,
        callbacks=[ke.callbacks.EpsilonScheduler(schedule)],
    )
    return net


models = {
    "standard": fine_tune(ke.schedules.Constant(0.0)),
    "scheduled": fine_tune(ke.schedules.TwoHinge(EPSILON, 0.2, 0.6)),
}

# %% [markdown]
# ## The default attack at all strengths
#
# The default attack has three parts. Ten steps of Auto-PGD on the margin of
# probabilities find roughly at which epsilon an image breaks. A hundred steps on
# cross-entropy follow, and then a hundred steps towards each of the four wrong
# classes that the network thinks the likeliest. An image that is broken at one
# epsilon counts as broken at every larger one. Bisection therefore saves most of
# the work. The result is close to that of AutoAttack, in a small share of its
# passes.

# %%
grid = ke.epsilon_grid(EPSILON, 3 if SMOKE else 6)
reports = {
    name: ke.evaluate(net, data.test, grid, verbose=0)
    for name, net in models.items()
}
print(reports["scheduled"])
ke.evaluation.plot_curves(reports)

# %% [markdown]
# ## Before you claim it: AutoAttack
#
# AutoAttack is the standard of the field. It runs four attacks, and each one
# attacks only the images that the earlier ones did not break. The last one,
# Square, needs no gradients. With `folder=`, an interrupted evaluation resumes;
# use another folder for another model.
#
# Compare the accuracy at the largest epsilon with the one above: AutoAttack
# should break only few images more.

# %%
attack = ke.attacks.AutoAttack("standard")
if SMOKE:
    attack = ke.attacks.AttackEnsemble(
        [ke.attacks.APGD(2), ke.attacks.Square(queries=5)]
    )
strongest = {
    name: ke.evaluate(
        net,
        data.test,
        [0.0, EPSILON / 2, EPSILON],
        attack,
        folder=f"autoattack/{name}",
        resume=True,
        verbose=0,
    )
    for name, net in models.items()
}
print(strongest["scheduled"])

# %% [markdown]
# ## A network that only looks robust
#
# Some networks only look robust. Here a layer in front of the standard network
# returns its input, but its gradient is the opposite of the true one. The network
# is the same, but attacks that follow gradients go the wrong way, so its measured
# accuracy is too high. Two self-checks find this. Square, which needs no
# gradients, breaks the network. (A rounding, which has no gradient at all, is
# refused with an error.)

# %%
inputs = keras.Input((32, 32, 3))
same = 2 * keras.ops.stop_gradient(inputs) - inputs
masked = keras.Model(inputs, models["standard"](same))
fooled = ke.evaluate(masked, data.test, grid, verbose=0)
honest = ke.evaluate(
    masked,
    data.test,
    grid,
    ke.attacks.Square(queries=20 if SMOKE else 500),
    verbose=0,
)
print(
    f"accuracy at {EPSILON:g}: gradients say {fooled.accuracy[-1]:.0%}, "
    f"Square {honest.accuracy[-1]:.0%}"
)
fired = [check for check in fooled.checks if check["status"] == "fired"]
for check in fired:
    print("FIRED:", check["name"], "-", check["message"])
# On a few images there is no budget for the checks.
assert fired or SMOKE, "a check should have noticed"

# %% [markdown]
# ## Compare two models
#
# Both models are tested on the same images, so compare them image by image. The
# paired test finds differences that the overlap of two intervals hides.

# %%
comparison = ke.evaluation.compare(reports["standard"], reports["scheduled"])
print(comparison)

# %% [markdown]
# ## Look at the adversarial images
#
# The picture shows adversarial images of PGD at half the target, for each
# network. The number above an image is the class that the network predicts, in
# red if it is wrong. The row below shows the perturbation, four times as large.
# Look for the perturbations of the robust network: they follow the shape of the
# digit.

# %%
images, labels = next(iter(data.test))
images, labels = np.asarray(images)[:8], np.asarray(labels)[:8]
figure, rows = plt.subplots(4, 8, figsize=(8, 4.4), layout="constrained")
for number, (name, net) in enumerate(models.items()):
    found = ke.attacks.PGD(steps=10).search(
        lambda pixels, net=net: net(pixels, training=False),
        images,
        labels,
        EPSILON / 2,
        np.arange(len(images)),
    )
    moved = np.asarray(found.adversarial)
    guesses = np.argmax(net(moved, training=False), axis=-1)
    for column in range(8):
        top, below = rows[2 * number, column], rows[2 * number + 1, column]
        top.imshow(moved[column] / 255)
        color = "black" if guesses[column] == labels[column] else "red"
        top.set_title(guesses[column], color=color, fontsize=9)
        change = 4 * (moved - images)[column] / 255
        below.imshow(np.clip(0.5 + change, 0, 1))
        for axes in (top, below):
            axes.set(xticks=[], yticks=[])
    rows[2 * number, 0].set_ylabel(name)
plt.show()

# %% [markdown]
# ## Share the report
#
# `robustness.html` is one file with curves, self-checks and adversarial images. The
# model card states the accuracies and how they were measured.

# %%
ke.evaluation.write_html(strongest, "robustness.html")
ke.evaluation.write_model_card(
    strongest["scheduled"], "scheduled/README.md", {"schedule": "scheduled"}
)
Markdown("Written: `robustness.html` and `scheduled/README.md`.")
