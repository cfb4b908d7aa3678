"""robustness certify, as a user types it, on a plane whose smoothed radius is known."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from typer.testing import CliRunner, Result

from robustness_lib import ThreatModel
from robustness_lib.attacks import PGD
from robustness_lib.certify import RandomizedSmoothing
from robustness_lib.cli import _certify, app
from robustness_lib.evaluation import attack_certificates, evaluate, load_certificates
from robustness_lib.models import as_classifier, find_model
from robustness_lib.statistics import clopper_pearson

NET = """
import torch
class Plane(torch.nn.Module):
    def __init__(self, steep):
        super().__init__()
        self.steep = torch.nn.Parameter(torch.tensor(steep))
    def forward(self, x):
        beyond = self.steep * (x.flatten(1) - .5).sum(1) / 12 ** .5
        return torch.stack((-beyond, beyond), 1)
def make(): return Plane(1.)
def steeper(): return Plane(2.)
def fails(): raise RuntimeError("no such layer")
class Nervous(Plane):
    def forward(self, x):
        return super().forward(x + .1 * torch.randn_like(x))
def nervous(): return Nervous(1.)
class Reading(Plane):
    def forward(self, x):
        return super().forward(x) if len(open("nowhere").read()) else x
def reading(): return Reading(1.)
"""
N = 40


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a net in a file; images at distances 0.02 to 0.8 from its plane, every tenth with a wrong
    label; and some that are hardly beyond it."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET, encoding="utf-8")
    for name, distance in (("val", np.linspace(0.02, 0.8, N)), ("near", np.full(N, 0.01))):
        side = np.where(np.arange(N) % 2, 1, -1)
        images = 0.5 + (side * distance / 12**0.5)[:, None] * np.ones(12)
        labels = (side > 0).astype(int)
        labels[::10] = 1 - labels[::10] if name == "val" else labels[::10]
        np.savez(f"{name}.npz", images=images.reshape(N, 2, 2, 3).astype(np.float32), labels=labels)
    return tmp_path


def call(*words: object, model: str = "net.py:make", data: str = "val.npz", samples: int = 2000,
         code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["certify", "--model", model, "--data", data, "--sigma", "0.25", "--samples",
                                      str(samples), *map(str, words)])
    assert result.exit_code == code, result.output
    return result


def written(out: str = "run"):
    return json.loads((Path(out) / "certify.json").read_text(encoding="utf-8"))


def test_one_radius() -> None:
    result = call("--radius", 0.4)
    content = written()
    (at,) = content["radii"]
    assert at["radius"] == 0.4
    # Those beyond 0.4 by more than what 2,000 votes cannot see, without the two of them that have a wrong label.
    far = [k for k in range(N) if 0.02 * (k + 1) > 0.45 and k % 10]
    assert len(far) <= at["certified"]["correct"] <= len(far) + 2
    assert at["certified"]["n"] == content["n"] == N
    assert at["votes"] < 1000 < content["votes"] < content["votes if fixed"] == 2100
    assert content["smoothed"]["correct"] in range(32, 37)
    words = " ".join(result.stdout.split())
    for part in (content["sentence"], f"{at['certified']['correct'] / N:.1%}".replace("%", " %"), "2,100",
                 "not that it is right", "in L2", "nothing of the bare network", "at most 0.001"):
        assert part in words
    assert sorted(path.name for path in Path("run").iterdir()) == ["certify.json"]


def test_the_library_says_the_same_and_takes_the_file() -> None:
    call("--radius", "0.2,0.4", "--radius", 0.3, "--seed", 5, "-n", 20)
    content = written()
    assert [one["radius"] for one in content["radii"]] == [0.2, 0.3, 0.4]
    assert [one["up_to"] for one in content["certificates"]] == [0.2, 0.4, 0.3]
    net = find_model("net.py:make")
    with np.load("val.npz") as file:
        x = torch.from_numpy(file["images"]).permute(0, 3, 1, 2)[[int(name) for name in _rows(content)]].contiguous()
    smoothing, y = RandomizedSmoothing(net, 0.25), torch.tensor(content["label"])
    ours = smoothing.certified_at(x, 0.3, budget=2000, seed=5, progress=False)
    loaded = load_certificates("run/certify.json", 0.3)
    for name in ("prediction", "radius", "votes", "draws"):
        assert torch.equal(getattr(loaded, name), getattr(ours, name))
    assert content["radii"][1]["certified"]["correct"] == ours.accuracy(y, 0.3).correct
    report = evaluate(smoothing.classifier(20), x, y, ThreatModel("l2", 0.3), "quick", certified=loaded)
    assert report.certified_accuracy == ours.accuracy(y, 0.3)
    bare = net.model  # as it is in its file: the shell's wrapper changes nothing of it
    assert evaluate(RandomizedSmoothing(bare, 0.25).classifier(20), x, y, ThreatModel("l2", 0.3), "quick",
                    certified=loaded).certified_accuracy == report.certified_accuracy
    assert attack_certificates(RandomizedSmoothing(bare, 0.25), loaded, x, attack=PGD, samples=9).broken == 0
    normalized = as_classifier(bare, mean=[0.5] * 3, std=[0.5] * 3)
    with pytest.raises(ValueError, match=r"find_model\(\.\.\.\).* mean, std and output of its command line.*counter"):
        evaluate(RandomizedSmoothing(normalized, 0.25).classifier(20), x, y, ThreatModel("l2", 0.3), "quick",
                 certified=loaded)
    with pytest.raises(ValueError, match="of which radius"):
        load_certificates("run/certify.json")
    with pytest.raises(FileNotFoundError, match=r"no file nope; name the certify\.json"):
        load_certificates("nope")
    Path("other.json").write_text("[]")
    with pytest.raises(ValueError, match=r"other\.json: .* of an earlier run"):
        load_certificates("other.json")


def _rows(content) -> list[str]:
    """Of the .npz file, by what is said of the images drawn."""
    return [name.rpartition(" ")[2] for name in content["drawn"]]


def test_the_curve() -> None:
    result = call("--curve", "--radius", 0.4, "-n", N)
    content = written()
    assert Path("run/curve.png").read_bytes().startswith(b"\x89PNG")
    assert "curve.png" in result.stdout
    curve, (made,) = content["curve"], content["certificates"]
    right = [radius for radius, said, label in zip(made["radius"], made["prediction"], content["label"], strict=True)
             if said == label]
    assert curve["radius"] == [0.0, *sorted(set(right))]
    assert curve["certified"][0] == len(right) / N == content["smoothed"]["value"]
    assert content["answer"] == made["prediction"]
    assert curve["end"] == 0.75
    at = min(curve["intervals"], key=lambda one: abs(one["radius"] - 0.4))
    assert at["correct"] == sum(radius >= at["radius"] for radius in right)
    assert at["interval"][0] < at["value"] < at["interval"][1]
    assert content["radii"][0]["certified"]["correct"] == sum(radius >= 0.4 for radius in right)
    call("--curve", "--up-to", "1/2", "--tolerance", "1/20", "--sigma", "1/4", "--out", "short", "-n", 10)
    short = written("short")
    assert [one["radius"] for one in short["radii"]] == [0.125, 0.25, 0.375, 0.5]
    assert (short["sigma"], short["curve"]["end"]) == (0.25, 0.5)


def test_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **how: drawn.append(figure))
    call("--curve", "-n", N, "--alpha", 0.01)
    (axes,), curve = drawn[0].axes, written()["curve"]
    band, line = axes.patches
    values, edges, low = (np.asarray(part) for part in band.get_data())
    shares, line_edges, _ = line.get_data()
    assert np.array_equal(edges, line_edges)  # steps where the line has them
    assert edges[:-1].tolist() == curve["radius"]
    assert list(shares) == [*curve["certified"][1:], 0]
    for share, least, most in zip(shares, low, values, strict=True):
        assert (least, most) == clopper_pearson(round(share * N), N)
    print_below = drawn[0].get_supxlabel()
    for part in ("net.py:make", "val.npz", "α = 0.01", "2,000 votes"):
        assert part in print_below
    drawn[0].canvas.draw()
    legend, box = axes.get_legend().get_window_extent(), axes.get_window_extent()
    assert legend.y0 >= box.y1 - 1  # above the axes, where no line goes
    assert legend.x1 <= drawn[0].bbox.x1


def test_json_is_all_that_stands_on_stdout() -> None:
    content = json.loads(call("--radius", 0.4, "-n", 10, "--json").stdout)
    there = written()
    assert content["sentence"] == there["sentence"]
    assert content["radii"] == there["radii"]
    assert content["files"] == [str(Path("run/certify.json"))]
    assert not {"certificates", "label"} & content.keys()


def test_what_it_was_made_from() -> None:
    call("--radius", 0.4, "-n", 10)
    content = written()
    assert content["provenance"]["model"] == "net.py:make"
    assert content["provenance"]["command"].startswith("robustness certify --model net.py:make")
    assert len(content["provenance"]["data sha256"]) == 64
    assert content["environment"]["seed"] == "0"
    assert len(content["digest"]) == len(content["drawn"]) == 10
    assert str(Path.cwd()) not in json.dumps(content)


@pytest.mark.parametrize(("words", "said"), [
    ([], "give at least one radius"),
    (["--radius", "0.1", "--sigma", "quarter"], "--sigma takes a number in pixel units of [0, 1], such as 0.25 or 1/4; "
                                                "found 'quarter'"),
    (["--radius", "0.1", "--sigma", "1/0"], "found '1/0'"),
    (["--curve", "--tolerance", "a tenth"], "--tolerance takes a number in pixel units of [0, 1], such as 0.25 or 1/4; "
                                            "found 'a tenth'"),
    (["--curve", "--up-to", "inf"], "--up-to takes a number in pixel units of [0, 1], such as 0.25 or 1/4; "
                                    "found 'inf'"),
    (["--radius", "half"], "found 'half'"),
    (["--radius", "0"], "must be positive"),
    (["--radius", "0.1", "--sigma", "0"], "sigma must be positive"),
    (["--radius", "0.1", "--alpha", "1"], "alpha"),
    (["--radius", "3"], "no number of votes could"),
    (["--radius", "0.9"], "take a budget of"),
    (["--radius", "0.1", "--tolerance", "0.1"], "for the curve"),
    (["--curve", "--up-to", "0.3", "--radius", "0.5"], "the curve ends at 0.3"),
    (["--radius", "0.1", "--minutes", "-1"], "more than 0"),
    (["--radius", "0.1,0.2", "--min-certified", "50"], "one --radius"),
    (["--radius", "0.1", "--min-certified", "0.5"], "write 50 for 50 %"),
    (["--radius", "0.1", "--model", "net.py:fails"], "no such layer"),
    (["--radius", "0.1", "--model", "net.py:reading"], "the model fails: FileNotFoundError: [Errno 2] No such file"),
    (["--radius", "0.1", "--model", "net.py:nervous"], "do not stand each for itself"),
])
def test_wrong_usage_is_one_line_and_code_2(words: list[str], said: str) -> None:
    result = call(*words, code=2)
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert not Path("run/certify.json").exists()


def test_others_results_are_not_overwritten() -> None:
    call("--radius", 0.1, "-n", 10)
    call("--radius", 0.2, "-n", 10)  # the same model and data may be asked again
    result = call("--radius", 0.1, "-n", 10, model="net.py:steeper", code=2)
    assert "is the report of another model (net.py:make)" in result.stderr
    assert "other data" in call("--radius", 0.1, "-n", 10, data="near.npz", code=2).stderr
    assert written()["radii"][0]["radius"] == 0.2
    call("--radius", 0.1, "-n", 10, "--force", model="net.py:steeper")
    assert written()["provenance"]["model"] == "net.py:steeper"
    Path("run/certify.json").write_text("{}")
    assert "does not hold the results" in call("--radius", 0.1, "-n", 10, code=2).stderr


def test_another_sigma_or_kind_of_question_is_not_overwritten() -> None:
    call("--curve", "-n", 10)
    picture = Path("run/curve.png")
    result = call("--radius", 0.1, "-n", 10, "--sigma", 0.2, code=2)
    assert "is the report of another sigma (0.25) and a curve (net.py:make). Name another folder" in result.stderr
    call("--curve", "-n", 10, "--seed", 1)  # the same may be asked again
    assert written()["seed"] == 1
    assert picture.exists()
    assert "the report of a curve (" in call("--radius", 0.1, "-n", 10, code=2).stderr
    assert written()["seed"] == 1
    call("--radius", 0.1, "-n", 10, "--force")
    assert not picture.exists()  # it was of the other result
    assert "single radii and no curve" in call("--curve", "-n", 10, code=2).stderr
    picture.write_bytes(b"somebody's own")
    Path("run/certify.json").unlink()
    call("--radius", 0.1, "-n", 10)
    assert picture.exists()


@pytest.mark.parametrize("full", ["votes.npz", "certify.json"])
def test_a_full_disk_is_one_line_that_names_the_file_and_where_the_work_is(full: str, monkeypatch: pytest.MonkeyPatch
                                                                          ) -> None:
    write_bytes = Path.write_bytes

    def no_space(path: Path, content: bytes) -> int:
        if full in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", no_space)
    result = call("--radius", 0.1, "-n", 10, code=2)
    said = result.stderr.strip().splitlines()[-1].replace("\\", "/")
    assert "No space left on device: 'run/" in said
    assert f"{full}'. The work so far is kept in run/certify-state: the same command goes on" in said
    assert Path("run/certify-state").is_dir()


@pytest.mark.parametrize(("minimum", "code", "outcome"), [(40, 0, "pass"), (95, 1, "fail"), (50, 3, "undecided")])
def test_a_gate(minimum: int, code: int, outcome: str) -> None:
    result = call("--radius", 0.4, "--min-certified", minimum, "--json", code=code)
    gate = json.loads(result.stdout)["gate"]
    assert (gate["criterion"], gate["outcome"]) == ("min_certified", outcome)
    assert "certified accuracy 4" in gate["words"]


def test_a_network_that_does_not_bear_the_noise_is_named() -> None:
    result = call("--radius", 0.1, data="near.npz")
    content = written()
    assert content["clean"]["value"] == 1
    assert content["smoothed"]["value"] < 0.6
    assert "hardly bears noise of σ = 0.25" in " ".join(result.stdout.split())
    assert "GaussianAugmentation" in content["doubt"]
    call("--radius", 0.1, "--force")
    assert written()["doubt"] is None


# Time, and what is left of a run that was stopped.


def test_minutes_say_what_fits_before_it_starts() -> None:
    result = call("--radius", 0.4, "--minutes", 2)
    assert "40 images with up to 2,000 votes each, about" in result.stderr
    assert "95 % interval will be about" in result.stderr
    assert sorted(path.name for path in Path("run").iterdir()) == ["certify.json"]
    assert "too few" in call("--radius", 0.4, "--minutes", 1e-5, "--out", "other", code=2).stderr


def test_a_stopped_run_goes_on_as_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = certify_images = _certify.certify_images

    def stopped(*given, progress, **settings):
        def tell(stage, through, draws):
            progress(stage, through, draws)
            if stage != "answers":
                raise KeyboardInterrupt
        return certify_images(*given, progress=tell, **settings)

    monkeypatch.setattr(_certify, "certify_images", stopped)
    result = call("--radius", 0.4, "--minutes", 2, code=130)
    assert "The same command goes on where this one was; its work is kept in run/certify-state" in \
        result.stderr.replace("\\", "/")
    assert list(Path("run/certify-state").rglob("*.npz"))
    drawn = []

    def watched(*given, progress, **settings):
        def tell(stage, through, draws):
            drawn.append((stage, draws))
            progress(stage, through, draws)
        return whole(*given, progress=tell, **settings)

    monkeypatch.setattr(_certify, "certify_images", watched)
    assert "Going on as planned: 40 images" in call("--radius", 0.4, "--minutes", 2).stderr
    assert not sum(draws for stage, draws in drawn if stage == "answers")  # they were on disk
    ours = written()
    call("--radius", 0.4, "--out", "alone")
    assert written("alone")["certificates"] == ours["certificates"]
    assert sorted(path.name for path in Path("run").iterdir()) == ["certify.json"]


def test_a_state_of_another_run_is_refused_and_dropped_by_force() -> None:
    call("--radius", 0.4, "-n", 10, "--state", "kept")
    assert list(Path("kept").rglob("*.npz"))
    result = call("--radius", 0.4, "-n", 10, "--state", "kept", "--seed", 1, "--out", "other", code=2)
    assert "belongs to another run" in result.stderr
    result = call("--radius", 0.4, "-n", 10, "--state", "kept", "--seed", 1, "--out", "other", "--force")
    assert "begun anew" in result.stderr
