"""The page of folklore: every claim has its place, its source, n, interval and a verdict; the verdicts follow from the
figures, so that another figure gives another verdict; the statements set right have sources and numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from robustness_lib import notebook as notebook_module
from robustness_lib.claims import VERDICTS, Claim

ROOT = Path(__file__).resolve().parents[2]
PAGE = nbformat.read(ROOT / "book/folklore.ipynb", as_version=4)
RESULTS = ROOT / "benchmarks/results"
SOURCES = {cell.id: cell.source for cell in PAGE.cells}
MARKDOWN = "\n\n".join(cell.source for cell in PAGE.cells if cell.cell_type == "markdown")
LINKED = {"folklore", "folklore-right"}  # anchors of the page and of its second part
# In place of the page's own attack, which takes a while: what it finds, in round figures.
NEAREST = {name: {"times": [15.0 + k / 10 for k in range(40)], "nearer": [1.05 + k / 1000 for k in range(40)]}
           for name in ("signs-standard", "signs-pgd")}

Change = Callable[[Any], None]


def sections() -> dict[str, str]:
    """The text from each anchor to the next one."""
    parts = re.split(r"^\((\S+)\)=\n", MARKDOWN, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def all_claims(**other: Any) -> dict[str, Claim]:
    """What the page's cells make of the results as they lie in the folder; `other` are names set before."""
    space: dict[str, Any] = {"__name__": "page"}
    exec(compile(SOURCES["folklore-setup"], "folklore-setup", "exec"), space)
    space |= {"nearest": NEAREST} | other
    exec(compile(SOURCES["folklore-claims"], "folklore-claims", "exec"), space)
    claims: dict[str, Claim] = space["claims"]
    return claims


@pytest.fixture(scope="module")
def claims() -> dict[str, Claim]:
    return all_claims()


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Change], dict[str, Claim]]:
    """The claims after a change to one file of results."""
    def claims_after(name: str, change: Change) -> dict[str, Claim]:
        for path in RESULTS.glob("*.json"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
        results = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        change(results)
        (tmp_path / f"{name}.json").write_text(json.dumps(results), encoding="utf-8")
        monkeypatch.setattr(notebook_module, "results_folder", lambda: tmp_path)
        return all_claims()
    return claims_after


def bibliography() -> set[str]:
    return set(re.findall(r"^@\w+\{(\S+),$", (ROOT / "book/references.bib").read_text(encoding="utf-8"), flags=re.M))


def cited(text: str) -> set[str]:
    return {key for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text) for key in keys.split(",")}


def test_anchors_are_unique_and_readable() -> None:
    anchors = re.findall(r"^\((\S+)\)=$", MARKDOWN, flags=re.M)
    assert len(anchors) == len(set(anchors))
    assert all(re.fullmatch(r"folklore(-[a-z0-9]+)*", anchor) for anchor in anchors)


def test_every_claim_has_its_section_under_its_own_words(claims: dict[str, Claim]) -> None:
    found = sections()
    for claim in claims.values():
        assert found[claim.anchor].replace("\u00a0", " ").startswith(f"### {claim.words}\n"), claim.anchor
        assert SOURCES[f"{claim.anchor}-shown"] == f'show("{claim.anchor}")'


def test_every_claim_has_sources_that_its_section_cites(claims: dict[str, Claim]) -> None:
    found, known = sections(), bibliography()
    for claim in claims.values():
        assert claim.sources, claim.anchor
        assert set(claim.sources) <= known
        assert set(claim.sources) <= cited(found[claim.anchor]), claim.anchor


def test_every_claim_has_n_interval_and_verdict(claims: dict[str, Claim]) -> None:
    for claim in claims.values():
        assert claim.verdict in VERDICTS
        assert claim.made
        assert claim.seeds
        for measurement in claim.measurements:
            low, high = measurement.interval
            assert measurement.n >= 1
            assert low <= measurement.value <= high


def test_every_claim_leads_to_a_chapter(claims: dict[str, Claim]) -> None:
    """Or stands under a heading whose introduction does."""
    for claim in claims.values():
        linked = re.findall(r"\]\((\d\d_\w+)\)", sections()[claim.anchor] + SOURCES["folklore-shapes"])
        assert linked, claim.anchor


def test_the_issue_is_covered(claims: dict[str, Claim]) -> None:
    said = " ".join(claim.words for claim in claims.values())
    for word in ("FGSM", "restarts", "C&W", "clean accuracy", "as long", "JPEG", "adaptive", "noise in training",
                 "smoothed radii", "passes", "Batched", "overfitting", "classes", "kernels", "SiLU", "Wider", "1/255",
                 "confidence", "detector", "Ensemble", "hostile"):
        assert word in said, word


