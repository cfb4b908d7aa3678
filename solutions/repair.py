"""Make a notebook that nbgrader can grade out of an exercise and what a student handed in.

Students copy cells, turn them into text, delete them, change the checks; tools lose the names of cells. nbgrader then
refuses the whole notebook, or grades the wrong cell. Here the student's cells stay where and as they are, and
everything that was given with the exercise is put where it belongs, once, as the teacher wrote it. What was found and
done is said in remarks. No code is run.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

from course import VARIANT, Exercise, variant_cell
from nbformat import NotebookNode
from submitted import NEW, Unreadable, read_cells

Places = list[int | None]  # for each cell handed in: which cell of the exercise it is


def kind(cell: NotebookNode) -> str:
    """What a cell of an exercise is: "check", "solution", "answer" or "task" (graded by hand), "given cell", or ""."""
    entry = cell.metadata.get("nbgrader", {})
    if entry.get("solution"):
        return "answer" if entry.get("grade") else "solution"
    if entry.get("grade"):
        return "check"
    if entry.get("task"):
        return "task"
    return "given cell" if entry.get("locked") else ""


def name(cell: NotebookNode) -> str | None:
    found = cell.metadata.get("nbgrader", {}).get("grade_id")
    return found if isinstance(found, str) else None


def protected(cell: NotebookNode) -> bool:
    """Whether students must not change a cell."""
    return kind(cell) in ("check", "task", "given cell")


def recognize(cells: list[NotebookNode], exercise: Exercise) -> Places:
    """Which cell of the exercise each cell is, if any: by nbgrader's name, else by its id, else by its given text."""
    given = exercise.master.cells
    names = {name(cell): index for index, cell in enumerate(given) if kind(cell)}
    found: Places = [names.get(name(cell)) if name(cell) else None for cell in cells]
    ids = {cell.id: index for index, cell in enumerate(given)}
    said = [cell.source.strip() for cell in exercise.release.cells]
    texts = {text: index for index, text in enumerate(said) if text and said.count(text) == 1}
    for known in ({i: ids.get(cell.id) for i, cell in enumerate(cells)},
                  {i: texts.get(cell.source.strip()) for i, cell in enumerate(cells)}):  # fmt: skip
        for i, index in known.items():
            if found[i] is None and index not in found:
                found[i] = index
    return found


def adopt(cells: list[NotebookNode], found: Places, exercise: Exercise) -> list[str]:
    """Where a solution or an answer is gone, take the student's first own cell of its sort in that place."""
    remarks = []
    for index, cell in enumerate(exercise.master.cells):
        if kind(cell) not in ("solution", "answer") or index in found:
            continue
        before = max((i for i, other in enumerate(found) if other is not None and other < index), default=-1)
        after = min((i for i, other in enumerate(found) if other is not None and other > index and i > before),
                    default=len(cells))  # fmt: skip
        code = cell.cell_type == "code"
        own = (i for i in range(before + 1, after)
               if found[i] is None and cells[i].source.strip() and (cells[i].cell_type == "code") == code)  # fmt: skip
        if (taken := next(own, None)) is not None:
            found[taken] = index
            remarks.append(f"the {kind(cell)} `{name(cell)}` had lost its name; the cell in its place was taken for it")
    return remarks


def matching(cells: list[NotebookNode], exercise: Exercise) -> int:
    """How many of an exercise's own cells are among these."""
    found = {index for index in recognize(cells, exercise) if index is not None}
    return sum(bool(kind(exercise.master.cells[index])) for index in found)


def refuse_another_notebook(cells: list[NotebookNode], exercise: Exercise, others: Iterable[Exercise]) -> None:
    matched = matching(cells, exercise)
    for other in others:
        if other.name != exercise.name and matching(cells, other) > matched:
            raise Unreadable(f"the file is the notebook of another exercise, {other.name}")
    if not matched:
        raise Unreadable("the file is another notebook: no cell of the exercise is in it")


