"""Every committed chapter: whole, executed, clean, readable on a phone, and able to fail."""

from __future__ import annotations

import ast
import re
import warnings
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from robustness_lib import notebook as notebook_module

BOOK = Path(__file__).resolve().parents[2] / "book"
CHAPTERS = sorted(path for path in BOOK.glob("*.ipynb"))
COLUMNS = 72
FRONT = ("# Attack, Defend, Certify", 1)  # the front page is no chapter, and has one check
FEWEST_CHECKS = 5
MOST_VISIBLE_ASSERTS = 1  # chapter 11's evaluator from scratch trusts no attack


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def chapter(request: pytest.FixtureRequest) -> NotebookNode:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nbformat only warns of missing or doubled cell ids
        notebook = nbformat.read(request.param, as_version=4)
    return notebook


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def folded(cell: NotebookNode) -> bool:
    return bool({"hide-input", "hide-cell", "remove-input", "remove-cell"} & set(cell.metadata.get("tags", [])))


def python(cell: NotebookNode) -> str:
    """The cell's source without IPython's own lines."""
    return "\n".join(line for line in cell.source.splitlines() if not line.lstrip().startswith(("%", "!")))


def markdown(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_there_are_chapters() -> None:
    assert {"00_why", "01_fgsm", "02_pgd", "03_cw", "04_without_gradients"} <= {path.stem for path in CHAPTERS}


def test_valid_with_an_id_for_each_cell(chapter: NotebookNode) -> None:
    nbformat.validate(chapter)
    assert (chapter.nbformat, chapter.nbformat_minor) >= (4, 5)
    ids = [cell.id for cell in chapter.cells]
    assert len(set(ids)) == len(ids)


def test_executed_from_top_to_bottom(chapter: NotebookNode) -> None:
    counts = [cell.execution_count for cell in code_cells(chapter)]
    assert counts == list(range(1, len(counts) + 1))
    assert any(cell.outputs for cell in code_cells(chapter))


def test_no_cell_failed_or_warned(chapter: NotebookNode) -> None:
    for cell in code_cells(chapter):
        for output in cell.outputs:
            said = output.get("text", "") if output.get("name") == "stderr" else ""
            assert output.output_type != "error", f"{cell.id}: {output.get('evalue')}"
            assert not said, f"{cell.id} wrote to stderr: {said[:200]}"


def test_nothing_that_differs_from_run_to_run(chapter: NotebookNode) -> None:
    again = "save it with `make notebooks`"
    assert set(chapter.metadata) == {"kernelspec", "language_info"}, again
    assert set(chapter.metadata.language_info) == {"name"}, again
    for cell in chapter.cells:
        assert not {"execution", "ExecuteTime", "collapsed", "scrolled"} & set(cell.metadata), again
        for output in cell.get("outputs", []):
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {}), again
            text = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
            assert not re.search(r" at 0x[0-9a-f]{6}", text), f"{cell.id} shows a memory address: end it with `;`"


def test_code_fits_a_phone(chapter: NotebookNode) -> None:
    for cell in code_cells(chapter):
        long = [line for line in cell.source.splitlines() if len(line) > COLUMNS]
        assert folded(cell) or not long, f"{cell.id}: over {COLUMNS} columns: {long[0]}"


