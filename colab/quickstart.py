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
# # Robust fine-tuning with Epsilon-Scheduling
#
# This tutorial shows what Epsilon-Scheduling changes. You fine-tune the same
# pretrained network three times on handwritten digits, and then measure how
# accurate each network is under attack. The pretrained network is small and not
# robust. The three trainings are:
#
# - **standard**: without an attack;
# - **fixed**: adversarial training at the full perturbation budget (epsilon)
#   from the first step;
# - **scheduled**: adversarial training in which epsilon rises from 0 to the
#   same budget ([Ngnawé et al., ICLR 2026](https://arxiv.org/abs/2509.23325)).
#
# The tutorial downloads nothing but the package. It takes about ten minutes on
# two CPU cores. On a free T4 GPU, we estimate a few minutes, most of them for
# compiling; nobody has measured it. In Colab, choose *Runtime > Change runtime
# type > T4 GPU* first.

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

import keras_epsched as ke

print(ke.runs.describe_device())

# %%
SMOKE = bool(os.environ.get("KERAS_EPSCHED_SMOKE"))  # a quick run, for tests
EPOCHS = 2 if SMOKE else 20
TRAIN_STEPS = 1 if SMOKE else 7
LEARNING_RATE = 3e-3
EPSILON = 0.3  # on the [0, 1] scale of pixels

# %% [markdown]
# ## Data and network
#
# The data are handwritten digits of 8 x 8 pixels, enlarged to 32 x 32. The
# network is a small residual network that was pretrained on rendered letters.
#
# `ke.models.classifier` adds a new head with one output for each class. It also
# puts the normalisation inside the model. So an attack changes the pixels that
# you see, and epsilon has the same meaning for every network.

# %%
data = ke.datasets.load(
    "digits",
    image_size=(32, 32),
    batch_size=64,
    test_examples=64 if SMOKE else None,
)
data


