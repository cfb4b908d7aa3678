"""Hints are found by their titles: what a title quotes, a wrong answer must read."""

import re

import pytest
from answers import notebook_cells
from exercise_table import EXERCISES

TITLE = re.compile(r"<summary>Hint: ([^<]*)</summary>")


def quoted_in_titles(exercise: str) -> list[str]:
    """What stands in quotation marks in the titles of hints, without the dots at its end. Questions quote nobody."""
    titles = [title for cell in notebook_cells(exercise) for title in TITLE.findall(cell["source"])]
    quoting = [title for title in titles if not title.endswith("?")]
    return [words.rstrip(" …") for title in quoting for words in re.findall("“([^”]*)”", title)]


@pytest.mark.parametrize("name", EXERCISES)
def test_what_a_title_quotes_is_what_a_wrong_answer_reads(name: str) -> None:
    read = [wrong.words for wrong in EXERCISES[name].wrong]
    for words in quoted_in_titles(name):
        assert any(words in one for one in read), words


def test_titles_with_quotations_are_found() -> None:
    assert "the same start again" in quoted_in_titles("pgd_and_restarts")
