"""Importing the package stays light."""

import subprocess
import sys


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
