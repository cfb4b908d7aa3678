"""The page of a verification: its figures, its examples, and that it needs nothing and fits a phone."""

from __future__ import annotations

import base64
import struct
import zlib
from decimal import Decimal

import numpy as np
import pytest
from page_reading import EVIL, LONG, Reader, check_in_a_browser

from robustness_lib.reports.pictures import image_png
from robustness_lib.reports.verification_page import (
    VerifiedImage,
    rows_to_show,
    save_verification_page,
    verification_page,
)
from robustness_lib.statistics import clopper_pearson

VERDICTS = ["robust"] * 9 + ["unknown"] * 5 + ["broken"] * 4 + ["wrong"] * 2
DECIDED_BY = ["IBP"] * 6 + ["CROWN"] * 3 + [None] * 5 + ["PGD"] * 3 + ["AutoPGD"] + ["clean"] * 2
MARGIN = [0.45678] * 9 + [-1.2345] * 4 + [None] + [-0.25] * 4 + [-3.0] * 2
N = len(VERDICTS)


def made(verdicts=VERDICTS, decided_by=DECIDED_BY, margin=MARGIN, **more):
    """What `Verification.to_dict` returns of 20 images: 9 proved, 5 undecided, 4 broken, 2 wrong."""
    n = len(verdicts)
    figures = {kind: {"value": verdicts.count(kind) / n, "images": verdicts.count(kind),
                      "interval": list(clopper_pearson(verdicts.count(kind), n))}
               for kind in ("robust", "unknown", "broken", "wrong")}
    methods = [{"name": name, "attempted": tried, "decided": decided_by.count(name), "seconds": 1.5}
               for name, tried in (("clean", 20), ("PGD", 18), ("IBP", 15), ("CROWN-IBP", 9), ("CROWN", 9),
                                   ("α-CROWN", 6), ("AutoPGD", 6))]
    return {"sentence": "Under L∞ 4/255, 45.0 % are proved.", "n": n, "threat": "linf:4/255", "seconds an image": 10.0,
            "out of time": 1,
            "notes": ["a note"], "methods": methods, "model": "m" * 64, "verdicts": list(verdicts),
            "decided by": list(decided_by), "margin": list(margin), "label": [i % 3 for i in range(n)],
            "answer": [(i + 1) % 3 if verdicts[i] in ("broken", "wrong") else i % 3 for i in range(n)],
            "classes": ["cat", "dog", "owl"], "provenance": {"model": "net.py:make"},
            "drawn": ["val.npz 3", "val.npz 5"], "environment": {"torch": "2.15.0", "seed": "7"}} | figures | more


def images(rows, shape=(3, 4, 4)):
    x = np.full(shape, 0.5, dtype=np.float32)
    return [VerifiedImage(row, x, x + np.float32(4 / 255) * (-1) ** row) for row in rows]


def pixels(src):
    """(H, W, 3) bytes of a PNG file without filters."""
    content = base64.b64decode(src.removeprefix("data:image/png;base64,"))
    width, height = struct.unpack(">II", content[16:24])
    length = struct.unpack(">I", content[33:37])[0]
    rows = np.frombuffer(zlib.decompress(content[41:41 + length]), np.uint8).reshape(height, 1 + 3 * width)
    return rows[:, 1:].reshape(height, width, 3)


def test_the_shares_are_one_bar():
    shown = Reader(verification_page(made()))
    bar = [(part["class"], float(part["x"].removesuffix("%")), float(part["width"].removesuffix("%")))
           for part in shown.of("rect") if part["width"].endswith("%")]
    assert bar == [("rb-share-robust", 0, 45), ("rb-share-unknown", 45, 25), ("rb-share-broken", 70, 20),
                   ("rb-share-wrong", 90, 10)]
    assert [text["x"] for text in shown.of("text")] == ["22.5%", "57.5%", "80.0%"]  # none where it has no room
    assert shown.text.split("| Verdicts")[1].startswith(" 45.0 % 25.0 % 20.0 %")
    swatches = [part["class"] for part in shown.of("rect") if not part["width"].endswith("%")]
    assert swatches == [kind for kind, _, _ in bar]


