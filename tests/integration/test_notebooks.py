"""The notebooks agree with their sources, and run."""

import pathlib
import re

import jupytext
import nbclient
import nbformat
import pytest

_COLAB = pathlib.Path(__file__).resolve().parents[2] / "colab"
_NOTEBOOKS = sorted(path.stem for path in _COLAB.glob("*.py"))
_PICTURES = {
    "quickstart": 3,
    "your_data_and_model": 3,
    "evaluate_any_model": 2,
    "reproduce_the_paper": 2,
}


def _cells(notebook):
    return [(cell.cell_type, cell.source.strip()) for cell in notebook.cells]


@pytest.mark.parametrize("name", _NOTEBOOKS)
def test_notebook_is_its_source_without_outputs(name):
    notebook = nbformat.read(_COLAB / f"{name}.ipynb", as_version=4)
    source = jupytext.read(_COLAB / f"{name}.py")
    assert _cells(notebook) == _cells(source)
    assert not any(cell.get("outputs") for cell in notebook.cells)


@pytest.mark.parametrize("name", _NOTEBOOKS)
def test_the_page_of_a_notebook_has_its_text_and_pictures(name):
    page = _COLAB.parent / "docs" / "tutorials" / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    source = jupytext.read(_COLAB / f"{name}.py")
    for cell in source.cells:
        if cell.cell_type == "markdown":
            # How it was run stands below the title.
            for paragraph in cell.source.strip().split("\n\n"):
                assert paragraph in text
    pictures = re.findall(r"!\[png\]\((.*?)\)", text)
    assert len(pictures) == _PICTURES[name]
    assert all((page.parent / each).exists() for each in pictures)


# Not by default: .ci/run names them.
@pytest.mark.slow
@pytest.mark.parametrize("name", _NOTEBOOKS)
def test_notebook_runs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_EPSCHED_SMOKE", "1")
    notebook = nbformat.read(_COLAB / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    nbformat.write(notebook, tmp_path / "executed.ipynb")
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == _PICTURES[name]
