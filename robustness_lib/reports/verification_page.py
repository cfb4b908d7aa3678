"""The page of a verification: the shares proved, undecided, broken and wrong as one bar, method by method, examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from robustness_lib.files import write_whole
from robustness_lib.reports._methods import (
    BOUNDS,
    INTERVALS,
    ON_INTERVALS,
    SOURCES,
    duration,
    made_with,
    sources_named,
    what_is_allowed,
)
from robustness_lib.reports.page import SHOWN_IMAGES, Figure, VerdictRow, VerdictTable, render
from robustness_lib.reports.pictures import image_png, is_image, picture
from robustness_lib.reports.report import Picture
from robustness_lib.statistics import Accuracy
from robustness_lib.threat import ThreatModel

__all__ = ["VerifiedImage", "rows_to_show", "save_verification_page", "verification_page"]

SHOWN = 4  # of each verdict
# In the order of the bar: the verdict, its name, what it means.
VERDICTS = (("robust", "proved", "no allowed change alters the answer"),
            ("unknown", "undecided", "neither proved nor broken"),
            ("broken", "broken", "an adversarial image is there"),
            ("wrong", "wrong", "another answer than the label, without an attack"))
NAMES = {"clean": "the model's own answer"}


@dataclass(frozen=True)
class VerifiedImage:
    """An image to show. place: its number in the verification. x, x_adv: (C, H, W) in [0, 1], as it is and as it was
    attacked."""

    place: int
    x: NDArray[Any]
    x_adv: NDArray[Any]


@dataclass(frozen=True)
class MethodRow:
    name: str
    tried: int
    decided: str
    seconds: float | None


@dataclass(frozen=True)
class Shown:
    """An example in words, and as a picture where it is an image: three of what was broken, else one."""

    kind: str
    index: int
    label: str
    answer: str
    decided_by: str | None
    margin: str | None
    png: str | None
    picture: Picture | None


@dataclass(frozen=True)
class Group:
    name: str
    shown: tuple[Shown, ...]

    @property
    def pictures(self) -> bool:
        return any(one.picture for one in self.shown)


def rows_to_show(verdicts: Sequence[str], decided_by: Sequence[str | None], most: int = SHOWN) -> list[int]:
    """Numbers of images that are worth a picture: of each verdict no more than `most`, one of each method first."""
    chosen: list[int] = []
    for kind, *_ in VERDICTS:
        rows = [row for row, verdict in enumerate(verdicts) if verdict == kind]
        first = {decided_by[row]: row for row in reversed(rows)}.values()
        chosen += sorted(sorted(rows, key=lambda row: (row not in first, row))[:most])
    return chosen


def verification_page(content: Mapping[str, Any], images: Sequence[VerifiedImage] = ()) -> str:
    """One HTML file that needs nothing else: no network, no script, no other file.

    content: what `Verification.to_dict(y)` returns, of one image or more, and besides, where known, "answer" (what the
    model answers to each image that shows its verdict, as a number), "classes" (their names), "provenance",
    "environment" and "drawn". images: examples to show, see `rows_to_show`.
    """
    n, threat = content["n"], ThreatModel.parse(content["threat"])
    shares = {kind: Accuracy(content[kind]["images"], n) for kind, *_ in VERDICTS}
    return render(
        "verification.html", sentence=content["sentence"], n=n, threat=threat,
        verdicts=VerdictTable(tuple(VerdictRow(kind, name, meaning, Figure.of(shares[kind]))
                                    for kind, name, meaning in VERDICTS)),
        least=shares["robust"].value, most=(shares["robust"].correct + shares["unknown"].correct) / n,
        by_method=_by_method(content), limit=_limit(content), examples=_examples(content, images, threat),
        notes=content["notes"], provenance=content.get("provenance", {}), drawn=content.get("drawn", ()),
        shown_images=SHOWN_IMAGES, methods=_methods(content, threat), sources=_sources(content))


def save_verification_page(content: Mapping[str, Any], images: Sequence[VerifiedImage], path: str | Path) -> Path:
    """Write `verification_page(content, images)`, whole or not at all."""
    write_whole(Path(path), verification_page(content, images).encode())
    return Path(path)


def _by_method(content: Mapping[str, Any]) -> list[MethodRow]:
    found = Counter(zip(content["decided by"], content["verdicts"], strict=True))
    names = {kind: name for kind, name, _ in VERDICTS}
    rows = []
    for method in content["methods"]:
        name = method["name"]
        decided = [f"{count:,} {names[kind]}" for (by, kind), count in found.items() if by == name]
        rows.append(MethodRow(NAMES.get(name, name), method["attempted"], ", ".join(decided) or "none",
                              None if name == "clean" else method["seconds"]))
    return rows


def _limit(content: Mapping[str, Any]) -> str:
    seconds = content["seconds an image"]
    if seconds is None:
        return "No limit of time was set, so the verdicts do not depend on the machine."
    late = content["out of time"]
    return (f"An image could take {seconds:g} s, all methods together. " + (
        f"Of those undecided, {late:,} ran out of it, with methods not begun or cut short: more time or a faster "
        f"machine may decide more." if late else "None ran out of it."))


def _examples(content: Mapping[str, Any], images: Sequence[VerifiedImage], threat: ThreatModel) -> list[Group]:
    shown = [_shown(content, image, threat) for image in images]
    groups = [Group(name, tuple(one for one in shown if one.kind == kind)) for kind, name, _ in VERDICTS]
    return [group for group in groups if group.shown]


def _shown(content: Mapping[str, Any], image: VerifiedImage, threat: ThreatModel) -> Shown:
    place, classes = image.place, content.get("classes")

    def called(number: int) -> str:
        return f"class {number}" if classes is None else str(classes[number])

    kind, by, margin = content["verdicts"][place], content["decided by"][place], content["margin"][place]
    label = content["label"][place]
    answer = content["answer"][place] if "answer" in content else label
    attacked = None
    if kind == "broken":
        attacked = picture(place, label, answer, by, image.x, image.x_adv, threat.eps, threat.norm)
    return Shown(kind, place, called(label), called(answer), by, None if margin is None else _rounded_down(margin),
                 image_png(image.x) if is_image(image.x) else None, attacked)


def _rounded_down(margin: float) -> str:
    """Three digits. A lower bound that is rounded up is none."""
    digits = Context(prec=3, rounding=ROUND_FLOOR).create_decimal_from_float(margin)
    return f"{digits:f}".replace("-", "−")


def _methods(content: Mapping[str, Any], threat: ThreatModel) -> list[str]:
    tried = [method["name"] for method in content["methods"][1:] if method["attempted"]]
    seconds = sum(method["seconds"] for method in content["methods"])
    n, seconds_each, late = content["n"], content["seconds an image"], content["out of time"]
    limit = "" if seconds_each is None else f", or until its {seconds_each:g} s were over" if late else \
        f" (in the {seconds_each:g} s that each could take)"
    return [
        f"n = {n:,} image{' was' if n == 1 else 's were'} verified under {what_is_allowed(threat)} (model fingerprint "
        f"{content['model']}).",
        f"Each image that the model has right went through {', '.join(tried)}, in this order, until it was decided"
        f"{limit}. An example that an attack found counts once it was confirmed outside the attack. A bound counts "
        f"where the margin of the label, its logit less the largest other, lies above a tolerance for rounding. "
        f"{ON_INTERVALS}",
        made_with(content.get("environment", {}), f"All methods together took {duration(seconds)}."),
    ]


def _sources(content: Mapping[str, Any]) -> list[str]:
    used = " ".join(method["name"] for method in content["methods"])
    return [*sources_named(used, SOURCES), *sources_named(used, BOUNDS), INTERVALS]