def test_the_table_at_the_top_links_every_row(claims: dict[str, Claim]) -> None:
    cell = next(cell for cell in PAGE.cells if cell.id == "folklore-table")
    table = "".join(output.data["text/markdown"] for output in cell.outputs).replace("\u00a0", " ")
    rows = re.findall(r"^\| \S (.+?) \| \[(.+)\]\(#(\S+)\) \|$", table, flags=re.M)
    assert [row[1:] for row in rows] == [(claim.words, claim.anchor) for claim in claims.values()]
    live = "folklore-cw"  # its attack runs on the page alone
    assert all(row[0] == claims[row[2]].verdict for row in rows if row[2] != live)


def test_the_saved_page_is_that_of_the_results(claims: dict[str, Claim]) -> None:
    """Else the benchmark ran again and the page did not."""
    for anchor, claim in claims.items():
        cell = next(cell for cell in PAGE.cells if cell.id == f"{anchor}-shown")
        shown = "".join(output.data["text/markdown"] for output in cell.outputs)
        assert anchor == "folklore-cw" or shown.startswith(f"**{MARKS[claim.verdict]} {claim.verdict}**"), anchor
        assert shown.count(", n\u00a0=\u00a0") == len(claim.measurements)


MARKS = dict(zip(VERDICTS, "✓✗?", strict=True))


def statements() -> Iterator[tuple[str, str]]:
    """Anchor and text of each statement set right."""
    whole = MARKDOWN[MARKDOWN.index("(folklore-right)="):MARKDOWN.index("## When you meet the next one")]
    parts = re.split(r"^\((\S+)\)=\n", whole, flags=re.M)
    for anchor, text in zip(parts[1::2], parts[2::2], strict=True):
        if anchor not in LINKED:
            yield anchor, text


def test_all_statements_are_set_right_with_their_sources() -> None:
    found = dict(statements())
    assert len(found) == 17
    for anchor, text in found.items():
        assert cited(text), anchor
        assert cited(text) <= bibliography()
        assert "](" in text, f"{anchor} leads to no chapter"


def test_what_is_measured_is_computed() -> None:
    """A statement's own number is glued in, never typed."""
    for anchor, text in statements():
        for measured in re.findall(r"\*\*Measured(?:\*\*)?(.*)", text, flags=re.S):
            assert "{glue:text}" in measured or anchor == "folklore-sticker", anchor
            typed = re.findall(r"\d+(?:\.\d)?\s%(?!\skeeps)", re.sub(r"`[^`]*`", "", measured))
            assert not typed, f"{anchor}: {typed}"


def always_collapse(training: Any) -> None:
    for run in training["collapse"]["runs"].values():
        run["last"]["robust"]["right"] //= 20


def no_collapse(training: Any) -> None:
    for run in training["collapse"]["runs"].values():
        run["last"]["robust"]["right"] = 4 * run["epochs"][-1]["fgsm"]


def restarts_that_help(evaluation: Any) -> None:
    evaluation["restarts"]["together"][-1]["right"] = evaluation["restarts"]["together"][0]["right"] - 75


def training_costs_ten_points(trades: Any) -> None:
    trades["pareto"]["from signs-pgd"]["signs-standard"]["clean"] |= {"lost": 0, "gained": 100}


def attacks_cost_seven_times(training: Any) -> None:
    for step in training["price"]["step"].values():
        step |= {"over standard": 7.0, "over standard, lowest and highest": [6.5, 7.5]}


def robust_accuracy_falls(training: Any) -> None:
    for run in training["overfit"]["runs"]:
        run["last"]["robust"]["right"] = 300


def robust_accuracy_rises(training: Any) -> None:
    for run in training["overfit"]["runs"]:
        run["last"]["robust"]["right"] = 800


def cuts(kind: str, percent: float) -> Change:
    def change(pitfalls: Any) -> None:
        for part in ("claim", "gtsrb"):
            for each in pitfalls[part]["of"].values():
                each["JPEG"][kind]["cut"] = {"percent": percent, "interval_95": [percent - 2, percent + 2]}
    return change


def quick_votes(smoothing: Any) -> None:
    for each in smoothing["decisions"]["log"]["alpha 0.001"].values():
        each |= {"samples": 500.0, "samples, least and most": [400.0, 600.0]}


def batches_cost_fifty_times(smoothing: Any) -> None:
    latency = smoothing["costs"]["latency"]
    latency |= {"smoothed one": 50 * latency["plain one"], "smoothed batch": 50 * latency["plain batch"]}


