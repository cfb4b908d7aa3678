"""One trainer for every objective."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from robustness_lib.batches import read_batches
from robustness_lib.distributed import Team
from robustness_lib.inputs import NotANumber, check_images, check_label_range
from robustness_lib.state import fingerprint, model_fingerprint, structure_fingerprint
from robustness_lib.threat import ThreatModel
from robustness_lib.training._answers import answers_seen, doubts, failing_batch
from robustness_lib.training._checks import (
    TrainingData,
    check_answer,
    check_augmentable,
    check_loss,
    check_model,
    check_settings,
    check_training_labels,
    length,
)
from robustness_lib.training._folder import Position, TrainingFolder, weights
from robustness_lib.training._training_state import TrainingState
from robustness_lib.training.augment import Augmentation
from robustness_lib.training.history import Epoch, History
from robustness_lib.training.objectives import FastFGSM, Objective, PGDTraining, step_logits
from robustness_lib.training.schedules import OneCycle, Schedule
from robustness_lib.training.validation import accuracies, collapse

__all__ = ["Diverged", "fit"]

PlainObjective = Callable[[nn.Module, Tensor, Tensor], Tensor]
OnEpoch = Callable[[nn.Module, Epoch], None]
_CLAMPED = "some images lay outside [0, 1] by rounding, at most 1e-6, and were clamped to it, in a copy"


class Diverged(RuntimeError):
    """The loss or its gradient is no longer a number. The model has the weights with which its epoch began."""


def fit(model: nn.Module, data: TrainingData, objective: Objective | PlainObjective, *, epochs: int,
        schedule: Schedule | None = None, batch_size: int = 128, optimizer: Literal["adamw", "sgd"] = "adamw",
        weight_decay: float = 5e-4, clip: float | None = None, augment: Sequence[Augmentation] = (), ramp: int = 0,
        averaging: float | None = None, validation: tuple[Tensor, Tensor] | None = None,
        threat: ThreatModel | None = None, validation_steps: int = 20, every: int = 1,
        keep: Literal["best", "last"] = "best", patience: int | None = None,
        on_collapse: Literal["stop", "warn"] = "stop", folder: Path | str | None = None, save_seconds: float = 120,
        seed: int = 0, mixed_precision: bool = False, channels_last: bool = False, workers: int = 0,
        progress: bool = True, on_epoch: OnEpoch | None = None) -> History:
    """Train the model in place, on the device where it is.

    data: images (N, ...) in [0, 1] and labels (N,) int64; or a map-style Dataset of such pairs (more than two entries
        are cut off), which is read by `workers` processes. Each epoch is a new shuffle; a last batch that is not full
        is left out. Images that rounding has left up to 1e-6 outside are clamped, in a copy, and `noted` says so.
    objective: one of this package's, or any function (model, x, y) -> scalar loss. A function gets neither index nor
        seed, so that an attack in it repeats its random start in every step unless it is given others; with several
        processes it gets the wrapped module (`bare` is the one to attack). It cannot be ramped. Where the model answers
        more than logits in training mode (auxiliary heads), this package's objectives learn from the logits alone, the
        heads are left as they are, and `noted` says so; a function of your own may add a loss on them.
    schedule: `OneCycle` (the default) or `Piecewise`. optimizer: "adamw", or "sgd" with Nesterov momentum .9.
    clip: the gradient's length, at most. augment: see `AUGMENTATIONS` for what keeps the label where.
    ramp: epochs before ε has its full size; it grows by equal amounts. At full ε from the start, learning starts late.
    averaging: decay of an exponential moving average of the weights (.999, say), which is then what is validated and
        kept. Buffers (batch norm's statistics) are averaged too. Over so few steps that a tenth of the average would
        still be the first step's weights, it is refused.
    validation: images and labels by which epochs are compared, every `every` epochs and at the last: never those that
        a final figure is reported on. threat: what they are attacked within, by `validation_steps` steps of PGD; by
        default the objective's own. Without one, epochs are compared by clean accuracy.
    keep: weights of the best epoch (where anything was measured) or of the last. patience: stop after as many measured
        epochs at full ε without a better one. on_collapse: what to do when one-step training (FastFGSM, or PGDTraining
        of one step) overfits catastrophically (see `collapse`): "stop" and keep the best epoch, or "warn" in the
        history's `noted` and go on. With other objectives it is noted; without validation images nobody can see it.
    folder: empty or new, where the training is kept: its state after every epoch and (one process) every
        `save_seconds`, best.safetensors, last.safetensors, history.json. Called again with the same arguments after a
        kill, it goes on and ends with the weights of an unbroken run: bit by bit on one CPU thread, if items of a
        Dataset do not draw at random in several workers. A folder begun with another net (but for its initial weights),
        other data (of a Dataset, type and length), objective or settings is refused.
    seed: of the shuffles, the augmentation and the attacks. The global generator is left as it was; a model's dropout
        draws from it, seeded here. The initial weights are the caller's.
    mixed_precision: the objective's passes in bfloat16 where PyTorch's autocast thinks them safe; meant for CUDA.
    channels_last: the memory order in which convolutions on a CPU, or in half precision on CUDA, are fast.
    on_epoch: called with the model (averaged, if so) and the epoch's record.

    Every epoch begins with model.train(), also for layers that were in eval mode; the model is left in eval mode.
    Under `torchrun` (see `robustness_lib.distributed`) each process takes its share of every batch through PyTorch's
    DistributedDataParallel, with broadcast_buffers=False: attacks call the unwrapped module, and TRADES calls the
    wrapped one twice before it goes back. Batch norm then uses each process's own part, and its running statistics are
    the first process's from the end of an epoch on; to use the whole batch, convert the model by
    torch.nn.SyncBatchNorm.convert_sync_batchnorm (CUDA only).

    Raises ValueError or TypeError for wrong arguments and for a folder with another training; Diverged, which names
    epoch, step and images, where the loss or its gradient is not finite: no step is taken on it, and the folder keeps
    what was good.
    """
    threat = threat or getattr(objective, "threat", None)
    check_settings(model, data, objective, epochs=epochs, batch_size=batch_size, every=every,
                   validation_steps=validation_steps, ramp=ramp, weight_decay=weight_decay, seed=seed, threat=threat,
                   schedule=schedule, keep=keep, patience=patience, on_collapse=on_collapse, averaging=averaging,
                   optimizer=optimizer, clip=clip, augment=augment, validation=validation, save_seconds=save_seconds,
                   workers=workers)
    said: list[str] = []  # what else should be known in the end
    if isinstance(data, tuple):
        data = _in_the_box(data, said)
        doubts(objective, threat, data[0], said)
    validation = validation and _in_the_box(validation, said)
    team, device = Team.now(), next(model.parameters()).device
    count = length(data)
    batch_size = min(batch_size, count)
    if batch_size % team.size:
        raise ValueError(f"a batch of {batch_size} cannot be shared equally by {team.size} processes")
    called = _name_of(data) if team.size > 1 or folder is not None else ""
    if len(set(team.gather(called))) > 1:
        raise ValueError("the processes were given different data: give each of them all of it, in one order; they "
                         "share the batches")
    classes = None
    if validation is not None or isinstance(objective, Objective):
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision):
            classes = check_model(model, device, data, validation)
    one_step = isinstance(objective, FastFGSM) or (isinstance(objective, PGDTraining) and objective.steps == 1)
    steps = count // batch_size
    if averaging is not None and averaging ** (epochs * steps) > 0.1:
        raise ValueError(f"averaging = {averaging} over {epochs * steps} steps would still be "
                         f"{100 * averaging ** (epochs * steps):.0f} % the first step's weights: take "
                         f"{0.1 ** (1 / (epochs * steps)):.2g} or less, or train for longer")
    schedule = schedule or OneCycle()
    if channels_last:
        model.to(memory_format=torch.channels_last)
    arguments = {"epochs": epochs, "schedule": schedule, "batch_size": batch_size, "optimizer": optimizer,
                 "weight_decay": weight_decay, "clip": clip, "augment": tuple(augment), "ramp": ramp,
                 "averaging": averaging, "threat": threat, "validation_steps": validation_steps, "every": every,
                 "keep": keep, "patience": patience, "on_collapse": on_collapse, "seed": seed,
                 "mixed_precision": mixed_precision, "channels_last": channels_last, "processes": team.size}
    # Where the first process refuses its folder, no other may wait for it.
    with team.together():
        kept_in = TrainingFolder(Path(folder) if folder is not None and team.rank == 0 else None,
                         _header(model, called, validation, objective, arguments) if folder is not None else {})

    wrapped = _wrap(model, device, team)
    descent = _optimizer(optimizer, model, schedule.start, weight_decay)
    scheduler = schedule.build(descent, epochs, steps)
    average = None
    if averaging is not None:
        rule = get_ema_multi_avg_fn(averaging)  # type: ignore[no-untyped-call]
        average = AveragedModel(model, multi_avg_fn=rule, use_buffers=True)
    run = TrainingState(model, descent, scheduler, average, Position(), kept_in, team)
    with _own_random_numbers(seed, team, device), answers_seen(
            model, objective, lambda: classes, said):
        run.resume()
        at, history = run.position, run.history
        if one_step and validation is None:
            said.append("without validation images nobody watched for catastrophic overfitting")
        good = weights(model)

        def diverged(words: str) -> Diverged:
            model.load_state_dict(good)
            model.eval()
            return Diverged(words)

        while at.epoch < epochs and not at.finished:
            epoch = at.epoch
            generator = Generator().manual_seed(1000 * seed + epoch)
            order = torch.split(torch.randperm(count, generator=generator)[: steps * batch_size], batch_size)
            drawn = [[change.draw(batch_size, generator) for change in augment] for _ in order]
            share = min(1.0, (epoch + 1) / (ramp + 1))
            loss_of = _bind(objective, share, 1000 * seed + epoch)
            mine = [batch[team.rank::team.size] for batch in order]
            began = saved = time.monotonic()
            wrapped.train()
            bar = tqdm(total=steps, initial=at.step, desc=f"epoch {epoch + 1}/{epochs}", unit="batch", delay=2,
                       postfix=run.said, leave=False, disable=not progress or team.rank > 0)
            for x, y in _batches(data, mine[at.step:], workers, generator, said):
                if not isinstance(data, tuple):
                    doubts(objective, threat, x, said)
                    if classes is None and isinstance(objective, Objective):
                        with torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision):
                            classes = check_answer(model, device, x)
                    if classes is not None:
                        check_label_range(y, classes, mine[at.step])
                    if augment:
                        check_augmentable(x)
                x, y = x.to(device), y.to(device)
                for change, how in zip(augment, drawn[at.step], strict=True):
                    x = change.apply(x, how[:, team.rank::team.size])
                try:
                    with (torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision),
                          failing_batch(x, first=at.epoch == at.step == 0)):
                        loss = check_loss(loss_of(wrapped, x, y, mine[at.step]))
                except NotANumber:  # said by the attack inside; all processes are to meet it in the backward pass
                    loss = step_logits(wrapped, x).sum() * torch.nan
                descent.zero_grad()
                # A loss that is no number, with a gradient that is one, would be seen by its own process alone.
                sound = torch.ones_like(loss).where(loss.isfinite(), torch.nan)
                loss.backward(sound)  # type: ignore[no-untyped-call]
                gradients = [p.grad for p in model.parameters() if p.grad is not None]
                norm = get_total_norm(gradients)  # averaged over processes by now, so that all of them see a NaN
                if not (torch.isfinite(norm) and torch.isfinite(loss.detach())):
                    raise diverged(_diagnosis(epoch, at.step, loss, norm, order[at.step], kept_in))
                rate = float(scheduler.get_last_lr()[0])
                if clip is not None:
                    clip_grads_with_norm_(model.parameters(), clip, norm)
                descent.step()
                scheduler.step()
                if average is not None:
                    average.update_parameters(model)
                at.step += 1
                at.loss += loss.item()
                bar.update()
                now = time.monotonic()
                if now - saved > save_seconds and team.size == 1 and at.step < steps and _is_finite(model):
                    at.seconds, began, saved = at.seconds + now - began, now, now
                    run.save()
            bar.close()
            at.seconds += time.monotonic() - began
            if not _is_finite(model):  # the loss was finite, the step that it led to was not
                raise diverged(f"the last step of epoch {epoch + 1} left weights that are no numbers. "
                               f"{_help(kept_in, epoch)}.")
            measured = {}
            best_model = model if average is None else average.module
            _share_buffers(team, model, best_model)
            if validation is not None and ((epoch + 1) % every == 0 or epoch + 1 == epochs):
                try:
                    measured = accuracies(best_model, *validation, threat, validation_steps, team)
                except NotANumber:
                    raise diverged(f"after epoch {epoch + 1} the model answers NaN to validation images. "
                                   f"{_help(kept_in, epoch)}.") from None
            record = Epoch(epoch + 1, sum(team.gather(at.loss)) / steps / team.size, rate, at.seconds, **measured)
            history.epochs.append(record)
            run.finish_epoch(record, best_model, ramp)
            good = weights(model)
            reason = collapse(history.epochs, ramp) if measured else None
            if patience is not None and at.stale >= patience:
                history.stopped = f"no better epoch in the last {at.stale} measured"
                at.finished = True
            if reason is not None and one_step and on_collapse == "stop":
                history.stopped, history.collapsed, at.finished = reason, True, True
            elif reason is not None:
                history.noted, history.collapsed = reason, one_step
            for words in said:
                if words not in (history.noted or ""):
                    history.noted = words if history.noted is None else f"{words}; {history.noted}"
            at.finished = at.finished or at.epoch == epochs
            if on_epoch is not None:
                on_epoch(best_model, record)
            run.save()
        run.hand_over(keep)
    model.eval()
    return history


def _bind(objective: Objective | PlainObjective, share: float,
          seed: int) -> Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]:
    if isinstance(objective, Objective):
        scaled = objective.with_share(share)
        return lambda model, x, y, index: scaled(model, x, y, index=index, seed=seed)
    return lambda model, x, y, index: objective(model, x, y)


def _batches(data: TrainingData, order: Sequence[Tensor], workers: int, generator: Generator,
             said: list[str]) -> Iterator[tuple[Tensor, Tensor]]:
    if isinstance(data, tuple):
        for rows in order:
            yield data[0][rows], data[1][rows]
        return
    # Without a generator a loader draws from the global one, and dropout would go another way after a kill.
    loader = DataLoader(data, batch_sampler=[rows.tolist() for rows in order], num_workers=workers, generator=generator)
    for rows, (x, y) in zip(order, read_batches(loader), strict=True):
        try:
            x, y = _in_the_box((x, y), said)
            check_training_labels(y, x, rows)
        except (TypeError, ValueError) as error:
            first = ", ".join(map(str, rows[:5].tolist()))
            raise type(error)(f"a batch of the data (images {first}, ...): {error}") from error
        yield x, y


def _in_the_box(pair: tuple[Tensor, Tensor], said: list[str]) -> tuple[Tensor, Tensor]:
    """The same images; those that rounding had left outside of [0, 1], clamped in a copy, and said."""
    inside = check_images(pair[0])
    if inside is not pair[0] and _CLAMPED not in said:
        said.append(_CLAMPED)
    return inside, pair[1]


def _name_of(data: TrainingData) -> str:
    return fingerprint(*data) if isinstance(data, tuple) else f"{type(data).__name__}, {length(data)} examples"


def _optimizer(name: str, model: nn.Module, rate: float, weight_decay: float) -> Optimizer:
    if name == "adamw":
        return AdamW(model.parameters(), lr=rate, weight_decay=weight_decay)
    return SGD(model.parameters(), lr=rate, weight_decay=weight_decay, momentum=0.9, nesterov=True)


def _wrap(model: nn.Module, device: torch.device, team: Team) -> nn.Module:
    if team.size == 1:
        return model
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None,
                                   broadcast_buffers=False)


def _share_buffers(team: Team, *models: nn.Module) -> None:
    """Running statistics as the first process has them, so that all validate and keep the same model."""
    for buffer in (buffer for model in models for buffer in model.buffers()) if team.size > 1 else ():
        dist.broadcast(buffer, 0)


def _header(model: nn.Module, data: str, validation: tuple[Tensor, Tensor] | None,
            objective: Objective | PlainObjective, arguments: dict[str, Any]) -> dict[str, str]:
    """What a training is made of. The initial weights are not in it: those in the state take their place."""
    named = getattr(objective, "__qualname__", type(objective).__qualname__)
    made_of = {"model": repr(model), "what the model computes": structure_fingerprint(model), "data": data,
               "validation": "none" if validation is None else fingerprint(*validation),
               "objective": repr(objective) if isinstance(objective, Objective) else
               f"{named} {model_fingerprint(objective)}"} | {name: repr(value) for name, value in arguments.items()}
    return {name: re.sub(" at 0x[0-9a-f]+", "", text) for name, text in made_of.items()}  # addresses change


def _diagnosis(epoch: int, step: int, loss: Tensor, norm: Tensor, batch: Tensor, folder: TrainingFolder) -> str:
    what = f"the loss is {loss.item():g}" if not torch.isfinite(loss) else f"the gradient's length is {norm.item():g}"
    first = ", ".join(str(i) for i in batch[:5].tolist())
    return (f"{what} in epoch {epoch + 1}, step {step + 1} (images {first}, ... of the data). No step was taken on it. "
            f"{_help(folder, epoch)}, or look at these images.")


def _help(folder: TrainingFolder, epoch: int) -> str:
    kept = "" if folder.path is None or epoch == 0 else f" {folder.path} keeps the last good state."
    return (f"The model has the weights with which the epoch began (or was taken up again).{kept} Try a lower learning "
            f"rate, clip=1.0")


def _is_finite(model: nn.Module) -> bool:
    return all(bool(value.isfinite().all()) for value in (*model.parameters(), *model.buffers()))


@contextmanager
def _own_random_numbers(seed: int, team: Team, device: torch.device) -> Iterator[None]:
    """Dropout and the like draw from the global generators: seeded here, and given back as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed * team.size + team.rank)
        yield
