r"""Turns the results of studies into tables, pictures and tests.

For each file of results (results.parquet of study.py, or another name): the
paper's tables 1 and 2 (clean, at the target, expected, with standard errors
over seeds and the paper's own figures where a cell is the same), 7 (hinges) and
8 (random epsilon), paired tests, delays, what of the paper's claims holds, and
figures 1 (suboptimal transfer), 3 (delay), 4 (curves) and 5 (aggregates). What
a study has no cells for is left out. Needs `pip install -e ".[study]"`.

Examples:
  python launch/report.py --results=runs/digits/results.parquet
  # Fills the places of a page, as <!-- digits.claims --> ... <!-- end -->:
  python launch/report.py --results=reproduction/digits.parquet \
      --results=photos=reproduction/birds.parquet,reproduction/flowers.parquet \
      --output=reproduction --page=REPRODUCTION.md
"""

import os
import pathlib
import re

import refusals
import report_figures
import report_tables
from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_multi_string(
    "results",
    None,
    "Results of a study, or of several that belong together, separated by "
    "commas and named by the first or as NAME=PATH,PATH; repeat it for other "
    "studies.",
    required=True,
)
flags.DEFINE_string(
    "output", None, "Folder of what is written; default: that of the results."
)
flags.DEFINE_multi_string(
    "page", [], "A Markdown page to fill in; repeat it for others."
)


def name_of(path):
    """The name of a study: that of its file, or of its run folder."""
    return path.resolve().parent.name if path.stem == "results" else path.stem


def fill(page, blocks):
    """Replaces what stands in the places of a page.

    Args:
        page: Text with `<!-- NAME -->` and `<!-- end -->` around each place.
        blocks: Dict from names to texts.

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


def studies(results):
    """Name and paths of each study of the flag.

    Raises:
        ValueError: If two have the same name.
    """
    found = {}
    for value in results:
        name, files = re.fullmatch(r"(?:([\w-]+)=)?(.*)", value).groups()
        paths = [pathlib.Path(each) for each in files.split(",")]
        name = name or name_of(paths[0])
        if name in found:
            raise ValueError(
                f"two studies have the name {name!r}: give one another, as "
                f"--results=NAME={files}"
            )
        found[name] = paths
    return found


def report_on(name, paths, blocks):
    """Writes the report of one study, and adds its parts to `blocks`.

    Args:
        name: String. Name of the study.
        paths: List of paths of results.
        blocks: Dict from `NAME.KIND` to tables, as text, and to the paths of
            pictures.
    """
    frame = report_tables.read(*paths)
    folder = pathlib.Path(FLAGS.output or paths[0].parent)
    folder.mkdir(parents=True, exist_ok=True)
    tables = report_tables.sections(frame)
    report = folder / f"{name}.md"
    # Twice, so that a picture that fails takes no table with it.
    _write(report, name, tables)
    pictures = report_figures.draw(frame, folder, name)
    links = {key: f"![{key}]({each})" for key, each in pictures.items()}
    _write(report, name, {**tables, **links})
    print(report.read_text(encoding="utf-8"))
    print(f"written: {report}", flush=True)
    paths = {key: folder / each for key, each in pictures.items()}
    blocks.update({f"{name}.{k}": v for k, v in {**tables, **paths}.items()})


def as_seen_from(page, blocks):
    """The same, with pictures as a page in Markdown links to them."""
    texts = {}
    for name, block in blocks.items():
        if isinstance(block, pathlib.Path):
            place = pathlib.Path(os.path.relpath(block, page.parent))
            block = f"![{name.split('.')[-1]}]({place.as_posix()})"
        texts[name] = block
    return texts


def _write(path, name, sections):
    lines = [f"# {name}"]
    for key, section in sections.items():
        lines += [f"## {key.replace('_', ' ')}", section]
    path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")


def main(_):
    blocks = {}
    with refusals.checking():
        for name, paths in studies(FLAGS.results).items():
            report_on(name, paths, blocks)
        filled = {
            page: fill(
                page.read_text(encoding="utf-8"), as_seen_from(page, blocks)
            )
            for page in map(pathlib.Path, FLAGS.page)
        }
        for page, text in filled.items():
            page.write_text(text, encoding="utf-8")
            print(f"filled: {page}")


if __name__ == "__main__":
    refusals.run(main)
