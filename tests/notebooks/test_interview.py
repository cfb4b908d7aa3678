"""The interview: an answer takes two minutes, its numbers are computed, each part has an anchor; and the checklist."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
import yaml

from robustness_lib.notebook import glued

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
QUESTIONS = ("pgd", "tradeoff", "certified", "jpeg", "pipeline")
WORDS = range(260, 301)  # two minutes, at 130 to 150 a minute
GLUE = re.compile(r"\{glue:text\}`([\w-]+)`")
ANCHOR = re.compile(r"^\(([\w-]+)\)=$", re.M)
# Names, and the level of every interval in the book: digits that no cell could have computed.
NAMES = r"\b95 %|\bL2\b|2ε"


@dataclass
class Question:
    """One question of the page: its Markdown, and its code cells."""

    text: str
    code: list[nbformat.NotebookNode]

    def speech(self) -> str:
        return "\n".join(line[1:] for line in self.text.splitlines() if line.startswith(">"))

    def follow_ups(self) -> list[tuple[str, str]]:
        """Anchor and body of each dropdown."""
        return re.findall(r"^\(([\w-]+)\)=\n```\{dropdown\} (.*?)^```", self.text, flags=re.S | re.M)


@pytest.fixture(scope="module")
def page() -> nbformat.NotebookNode:
    return nbformat.read(BOOK / "interview.ipynb", as_version=4)


@pytest.fixture(scope="module")
def values() -> dict[str, str]:
    return glued("book/interview")


@pytest.fixture(scope="module")
def questions(page: nbformat.NotebookNode) -> dict[str, Question]:
    found: dict[str, Question] = {}
    for cell in page.cells:
        starts = re.match(r"\(interview-(\w+)\)=\n## \d\. ", cell.source)
        if starts:
            found[starts[1]] = Question("", [])
        if found:
            last = found[list(found)[-1]]
            if cell.cell_type == "code":
                last.code.append(cell)
            else:
                last.text += cell.source + "\n\n"
    return found


@pytest.fixture(params=QUESTIONS)
def question(request: pytest.FixtureRequest, questions: dict[str, Question]) -> Question:
    return questions[request.param]


def as_spoken(text: str, values: dict[str, str]) -> str:
    """The text as it is read aloud: values in place, of links and terms the words, without marks."""
    text = GLUE.sub(lambda name: values[name[1]], text)
    text = re.sub(r"\{term\}`([^`<]+?)(?: <[^>]+>)?`", r"\1", text)
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("*", "")


def markdown(page: nbformat.NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in page.cells if cell.cell_type == "markdown")


def test_five_questions(questions: dict[str, Question]) -> None:
    assert tuple(questions) == QUESTIONS


def test_an_answer_takes_two_minutes(question: Question, values: dict[str, str]) -> None:
    words = as_spoken(question.speech(), values).split()
    assert len(words) in WORDS, f"{len(words)} words"


def test_words_are_counted_as_they_are_spoken() -> None:
    text = "so {term}`many <few>` [as a link](02_pgd), *and* {glue:text}`say-x` then"
    assert as_spoken(text, {"say-x": "82\u00a0percent"}).split() == [
        "so", "many", "as", "a", "link,", "and", "82", "percent", "then"]


def test_each_has_a_question_follow_ups_and_the_wrong_answer(question: Question) -> None:
    parts = [question.text.find(mark) for mark in (
        "\n**“", "\n> ", "\n*In full*", "\n### They will ask", "\n```{dropdown}",
        "\n```{admonition} The common wrong answer", "\nRests on ")]
    assert -1 not in parts
    assert parts == sorted(parts)
    assert 3 <= len(question.follow_ups()) <= 5
    assert question.text.count("{dropdown}") == len(question.follow_ups()), "a follow-up has no anchor"
    for anchor, body in question.follow_ups():
        title, _, answer = body.partition("\n")
        assert title.strip()
        assert 20 <= len(answer.split()) <= 90, f"{anchor}: a short answer, please"


def test_each_has_one_figure(question: Question) -> None:
    drawn = [cell for cell in question.code
             if any("image/png" in output.get("data", {}) for output in cell.outputs)]
    assert len(drawn) == 1
    figure = drawn[0].metadata.mystnb.figure
    assert figure.name.startswith("fig-interview-")
    assert figure.caption


def test_every_number_is_glued(page: nbformat.NotebookNode) -> None:
    """What is left without values, citations, code, links and anchors has no digit in it."""
    prose = re.sub(r"^```.*?$", lambda fence: fence[0].strip("`"), markdown(page), flags=re.M)
    prose = re.sub(r"\{[\w:]+\}`[^`]*`|`[^`]*`|\]\([^)]*\)|^\([\w-]+\)=$|^## \d\.", "", prose, flags=re.M)
    prose = re.sub(r"^- \*\*To read:.*$", "", re.sub(NAMES, "", prose), flags=re.M)
    assert not [line for line in prose.splitlines() if re.search(r"\d", line)]


def test_all_that_is_glued_is_shown_and_the_other_way_round(
    page: nbformat.NotebookNode, values: dict[str, str]
) -> None:
    assert set(GLUE.findall(markdown(page))) == set(values)


def test_what_is_said_in_percent_stands_in_full_beside_it(question: Question, values: dict[str, str]) -> None:
    """An accuracy that is spoken without its interval has it in the line below the figure."""
    said = [name for name in GLUE.findall(question.speech()) if name.startswith("say-")]
    assert len(said) >= 4
    line = question.text[question.text.index("*In full*"):question.text.index("### They will ask")]
    for name in said:
        full = name.replace("say-", "full-", 1)
        assert full in GLUE.findall(line), f"{name} has no {full} in the line in full"
        number, low, high = map(float, re.findall(r"[\d.]+", values[full]))
        assert abs(float(values[name].removesuffix("\u00a0percent")) - number) <= 0.55  # both are rounded
        assert low - 0.5 <= number <= high + 0.5
    assert re.search(r"n =\s+\{glue", line)


def test_anchors_are_unique_in_the_whole_book(page: nbformat.NotebookNode) -> None:
    here = ANCHOR.findall(markdown(page))
    assert len(here) >= 5 * (1 + 3 + 1)  # the question, three follow-ups, the wrong answer
    assert all(anchor.startswith("interview-") for anchor in here)
    everywhere = [anchor for path in sorted(BOOK.glob("*.ipynb"))
                  for anchor in ANCHOR.findall(markdown(nbformat.read(path, as_version=4)))]
    everywhere += [anchor for path in sorted(BOOK.glob("*.md")) for anchor in ANCHOR.findall(path.read_text("utf-8"))]
    assert not [anchor for anchor in here if everywhere.count(anchor) != 1]


def test_links_lead_to_pages_of_the_book(page: nbformat.NotebookNode) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:\.ipynb)?\)", markdown(page)):
        assert [path for path in BOOK.glob(f"{target}.*") if path.suffix in (".md", ".ipynb")], target


def boxes() -> list[str]:
    """Each line of the checklist with what belongs to it, in one line."""
    text = (BOOK / "checklist.md").read_text(encoding="utf-8")
    return re.findall(r"^- ☐ .*$", re.sub(r"\n  (?=\S)", " ", text), flags=re.M)


def test_each_line_of_the_checklist_links_to_what_explains_it() -> None:
    assert len(boxes()) >= 20
    for line in boxes():
        ends = re.search(r"· \[[^\]]+\]\(([\w]+)(?:\.ipynb)?\)$", line)
        assert ends, line
        assert [path for path in BOOK.glob(f"{ends[1]}.*") if path.suffix in (".md", ".ipynb")], line


def test_the_checklist_follows_the_interview() -> None:
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    files = [chapter["file"] for part in parts for chapter in part["chapters"]]
    assert files[files.index("book/interview") + 1] == "book/checklist"
    assert "](checklist)" in markdown(nbformat.read(BOOK / "interview.ipynb", as_version=4))