def test_begins_by_saying_how_to_install(chapter: NotebookNode) -> None:
    """The first code cell imports the library, and says in words how to install it where that fails."""
    source = code_cells(chapter)[0].source
    guards = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Try)]
    imports = [node for guard in guards for node in guard.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert any("robustness_lib" in ast.unparse(node) for node in imports)
    handlers = "".join(ast.unparse(handler) for guard in guards for handler in guard.handlers)
    assert re.search(r"(ImportError|ModuleNotFoundError)", handlers)
    assert re.search(r"pip install|make (book|lab)", handlers)


def is_front_page(notebook: NotebookNode) -> bool:
    """It has a title and a picture where a chapter says what it needs and gives."""
    return bool(notebook.cells[0].source.startswith(f"{FRONT[0]}\n"))


def test_opens_with_its_title_and_what_you_need(chapter: NotebookNode) -> None:
    assert re.match(r"(\(.*\)=\n)?# \S", chapter.cells[0].source)
    if is_front_page(chapter):
        assert "**What you need:**" in markdown(chapter)
        return
    before_code = []
    for cell in chapter.cells:
        if cell.cell_type == "code" and not folded(cell):
            break
        before_code.append(cell.source if cell.cell_type == "markdown" else "")
    opening = "\n".join(before_code).lower()
    for words in ("you need", "minutes", "seconds", "able to"):
        assert words in opening, f"the opening does not say: {words}"


def minutes_to_read(notebook: NotebookNode) -> float:
    """200 words and 12 lines of code a minute, half a minute for a figure and for a question, two for a widget. What
    only some readers open, under "Going deeper", is left out."""
    text = re.sub(r"(```|:::)\{dropdown\} Going deeper.*?\n\1\n", "", markdown(notebook) + "\n", flags=re.S)
    cells = code_cells(notebook)
    lines = sum(len(cell.source.splitlines()) for cell in cells if not folded(cell))
    shown = [str(output.get("data", {})) for cell in cells for output in cell.outputs]
    pictures, moving = (sum(sign in one for one in shown) for sign in ("image/png", "interactive widget"))
    questions = len(re.findall(r"^\*\*\d\. ", text, flags=re.M))
    return len(re.findall(r"\w[\w’'-]*", text)) / 200 + lines / 12 + (pictures + questions) / 2 + 2 * moving


def test_the_minutes_to_read_are_true(chapter: NotebookNode) -> None:
    said = re.search(r"[Tt]o read:\*\* about (\d+) minutes|about (\d+) minutes to read", markdown(chapter))
    rows = "errata" in chapter.cells[0].source.lower()  # what its cells print is read too, and is not counted here
    if said is None or rows:
        pytest.skip("says no minutes, or lists what other pages hold")
    minutes = minutes_to_read(chapter)
    assert abs(int(said[1] or said[2]) - minutes) <= max(5, 0.2 * minutes), f"about {minutes:.0f} minutes"


def checks(tree: ast.AST) -> list[ast.Call]:
    """The calls of `robustness_lib.notebook.check`."""
    return [node for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "check"]


def computed(conditions: list[ast.expr]) -> bool:
    """Whether something with a name stands in them: `assert True` checks nothing."""
    return any(isinstance(part, ast.Name) for condition in conditions for part in ast.walk(condition))


def test_has_checks_that_raise(chapter: NotebookNode) -> None:
    """At least five checks or asserts, and each on something computed."""
    trees = [ast.parse(python(cell)) for cell in code_cells(chapter)]
    conditions = [call.args[1:] for tree in trees for call in checks(tree)]
    conditions += [[node.test] for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert all(computed(each) for each in conditions)
    assert len(conditions) >= (FRONT[1] if is_front_page(chapter) else FEWEST_CHECKS)


def test_checks_are_sentences_and_no_wall_of_asserts(chapter: NotebookNode) -> None:
    """An assert says nothing to a reader: `check` does. Only inside a function may one stand, where it teaches."""
    visible = 0
    for cell in code_cells(chapter):
        tree = ast.parse(python(cell))
        inside = {part for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))
                  for part in ast.walk(node)}
        asserts = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
        bare = [ast.unparse(node) for node in asserts if node not in inside]
        assert not bare, f"{cell.id}: make it a check: {bare[0]}"
        visible += 0 if folded(cell) else len(asserts)
    assert visible <= MOST_VISIBLE_ASSERTS