# %%
def fine_tune(schedule, seed=0):
    keras.utils.set_random_seed(seed)
    net = ke.models.classifier(
        "resnet_letters", data.num_classes, image_size=(32, 32), seed=seed
    )
    trainer = ke.AdversarialTrainer(
        net, attack=ke.attacks.PGD(steps=TRAIN_STEPS), seed=seed
    )
    steps = EPOCHS * len(data.train)
    # The learning rate stays high until epsilon has reached the target.
    learning_rate = ke.training.HeldCosineDecay(
        LEARNING_RATE,
        steps,
        warmup_steps=steps // 20,
        decay_start=int(0.74 * steps),
    )
    trainer.compile(
        optimizer=keras.optimizers.AdamW(learning_rate, weight_decay=1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = trainer.fit(
        data.train,
        validation_data=data.validation,
        epochs=EPOCHS,
        shuffle=False,  # the dataset shuffles by itself
        verbose=0,
        callbacks=[ke.callbacks.EpsilonScheduler(schedule)],
    )
    return net, history.history


# %% [markdown]
# ## Three trainings
#
# All three trainings use the same network, head, data and learning rate. Only
# epsilon differs. The scheduled training keeps epsilon at 0 for about the first
# quarter of the epochs, raises it until about three quarters, and then keeps it
# at the target.
#
# You may see a warning that BatchNorm's moving statistics do not fit the
# weights. In the first epochs that is normal.

# %%
schedules = {
    "standard": ke.schedules.Constant(0.0),
    "fixed": ke.schedules.Constant(EPSILON),
    "scheduled": ke.schedules.TwoHinge(EPSILON),
}
nets, histories = {}, {}
for name, schedule in schedules.items():
    nets[name], histories[name] = fine_tune(schedule)
    print(name, f"{histories[name]['val_accuracy'][-1]:.1%} clean validation")

# %% [markdown]
# The next picture shows how each network learns. The upper part is the clean
# validation accuracy (on digits without an attack) after each epoch. The lower
# part is the epsilon of that epoch.

# %%
threshold = max(0.05, 2 / data.num_classes)


def onset(accuracies):
    reached = [e for e, a in enumerate(accuracies, 1) if a >= threshold]
    return reached[0] if reached else None


ke.evaluation.plot_training_story(
    {
        name: {
            "epoch": list(range(1, EPOCHS + 1)),
            "val_accuracy": history["val_accuracy"],
            "epsilon": history["epsilon"],
            "onset": onset(history["val_accuracy"]),
        }
        for name, history in histories.items()
    },
    chance=1 / data.num_classes,
    onset_threshold=threshold,
)

# %% [markdown]
# Compare the right ends of the lines in the upper part. If "fixed" ends below
# "standard", the attack has cost clean accuracy. If "scheduled" ends between
# them, the schedule has saved a part of it: the network adapted to the task
# while epsilon was 0. The vertical lines mark the *onset*, the first epoch
# whose accuracy reaches the onset threshold (twice chance).

# %% [markdown]
# ## How robust are they?
#
# `ke.evaluate` measures the accuracy on all test images at nine values of
# epsilon. It uses the default attack: three versions of Auto-PGD. The accuracy
# under an attack is an upper bound, because a stronger attack may break more
# images. A weaker attack, such as the PGD of the training, would report several
# points more.
#
# *Expected robustness* summarises all values of epsilon in one number: the mean
# accuracy over epsilon, which is the area under the curve.

# %%
reports = {
    name: ke.evaluate(
        net,
        data.test,
        ke.epsilon_grid(EPSILON, 5 if SMOKE else None),
        verbose=0,
    )
    for name, net in nets.items()
}
print(reports["scheduled"])

# %% [markdown]
# Read the first table from top to bottom: it is the accuracy at each epsilon,
# with a 95 % interval. The row of epsilon 0 is the clean accuracy. The second
# table counts how many images each part of the attack broke. The last lines say
# whether the *self-checks* passed. They test whether the attack works on this
# network, so read them before you trust a number.
#
# Next, draw all three networks in one picture.

# %%
ke.evaluation.plot_curves(reports)

# %% [markdown]
# The curve of a robust network falls slowly. Compare the left ends (clean
# accuracy), how fast the curves fall, and the expected robustness in the
# legend. Curves may cross: then which network is better depends on the epsilon
# that matters to you. The shaded bands are 95 % intervals; where they overlap
# widely, the test images are too few to tell the networks apart.

# %% [markdown]
# ## Look at the adversarial images
#
# The first row shows clean digits, classified by the scheduled network. The
# next rows show the same digits after an attack on the standard network and on
# the scheduled network, at a third of the target epsilon and at the target. The
# number above each digit is the predicted class, in red if it is wrong.

# %%
images, labels = next(iter(data.test))
images, labels = images[:8].numpy(), labels[:8].numpy()
rows = [("clean", nets["scheduled"], images)]
for name in ("standard", "scheduled"):
    for epsilon in (EPSILON / 3, EPSILON):
        found = ke.attacks.PGD(steps=10).search(
            lambda pixels, net=nets[name]: net(pixels, training=False),
            images,
            labels,
            epsilon,
            np.arange(len(images)),
        )
        pictures = found.adversarial.numpy()
        rows.append((f"{name},\nepsilon {epsilon:g}", nets[name], pictures))

figure, grid = plt.subplots(5, 8, figsize=(8, 6), layout="constrained")
for line, (title, net, pictures) in zip(grid, rows, strict=True):
    guesses = np.argmax(net(pictures, training=False), axis=-1)
    for axes, picture, guess, label in zip(
        line, pictures, guesses, labels, strict=True
    ):
        axes.imshow(picture / 255)
        axes.set_title(guess, color="black" if guess == label else "red")
        axes.set(xticks=[], yticks=[])
    line[0].set_ylabel(title)
plt.show()

# %% [markdown]
# Look at two things. Count the red numbers in each row: a robust network has
# fewer of them at the same epsilon. And check that you can still read the
# digits yourself. If you cannot, this epsilon is too large for the task.

# %% [markdown]
# ## Use your own data and network
#
# - **Data**:
#   `ke.datasets.load("stanford_dogs", image_size=(224, 224), download=True)`.
#   Instead of the name, pass any tfds name, or a folder of images.
# - **Network**: `ke.models.classifier("resnet_50_imagenet", num_classes)`. Pass
#   the name of any KerasHub preset with an image input. For your own Keras
#   model, also say how it normalises pixels:
#   `ke.models.classifier(model, num_classes, scale=1 / 127.5, offset=-1.0)`.
# - **Epsilon**: usual values for photos are `4 / 255` and `8 / 255`.
# - **Save**: `nets["scheduled"].save("classifier.keras")` writes an ordinary
#   Keras model.