class _Layout:
    """Where each cell of the repaired notebook goes: `order` has (place, index in the exercise or −1, cell)."""

    def __init__(self, cells: list[NotebookNode], found: Places, exercise: Exercise) -> None:
        self.cells, self.found, self.exercise = cells, found, exercise
        self.given = exercise.master.cells
        self.remarks: list[str] = []
        self.where: dict[int, int] = {}  # cell of the exercise → its (last) place
        self.order: list[tuple[int, int, NotebookNode]] = []

    def copies(self, index: int) -> list[int]:
        return [i for i, other in enumerate(self.found) if other == index]

    def own_place(self, index: int) -> int | None:
        """Where a given cell stands, if below the solution that it belongs to: the original, else the last copy."""
        solutions = (j for j in range(index - 1, -1, -1) if kind(self.given[j]) == "solution" and j in self.where)
        solution = next(solutions, None)
        first = self.copies(solution)[0] if solution is not None else -1
        below = [i for i in self.copies(index) if i > first]
        originals = [i for i in below if self.cells[i].id == self.given[index].id]
        return next(reversed(originals or below), None)

    def put(self, index: int, missing: str) -> None:
        """Put a given cell, as the teacher wrote it, where it stands or else after the cell before it."""
        place = self.own_place(index)
        if place is None:
            before = [self.where[j] for j in range(index - 1, -1, -1) if j in self.where]
            place = before[0] if before else -1
            self.remarks.append(missing)
        self.where[index] = place
        self.order.append((place, index, as_given(self.given[index])))

    def put_protected(self, index: int) -> None:
        cell = self.given[index]
        title, copies = f"the {kind(cell)} `{name(cell)}`", self.copies(index)
        moved = f"{title} stood above its solution and was moved" if copies else f"{title} was gone and was put back"
        self.put(index, moved)
        if len(copies) > 1:
            self.remarks.append(f"{title} stood there {len(copies)} times; it counts once")
        if any(self.cells[i].cell_type != cell.cell_type for i in copies):
            self.remarks.append(f"{title} was turned into another type of cell; the original was put back")
        elif changed := [i for i in copies if not self.is_as_released(i, index)]:
            self.put_back(index, title, changed)

    def is_as_released(self, i: int, index: int) -> bool:
        return self.cells[i].source.strip() in (
            self.exercise.release.cells[index].source.strip(), self.given[index].source.strip())  # fmt: skip

    def put_back(self, index: int, title: str, changed: list[int]) -> None:
        """Say that the original counts. Where it is worth no points, what the student made of it runs before it."""
        given = self.given[index]
        if kind(given) != "given cell":
            self.remarks.append(f"{title} had been changed; the original was put back")
            return
        for i in changed:
            source = self.cells[i].source
            if (said := VARIANT.search(source)) and source.replace(said[0], "") == VARIANT.sub("", given.source):
                self.remarks.append(another_variant(said[0], given.source))
            else:
                self.order.append((self.where[index], -1, retyped(self.cells[i], "code")))
                self.remarks.append(f"{title} had been changed; it ran, and then the original")

    def keep_students(self, index: int) -> None:
        """Keep all copies of a solution or an answer in their places; the last one that says something has the name."""
        cell, copies = self.given[index], self.copies(index)
        title, stub = f"the {kind(cell)} `{name(cell)}`", self.exercise.release.cells[index].source.strip()
        if not copies:
            if kind(cell) == "answer":
                self.put(index, f"{title} was gone; there is nothing to grade")
                self.order[-1][2].source = self.exercise.release.cells[index].source
            else:
                self.remarks.append(f"{title} is gone; what other cells define counts")
            return
        right = [i for i in copies if self.cells[i].cell_type == cell.cell_type] or copies
        named = ([i for i in right if self.cells[i].source.strip() not in ("", stub)] or right)[-1]
        for i in copies:
            kept = retyped(self.cells[i], cell.cell_type if i in right else self.cells[i].cell_type)
            if i == named:
                kept.metadata, kept.id = copy.deepcopy(cell.metadata), cell.id
            self.order.append((i, -1, kept))
        self.where[index] = copies[-1]
        if len(copies) > 1:
            what = "all of them ran, in their order" if cell.cell_type == "code" else "look at all of them"
            self.remarks.append(f"{title} stands there {len(copies)} times; {what}")
        if right == copies and (was := self.cells[named].cell_type) != cell.cell_type:
            self.remarks.append(f"{title} had become a {was} cell; it was made a {cell.cell_type} cell again")

    def keep_own(self) -> None:
        """Keep the student's own cells, and the exercise's open ones, as they are."""
        for i, (cell, index) in enumerate(zip(self.cells, self.found, strict=True)):
            if index is None or not kind(self.given[index]):
                self.order.append((i, -1, retyped(cell, cell.cell_type)))
                if index is not None:
                    self.where[index] = i


