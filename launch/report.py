r"""Turns the results of studies into tables, pictures and tests.

For each file of results (results.parquet of study.py) it makes the tables and
figures of the paper for which the study has cells:

- tables 1 and 2: clean accuracy, accuracy at the target, expected robustness,
  with standard errors over seeds, and the paper's numbers for the same cells;
- tables 7 (hinges) and 8 (random epsilon); paired tests; delays; which of the
  paper's claims hold;
- figures 1 (suboptimal transfer), 3 (delay), 4 (curves) and 5 (aggregates).

Needs `pip install -e ".[study]"`.

Examples:
  python launch/report.py --results=runs/digits/results.parquet
  # Fills the places of a page, as <!-- digits.claims --> ... <!-- end -->:
  python launch/report.py --results=reproduction/digits.parquet \
      --results=photos=reproduction/birds.parquet,reproduction/flowers.parquet \
      --output=reproduction --page=REPRODUCTION.md
"""

import app
import usage
from absl import flags

from keras_epsched import studies
from keras_epsched.runs.checks import refusing

FLAGS = flags.FLAGS
flags.DEFINE_multi_string(
    "results",
    None,
    "A file of results, or several that belong together, separated by commas. "
    "They are named after the first, or as NAME=PATH,PATH. Repeat the flag for "
    "other studies.",
    required=True,
)
flags.DEFINE_string(
    "output", None, "Folder to write to. Default: that of the results."
)
flags.DEFINE_multi_string(
    "page", [], "A Markdown page to fill in. Repeat the flag for others."
)
for name in ("results", "output", "page"):
    usage.add(name)


def main():
    with refusing():
        blocks = studies.report(FLAGS.results, FLAGS.output, FLAGS.page)
    for name, block in blocks.items():
        print(f"\n## {name.replace('_', ' ')}\n\n{block}")
    for page in FLAGS.page:
        print(f"filled: {page}")


if __name__ == "__main__":
    app.run(main)
