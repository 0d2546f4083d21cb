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
# We take a small, ordinary (non-robust) pretrained network and fine-tune it
# three times on handwritten digits: without any attack, on adversarial images
# of full strength from the first step ("fixed"), and with the strength ramped
# up ("scheduled",
# [Ngnawé et al., ICLR 2026](https://arxiv.org/abs/2509.23325)). Then we
# measure how accurate each is at every strength.
#
# Everything is offline. It takes about ten minutes on two CPU cores. On a free
# T4 we expect a few, most of them for compiling: an estimate, which nobody has
# measured. In Colab choose *Runtime > Change runtime type > T4 GPU* first.

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
# Digits of 8 x 8 pixels, enlarged to 32 x 32; and a small residual network
# that was pretrained on rendered letters. `classifier` puts the normalisation
# inside, so that attacks act on the pixels you see, and a new head on top.

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
    warmup = steps // 20
    trainer.compile(
        optimizer=keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(
                0.0,
                steps - warmup,
                warmup_target=LEARNING_RATE,
                warmup_steps=warmup,
            ),
            weight_decay=1e-4,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = trainer.fit(
        data.train,
        validation_data=data.validation,
        epochs=EPOCHS,
        shuffle=False,  # the dataset shuffles
        verbose=0,
        callbacks=[ke.callbacks.EpsilonScheduler(schedule)],
    )
    return net, history.history


# %% [markdown]
# ## Three trainings
#
# The same network, head, data and learning rate; only epsilon differs. The
# trainer warns where the moving statistics of BatchNorm lag behind, as they do
# in the first epochs.

# %%
schedules = {
    "standard": ke.schedules.Constant(0.0),
    "fixed": ke.schedules.Constant(EPSILON),
    "scheduled": ke.schedules.TwoHinge(EPSILON, 0.25, 0.75),
}
nets, histories = {}, {}
for name, schedule in schedules.items():
    nets[name], histories[name] = fine_tune(schedule)
    print(name, f"{histories[name]['val_accuracy'][-1]:.1%} clean validation")

# %% [markdown]
# Clean validation accuracy against epochs, with epsilon below. The fixed run
# ends far less accurate on clean digits; the scheduled one learns the task
# first and keeps most of it while epsilon rises.

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
# ## How robust are they?
#
# Accuracy on all test images at nine strengths, under the default attack: two
# versions of Auto-PGD that follow the margin between the right class and
# others. Like any attack it gives an upper bound; weaker ones, as PGD on the
# loss of the training, leave several points more. *Expected robustness* is the
# mean over the strengths: the area under the curve.

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

# %%
ke.evaluation.plot_curves(reports)

# %% [markdown]
# ## What the attack sees
#
# The first row is clean, and read by the scheduled network. Below, the same
# digits as the attack leaves them for the standard and for the scheduled
# network, at a third of the target and at the target. Above each digit: what
# the network takes it for, red if wrong.

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
# ## Your own data and network
#
# - `ke.datasets.load("stanford_dogs", image_size=(224, 224), download=True)`
#   takes any tfds name, a prepared folder, or an image folder.
# - `ke.models.classifier("resnet_50_imagenet", num_classes)` takes any KerasHub
#   preset; for a Keras model say how its pixels are normalised:
#   `classifier(model, num_classes, scale=1 / 127.5, offset=-1.0)`.
# - Typical strengths for photos are `4 / 255` and `8 / 255`.
# - `nets["scheduled"].save("classifier.keras")` saves an ordinary Keras model.
