"""The record of a training: which epoch is best, and its way to the disk and back."""

import json

import pytest

from robustness_lib.statistics import Accuracy
from robustness_lib.training import Epoch, History


def epoch(number, clean=None, robust=None, fgsm=None, seconds=1.0):
    def of(correct):
        return None if correct is None else Accuracy(correct, 100)

    return Epoch(number, 0.5 / number, 1e-3, seconds, of(clean), of(fgsm), of(robust))


def test_epochs_are_compared_by_robust_accuracy_where_there_is_one():
    assert epoch(1, clean=90, robust=40).score == 0.4
    assert epoch(1, clean=90).score == 0.9
    assert epoch(1, clean=90, robust=0).score == 0.0
    assert epoch(1).score is None


def test_the_first_of_the_best_epochs_is_the_best():
    history = History([epoch(1, 90, 30), epoch(2), epoch(3, 80, 40), epoch(4, 80, 40), epoch(5, 99, 39)])
    assert history.best is history.epochs[2]
    # Among equals that which is more often right on clean images: all may be at 0 under attack.
    assert History([epoch(1, 20, 0), epoch(2, 60, 0), epoch(3, 50, 0)]).best.epoch == 2
    assert History([epoch(1), epoch(2)]).best is None
    assert History().best is None


def test_epochs_seconds_and_words():
    history = History([epoch(1, seconds=1.5), epoch(2, 90, 40, 50, seconds=2.5)])
    assert len(history) == 2
    assert list(history) == history.epochs
    assert history.seconds == 4
    assert str(history.epochs[0]) == "epoch 1: loss 0.500"
    said = str(history.epochs[1])
    assert said.startswith("epoch 2: loss 0.250, clean 90.0 % (95 %: ")
    assert "fgsm 50.0 %" in said
    assert "robust 40.0 %" in said
    assert "n = 100" in said


def test_to_disk_and_back(tmp_path):
    history = History([epoch(1), epoch(2, 90, 40, 50)], kept=2, stopped="no better epoch")
    history.save(tmp_path / "new" / "history.json")
    assert History.load(tmp_path / "new" / "history.json") == history
    assert History.load(str(tmp_path / "new" / "history.json")).best == history.epochs[1]
    content = json.loads((tmp_path / "new" / "history.json").read_text(encoding="utf-8"))
    assert content["epochs"][1]["robust"] == {"correct": 40, "n": 100}
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"epochs": [{}], "kept": 0, "stopped": null}',
                                  '{"epochs": [], "kept": 0}', '{"epochs": 3, "kept": 0, "stopped": null}',
                                  '{"epochs": [{"epoch": 1, "loss": 1, "rate": 1, "seconds": 1, "clean": 0.5}], '
                                  '"kept": 0, "stopped": null}'])
def test_a_file_that_is_none_is_refused(tmp_path, text):
    path = tmp_path / "history.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"history\.json is not the history of a training"):
        History.load(path)