def as_given(cell: NotebookNode) -> NotebookNode:
    """A copy of a cell of the exercise, without outputs."""
    fresh = copy.deepcopy(cell)
    if fresh.cell_type == "code":
        fresh.outputs, fresh.execution_count = [], None
    return fresh


def retyped(cell: NotebookNode, cell_type: str) -> NotebookNode:
    """A copy of a student's cell as another type, without nbgrader's entry."""
    fresh: NotebookNode = NEW[cell_type](cell.source)
    fresh.id = cell.id
    if "attachments" in cell and cell_type != "code":
        fresh.attachments = cell.attachments
    return fresh


def set_ids(cells: list[NotebookNode], exercise: Exercise) -> None:
    """Give each cell an id of its own: those of the exercise where they belong, else the student's, else a number."""
    used = {cell.id for cell in exercise.master.cells}
    for number, cell in enumerate(cells):
        if not kind(cell):
            valid = cell.id and len(cell.id) <= 64 and cell.id.replace("-", "").replace("_", "").isalnum()
            if not valid or not cell.id.isascii() or cell.id in used:
                cell.id = f"handed-in-{number}"
            used.add(cell.id)


def another_variant(said: str, given: str) -> str:
    line = VARIANT.search(given)
    return f"the notebook said `{said.strip()}`; it was graded with `{line[0] if line else given}`"


def restore_variant(cells: list[NotebookNode], exercise: Exercise) -> list[str]:
    """Let the notebook have the variant that is graded: in its first line of this sort, or in a cell put on top."""
    given = variant_cell(exercise.master)
    line = VARIANT.search(given.source) if given is not None else None
    if given is None or line is None:
        return []
    for cell in cells:
        if cell.cell_type == "code" and (there := VARIANT.search(cell.source)):
            if there[0].strip() == line[0].strip():
                return []
            cell.source = VARIANT.sub(lambda _: line[0], cell.source, count=1)
            return [another_variant(there[0], line[0])]
    cells.insert(0, NEW["code"](line[0]))
    return [f"the line `{line[0]}` was gone and was put back"]


def repair(content: bytes, exercise: Exercise, others: Iterable[Exercise] = ()) -> tuple[NotebookNode, list[str]]:
    """The notebook to grade, and remarks on what was wrong with the file.

    Raises `Unreadable` where there is nothing to grade: no JSON, an empty file, another notebook.
    """
    cells = read_cells(content)
    refuse_another_notebook(cells, exercise, others)
    found = recognize(cells, exercise)
    remarks = adopt(cells, found, exercise)
    layout = _Layout(cells, found, exercise)
    layout.keep_own()
    for index, cell in enumerate(exercise.master.cells):
        if protected(cell):
            layout.put_protected(index)
        elif kind(cell):
            layout.keep_students(index)
    repaired = copy.deepcopy(exercise.master)
    repaired.cells = [cell for _, _, cell in sorted(layout.order, key=lambda placed: placed[:2])]
    remarks += layout.remarks + restore_variant(repaired.cells, exercise)
    set_ids(repaired.cells, exercise)
    return repaired, remarks
