"""Reports on studies: tables, pictures, and the pages that show them."""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence

from keras_epsched import files
from keras_epsched.studies import results, sections


def report(
    found: Sequence[str | os.PathLike],
    output: str | os.PathLike | None = None,
    pages: Sequence[str | os.PathLike] = (),
) -> dict[str, str | pathlib.Path]:
    """Makes tables and pictures of the results of studies.

    Each study gets a Markdown file, `NAME.md`, with all its tables and links to
    all its pictures:

    - a verdict on each of the paper's claims;
    - clean accuracy, accuracy at the target epsilon and expected robustness,
      in the form of the paper's Tables 1, 2, 7 and 8, beside the paper's own
      numbers for the same cell;
    - paired tests, and the delay of the fixed epsilon;
    - how other schedules and flags compare with the fixed epsilon and with the
      default;
    - expected robustness by the cost of the training, if a study varies steps
      and epochs;
    - pictures in the form of the paper's Figures 1, 3, 4 and 5.

    A table or picture that a study has no cells for is left out. Fewer than
    three seeds or cells get no standard error, interval or test: the tables
    show the values. Needs `pip install "keras-epsched[study]"`.

    Args:
        found: One string or path for each study: its file of results, such as
            results.parquet. For a study of several files, separate them with
            commas. The study has the name of the first file, or `NAME` if
            the string is `NAME=PATH,PATH`.
        output: Folder for the files. Defaults to the folder of the results.
        pages: Markdown pages to fill. A page has places such as
            `<!-- digits.claims --> ... <!-- end -->`, whose content is
            replaced.

    Returns:
        A dict from `NAME.KIND` to tables, as Markdown, and to the paths of
        pictures.

    Raises:
        ValueError: If a file holds no results, or if a page has a place for a
            table or picture that the results do not give. No page is changed
            then.

    Example:
    ```python
    blocks = keras_epsched.studies.report(["runs/digits/results.parquet"])
    print(blocks["digits.claims"])
    ```
    """
    blocks: dict[str, str | pathlib.Path] = {}
    for name, paths in studies(found).items():
        blocks.update(report_on(name, paths, output))
    filled = {
        page: fill(page.read_text(encoding="utf-8"), as_seen_from(page, blocks))
        for page in map(pathlib.Path, pages)
    }
    for page, text in filled.items():
        files.write(page, text)
    return blocks


def name_of(path: pathlib.Path) -> str:
    """Returns the name of a study: of its file, or of its run folder.

    The name of a file called results.parquet says nothing, so such a study has
    the name of the folder.
    """
    return path.resolve().parent.name if path.stem == "results" else path.stem


def studies(
    found: Sequence[str | os.PathLike],
) -> dict[str, list[pathlib.Path]]:
    """Returns the paths of the results of each study, by its name.

    Args:
        found: As `report` takes it.

    Raises:
        ValueError: If two studies have the same name.
    """
    named: dict[str, list[pathlib.Path]] = {}
    for given in found:
        text = os.fspath(given)
        match = re.match(r"([\w-]+)=", text)
        listed = text[match.end() :] if match else text
        paths = [pathlib.Path(each) for each in listed.split(",")]
        name = match[1] if match else name_of(paths[0])
        if name in named:
            raise ValueError(
                f"two studies have the name {name!r}. Name one of them "
                f"differently: NAME={listed}"
            )
        named[name] = paths
    return named


def report_on(
    name: str, paths: Sequence[pathlib.Path], output: str | os.PathLike | None
) -> dict[str, str | pathlib.Path]:
    """Writes the pictures of one study, and NAME.md with all its sections.

    Args:
        name: String. Name of the study.
        paths: Paths of its results.
        output: Folder for the files. Defaults to the folder of the results.

    Returns:
        A dict from `NAME.KIND` to its tables and the paths of its pictures.
    """
    # They import SciPy and Matplotlib, which takes long.
    from keras_epsched.studies import figures, tables

    frame = results.read(*paths)
    folder = pathlib.Path(output or paths[0].parent)
    folder.mkdir(parents=True, exist_ok=True)
    made = tables.sections(frame)
    # The tables are written first: they stay if a picture cannot be drawn.
    page = folder / f"{name}.md"
    files.write(page, sections.page(name, frame, made))
    pictures = figures.draw(frame, folder, name)
    links = {kind: _link(kind, each) for kind, each in pictures.items()}
    texts = {**made, **links}
    files.write(page, sections.page(name, frame, texts))
    drawn = {key: folder / each for key, each in pictures.items()}
    return {f"{name}.{key}": each for key, each in {**made, **drawn}.items()}


def _link(kind, path):
    return f"![{sections.title(kind)}]({path})"


def fill(page: str, blocks: Mapping[str, str]) -> str:
    """Replaces the content of the places of a page.

    Args:
        page: Text with `<!-- NAME -->` and `<!-- end -->` around each place.
        blocks: Mapping from names to texts.

    Returns:
        The text with the places filled.

    Raises:
        ValueError: If there is no block with the name of a place.
    """

    def replaced(match):
        name = match["name"]
        if name not in blocks:
            raise ValueError(
                f"the page has a place for {name!r}, which the results do not "
                "give. Remove the place, or use one of: "
                f"{', '.join(sorted(blocks))}"
            )
        return f"<!-- {name} -->\n\n{blocks[name]}\n\n<!-- end -->"

    return re.sub(
        r"<!-- (?P<name>[\w.-]+) -->\n.*?<!-- end -->",
        replaced,
        page,
        flags=re.S,
    )


def as_seen_from(
    page: pathlib.Path, blocks: Mapping[str, str | pathlib.Path]
) -> dict[str, str]:
    """Returns all blocks as text: a picture as the link that a page needs."""
    texts = {}
    for name, block in blocks.items():
        if isinstance(block, pathlib.Path):
            place = pathlib.Path(os.path.relpath(block, page.parent))
            block = _link(name.split(".")[-1], place.as_posix())
        texts[name] = block
    return texts
