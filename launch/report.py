r"""Makes tables and pictures of the results of studies.

Each study gets a Markdown file, NAME.md, with all its tables and links to all
its pictures:

- a verdict on each of the paper's claims;
- clean accuracy, accuracy at the target epsilon and expected robustness, in the
  form of the paper's Tables 1, 2, 7 and 8, beside the paper's own numbers for
  the same cell;
- paired tests, and the delay of the fixed epsilon;
- expected robustness by the cost of the training, if a study varies steps and
  epochs;
- pictures in the form of the paper's Figures 1, 3, 4 and 5.

A table or picture that a study has no cells for is left out. Fewer than three
seeds or cells get no standard error, interval or test: the tables show the
values. Needs `pip install -e ".[study]"`.

Examples:
  python launch/report.py --results=runs/digits/results.parquet
  # The page has places such as <!-- digits.claims --> ... <!-- end -->. Their
  # content is replaced.
  python launch/report.py --results=reproduction/digits.parquet \
      --results=both=runs/digits/results.parquet,runs/flowers/results.parquet \
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
    "The file of results of one study, such as runs/digits/results.parquet. "
    "For a study of several files, separate them with commas. The study has "
    "the name of the first file, or NAME if the value is NAME=PATH,PATH. "
    "Repeat the flag for other studies.",
    required=True,
)
flags.DEFINE_string(
    "output",
    None,
    "Folder for tables and pictures; default: the folder of the results.",
)
flags.DEFINE_multi_string(
    "page",
    [],
    "A Markdown page to fill. Repeat the flag for other pages.",
)
for name in ("results", "output", "page"):
    usage.add(name)


def main():
    with refusing():
        blocks = studies.report(FLAGS.results, FLAGS.output, FLAGS.page)
    for name, block in blocks.items():
        print(f"\n## {name}\n\n{block}")
    for page in FLAGS.page:
        print(f"filled: {page}")


if __name__ == "__main__":
    app.run(main)
