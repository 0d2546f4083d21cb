"""Reports on studies: tables and figures, and pages to fill with them."""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence

from keras_epsched import files
from keras_epsched.studies import results


def report(
    found: Sequence[str | os.PathLike],
    output: str | os.PathLike | None = None,
    pages: Sequence[str | os.PathLike] = (),
) -> dict[str, str | pathlib.Path]:
    """Turns the results of studies into tables, pictures and tests.

    For each study: the paper's tables 1 and 2 (clean, at the target, expected,
    with standard errors over seeds and the paper's own figures where a cell is
    the same), 7 (hinges) and 8 (random epsilon), paired tests, delays, what of
    the paper's claims holds, and figures 1 (suboptimal transfer), 3 (delay), 4
    (curves) and 5 (aggregates). What a study has no cells for is left out.
    Needs `pip install "keras-epsched[study]"`.

    Args:
        found: Files of results (results.parquet of a study, or another name),
            one of each study; or several that belong together, separated by
            commas and named by the first or as `NAME=PATH,PATH`.
        output: Folder of what is written. Defaults to that of the results.
        pages: Markdown pages to fill in, which have places such as
            `<!-- digits.claims --> ... <!-- end -->`.

    Returns:
        A dict from `NAME.KIND` to tables, as Markdown, and to the paths of
        pictures.

    Raises:
        ValueError: If a file holds no results, or a page has a place that
            there is nothing for. No page is changed then.

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
    """Returns the name of a study: that of its file, or of its run folder."""
    return path.resolve().parent.name if path.stem == "results" else path.stem


def studies(
    found: Sequence[str | os.PathLike],
) -> dict[str, list[pathlib.Path]]:
    """Returns name and paths of each study.

    Raises:
        ValueError: If two have the same name.
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
                f"two studies have the name {name!r}: give one another, as "
                f"NAME={listed}"
            )
        named[name] = paths
    return named


def report_on(
    name: str, paths: Sequence[pathlib.Path], output: str | os.PathLike | None
) -> dict[str, str | pathlib.Path]:
    """Writes the report of one study, NAME.md.

    Args:
        name: String. Name of the study.
        paths: Paths of its results.
        output: Folder of what is written. Defaults to that of the results.

    Returns:
        A dict from `NAME.KIND` to its tables and the paths of its pictures.
    """
    # What they import is heavy.
    from keras_epsched.studies import figures, tables

    frame = results.read(*paths)
    folder = pathlib.Path(output or paths[0].parent)
    folder.mkdir(parents=True, exist_ok=True)
    made = tables.sections(frame)
    # Twice, so that a picture that fails takes no table with it.
    files.write(folder / f"{name}.md", _page(name, made))
    pictures = figures.draw(frame, folder, name)
    links = {key: f"![{key}]({each})" for key, each in pictures.items()}
    files.write(folder / f"{name}.md", _page(name, {**made, **links}))
    drawn = {key: folder / each for key, each in pictures.items()}
    return {f"{name}.{key}": each for key, each in {**made, **drawn}.items()}


def _page(name, sections):
    lines = [f"# {name}"]
    for key, section in sections.items():
        lines += [f"## {key.replace('_', ' ')}", section]
    return "\n\n".join(lines) + "\n"


def fill(page: str, blocks: Mapping[str, str]) -> str:
    """Replaces what stands in the places of a page.

    Args:
        page: Text with `<!-- NAME -->` and `<!-- end -->` around each place.
        blocks: Mapping from names to texts.

    Returns:
        The text with the places filled.

    Raises:
        ValueError: If a place has a name that there is no block for.
    """

    def replaced(match):
        name = match["name"]
        if name not in blocks:
            raise ValueError(
                f"the page has a place for {name!r}; the results give "
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
    """Returns blocks with pictures as a page in Markdown links to them."""
    texts = {}
    for name, block in blocks.items():
        if isinstance(block, pathlib.Path):
            place = pathlib.Path(os.path.relpath(block, page.parent))
            block = f"![{name.split('.')[-1]}]({place.as_posix()})"
        texts[name] = block
    return texts
