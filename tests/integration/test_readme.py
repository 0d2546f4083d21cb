"""The README's example runs as it stands."""

import pathlib
import re
import subprocess
import sys

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_the_example_runs(capsys):
    text = (_ROOT / "README.md").read_text()
    block = next(
        block
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if "trainer.fit(" in block
    )
    block, changed = re.subn(r"epochs=20", "epochs=1, verbose=0", block)
    assert changed == 1
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["report"].num_images == 500
    assert "expected robustness" in capsys.readouterr().out


def test_importing_the_package_stays_light():
    heavy = (
        "tensorflow_datasets keras_hub matplotlib pandas pyarrow scipy "
        "sklearn tabulate jinja2 PIL"
    ).split()
    code = (
        "import sys, keras\nbefore = set(sys.modules)\nimport keras_epsched\n"
        f"print([m for m in {heavy} if m in set(sys.modules) - before])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip().endswith("[]")
