"""Make the students' version of the exercises: `python solutions/release.py [NAME]... [--variant N] [--check]`.

nbgrader takes out the solutions and the hidden checks. All is generated in a temporary folder first, and only then
put in its place, so that a run that fails leaves the last release as it was. The same source always gives the same
bytes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from course import HIDDEN, Problem, exercises, make_course, misnamed

ROOT = Path(__file__).resolve().parent.parent
NEVER_RELEASED = (Path(HIDDEN).stem, "BEGIN SOLUTION", "BEGIN HIDDEN TESTS")


def generate(folder: Path, source: Path, names: list[str], variant: int | None) -> Path:
    """Generate the exercises below a folder. Returns the folder that holds NAME/NAME.ipynb for each."""
    make_course(folder, source, names, variant, gradebook=False)
    for name in names:
        text = (folder / "release" / name / f"{name}.ipynb").read_text(encoding="utf-8")
        for secret in NEVER_RELEASED:
            if secret in text:
                raise Problem(f"{name} would show students `{secret}`: is it outside of the marks that hide it?")
    return folder / "release"


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def differences(made: Path, released: Path, names: list[str]) -> list[str]:
    """What differs between two folders of exercises: a line for each file."""
    lines = []
    for name in names:
        new, old = files(made / name), files(released / name)
        for path in sorted(new.keys() | old.keys()):
            if path not in old:
                lines.append(f"{released / name / path} is missing")
            elif path not in new:
                lines.append(f"{released / name / path} is not generated from anything")
            elif new[path] != old[path]:
                lines.append(f"{released / name / path} is not what its source gives")
    return lines


def without_source(released: Path, names: list[str]) -> list[str]:
    """Exercises in a folder of released ones that have no source any more: a line for each."""
    there = sorted(path.parent for path in released.glob("*/*.ipynb") if path.stem == path.parent.name)
    return [f"{folder} has no source" for folder in there if folder.name not in names]


def put_in_place(made: Path, released: Path, names: list[str]) -> None:
    """Replace each exercise by the new one; the old one is moved away, not deleted, until the new one is there."""
    released.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=released, prefix=".release-") as near:
        for name in names:
            new, old = Path(near) / name, Path(near) / f"{name}.old"
            shutil.copytree(made / name, new)
            if (released / name).exists():
                (released / name).rename(old)
            new.rename(released / name)


def release(names: list[str], source: Path, to: Path, variant: int | None, check: bool) -> int:
    there = exercises(source)
    for line in misnamed(source):
        print(line, file=sys.stderr)
    for name in names:
        if name not in there:
            raise Problem(f"{source} has no exercise {name}; it has {', '.join(there)}")
    if source.resolve() == to.resolve():
        raise Problem("the release would overwrite its source: give another folder with --to")
    with tempfile.TemporaryDirectory(prefix="release-") as temporary:
        made = generate(Path(temporary), source, names or there, variant)
        differing = differences(made, to, names or there) + ([] if names else without_source(to, there))
        if check:
            print("\n".join(differing) or f"{to} is what {source} gives")
            return 1 if differing else 0
        put_in_place(made, to, names or there)
    print(f"{to}: {', '.join(names or there)} ({'changed' if differing else 'unchanged'})")
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="all exercises of the source if none is named")
    parser.add_argument("--source", type=Path, default=ROOT / "solutions", metavar="FOLDER", help="has NAME/NAME.ipynb")
    parser.add_argument("--to", type=Path, default=ROOT / "exercises", metavar="FOLDER", help="where the release goes")
    parser.add_argument("--variant", type=int, metavar="N", help="write VARIANT = N into the notebooks")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file would change")
    chosen = parser.parse_args(arguments)
    try:
        return release(chosen.names, chosen.source, chosen.to, chosen.variant, chosen.check)
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