def test_a_bar_leaves_out_what_nobody_is():
    shown = Reader(verification_page(made(["robust"] * 3, ["IBP"] * 3, [1.0] * 3)))
    assert [part["width"] for part in shown.of("rect") if part["width"].endswith("%")] == ["100.0%"]
    assert "| Broken an adversarial image is there: 0 of 3 | 0.0 % | 0.0–70.8" in shown.text


def test_every_share_has_its_interval():
    text = Reader(verification_page(made())).text
    for kind, words, count in (("Proved", "no allowed change alters the answer", 9),
                               ("Undecided", "neither proved nor broken", 5),
                               ("Broken", "an adversarial image is there", 4),
                               ("Wrong", "another answer than the label, without an attack", 2)):
        low, high = clopper_pearson(count, N)
        assert f"| {kind} {words}: {count} of 20 | {5 * count:.1f} % | {100 * low:.1f}–{100 * high:.1f}" in text
    assert "at least 45.0 % and at most 70.0 % keep their label" in text


def test_it_says_what_the_verdicts_do_not():
    text = Reader(verification_page(made())).text
    for words in ("in real arithmetic", "a margin therefore counts only above a tolerance", "evidence for neither",
                  "L∞ 4/255 leaves out patches", "20 images were verified", "Trained again"):
        assert words in text, words


def test_method_by_method():
    text = Reader(verification_page(made())).text
    for row in ("| the model's own answer | 20 | 2 wrong | –", "| PGD | 18 | 3 broken | 1.5 s",
                "| IBP | 15 | 6 proved | 1.5 s", "| CROWN-IBP | 9 | none | 1.5 s", "| CROWN | 9 | 3 proved | 1.5 s",
                "| AutoPGD | 6 | 1 broken | 1.5 s"):
        assert row in text
    assert "An image could take 10 s, all methods together. Of those undecided, 1 ran out of it, with" in text
    assert ("went through PGD, IBP, CROWN-IBP, CROWN, α-CROWN, AutoPGD, in this order, until it was decided, or until "
            "its 10 s were over.") in text
    in_time = Reader(verification_page(made(**{"out of time": 0}))).text
    assert "None ran out of it." in in_time
    assert "more time or a faster machine" not in in_time
    assert "do not depend on the machine" in Reader(verification_page(made(**{"seconds an image": None}))).text


def test_methods_that_were_not_begun_are_not_cited():
    methods = [method | {"attempted": method["attempted"] * (method["name"] not in ("α-CROWN", "AutoPGD"))}
               for method in made()["methods"]]
    text = Reader(verification_page(made(methods=methods, **{"out of time": 5}))).text
    assert "went through PGD, IBP, CROWN-IBP, CROWN, in this order" in text


def test_one_image_is_one():
    text = Reader(verification_page(made(["robust"], ["IBP"], [0.5], classes=None), images([0]))).text
    for words in ("n = 1 image was verified", "1 image was verified",
                  "Of these images, 100.0 % keep their label", "Image 0: class 0, proved by IBP"):
        assert words in text, words


def test_of_each_verdict_one_of_each_method_first():
    assert rows_to_show(VERDICTS, DECIDED_BY) == [0, 1, 2, 6, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19]
    assert rows_to_show(VERDICTS, DECIDED_BY, most=2) == [0, 6, 9, 10, 14, 17, 18, 19]
    assert rows_to_show(["wrong"], ["clean"]) == [0]


def test_examples_of_each_verdict():
    shown = Reader(verification_page(made(), images([0, 6, 9, 13, 14, 18])))
    for words in ("Image 0: cat, proved by IBP. No allowed change brings its margin below 0.456.",
                  "Image 6: cat, proved by CROWN.", "that its margin is −1.24 or more, which does not rule out",
                  "Image 13: dog, undecided. Time ran out before any bound.",
                  "Image 14: owl, read as cat after PGD", "Its margin there is −0.25.",
                  "Image 18: cat, read as dog without an attack. Its margin is −3."):
        assert words in shown.text, words
    assert shown.text.count("Mid-grey is no change") == 1
    assert [picture["alt"] for picture in shown.of("img")] == [
        "Image 0: cat", "Image 6: cat", "Image 9: cat", "Image 13: dog", "Image 14, unchanged: owl",
        "Image 14: the change that PGD made, magnified", "Image 14, attacked: read as cat", "Image 18: cat"]
    unchanged, change, attacked = (pixels(picture["src"]) for picture in shown.of("img")[4:7])
    assert (unchanged == 128).all()
    assert (change == 255).all()  # ε fills the scale
    assert (attacked == 131).all()


