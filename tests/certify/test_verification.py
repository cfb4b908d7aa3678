"""What a verification says: shares that add up, JSON, and a column that an evaluation takes."""

import json
from dataclasses import replace

import pytest
import torch
from known_nets import THREAT, problem

from robustness_lib.attacks import PGD
from robustness_lib.certify import verify
from robustness_lib.certify.verification import VERDICTS
from robustness_lib.evaluation import evaluate
from robustness_lib.evaluation.contradiction import Contradiction
from robustness_lib.state import image_digests, model_fingerprint


@pytest.fixture(scope="module")
def found():
    return verify(*problem(), THREAT)


def test_the_shares_add_up(found):
    assert sum(found.share(verdict).correct for verdict in VERDICTS) == found.n == len(found) == 30
    assert torch.equal(sum(found.are(verdict).int() for verdict in VERDICTS), torch.ones(30, dtype=torch.int32))
    assert found.accuracy == found.share("robust")
    assert found.at_most.correct == found.share("robust").correct + found.share("unknown").correct
    assert torch.equal(found.certified, found.are("robust"))
    assert found.certified.dtype == torch.bool


def test_its_sentence_has_all_figures(found):
    figures = {verdict: found.verdicts.count(verdict) for verdict in VERDICTS}
    assert (f"the rest: {figures['broken']} broken, {figures['unknown']} undecided, {figures['wrong']} wrong without "
            f"an attack") in str(found)
    assert f"{found.accuracy} are proved to keep their label" in found.sentence
    assert repr(found) == f"<Verification: {found.sentence}>"


def test_to_dict_is_plain_json(found):
    _, x, y = problem()
    content = json.loads(json.dumps(found.to_dict(y), allow_nan=False))
    assert content["verdicts"] == list(found.verdicts)
    assert content["decided by"] == list(found.decided_by)
    assert content["margin"] == found.margin.tolist()
    assert content["label"] == y.tolist()
    assert sum(content[verdict]["images"] for verdict in VERDICTS) == content["n"] == 30
    assert content["robust"]["value"] == found.accuracy.value
    assert content["images"] == image_digests(x, y)
    assert content["model"] == model_fingerprint(problem()[0])
    assert [method["name"] for method in content["methods"]] == [stage.name for stage in found.stages]
    assert "label" not in found.to_dict()


def test_a_margin_that_nobody_computed_is_null_in_json():
    hurried = verify(*problem(), THREAT, seconds=1e-9)
    content = json.loads(json.dumps(hurried.to_dict(), allow_nan=False))
    assert [margin is None for margin in content["margin"]] == hurried.are("unknown").tolist()
    assert None in content["margin"]
    assert content["seconds an image"] == 1e-9


def test_of_no_image_there_is_no_share():
    model, x, y = problem()
    empty = verify(model, x[:0], y[:0], THREAT)
    content = json.loads(json.dumps(empty.to_dict(y[:0]), allow_nan=False))
    assert content["n"] == 0
    assert content["verdicts"] == []
    assert "robust" not in content
    assert "no image to verify" in str(empty)
    for share in (lambda: empty.accuracy, lambda: empty.at_most, lambda: empty.share("broken")):
        with pytest.raises(ValueError, match="no image to verify, and so there is no share"):
            share()


def test_labels_beside_it_must_fit(found):
    with pytest.raises(ValueError, match="one label per image"):
        found.to_dict(torch.zeros(3, dtype=torch.int64))


def test_an_evaluation_takes_what_is_certified(found):
    report = evaluate(*problem(), THREAT, PGD(THREAT, steps=5), certified=found.certified)
    assert report.certified is not None
    assert torch.equal(torch.from_numpy(report.certified), found.certified)


def test_an_evaluation_contradicts_what_is_falsely_certified(found):
    verdicts = tuple("robust" if verdict == "broken" else verdict for verdict in found.verdicts)
    with pytest.raises(Contradiction):
        evaluate(*problem(), THREAT, PGD(THREAT, steps=20), certified=replace(found, verdicts=verdicts).certified)


def test_notes_say_what_is_odd():
    model, x, y = problem()
    x = x[:3].clone()
    x[1, 0, 0, 0] = 1 + 5e-7
    (note,) = verify(model, x, y[:3], THREAT).notes
    assert "1" in note
    assert "clamped" in note.lower()


def test_a_verdict_that_there_is_not_is_refused(found):
    for ask in (found.are, found.share):
        with pytest.raises(ValueError, match="a verdict is one of robust, unknown, broken, wrong; found 'certified'"):
            ask("certified")
