"""Adversarial images of an evaluation as files: read back and asked about."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import FAB, FGSM, PGD, CarliniWagnerL2
from robustness_lib.evaluation import Report, evaluate

THREAT = ThreatModel("linf", 30 / 255)


def problem(shape: tuple[int, ...], n: int = 30) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 16), nn.ReLU(), nn.Linear(16, 3))
    x = (torch.rand(n, *shape) * 255).round() / 255
    return model, x, model(x).argmax(1)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "adversarial.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read(path: Path) -> Tensor:
    if path.suffix == ".npy":
        return torch.from_numpy(np.load(path)).float() / 255
    pixels = np.array(Image.open(path))
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy()).float() / 255


@pytest.mark.parametrize("shape", [(3, 6, 5), (1, 6, 5), (2, 6, 5), (13, 4, 4), (3, 2, 4, 4), (20,)])
def test_the_model_errs_on_every_file(shape: tuple[int, ...], tmp_path: Path) -> None:
    model, x, y = problem(shape)
    threat = THREAT if len(shape) > 1 else ThreatModel("linf", 90 / 255)  # of few values each must move further
    report = evaluate(model, x, y, threat, [FGSM(threat), PGD(threat, steps=5), FAB(steps=10)], batch_size=8,
                      keep_images=tmp_path / "kept")
    exported = report.export(tmp_path / "out")
    lines = table(tmp_path / "out")
    broken = set((report.clean & ~report.robust).nonzero()[0].tolist())
    assert exported.written == len(lines) > 5
    assert exported.written + exported.lost == len(broken)
    assert ",".join(lines[0]) == "index,label,predicted,mistaken_for,attack,distance,clean,adversarial"
    for line in lines:
        index = int(line["index"])
        clean, adversarial = read(tmp_path / "out" / line["clean"]), read(tmp_path / "out" / line["adversarial"])
        assert index in broken
        assert torch.equal(clean, x[index])
        answer = int(model(adversarial[None]).argmax(1))
        assert answer == int(line["mistaken_for"]) != int(line["label"]) == int(y[index]) == int(line["predicted"])
        assert float(line["distance"]) == float(threat.distance(adversarial[None], x[index][None]))
        assert bool(threat.allows(torch.tensor(float(line["distance"]))))
        assert line["attack"] in {"fgsm", "pgd-5", "fab"}
    suffix = ".png" if len(shape) == 3 and shape[0] in (1, 3) else ".npy"
    assert {Path(line[kind]).suffix for line in lines for kind in ("clean", "adversarial")} == {suffix}
    assert (".npy" in exported.sentence) == (suffix == ".npy")
    written = {path.name for path in (tmp_path / "out" / "adversarial").iterdir()}
    assert written == {Path(line["adversarial"]).name for line in lines}
    mode = "L" if shape[0] == 1 else "RGB"
    assert suffix == ".npy" or Image.open(tmp_path / "out" / lines[0]["clean"]).mode == mode


def test_what_is_lost_on_the_grid_is_counted(tmp_path: Path) -> None:
    model, x, y = problem((3, 4, 4))
    threat = ThreatModel("linf", 1.4 / 255)  # one level at most, and 1.4 off the grid
    model[1].weight.data *= 30
    report = evaluate(model, x, y, threat, [PGD(threat, steps=10, restarts=3)], keep_images=tmp_path / "kept")
    exported = report.export(tmp_path / "out")
    assert exported.lost > 0
    assert f"{exported.lost} that were broken are not among them" in exported.sentence
    assert exported.written + exported.lost == int((report.clean & ~report.robust).sum())


def test_killed_it_goes_on_and_a_loaded_report_is_told_where_they_are(tmp_path: Path) -> None:
    model, x, y = problem((3, 4, 4))

    class Stopped(Exception):
        pass

    def run(progress=None):
        return evaluate(model, x, y, THREAT, [PGD(THREAT, steps=5)], batch_size=8, state=tmp_path / "state",
                        keep_images=tmp_path / "kept", progress=progress)

    def stop(done: int, step: str) -> None:
        if done >= 16:
            raise Stopped

    with pytest.raises(Stopped):
        run(stop)
    report = run()
    loaded = Report.load(report.save(tmp_path / "report.json"))
    assert "kept" not in (tmp_path / "report.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="this report knows of no images"):
        loaded.export(tmp_path / "out")
    exported = loaded.export(tmp_path / "out", images=tmp_path / "kept")
    assert exported.written == report.export(tmp_path / "again").written > 0
    whole = evaluate(model, x, y, THREAT, [PGD(THREAT, steps=5)], batch_size=8, keep_images=tmp_path / "new")
    whole.export(tmp_path / "whole")
    assert table(tmp_path / "whole") == table(tmp_path / "out") == table(tmp_path / "again")


def test_folders_that_belong_to_something_else(tmp_path: Path) -> None:
    model, x, y = problem((3, 4, 4))
    attacks = [PGD(THREAT, steps=5)]
    report = evaluate(model, x, y, THREAT, attacks, keep_images=tmp_path / "kept")
    with pytest.raises(ValueError, match="belongs to another run"):
        evaluate(nn.Sequential(*model, nn.Identity()), x, y, THREAT, attacks, keep_images=tmp_path / "kept")
    evaluate(model, x, y, THREAT, attacks, state=tmp_path / "state")
    with pytest.raises(ValueError, match="not the same images kept"):
        evaluate(model, x, y, THREAT, attacks, state=tmp_path / "state", keep_images=tmp_path / "more")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(ValueError, match=r"holds other files \(thesis.txt\)"):
        report.export(tmp_path / "mine")
    other = evaluate(model, x.flip(0), y.flip(0), THREAT, attacks)
    with pytest.raises(ValueError, match="of other data than the report"):
        other.export(tmp_path / "out", images=tmp_path / "kept")
    with pytest.raises(ValueError, match="there is no folder"):
        report.export(tmp_path / "out", images=tmp_path / "gone")


def test_a_second_export_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    model, x, y = problem((3, 4, 4))
    many = evaluate(model, x, y, THREAT, [PGD(THREAT, steps=5)], keep_images=tmp_path / "many")
    none = evaluate(model, x, y, ThreatModel("linf", 0), [PGD(ThreatModel("linf", 0))], keep_images=tmp_path / "none")
    assert "The suite broke no image" in none.export(tmp_path / "nothing").sentence
    few = evaluate(model, x[:9], y[:9], THREAT, [PGD(THREAT, steps=5)], keep_images=tmp_path / "few")
    first, second = many.export(tmp_path / "out"), few.export(tmp_path / "out")
    assert first.written > second.written
    assert len(list((tmp_path / "out" / "adversarial").iterdir())) == second.written == len(table(tmp_path / "out"))


def test_a_minimum_norm_attack_is_exported_within_eps(tmp_path: Path) -> None:
    model, x, y = problem((3, 6, 6), n=12)
    threat = ThreatModel("l2", 1.5)
    report = evaluate(model, x, y, threat, [CarliniWagnerL2(steps=60, initial_c=1.0)],
                      keep_images=tmp_path / "kept")
    assert report.export(tmp_path / "out").written > 0
    for line in table(tmp_path / "out"):
        assert float(line["distance"]) <= 1.5 * (1 + 1e-5) + 1e-6
        assert int(model(read(tmp_path / "out" / line["adversarial"])[None]).argmax(1)) != int(line["label"])


def test_clean_images_of_more_than_8_bits_are_said_to_be_rounded(tmp_path: Path) -> None:
    model, x, _ = problem((3, 6, 5))
    for name, images in (("grid", x), ("float", (x + 0.3 / 255).clamp(0, 1))):
        y = model(images).argmax(1)
        report = evaluate(model, images, y, THREAT, [PGD(THREAT, steps=5)], keep_images=tmp_path / f"{name} kept")
        exported = report.export(tmp_path / name)
        assert exported.written > 5
        assert exported.rounded == (exported.written if name == "float" else 0)
        assert ("of the clean files are rounded" in exported.sentence) == (name == "float")
        for line in table(tmp_path / name):
            adversarial = read(tmp_path / name / line["adversarial"])
            distance = THREAT.distance(adversarial[None], images[int(line["index"])][None])
            assert float(line["distance"]) == float(distance)  # from the data's image
