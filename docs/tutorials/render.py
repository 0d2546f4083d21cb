r"""Runs a notebook of colab/ and writes it as a page of the site, with outputs.

The notebooks themselves stay free of outputs. A constant can be replaced, for
data or weights that are at hand; the page shows the value that was used, and
says on top which were replaced.

Examples:
  python docs/tutorials/render.py quickstart
  python docs/tutorials/render.py your_data_and_model EPOCHS=3 SIZE=64
"""

import os
import pathlib
import re
import shutil
import sys
import tempfile
import time

import jupytext
import nbclient
import nbconvert
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

_HERE = pathlib.Path(__file__).resolve().parent
_COLAB = _HERE.parents[1] / "colab"
# Escape codes of terminals, and progress bars that a later one overwrites.
_UNREADABLE = re.compile(r"\x1b\[[\d;]*m|[^\n]*\r(?!\n)|\x08+")


def replace(notebook, name, value):
    """Sets a constant of the notebook."""
    assignment = re.compile(rf"^{re.escape(name)} = .*$", re.MULTILINE)
    for cell in notebook.cells:
        if cell.cell_type == "code" and assignment.search(cell.source):
            found = assignment.search(cell.source)[0]
            cell.source = cell.source.replace(found, f"{name} = {value}")
            return
    raise SystemExit(f"the notebook sets no {name}")


def tidy(notebook):
    """Drops what reads badly outside of a notebook, as logs of libraries."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [x for x in cell.outputs if x.get("name") != "stderr"]
        for output in cell.outputs:
            if output.output_type == "stream":
                output.text = _UNREADABLE.sub("", output.text)


def main(name, *settings):
    """Writes NAME.md beside this file, and its pictures into NAME/."""
    notebook = jupytext.read(_COLAB / f"{name}.py")
    for setting in settings:
        replace(notebook, *setting.split("=", 1))
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        nbclient.NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
        ).execute()
    minutes = (time.monotonic() - started) / 60
    tidy(notebook)
    exporter = nbconvert.MarkdownExporter()
    exporter.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)
    text, resources = exporter.from_notebook_node(
        notebook, {"unique_key": name, "output_files_dir": name}
    )
    shutil.rmtree(_HERE / name, ignore_errors=True)
    for path, content in resources["outputs"].items():
        (_HERE / path).parent.mkdir(exist_ok=True)
        (_HERE / path).write_bytes(content)
    title, body = text.strip().split("\n", 1)
    note = f"*The notebook `colab/{name}.ipynb`, as it ran in {minutes:.0f} "
    note += "min on two CPU cores."
    if os.environ.get("KERAS_EPSCHED_SMOKE"):
        note += " This is the quick run of the tests: its numbers say nothing."
    if settings:
        replaced = ", ".join(f"`{setting}`" for setting in settings)
        note += f" Replaced: {replaced}."
    (_HERE / f"{name}.md").write_text(
        f"{title}\n\n{note}*\n{body}\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
