"""Is this model what its evaluation will take it for? Asked before the evaluation, in a few seconds."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib.diagnosis._input_alternatives import (
    Alternative,
    PixelTransform,
    Preprocessing,
    as_good,
    beats_guessing,
    best_of,
    compared,
    label_alternatives,
    largest_share,
    mixtures,
    preprocessings,
)
from robustness_lib.diagnosis._output_kind import Remark, recognize_output
from robustness_lib.errors import blame
from robustness_lib.inputs import check_count, check_images, check_labels
from robustness_lib.losses import Loss, cross_entropy, margin_loss
from robustness_lib.models import Normalize
from robustness_lib.precision import full_precision
from robustness_lib.querying.batch_size import cut
from robustness_lib.querying.frozen import frozen
from robustness_lib.querying.queried_model import NoGradient, QueriedModel
from robustness_lib.querying.warnings import clamped, depends_on_batch, modes_seen, varies
from robustness_lib.reports import plain_json
from robustness_lib.reports.findings import P_VALUE
from robustness_lib.statistics import Accuracy
from robustness_lib.threat import ThreatModel

__all__ = ["Alternative", "Inspection", "Remark", "inspect_model"]

_PAIRED = 256  # images on which other alternatives are tried: a difference of five points shows, and time stays short
_NEAR = ThreatModel("linf", 1 / 255)
_NO_CLASS = -9  # of an image without an answer: no label, and none either when labels are counted otherwise
_TIMED = 5     # calls of which the median is taken


@dataclass(frozen=True)
class Inspection:
    """What was seen of a model on some images.

    accuracy: on pixels in [0, 1], as the model was given. alternatives: on a part of the images, with pixels prepared
    or labels numbered otherwise. output: what kind of answer it gives. outputs: its length K; classes: of the data.
    repeats: the same answer twice. independent: the answer does not change with the rest of the batch; None where it
    cannot be told. training: submodules that were in training mode; switched: those that a forward pass puts there.
    gradient: share of a batch whose loss has a gradient. parameters: their number. dtype, device: where and in what
    they are held. batch: images in the calls timed; forward_ms, gradient_ms: median milliseconds of a call, None
    without a gradient.
    """

    accuracy: Accuracy
    alternatives: tuple[Alternative, ...]
    output: str
    outputs: int
    classes: int
    repeats: bool
    independent: bool | None
    training: tuple[str, ...]
    switched: tuple[str, ...]
    gradient: float
    parameters: int
    dtype: str
    device: str
    batch: int
    forward_ms: float
    gradient_ms: float | None
    remarks: tuple[Remark, ...]

    @property
    def fine(self) -> bool:
        """No serious remark."""
        return not any(remark.serious for remark in self.remarks)

    def to_json(self) -> str:
        """All of it, whether it is fine, and which alternatives are better."""
        content = {"fine": self.fine, **plain_json.encode(self)}
        content["accuracy"] |= {"value": self.accuracy.value, "interval_95": list(self.accuracy.interval)}
        for entry, alternative in zip(content["alternatives"], self.alternatives, strict=True):
            entry["better"] = alternative.better
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def inspect_model(model: Callable[[Tensor], Any], x: Tensor, y: Tensor, *, threat: ThreatModel | None = None,
                  classes: Sequence[str] | None = None, batch_size: int | None = None) -> Inspection:
    """Ask a model what would make its evaluation meaningless. It is held in eval mode, as an evaluation holds it.

    x: (N, ...) float32 in [0, 1]; y: (N,) int64; a few hundred do. classes: the classes' names. threat: the threat
    model to come, if its ε is to be looked at. The model and the global random generator are as they were afterwards.

    Raises TypeError or ValueError for images and labels that cannot be used, for a model that fails on them (with its
    last line and place), and for answers in which no logits are found.
    """
    given, x = x, check_images(x)
    check_labels(y, x)
    if len(x) == 0:
        raise ValueError("no images to inspect the model on")
    if batch_size is not None:
        check_count("batch_size", batch_size)
    size = min(len(x), batch_size or (64 if x[0].numel() <= 3 * 64 * 64 else 16))
    device = QueriedModel(model).device(x)
    draws = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    modules = model.named_modules() if isinstance(model, nn.Module) else ()
    training = tuple(name or "the model" for name, module in modules if getattr(module, "training", False))
    with draws, frozen(model), full_precision():
        examination = _Examination(model, x, y, size, device, classes)
        examination.remarks += [Remark("clamped", warning.message, serious=False) for warning in clamped(given, x)]
        return examination.result(training, threat)


class _Examination:
    """The questions, in order; `remarks` collects what they bring to light."""

    def __init__(self, model: Callable[[Tensor], Any], x: Tensor, y: Tensor, size: int, device: torch.device,
                 classes: Sequence[str] | None) -> None:
        self.given, self.x, self.y, self.device = model, x, y.cpu(), device
        self.classes = len(classes) if classes is not None else int(y.max()) + 1
        self.batch = x[:size].to(device, copy=True)  # a model that works in place must not reach the caller's images
        with modes_seen(model) as switched:
            answer = recognize_output(model, self.batch)
        self.switched = tuple(sorted(name or "the model" for name in switched))
        self.queried, self.output, self.remarks = QueriedModel(answer.model), answer.kind, list(answer.remarks)

    def result(self, training: tuple[str, ...], threat: ThreatModel | None) -> Inspection:
        logits = self._answers(self.x)
        self._numbers(logits)
        predicted = _predicted(logits)
        accuracy = Accuracy(int((predicted == self.y).sum()), len(self.y))
        # Of answers read wrongly, and of none, no other reading of the pixels or labels can be judged.
        unread = self.output == "probabilities" or bool((~_is_answer(logits)).any())
        alternatives = () if unread else self._alternatives(predicted)
        self._guessing(accuracy)
        repeats, independent = self._steadiness()
        self._alone()
        self._near()
        self._modes(training)
        gradient = self._gradients()
        if threat is not None and (doubt := threat.doubt_about_eps(self.x[0].numel())):
            self._note("large ε", doubt, serious=threat.eps >= 1)
        forward = _milliseconds(lambda: self.queried.logits(self.batch), self.device)
        backward = _milliseconds(lambda: self._gradient(cross_entropy), self.device) if gradient else None
        tensors = list(self.given.parameters()) if isinstance(self.given, nn.Module) else []
        return Inspection(
            accuracy, alternatives, self.output, logits.shape[1], self.classes, repeats, independent, training,
            self.switched, gradient, sum(p.numel() for p in tensors),
            ", ".join(sorted({str(p.dtype).removeprefix("torch.") for p in tensors})) or "no parameters",
            ", ".join(sorted({str(p.device) for p in tensors})) or str(self.device), len(self.batch), forward, backward,
            tuple(self.remarks))

    def _note(self, kind: str, message: str, *, serious: bool = True) -> None:
        self.remarks.append(Remark(kind, message, serious))

    def _answers(self, x: Tensor, feed: PixelTransform | None = None) -> Tensor:
        """Logits (n, K), float32 on the CPU."""
        out = []
        with blame("the model fails"):
            for part in cut(len(x), len(self.batch)):
                there = x[part].to(self.device, copy=True)
                out.append(self.queried.logits(feed(there) if feed else there).float().cpu())
        return torch.cat(out)

    def _numbers(self, logits: Tensor) -> None:
        if lost := int((~_is_answer(logits)).sum()):
            self._note("not a number", f"for {lost} of {len(logits)} images the answer holds NaN or infinities: no "
                       "verdict on them means anything")
        outputs, highest = logits.shape[1], int(self.y.max())
        if highest >= outputs:
            self._note("classes", f"labels go up to {highest}, but the model has {outputs} outputs, numbered from 0 to "
                       f"{outputs - 1}")
        elif self.classes != outputs:
            self._note("classes", f"the model has {outputs} outputs, the data {self.classes} classes: make sure that "
                       "they are numbered alike", serious=False)

    # Is it read right?

    def _alternatives(self, predicted: Tensor) -> tuple[Alternative, ...]:
        """Pixels prepared otherwise, labels numbered otherwise: what helps most is said, and both if both help."""
        labels, y = label_alternatives(predicted, self.y), self.y
        best = best_of(labels)
        found: list[Alternative] = []
        if self.x.ndim > 2:  # channels, not points
            rows = torch.linspace(0, len(y) - 1, min(len(y), _PAIRED)).long()
            answers = self._pixels(self.x[rows], y[rows], predicted[rows], found)
            top = best_of(found)
            if top is not None and (best is None or top.accuracy.value > best.accuracy.value):
                inside = isinstance(getattr(self.given, "normalize", None), Normalize)
                self._note("pixels", f"{_percent(int((predicted == y)[rows].sum()) / len(rows))} "
                           f"{'as given' if inside else 'on raw pixels'}, {top.words}: {top.advice}"
                           f"{as_good(top, found)}")
                labels = label_alternatives(answers[top.name], y[rows])  # only these were read rightly
                best = best_of(labels)
        if best is not None:
            self._note("labels", f"{best.words}: {best.advice}")
        return (*found, *labels)

    def _pixels(self, x: Tensor, y: Tensor, predicted: Tensor, found: list[Alternative]) -> dict[str, Tensor]:
        """Other preparations to prepare these pixels, into `found`; what the model predicts in each."""
        inside = getattr(self.given, "normalize", None)
        preparations = list(preprocessings(x.shape[1], inside if isinstance(inside, Normalize) else None))
        answers: dict[str, Tensor] = {}

        def read(way: Preprocessing, before: Tensor) -> Alternative | None:
            answer = self._predicted(x, way.transform)
            if answer is None:
                return None
            answers[way.name] = answer
            return compared(way.name, way.advice, answer, before, y, len(preparations))

        found += [alternative for way in preparations if (alternative := read(way, predicted))]
        best = best_of(found)
        if best is not None and x.shape[1] == 3:  # two things may be amiss; both are said only if the second helps too
            for way in mixtures(preparations, best.name):
                both = read(way, answers[best.name])
                if both is not None and both.better:
                    found.append(compared(way.name, way.advice, answers[way.name], predicted, y, len(preparations)))
        return answers

    def _predicted(self, x: Tensor, feed: PixelTransform) -> Tensor | None:
        """None for a model that refuses pixels outside [0, 1]."""
        try:
            return _predicted(self._answers(x, feed))
        except ValueError:
            return None

    def _guessing(self, accuracy: Accuracy) -> None:
        share = largest_share(self.y)
        if share ** len(self.y) >= P_VALUE:
            self._note("few images", f"with {len(self.y)} images, {_percent(share)} of them in the largest class, no "
                       "model can be told from guessing", serious=False)
        elif not beats_guessing(accuracy, share):
            causes = "" if any(remark.serious for remark in self.remarks) else (
                ". The usual causes: weights that were not loaded, another normalization, another order of the "
                "classes, images of another size than in training")
            self._note("guessing", f"an accuracy of {accuracy} cannot be told from always answering the largest class "
                       f"({_percent(share)}){causes}")

    # Does it hold still, and has it a gradient?

    def _steadiness(self) -> tuple[bool, bool | None]:
        first, again = self._answers(self.batch), self._answers(self.batch)
        if varies(first, again):
            self._note("random answers", "the model answers differently when it is asked twice, so every verdict "
                       "depends on luck. Fix its randomness, or evaluate with the suite for such models (random)")
            return False, None
        if len(first) < 2:
            return True, None
        try:
            found = depends_on_batch(self.batch, first, self._answers)
        except ValueError:  # not on negatives
            return True, None
        for warning in found:
            self._note(warning.kind, warning.message)
        return True, not found

    def _near(self) -> None:
        """Attacks ask about images that were changed a little."""
        points = _NEAR.random_point(self.batch, seed=0, index=torch.arange(len(self.batch)))
        if lost := int((~_is_answer(self._answers(points))).sum()):
            self._note("not a number", f"for {lost} of {len(points)} images the answer holds NaN or infinities once "
                       f"each pixel moves by chance, by 1/255 at most: no attack can be judged there. Look for a "
                       f"square root, logarithm or division at zero")

    def _alone(self) -> None:
        """Attacks ask about single images too, when the others are broken and may leave the batch."""
        if self.queried.whole:
            return
        self._answers(self.batch[:1])
        if self.queried.one_as_two:
            self._note("one image", "the model fails on one image alone, or drops the batch's axis (a .squeeze() "
                       "without its axis does it); attacks and evaluations show it such an image twice", serious=False)

    def _modes(self, training: tuple[str, ...]) -> None:
        if self.switched:
            self._note("changed mode", f"a forward pass puts {_some(self.switched)} into training mode, so an "
                       "evaluation meets another model than it believes (dropout, batch statistics). Take the call of "
                       ".train() out")
        if training:
            self._note("training mode", f"{_some(training)} came in training mode; an evaluation switches it to eval "
                       "mode, and back afterwards", serious=False)

    def _gradients(self) -> float:
        """Share of a batch that has a gradient, of either loss."""
        n = len(self.batch)
        found = [self._gradient(loss) for loss in (cross_entropy, margin_loss)]
        crossed, margin = found
        if crossed is None or margin is None:
            self._note("no gradient", "autograd sees no way from the model's answer back to its input (it detaches, "
                       "rounds, leaves PyTorch or runs under no_grad), so attacks that follow a gradient cannot run")
            return 0.0
        if not (crossed.isfinite().all() and margin.isfinite().all()):
            self._note("not a number", "the gradient of the loss holds NaN or infinities, which no attack can follow. "
                       "Look for a square root, logarithm or division at zero")
        by_entropy = (crossed.flatten(1) != 0).any(1)
        either = by_entropy | (margin.flatten(1) != 0).any(1)
        if 2 * int(either.sum()) < n:
            self._note("zero gradient", f"for {n - int(either.sum())} of {n} images the loss has a gradient of exactly "
                       "zero, so attacks that follow it do nothing. Look for rounding, thresholds or saturation")
        elif not by_entropy.all():
            self._note("zero gradient", f"for {n - int(by_entropy.sum())} of {n} images cross-entropy has a gradient "
                       "of exactly zero (saturated logits); use attacks on the margin too, as the standard suite does",
                       serious=False)
        return float(either.float().mean())

    def _gradient(self, loss: Loss) -> Tensor | None:
        """Of the loss at the model's own answer, which is a class in any case: (n, ...), or None."""
        with blame("the model fails when it is differentiated"):
            try:
                return self.queried.gradient(self.batch, lambda z: loss(z, z.detach().argmax(1)))[2]
            except NoGradient:
                return None


def _is_answer(logits: Tensor) -> Tensor:
    """(n,) bool, of (n, K): numbers. −inf is one, as a mask over classes has it, where another class has a finite
    one."""
    return ~(logits.isnan() | logits.isposinf()).any(1) & logits.isfinite().any(1)


def _predicted(logits: Tensor) -> Tensor:
    """Classes (n,); of what is no answer none, where argmax would take NaN for the highest."""
    return logits.argmax(1).masked_fill(~_is_answer(logits), _NO_CLASS)


def _milliseconds(call: Callable[[], object], device: torch.device) -> float:
    """The median of a few calls, after one that does not count."""
    taken = []
    for _ in range(_TIMED + 1):
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken[1:])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