@pytest.mark.parametrize("margin", [0.45678, -1.2345, 1e-7, 12345.0, 0.1 + 0.2])
def test_a_bound_is_not_rounded_up(margin):
    text = Reader(verification_page(made(["robust"], ["IBP"], [margin]), images([0]))).text
    said = text.split("brings its margin below ")[1].split(" ")[0].rstrip(".").replace("−", "-")
    assert Decimal(said) <= Decimal(margin)
    assert float(said) == pytest.approx(margin, rel=0.01)


def test_classes_without_names_and_what_is_no_image():
    shown = Reader(verification_page(made(classes=None), images([0, 14, 18], shape=(2,))))
    assert not shown.of("img")
    for words in ("Image 0: class 0, proved by IBP",
                  "Image 14: class 2, read as class 0 after PGD. Its margin there is −0.25.",
                  "Image 18: class 0, read as class 1 without an attack"):
        assert words in shown.text
    assert "Mid-grey" not in shown.text


def test_an_l2_ball_says_how_changes_are_drawn():
    text = Reader(verification_page(made(threat="l2:0.5"), images([14]))).text
    assert "The full scale is the largest change in that image" in text
    assert "no image may move by more than ε = 0.5 in the L2 norm" in text


def test_where_it_comes_from_and_what_to_cite():
    text = Reader(verification_page(made())).text
    for words in ("| model | net.py:make", "val.npz 3, val.npz 5", "| a note", "torch 2.15.0; seed 7",
                  "All methods together took 10.5 s", "m" * 64,
                  "PGD, IBP, CROWN-IBP, CROWN, α-CROWN, AutoPGD, in this order"):
        assert words in text, words
    sources = text.split("Sources:")[1]
    for name in ("Madry", "Croce and Hein (2020), Reliable", "Gowal", "ICLR (CROWN-IBP)", "NeurIPS (CROWN)",
                 "ICLR (α-CROWN)", "Clopper"):
        assert name in sources
    few = made()
    few["methods"] = few["methods"][:3]
    sources = Reader(verification_page(few)).text.split("Sources:")[1]
    assert "Gowal" in sources
    assert "CROWN" not in sources


def test_it_needs_nothing_from_outside_and_names_do_no_harm():
    html = verification_page(made(classes=[EVIL] * 3, notes=[EVIL], provenance={"model": EVIL}, drawn=[EVIL]),
                             images([0, 9, 14, 18]))
    shown = Reader(html)
    assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in shown.tags}
    assert not [name for _, attributes in shown.tags for name in attributes if name.startswith("on")]
    assert all((picture["src"] or "").startswith("data:image/png;base64,") for picture in shown.of("img"))
    assert "https:" not in html
    assert EVIL in shown.text


def test_saved_whole(tmp_path):
    path = save_verification_page(made(), images([0]), tmp_path / "run" / "verify.html")
    assert path.read_text(encoding="utf-8") == verification_page(made(), images([0]))
    assert [file.name for file in path.parent.iterdir()] == ["verify.html"]


def test_grey_images_are_pictures():
    assert (pixels(image_png(np.full((1, 2, 2), 0.5))) == 128).all()


@pytest.mark.browser
@pytest.mark.parametrize(("more", "width", "dark"), [
    ({}, 1280, False), ({}, 320, True),
    ({"classes": [f"{EVIL} {LONG} {i}" for i in range(3)], "notes": [EVIL + LONG * 3]}, 320, False),
])
def test_in_a_browser(browser, tmp_path, more, width, dark):
    html = verification_page(made(**more), images(rows_to_show(VERDICTS, DECIDED_BY)))
    check_in_a_browser(browser, html, tmp_path / "verify.html", width, dark)
