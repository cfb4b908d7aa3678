"""The numbers behind the slider and the strip."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustness_lib.attacks import FGSM, PGD
from robustness_lib.threat import ThreatModel
from robustness_lib.widgets import Frame, epsilon_frames

EPSILONS = [0, 1 / 255, 4 / 255, 8 / 255]
LINF = ThreatModel("linf", 8 / 255)


def label(model: nn.Module, x: Tensor) -> int:
    return int(model(x[None]).argmax())


@dataclass(frozen=True)
class Recorder:
    """An attack that adds ε and writes down how it was called."""

    threat: ThreatModel = LINF
    stop: str = "success"
    calls: list[dict[str, Any]] = field(default_factory=list)

    def run(self, model: nn.Module, x: Tensor, y: Tensor, start: Tensor | None = None) -> Any:
        self.calls.append({"eps": self.threat.eps, "start": start, "stop": self.stop})

        class Result:
            x_adv = (x + self.threat.eps).clamp(0, 1)

        return Result()


def test_each_epsilon_starts_from_the_one_before_and_takes_all_its_steps(model: nn.Sequential, image: Tensor) -> None:
    attack = Recorder()
    epsilon_frames(model, image, 0, attack, EPSILONS)
    assert [call["eps"] for call in attack.calls] == EPSILONS[1:]  # ε = 0 is the clean image, not an attack
    assert all(call["stop"] == "never" for call in attack.calls)
    assert torch.equal(attack.calls[0]["start"], image[None])
    assert torch.equal(attack.calls[2]["start"], (image[None] + 4 / 255).clamp(0, 1))


def test_an_attack_without_start_simply_runs(model: nn.Sequential, image: Tensor) -> None:
    class WithoutStart(Recorder):
        def run(self, model: nn.Module, x: Tensor, y: Tensor) -> Any:  # type: ignore[override]
            return super().run(model, x, y)

    attack = WithoutStart()
    epsilon_frames(model, image, 0, attack, EPSILONS)
    assert [call["start"] for call in attack.calls] == [None] * 3


def test_fgsm_is_one_step_from_x_at_every_epsilon(model: nn.Sequential, image: Tensor) -> None:
    y = label(model, image)
    frames = epsilon_frames(model, image, y, FGSM(LINF), EPSILONS)
    alone = replace(FGSM(LINF), stop="never")(model, image[None], torch.tensor([y]))
    expected = (alone[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    assert (frames[-1].adversarial == expected).all()


def test_what_a_frame_shows(model: nn.Sequential, image: Tensor) -> None:
    y = label(model, image)
    frames = epsilon_frames(model, image, y, PGD(LINF, steps=5), EPSILONS)
    clean = (image.permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)
    assert [frame.eps for frame in frames] == EPSILONS
    assert all((frame.clean == clean).all() for frame in frames)
    assert (frames[0].adversarial == clean).all()
    assert np.isin(frames[0].perturbation, (127, 128)).all()  # no change is mid-grey
    for frame in frames:
        change = np.abs(frame.adversarial.astype(int) - clean)
        assert change.max() <= round(frame.eps * 255)
        assert frame.scale == 8 / 255  # the same for all
        assert frame.magnification == pytest.approx(255 / 16)
        drawn = frame.perturbation.astype(float) - 127.5
        assert np.abs(drawn - (frame.adversarial.astype(float) - clean) * frame.magnification).max() < 9
        assert frame.probabilities.sum() == pytest.approx(1)
    losses = [-np.log(frame.probabilities[y]) for frame in frames]
    assert losses == sorted(losses)  # a larger ε never seems weaker


def test_l2(model: nn.Sequential, image: Tensor) -> None:
    frames = epsilon_frames(model, image, 0, PGD(ThreatModel("l2", 1.0), steps=5), [0, 0.25, 0.5])
    largest = np.abs(frames[-1].adversarial.astype(float) - frames[-1].clean).max() / 255
    assert frames[0].scale >= largest - 1 / 255
    assert frames[-1].budget == "ε = 0.5: the whole change has at most this length"


def frame(eps: float, probabilities: list[float], truth: int = 0) -> Frame:
    picture = np.zeros((2, 2, 3), np.uint8)
    return Frame("linf", eps, picture, picture, picture, 8 / 255, np.array(probabilities), truth, ("stop", "go"))


@pytest.mark.parametrize(
    ("eps", "probabilities", "caption"),
    [
        (0, [0.9, 0.1], "ε = 0: no change allowed. The model says “stop” (90 %), which is right."),
        (1 / 255, [0.995, 0.005],
         "ε = 1/255: one grey level of 255. The model says “stop” (over 99 %), which is right."),
        (4 / 255, [0.001, 0.999],
         "ε = 4/255: four grey levels of 255. The model says “go” (over 99 %); it is “stop” (under 1 %)."),
        (2.5 / 255, [0.6, 0.4], "ε = 2.5/255: 2.5 grey levels of 255. The model says “stop” (60 %), which is right."),
        (32 / 255, [0.4, 0.6], "ε = 32/255: 32 grey levels of 255. The model says “go” (60 %); it is “stop” (40 %)."),
    ],
)
def test_captions(eps: float, probabilities: list[float], caption: str) -> None:
    assert frame(eps, probabilities).caption == caption


def test_the_model_is_as_it_was(model: nn.Sequential, image: Tensor) -> None:
    model.train()
    model[1].eval()
    epsilon_frames(model, image, 0, FGSM(LINF), EPSILONS)
    assert model.training
    assert not model[1].training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 3, 12, 12)}, "shows one image"),
        ({"x": torch.zeros(2, 12, 12)}, "1 or 3 channels"),
        ({"y": torch.tensor([0, 1])}, "shows one image"),
        ({"y": 5}, "labels must lie in 0"),
        ({"epsilons": []}, "epsilons is empty"),
        ({"epsilons": [4 / 255, 2 / 255]}, "must increase"),
        ({"epsilons": [-0.1, 0.1]}, "must increase from 0"),
        ({"epsilons": [0, 4, 8]}, "write 8/255, not 8"),
        ({"classes": ["stop", "go"]}, "2 classes, but the model returns 5"),
    ],
)
def test_wrong_input_is_refused_in_words(
    model: nn.Sequential, image: Tensor, change: dict[str, Any], message: str
) -> None:
    arguments = {"x": image, "y": 0, "attack": FGSM(LINF), "epsilons": EPSILONS, "classes": None, **change}
    with pytest.raises(ValueError, match=message):
        epsilon_frames(model, **arguments)


def test_a_model_that_works_in_place_does_not_reach_the_image(model: nn.Sequential, image: Tensor) -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return model(x.clamp_(0.2, 0.8))  # type: ignore[no-any-return]

    before = image.clone()
    epsilon_frames(InPlace(), image, 0, FGSM(ThreatModel("linf", 0.1)), [0.0])
    assert torch.equal(image, before)