def systems_that_stand(folklore: Any) -> None:
    for name in ("routing", "two-models"):
        folklore[name]["adaptive"] |= folklore[name]["second alone"]["attacked"]
        folklore[name]["unaware"] |= folklore[name]["second alone"]["attacked"]


def seen_at_once(folklore: Any) -> None:
    for kind in folklore["visible"]["color"]["levels"]["1"].values():
        kind["just noticeable or more"] = 0.5


def radii_of(lost: int, gained: int) -> Change:
    def change(folklore: Any) -> None:
        for by_radius in folklore["smoothed-radii"]["paired"].values():
            for entry in by_radius.values():
                entry |= {"lost": lost, "gained": gained}
    return change


def ensemble_as_good_as_pgd(folklore: Any) -> None:
    methods = folklore["ensemble-training"]["methods"]
    for method, right in (("standard", 100), ("ensemble", 400), ("pgd-5", 400)):
        for seed, run in enumerate(methods[method]):
            for figure in run.values():
                if isinstance(figure, dict):
                    figure |= {"right": right + seed * (method == "ensemble"), "n": 500}


def shapes_judged(verdict: str) -> Change:
    def change(shapes: Any) -> None:
        for row in shapes["claims"]["rows"]:
            row["verdict"] = verdict
    return change


@pytest.mark.parametrize(("file", "change", "anchor", "verdict"), [
    ("training", always_collapse, "fgsm-training", "holds here"),
    ("training", no_collapse, "fgsm-training", "does not"),
    ("evaluation", restarts_that_help, "restarts", "holds here"),
    ("training", attacks_cost_seven_times, "time-price", "holds here"),
    ("training", robust_accuracy_falls, "overfitting", "holds here"),
    ("training", robust_accuracy_rises, "overfitting", "does not"),
    ("pitfalls", cuts("unaware", 30), "jpeg", "holds here"),
    ("pitfalls", cuts("unaware", 60), "jpeg", "does not"),
    ("pitfalls", cuts("adaptive", 1), "jpeg-adaptive", "holds here"),
    ("pitfalls", cuts("adaptive", 30), "jpeg-adaptive", "cannot tell"),  # a stronger attack may take it
    ("smoothing", quick_votes, "votes", "holds here"),
    ("smoothing", batches_cost_fifty_times, "batched", "holds here"),
    ("folklore", radii_of(0, 60), "radii", "holds here"),
    ("folklore", radii_of(60, 0), "radii", "does not"),
    ("folklore", radii_of(20, 20), "radii", "cannot tell"),
    ("folklore", ensemble_as_good_as_pgd, "ensemble", "holds here"),
    ("folklore", seen_at_once, "visible", "does not"),
    ("architectures", shapes_judged("holds"), "kernels", "holds here"),
    ("architectures", shapes_judged("does not"), "silu", "does not"),
    ("architectures", shapes_judged("cannot tell"), "width", "cannot tell"),
])
def test_another_figure_is_another_verdict(changed: Any, file: str, change: Change, anchor: str,
                                           verdict: str) -> None:
    assert changed(file, change)[f"folklore-{anchor}"].verdict == verdict


def test_one_place_is_enough_against_a_claim(changed: Any) -> None:
    """On the signs it costs ten points as is claimed, and on MNIST nothing."""
    claim = changed("trades", training_costs_ten_points)["folklore-accuracy-price"]
    assert claim.measurements[0].verdict == "holds here"
    assert claim.verdict == "does not"


def test_systems_that_stood_would_not_be_condemned(changed: Any) -> None:
    """Nor praised: what an attack leaves is a bound from above."""
    claims = changed("folklore", systems_that_stand)
    assert {claims[f"folklore-{name}"].verdict for name in ("routing", "separate")} == {"cannot tell"}


@pytest.mark.parametrize(("area", "rows", "verdict"), [(0.95, 2, "does not"), (0.5, 0, "cannot tell")])
def test_a_detector_that_has_learned_nothing_tests_nothing(changed: Any, area: float, rows: int, verdict: str) -> None:
    def learned(folklore: Any) -> None:
        folklore["detector"]["detectors"]["trained net"]["roc"]["PGD, all steps"]["auc"] = area
    claims = changed("folklore", learned)
    trained = [m for m in claims["folklore-detector"].measurements if m.where.startswith("trained net")]
    assert len(trained) == rows
    assert claims["folklore-separate"].verdict == verdict


def test_the_page_s_own_attack_decides_its_row() -> None:
    found = {name: {"times": [75.0] * 40, "nearer": [2.5] * 40} for name in NEAREST}
    assert all_claims(nearest=found)["folklore-cw"].verdict == "holds here"
    assert all_claims()["folklore-cw"].verdict == "does not"
