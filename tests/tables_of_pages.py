"""Reads the Markdown tables of pages."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def columns_of(table):
    """The rows of a table, as dicts from the header to the text."""
    lines = [
        [each.strip() for each in line.strip("|").split("|")]
        for line in table.splitlines()
    ]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def table_below(page, words):
    """The first table of a page below some words."""
    below = text_of(page).split(words)[1]
    return re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)[0]


def rows_below(page, heading):
    """The rows of the first table below a heading, as lists of texts."""
    return [
        [each.strip(" `") for each in line.strip("|\n").split("|")]
        for line in table_below(page, heading + "\n").splitlines()[2:]
    ]
