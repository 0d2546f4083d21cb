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

import app
from absl import flags

from keras_epsched import studies
from keras_epsched.runs.checks import refusing

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


def main():
    with refusing():
        blocks = studies.report(FLAGS.results, FLAGS.output, FLAGS.page)
    for name, block in blocks.items():
        print(f"\n## {name.replace('_', ' ')}\n\n{block}")
    for page in FLAGS.page:
        print(f"filled: {page}")


if __name__ == "__main__":
    app.run(main)
