"""For a defence that the attacker knows: wrap it in one of these, and attack the wrapped model with any attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustness_lib.attacks._asking import ask
from robustness_lib.attacks._attack import Attack, AttackResult, default_batch
from robustness_lib.exact import straight_through
from robustness_lib.inputs import check_count, check_images, check_labels, check_logits

__all__ = ["BPDA", "EOT", "Decision", "FreshVerdict", "identity"]

Decision = Literal["logits", "majority"]


def identity(x: Tensor) -> Tensor:
    """What a defence that hardly changes its input may be taken for, going backward."""
    return x


class BPDA(nn.Module):
    """Backward pass differentiable approximation (Athalye, Carlini and Wagner 2018, arXiv 1802.00420, section 4.1): the
    answers are those of the defence, exactly; gradients go through `substitute` in place of its transform.

        attack(BPDA(BitDepth(model, bits=3)), x, y)
        attack(BPDA(JPEG(model, 50), DifferentiableJPEG(model, 50).transform), x, y)

    defence: a module with a `transform` of images (N, ...) and a `model` that gets what it returns, such as those of
    `robustness_lib.defenses`. substitute: a function of images, differentiable, near to the transform and of the same
    output shape. Where only a part of a stack of defences has no gradient, wrap that part.

    Raises TypeError for a defence without these two or a substitute that is no function; on use ValueError where the
    substitute returns another shape than the transform, or leaves no path for a gradient.
    """

    def __init__(self, defence: nn.Module, substitute: Callable[[Tensor], Tensor] = identity) -> None:
        super().__init__()
        if not isinstance(defence, nn.Module) or not callable(getattr(defence, "transform", None)) or not isinstance(
                getattr(defence, "model", None), nn.Module):
            raise TypeError(f"BPDA wraps a defence: a torch.nn.Module with .transform(x) and .model, such as those of "
                            f"robustness_lib.defenses; found {_name(defence)}")
        if isinstance(substitute, type) or not callable(substitute):
            raise TypeError(f"substitute must be a function of images, such as a defence's .transform; found "
                            f"{_name(substitute)}")
        self.defence, self._substitute = defence, (substitute,)  # in a tuple: not one more part of this module

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            exact = self.defence.transform(x)  # type: ignore[operator]
        if x.requires_grad and torch.is_grad_enabled():
            exact = straight_through(exact, self._near(x, exact))
        return self.defence.model(exact)  # type: ignore[no-any-return, operator]

    def _near(self, x: Tensor, exact: Tensor) -> Tensor:
        near = self._substitute[0](x)
        if not isinstance(near, Tensor) or near.shape != exact.shape:
            found = tuple(near.shape) if isinstance(near, Tensor) else _name(near)
            raise ValueError(f"the substitute must return images of the transform's shape, {tuple(exact.shape)}; found "
                             f"{found}. Pass a defence's .transform, not the defence: that returns logits")
        if not near.requires_grad:
            raise ValueError("the substitute's output does not depend on its input as autograd sees it: no gradient "
                             "can go back through it. Take identity, or a differentiable version of the transform")
        return near


@dataclass(frozen=True)
class FreshVerdict:
    """Answers to fresh randomness, that no attack has seen. Per image, in the order given.

    success: (N,) bool, the decision over all draws is not the label (or is the target). shares: (N,) float64, of
    single draws that are not the label (or are the target): 1 − shares.mean() is the accuracy, in expectation, of a
    defence that answers once. decision: "logits" or "majority". draws: per image.
    """

    success: Tensor
    shares: Tensor
    decision: Decision
    draws: int


class EOT(nn.Module):
    """Expectation over transformation (Athalye et al. 2018, arXiv 1707.07397): a model that answers at random, asked
    `samples` times at each point. The gradient is that of the mean logits, over one set of draws for each step.

        result, verdict = EOT(ResizePad(model), samples=20).attacked(PGD(threat), x, y)

    decision: what the defence is said to answer. "logits": the mean logits. "majority": votes, divided by `samples`,
    ties broken by the mean logits; the gradient is the same.
    `attack(EOT(...), x, y)` works with every attack; but an attack counts an image as broken by the draws that it saw
    itself, and looks until they are lucky. `attacked` asks again.

    Costs `samples` passes for each call, with all their activations in memory where a gradient is wanted.
    Raises ValueError for fewer than one sample or an unknown decision, TypeError for a model that is no module.
    """

    def __init__(self, model: nn.Module, samples: int = 20, *, decision: Decision = "logits") -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module; found {_name(model)}")
        check_count("samples", samples)
        if decision not in ("logits", "majority"):
            raise ValueError(f'decision must be "logits" or "majority"; found {decision!r}')
        self.model, self.samples, self.decision = model, samples, decision

    def forward(self, x: Tensor) -> Tensor:
        draws = [self.model(x) for _ in range(self.samples)]
        mean = torch.stack(draws).mean(0)
        if self.decision == "logits":
            return mean
        votes = _votes(draws, mean)
        return straight_through(votes, mean)

    def attacked(self, attack: Attack, x: Tensor, y: Tensor, target: Tensor | None = None, *, draws: int = 100,
                 **options: Any) -> tuple[AttackResult, FreshVerdict]:
        """Attack this model, then judge what was found by `draws` fresh answers for each image.

        An attack with a setting `stop` takes all its steps: one that stops at the first success stops at a lucky draw.
        `success` in the result is that of the verdict; all else is as the attack says, also a minimum-norm attack's
        distance. options: handed to `attack.run`. Raises what it raises, and TypeError for what is no single attack.
        """
        check_count("draws", draws)
        if not isinstance(attack, Attack):
            raise TypeError(f"attacked() takes one attack, such as PGD(threat); found {_name(attack)}. An ensemble "
                            f"attacks the EOT as it is; judge() its x_adv")
        if "stop" in {field.name for field in fields(attack)}:
            attack = replace(attack, stop="never")  # type: ignore[call-arg]
        result = attack.run(self, x, y, target, **options)
        verdict = self.judge(result.x_adv, y, target, draws=draws)
        return replace(result, success=verdict.success), verdict

    def judge(self, x: Tensor, y: Tensor, target: Tensor | None = None, *, draws: int = 100) -> FreshVerdict:
        """The images x (N, ...) with labels y (N,), as they are, under `draws` fresh answers each (or target (N,))."""
        check_count("draws", draws)
        check_images(x)
        check_labels(y, x)
        label = (y if target is None else target).cpu()
        if len(x) == 0:
            return FreshVerdict(label.bool(), label.double(), self.decision, draws)
        size = default_batch(x, x.device)
        answers = [ask(self.model, x, size=size) for _ in range(draws)]
        check_logits(answers[0].nan_to_num(), x, (label,))
        mean = torch.stack(answers).mean(0)
        decided = (mean if self.decision == "logits" else _votes(answers, mean)).argmax(1)
        single = torch.stack([answer.argmax(1) for answer in answers])
        known = ~torch.stack(answers).isnan().any(2)  # an answer that is no number is nobody's success
        right = (single == label) == (target is not None)
        return FreshVerdict(((decided == label) == (target is not None)) & known.all(0),
                            (right & known).double().mean(0), self.decision, draws)


def _votes(draws: list[Tensor], mean: Tensor) -> Tensor:
    """Shares of votes (N, K); between equal shares the mean logits decide, by less than half a vote."""
    winners = torch.stack([draw.argmax(1) for draw in draws])
    votes = torch.nn.functional.one_hot(winners, mean.shape[1]).to(mean.dtype).mean(0)
    return votes + mean.detach().softmax(1) * (0.5 / len(draws))


def _name(thing: object) -> str:
    return f"the class {thing.__name__}" if isinstance(thing, type) else type(thing).__name__