def test_what_was_checked_is_shown(chapter: NotebookNode) -> None:
    """Each cell that calls `check` at its top level says so in its output, in words and as a page."""
    for cell in code_cells(chapter):
        tree = ast.parse(python(cell))
        called = [call for node in tree.body if isinstance(node, ast.Expr) for call in checks(node)]
        said = [output.data for output in cell.outputs
                if output.get("data", {}).get("text/plain", "").startswith("checked: ")]
        assert len(said) >= len(called), cell.id
        assert all("text/html" in data for data in said), cell.id


def test_a_figure_shows_nothing_beside_itself(chapter: NotebookNode) -> None:
    """A cell's caption goes under everything that the cell shows, also under a line of `check`."""
    for cell in code_cells(chapter):
        if cell.metadata.get("mystnb", {}).get("figure"):
            shown = [output for output in cell.outputs
                     if output.get("data") and "scrapbook" not in output.get("metadata", {})]
            assert len(shown) <= 1, f"{cell.id} has a caption and shows {len(shown)} things: check in the next cell"


def names_bound(tree: ast.AST) -> set[str]:
    """What a cell defines or assigns, also inside functions."""
    made = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    return made | {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def test_nothing_is_copied_from_chapter_to_chapter(chapter: NotebookNode) -> None:
    """What `robustness_lib.notebook` exports is imported, and its names mean nothing else."""
    for cell in code_cells(chapter):
        again = names_bound(ast.parse(python(cell))) & set(notebook_module.__all__)
        assert not again, f"{cell.id} defines {sorted(again)}: import it from robustness_lib.notebook"


def test_imports_only_what_is_public(chapter: NotebookNode) -> None:
    for cell in code_cells(chapter):
        for node in ast.walk(ast.parse(python(cell))):
            names = [a.name for a in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            module = getattr(node, "module", None) or ""
            if module.startswith("robustness_lib") or any(name.startswith("robustness_lib") for name in names):
                parts = [part for name in (module, *names) for part in name.split(".")]
                assert not [part for part in parts if part.startswith("_")], f"{cell.id}: {ast.unparse(node)}"


def without_code(text: str) -> str:
    """Markdown without fenced code, inline code and formulas; the words inside directives stay."""
    # A fence without a language may as well be the end of a directive.
    text = re.sub(r"^```(?:\w+$|\{(?:math|code)).*?^```", "", text, flags=re.S | re.M)
    return re.sub(r"`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]+\$", "", text, flags=re.S)


def test_every_picture_in_the_text_has_words_for_it(chapter: NotebookNode) -> None:
    text = without_code(markdown(chapter))
    assert not re.findall(r"!\[\s*\]\([^)]*\)", text)
    for tag in re.findall(r"<img\b[^>]*>", text):
        assert re.search(r'alt="[^"]+', tag), tag


def test_every_figure_has_words_for_it(chapter: NotebookNode) -> None:
    """A cell that draws carries alt text: `"mystnb": {"image": {"alt": …}}` in its metadata.

    A picture that is glued goes into the page elsewhere, under its own caption.
    """
    for cell in code_cells(chapter):
        shown = [
            output for output in cell.outputs
            if "image/png" in output.get("data", {}) and "scrapbook" not in output.get("metadata", {})
        ]  # fmt: skip
        if shown and not {"remove-cell", "remove-output"} & set(cell.metadata.get("tags", [])):
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt.split()) >= 5, f"{cell.id} draws a figure and has no alt text"


def test_the_prose_is_plain(chapter: NotebookNode) -> None:
    """No HTML beyond fold-outs and line breaks, no unfinished notes, no headings that jump a level."""
    text = without_code(markdown(chapter))
    allowed = r"details|summary|br|sub|sup|kbd|img|p|em|strong|b|i|abbr|https?:"
    assert not re.findall(rf"</?(?!(?:{allowed})\b)[a-z][^>\n]*>", text)
    assert not re.findall(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|lorem)\b", text)
    levels = [len(marks) for marks in re.findall(r"^(#+) ", text, flags=re.M)]
    assert levels.count(1) == 1
    assert all(deeper - level <= 1 for level, deeper in pairwise(levels))
