"""For a defense that the attacker knows: wrap it in one of these, and attack the wrapped model with any attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from robustness_lib.attacks._attack import Attack, AttackResult
from robustness_lib.attacks._minimum_norm import MinimumNormAttack
from robustness_lib.inputs import check_count, check_images, check_labels, check_logits, check_targets
from robustness_lib.losses import margin_loss
from robustness_lib.querying.batch_size import cut, default_batch_size
from robustness_lib.querying.confirm_predictions import predict_logits_per_draw
from robustness_lib.querying.frozen import Mode, frozen
from robustness_lib.querying.queried_model import QueriedModel
from robustness_lib.querying.warnings import attack_warning
from robustness_lib.shapes import per_example
from robustness_lib.straight_through import straight_through

__all__ = ["BPDA", "EOT", "Decision", "FreshVerdict", "identity"]

Decision = Literal["logits", "majority"]

# A minimum-norm attack's point on its ray: how much farther from x it is tried where fresh draws do not confirm it, as
# a share of its distance; how often the step to the nearest that they confirm is halved; how many verdicts in a row
# must then confirm it, each no moving it on; and how many are asked at most.
_FARTHER = tuple(0.02 * 2**k for k in range(12))
_HALVINGS, _IN_A_ROW, _AT_MOST = 5, 8, 40


def identity(x: Tensor) -> Tensor:
    """What a defense that hardly changes its input may be taken for, going backward."""
    return x


class BPDA(nn.Module):
    """Backward pass differentiable approximation (Athalye, Carlini and Wagner 2018, arXiv 1802.00420, section 4.1): the
    answers are those of the defense, exactly; gradients go through `substitute` in place of its transform.

        attack(BPDA(BitDepth(model, bits=3)), x, y)
        attack(BPDA(JPEG(model, 50), DifferentiableJPEG(model, 50).transform), x, y)

    defense: a module with a `transform` of images (N, ...) and a `model` that gets what it returns, such as those of
    `robustness_lib.defenses`. substitute: a function of images, differentiable, near to the transform and of the same
    output shape; a module, or a method of one, becomes a part of this module: it moves with it and is frozen with it.
    Where only a part of a stack of defenses has no gradient, wrap that part.

    Raises TypeError for a defense without these two or a substitute that is no function, ValueError for a substitute
    that draws at random; on use ValueError where the substitute returns another shape than the transform, or leaves no
    path for a gradient.
    """

    def __init__(self, defense: nn.Module, substitute: Callable[[Tensor], Tensor] = identity) -> None:
        super().__init__()
        if not isinstance(defense, nn.Module) or not callable(getattr(defense, "transform", None)) or not isinstance(
                getattr(defense, "model", None), nn.Module):
            raise TypeError(f"BPDA wraps a defense: a torch.nn.Module with .transform(x) and .model, such as those of "
                            f"robustness_lib.defenses; found {_name(defense)}")
        if isinstance(substitute, type) or not callable(substitute):
            raise TypeError(f"substitute must be a function of images, such as a defense's .transform; found "
                            f"{_name(substitute)}")
        owner = getattr(substitute, "__self__", substitute)
        if getattr(owner, "stochastic", False):
            raise ValueError(f"the substitute draws at random ({_name(owner)}): its slope would be that of another "
                             f"draw than the answer's. Attack a defense that has a gradient by EOT alone; for one that "
                             f"has none take a substitute that draws nothing, such as identity")
        self.defense, self.substitute = defense, substitute
        self.substitute_of = owner if isinstance(owner, nn.Module) and owner is not substitute else None
        self.training = defense.training  # not .train(), which would also set the submodules of the caller's model

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            exact = self.defense.transform(x)  # type: ignore[operator]
        if x.requires_grad and torch.is_grad_enabled():
            exact = straight_through(exact, self._near(x, exact))
        return self.defense.model(exact)  # type: ignore[no-any-return, operator]

    def _near(self, x: Tensor, exact: Tensor) -> Tensor:
        near = self.substitute(x)
        if not isinstance(near, Tensor) or near.shape != exact.shape:
            found = tuple(near.shape) if isinstance(near, Tensor) else _name(near)
            raise ValueError(f"the substitute must return images of the transform's shape, {tuple(exact.shape)}; found "
                             f"{found}. Pass a defense's .transform, not the defense: that returns logits")
        if not near.requires_grad:
            raise ValueError("the substitute's output does not depend on its input as autograd sees it: no gradient "
                             "can go back through it. Take identity, or a differentiable version of the transform")
        return near


@dataclass(frozen=True)
class FreshVerdict:
    """Answers to fresh randomness, that no attack has seen. Per image, in the order given.

    success: (N,) bool, the decision over all draws is not the label (or is the target). shares: (N,) float64, of
    single draws that are not the label (or are the target): 1 − shares.mean() is the accuracy, in expectation, of a
    defense that answers once. decision: "logits" or "majority". draws: per image. no_number: (N,) int64, how many of
    these had NaN in the answer; they decide nothing, and an image without any other is no success.
    """

    success: Tensor
    shares: Tensor
    decision: Decision
    draws: int
    no_number: Tensor


class EOT(nn.Module):
    """Expectation over transformation (Athalye et al. 2018, arXiv 1707.07397): a model that answers at random, asked
    `samples` times at each point. The gradient is that of the mean logits, over one set of draws for each step.

        result, verdict = EOT(ResizePad(model), samples=20).attacked(PGD(threat), x, y)

    decision: what the defense is said to answer. "logits": the mean logits. "majority": the class that most draws name,
    ties broken by the mean logits. The logits returned are the mean's in both cases, so that a loss means what it means
    elsewhere; where the votes name another class than the mean does, these two have changed places.
    `attack(EOT(...), x, y)` works with every attack; but an attack counts an image as broken by the draws that it saw
    itself, and looks until they are lucky. `attacked` asks again. stochastic: true, which tells Square and the
    minimum-norm attacks not to trust one answer.

    Costs `samples` passes for each call, with all their activations in memory where a gradient is wanted.
    Raises ValueError for fewer than one sample or an unknown decision, TypeError for a model that is no module.
    """

    stochastic: ClassVar[bool] = True
    averages: ClassVar[bool] = True

    def __init__(self, model: nn.Module, samples: int = 20, *, decision: Decision = "logits") -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module; found {_name(model)}")
        check_count("samples", samples)
        if decision not in ("logits", "majority"):
            raise ValueError(f'decision must be "logits" or "majority"; found {decision!r}')
        self.model, self.samples, self.decision = model, samples, decision
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        draws = torch.stack([self.model(x) for _ in range(self.samples)])
        mean = draws.mean(0)
        if self.decision == "logits":
            return mean
        winner = _votes(draws, mean).argmax(1)
        return mean if torch.equal(winner, mean.argmax(1)) else straight_through(_led_by(winner, mean), mean)

    def extra_repr(self) -> str:
        return f"samples={self.samples}, decision={self.decision}"

    def attacked(self, attack: Attack, x: Tensor, y: Tensor, target: Tensor | None = None, *, draws: int = 100,
                 **options: Any) -> tuple[AttackResult, FreshVerdict]:
        """Attack this model, then judge what was found by `draws` fresh answers for each image.

        An attack with a setting `stop` takes all its steps: one that stops at the first success stops at a lucky draw.
        A minimum-norm attack's points are moved on the ray from x, outward or inward, to where fresh draws just confirm
        them; what it could not confirm itself is at distance ∞. `success` in the result is that of the verdict, and so
        is the distance, ∞ (and x itself) where a minimum-norm attack has none. Images left standing on which the
        gradient is exactly zero are named in the warnings. `calls` and `queries` leave out what the verdicts cost.
        options: handed to `attack.run`. Raises what it raises, and TypeError for what is no single attack.
        """
        check_count("draws", draws)
        if not isinstance(attack, Attack):
            raise TypeError(f"attacked() takes one attack, such as PGD(threat); found {_name(attack)}. An ensemble "
                            f"attacks the EOT as it is; judge() its x_adv")
        if "stop" in {field.name for field in fields(attack)}:
            attack = replace(attack, stop="keep-success")  # type: ignore[call-arg]
        result, x = attack.run(self, x, y, target, **options), check_images(x.detach())
        nearest = isinstance(attack, MinimumNormAttack)
        judge = partial(self.judge, draws=draws, mode=attack.mode, batch_size=options.get("batch_size"))
        x_adv = self._along_rays(result, x, y, target, judge) if nearest else result.x_adv
        verdict = judge(x_adv, y, target)
        success = verdict.success.to(x.device)
        if nearest:
            x_adv = torch.where(per_example(success, x), x_adv, x)
        # The attack takes a mark of doubt back where a draw was lucky: look again at what really stands.
        warnings = [warning for warning in result.warnings if warning.kind != "zero gradient"]
        left, size = ~verdict.success, options.get("batch_size")
        if (result.gradients > 0).any() and (blind := self._blind(x, y, left, attack.mode, size)):
            warnings.append(attack_warning("zero gradient", blind, len(x)))
        distance = attack._distance(x_adv, x, success)
        return replace(result, x_adv=x_adv, success=success, distance=distance, warnings=tuple(warnings)), verdict

    def _along_rays(self, found: AttackResult, x: Tensor, y: Tensor, target: Tensor | None,
                    judge: Callable[..., FreshVerdict]) -> Tensor:
        """The points found, (N, ...), moved on the rays from x to where fresh verdicts just confirm them: outward by
        steps that double, where they do not; then back by halves; then out again, a little more each time, until a few
        verdicts in a row confirm them."""
        rows = found.success.nonzero()[:, 0]
        from_x, delta = x[rows], found.x_adv[rows] - x[rows]

        def points(excess: Tensor) -> Tensor:
            return (from_x + delta * per_example(1 + excess, delta)).clamp(0, 1)

        def holds(excess: Tensor, asked: Tensor) -> Tensor:
            """Of those asked, (M,) bool: at this share of the distance farther than the point found."""
            said = torch.zeros_like(asked)
            at = rows[asked]
            labels = (None if of is None else of[at.to(of.device)] for of in (y, target))
            said[asked] = judge(points(excess)[asked], *labels).success.to(x.device)
            return said

        everybody = torch.ones_like(rows, dtype=torch.bool)
        high = torch.zeros(len(rows), dtype=x.dtype, device=x.device)
        low = high - 1  # x itself
        standing = ~holds(high, everybody)
        for step in _FARTHER:
            low, high = torch.where(standing, high, low), torch.where(standing, step, high)
            standing = standing & ~holds(high, standing)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            near = holds(middle, ~standing)
            low, high = torch.where(near, low, middle), torch.where(near, middle, high)
        push, row = torch.full_like(high, _FARTHER[0]), torch.zeros_like(rows)
        for _ in range(_AT_MOST):
            asked = row < _IN_A_ROW
            fails = asked & ~holds(high, asked)
            high, push = torch.where(fails, high + push, high), torch.where(fails, 1.5 * push, push)
            row = torch.where(fails, 0, row + 1)
        x_adv = found.x_adv.clone()
        x_adv[rows] = points(high)
        return x_adv

    def judge(self, x: Tensor, y: Tensor, target: Tensor | None = None, *, draws: int = 100, mode: Mode = "eval",
              batch_size: int | None = None) -> FreshVerdict:
        """The images x (N, ...) with labels y (N,), as they are, under `draws` fresh answers each (or target (N,)).
        mode: "eval", or "keep" for the modes that the model's parts are in. batch_size: images that travel to the
        model's device together. Everything in the verdict is on the CPU."""
        check_count("draws", draws)
        if batch_size is not None:
            check_count("batch_size", batch_size)
        x = check_images(x)
        check_labels(y, x)
        if target is not None:
            check_targets(target, y, x)
        label = (y if target is None else target).cpu()
        if len(x) == 0:
            return FreshVerdict(label.bool(), label.double(), self.decision, draws, label)
        size = batch_size or default_batch_size(x, x.device)
        answers = predict_logits_per_draw(self.model, x, size=size, mode=mode, draws=draws)
        check_logits(answers[0].nan_to_num(), x, (label,))
        known = ~answers.isnan().any(2)  # (draws, N): an answer that is no number is nobody's success
        mean = torch.where(known[..., None], answers, 0).sum(0) / known.sum(0).clamp(min=1)[:, None]
        decision = mean if self.decision == "logits" else _votes(answers, mean, known)
        single = (answers.argmax(2) == label) == (target is not None)
        decided = (decision.argmax(1) == label) == (target is not None)
        return FreshVerdict(decided & known.any(0) & ~decision.isnan().any(1), (single & known).double().mean(0),
                            self.decision, draws, (~known).sum(0))

    def _blind(self, x: Tensor, y: Tensor, left: Tensor, mode: Mode, size: int | None) -> list[int]:
        """Numbers of the images left standing on which the margin's gradient is exactly zero."""
        queried, numbers = QueriedModel(self, mode=mode), left.nonzero()[:, 0]
        found: list[int] = []
        with frozen(self, mode):
            for batch in cut(len(numbers), size or default_batch_size(x, x.device)) if len(numbers) else ():
                part = numbers[batch]
                images, labels = (of[part.to(of.device)].to(queried.device(x)) for of in (x, y))
                queried.expect((labels,))
                gradient = queried.gradient(images, partial(margin_loss, y=labels))[2]
                found += part[(gradient == 0).flatten(1).all(1).cpu()].tolist()
        return found


def _votes(draws: Tensor, mean: Tensor, known: Tensor | None = None) -> Tensor:
    """Shares (N, K) of the votes of draws (S, N, K), less those not known (S, N); between equal shares the mean logits
    decide, by less than half a vote."""
    votes = torch.nn.functional.one_hot(draws.argmax(2), mean.shape[1]).to(mean.dtype)
    if known is not None:
        votes = votes * known[..., None]
    return votes.mean(0) + mean.detach().softmax(1) * (0.5 / len(draws))


def _led_by(winner: Tensor, z: Tensor) -> Tensor:
    """z (N, K) where the highest of each row has changed places with the winner (N,)."""
    z, winner = z.detach(), winner[:, None]
    first = z.argmax(1, keepdim=True)
    return z.scatter(1, first, z.gather(1, winner)).scatter(1, winner, z.gather(1, first))


def _name(thing: object) -> str:
    return f"the class {thing.__name__}" if isinstance(thing, type) else type(thing).__name__
