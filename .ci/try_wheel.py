"""Uses the installed wheel: its code, and the data that it brings."""

import pathlib

import keras_epsched as ke

assert pathlib.Path(ke.__file__).parent.parent.name == "alone", ke.__file__
data = ke.datasets.load("digits", image_size=(32, 32), test_examples=20)
net = ke.models.classifier("resnet_letters", 10, image_size=(32, 32))
report = ke.evaluate(net, data.test, [0.0, 0.1], ke.attacks.PGD(2), verbose=0)
# What the launchers do, without them.
config = ke.runs.Comparison(
    epochs=1,
    train_steps=1,
    test_examples=20,
    num_epsilons=3,
    eval_attack="apgd",
    eval_steps=1,
    schedules=("fixed", "scheduled"),
    protocols=("nested",),
    output="compared",
)
print(ke.runs.compare(config, verbose=0))
assert pathlib.Path("compared/curve.png").exists()
ke.evaluation.write_html({"net": report}, "report.html")
ke.evaluation.write_model_card(report, "card/README.md", {})
print(f"the wheel works: {ke.__version__}")
