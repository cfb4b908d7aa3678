"""One trainer for every objective."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from robustness_lib.distributed import Team
from robustness_lib.inputs import check_count, check_images, check_labels
from robustness_lib.state import fingerprint
from robustness_lib.threat import ThreatModel
from robustness_lib.training._state import Folder, Position, weights
from robustness_lib.training.augment import Augmentation
from robustness_lib.training.history import Epoch, History
from robustness_lib.training.objectives import Objective
from robustness_lib.training.schedules import OneCycle, Schedule
from robustness_lib.training.validation import accuracies, collapse

__all__ = ["Diverged", "fit"]

Data = tuple[Tensor, Tensor] | Dataset[Any]
PlainObjective = Callable[[nn.Module, Tensor, Tensor], Tensor]
OnEpoch = Callable[[nn.Module, Epoch], None]


class Diverged(RuntimeError):
    """The loss or its gradient is no longer a number. The model has the weights with which its epoch began."""


def fit(model: nn.Module, data: Data, objective: Objective | PlainObjective, *, epochs: int,
        schedule: Schedule | None = None, batch_size: int = 128, optimizer: Literal["adamw", "sgd"] = "adamw",
        weight_decay: float = 5e-4, clip: float | None = None, augment: Sequence[Augmentation] = (), ramp: int = 0,
        averaging: float | None = None, validation: tuple[Tensor, Tensor] | None = None,
        threat: ThreatModel | None = None, validation_steps: int = 20, every: int = 1,
        keep: Literal["best", "last"] = "best", patience: int | None = None,
        on_collapse: Literal["stop", "warn"] = "stop", folder: Path | str | None = None, save_seconds: float = 120,
        seed: int = 0, mixed_precision: bool = False, channels_last: bool = False, workers: int = 0,
        progress: bool = True, on_epoch: OnEpoch | None = None) -> History:
    """Train the model in place, on the device where it is.

    data: images (N, ...) in [0, 1] and labels (N,) int64; or a map-style Dataset of such pairs, which is read by
        `workers` processes. Each epoch is a new shuffle; a last batch that is not full is left out.
    objective: one of this package's, or any function (model, x, y) -> scalar loss.
    schedule: `OneCycle` (the default) or `Piecewise`. optimizer: "adamw", or "sgd" with Nesterov momentum .9.
    clip: the gradient's length, at most. augment: see `AUGMENTATIONS` for what keeps the label where.
    ramp: epochs before ε has its full size; it grows by equal amounts. At full ε from the start, learning starts late.
    averaging: decay of an exponential moving average of the weights (.999, say), which is then what is validated and
        kept. Buffers (batch norm's statistics) are averaged too.
    validation: images and labels by which epochs are compared, every `every` epochs and at the last: never those that
        a final figure is reported on. threat: what they are attacked within, by `validation_steps` steps of PGD; by
        default the objective's own. Without one, epochs are compared by clean accuracy.
    keep: weights of the best epoch (where anything was measured) or of the last. patience: stop after as many measured
        epochs without a better one. on_collapse: what to do at catastrophic overfitting (see `collapse`): "stop", or
        "warn" in the history's `stopped` and go on.
    folder: where the training is kept: its state after every epoch and every `save_seconds`, best.safetensors,
        last.safetensors, history.json. Called again with the same arguments after a kill, it goes on and ends with the
        weights of an unbroken run (bit by bit on one CPU thread).
    seed: of the shuffles, the augmentation and the attacks. The global generator is left as it was; a model's dropout
        draws from it, seeded here. The initial weights are the caller's.
    mixed_precision: the objective's passes in bfloat16 where PyTorch's autocast thinks them safe; meant for CUDA.
    channels_last: the memory order in which convolutions on a CPU, or in half precision on CUDA, are fast.
    on_epoch: called with the model (averaged, if so) and the epoch's record.

    The model is left in eval mode. Under `torchrun` (see `robustness_lib.distributed`) each process takes its share of
    every batch through PyTorch's DistributedDataParallel, with broadcast_buffers=False: attacks call the unwrapped
    module, and TRADES calls the wrapped one twice before it goes back. Batch norm then uses each process's own part,
    and its running statistics are the first process's from the end of an epoch on; to use the whole batch, convert the
    model by torch.nn.SyncBatchNorm.convert_sync_batchnorm (CUDA only).

    Raises ValueError or TypeError for wrong arguments and for a folder with another training; Diverged, which names
    epoch, step and images, where the loss or its gradient is not finite: no step is taken on it, and the folder keeps
    what was good.
    """
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("every", every),
                        ("validation_steps", validation_steps)):
        check_count(name, value)
    check_count("ramp", ramp, least=0)
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay must be 0 or more; found {weight_decay}")
    check_count("seed", seed, least=None)
    threat = threat or getattr(objective, "threat", None)
    _check(model, data, objective, threat, schedule, keep, patience, on_collapse, averaging, optimizer, clip, augment,
           validation)
    team, device = Team.now(), next(model.parameters()).device
    count = _length(data)
    batch_size = min(batch_size, count)
    if batch_size % team.size:
        raise ValueError(f"a batch of {batch_size} cannot be shared equally by {team.size} processes")
    if team.size > 1 and len(set(team.gather(_name_of(data)))) > 1:
        raise ValueError("the processes were given different data: give each of them all of it, in one order; they "
                         "share the batches")
    steps = count // batch_size
    schedule = schedule or OneCycle()
    if channels_last:
        model.to(memory_format=torch.channels_last)
    arguments = {"epochs": epochs, "schedule": schedule, "batch_size": batch_size, "optimizer": optimizer,
                 "weight_decay": weight_decay, "clip": clip, "augment": tuple(augment), "ramp": ramp,
                 "averaging": averaging, "threat": threat, "validation_steps": validation_steps, "every": every,
                 "keep": keep, "patience": patience, "on_collapse": on_collapse, "seed": seed,
                 "mixed_precision": mixed_precision, "channels_last": channels_last, "processes": team.size}
    # Where the first process refuses its folder, no other may wait for it.
    kept_in = team.together(lambda: Folder(
        Path(folder) if folder is not None and team.rank == 0 else None,
        _header(model, data, validation, objective, arguments) if folder is not None else {}))

    wrapped = _wrap(model, device, team)
    descent = _optimizer(optimizer, model, schedule.start, weight_decay)
    scheduler = schedule.build(descent, epochs, steps)
    average = None
    if averaging is not None:
        rule = get_ema_multi_avg_fn(averaging)  # type: ignore[no-untyped-call]
        average = AveragedModel(model, multi_avg_fn=rule, use_buffers=True)
    run = _Training(model, descent, scheduler, average, Position(), kept_in, team)
    with _own_random_numbers(seed, team, device):
        run.resume()
        at, history = run.position, run.history
        good = weights(model)
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
            for x, y in _batches(data, mine[at.step:], workers, generator):
                x, y = x.to(device), y.to(device)
                for change, how in zip(augment, drawn[at.step], strict=True):
                    x = change.apply(x, how[:, team.rank::team.size])
                with torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision):
                    loss = loss_of(wrapped, x, y, mine[at.step])
                descent.zero_grad()
                # A loss that is no number, with a gradient that is one, would be seen by its own process alone.
                sound = torch.ones_like(loss).where(loss.isfinite(), torch.nan)
                loss.backward(sound)  # type: ignore[no-untyped-call]
                gradients = [p.grad for p in model.parameters() if p.grad is not None]
                length = get_total_norm(gradients)  # averaged over processes by now, so that all of them see a NaN
                if not (torch.isfinite(length) and torch.isfinite(loss.detach())):
                    model.load_state_dict(good)
                    model.eval()
                    raise Diverged(_diagnosis(epoch, at.step, loss, length, order[at.step], kept_in))
                rate = float(scheduler.get_last_lr()[0])
                if clip is not None:
                    clip_grads_with_norm_(model.parameters(), clip, length)
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
                model.load_state_dict(good)
                model.eval()
                raise Diverged(f"the last step of epoch {epoch + 1} left weights that are no numbers. "
                               f"{_help(kept_in)}.")
            measured = {}
            best_model = model if average is None else average.module
            _share_buffers(team, model, best_model)
            if validation is not None and ((epoch + 1) % every == 0 or epoch + 1 == epochs):
                measured = accuracies(best_model, *validation, threat, validation_steps, team)
            record = Epoch(epoch + 1, sum(team.gather(at.loss)) / steps / team.size, rate, at.seconds, **measured)
            history.epochs.append(record)
            run.finish_epoch(record, best_model)
            good = weights(model)
            reason = collapse(history.epochs) if measured else None
            if patience is not None and at.stale >= patience:
                history.stopped = f"no better epoch in the last {at.stale} measured"
                at.finished = True
            if reason is not None:
                history.stopped, history.collapsed = reason, True
                at.finished = at.finished or on_collapse == "stop"
            at.finished = at.finished or at.epoch == epochs
            if on_epoch is not None:
                on_epoch(best_model, record)
            run.save()
        run.hand_over(keep)
    model.eval()
    return history


@dataclass
class _Training:
    """All that moves while a training runs, and its way to the disk and back."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: Any
    average: AveragedModel | None
    position: Position
    folder: Folder
    team: Team

    def __post_init__(self) -> None:
        self.history = History()

    @property
    def said(self) -> str:
        """What the progress bar says beside its numbers: the accuracies of the last epoch that was measured."""
        measured = [epoch for epoch in self.history if epoch.score is not None]
        if not measured:
            return ""
        pairs = ((name, getattr(measured[-1], name)) for name in ("clean", "robust"))
        return ", ".join(f"{name} {100 * accuracy.value:.1f} %" for name, accuracy in pairs if accuracy is not None)

    def finish_epoch(self, record: Epoch, model: nn.Module) -> None:
        """model: the one whose weights would be kept."""
        at = self.position
        at.epoch, at.step, at.loss, at.seconds = at.epoch + 1, 0, 0.0, 0.0
        if record.score is not None:
            if self.history.best is record:
                at.best, at.stale = weights(model), 0
            else:
                at.stale += 1

    def save(self) -> None:
        generators = self.team.gather(_random_states())
        if self.folder.path is None:
            return
        at = self.position
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                 "scheduler": self.scheduler.state_dict(),
                 "average": None if self.average is None else self.average.state_dict(), "random": generators,
                 "position": vars(at), "history": self.history.to_dict()}
        self.folder.write(state)
        if at.step == 0:
            if at.best is not None and at.stale == 0:
                self.folder.write_weights("best", at.best)
            self.folder.write_weights("last", weights(self._keepable))
            self.history.save(self.folder.path / "history.json")

    def resume(self) -> None:
        """From the folder, if there is a state in it. Other processes of a team get it from the first."""
        state = self.team.gather(self.team.together(self.folder.read))[0]
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        _set_random_states(state["random"][self.team.rank])
        self.position = Position(**state["position"])
        self.history = History.from_dict(state["history"])

    def hand_over(self, keep: str) -> None:
        """Give the model the weights to keep."""
        best = self.history.best
        if keep == "best" and best is not None and self.position.best is not None:
            self.model.load_state_dict(self.position.best)
            self.history.kept = best.epoch
        else:
            self.model.load_state_dict(weights(self._keepable))
            self.history.kept = len(self.history)
        if self.folder.path is not None:
            self.folder.write_weights("kept", weights(self.model))
            self.history.save(self.folder.path / "history.json")

    @property
    def _keepable(self) -> nn.Module:
        return self.model if self.average is None else self.average.module


def _bind(objective: Objective | PlainObjective, share: float,
          seed: int) -> Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]:
    if isinstance(objective, Objective):
        scaled = objective.with_share(share)
        return lambda model, x, y, index: scaled(model, x, y, index=index, seed=seed)
    return lambda model, x, y, index: objective(model, x, y)


def _batches(data: Data, order: Sequence[Tensor], workers: int,
             generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
    if isinstance(data, tuple):
        for rows in order:
            yield data[0][rows], data[1][rows]
    else:
        # Without a generator a loader draws from the global one, and dropout would go another way after a kill.
        for x, y in DataLoader(data, batch_sampler=[rows.tolist() for rows in order], num_workers=workers,
                               generator=generator):
            check_images(x)
            check_labels(y, x)
            yield x, y


def _name_of(data: Data) -> str:
    return fingerprint(*data) if isinstance(data, tuple) else f"{type(data).__name__}, {_length(data)} examples"


def _length(data: Data) -> int:
    return len(data[0]) if isinstance(data, tuple) else len(data)  # type: ignore[arg-type]


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


def _header(model: nn.Module, data: Data, validation: tuple[Tensor, Tensor] | None,
            objective: Objective | PlainObjective, arguments: dict[str, Any]) -> dict[str, str]:
    """What a training is made of. The initial weights are not in it: those in the state take their place."""
    named = objective if isinstance(objective, Objective) else getattr(objective, "__qualname__", type(objective))
    made_of = {"model": repr(model), "data": _name_of(data),
               "validation": "none" if validation is None else fingerprint(*validation),
               "objective": repr(named)} | {name: repr(value) for name, value in arguments.items()}
    return {name: re.sub(" at 0x[0-9a-f]+", "", text) for name, text in made_of.items()}  # addresses change


def _diagnosis(epoch: int, step: int, loss: Tensor, length: Tensor, batch: Tensor, folder: Folder) -> str:
    what = f"the loss is {loss.item():g}" if not torch.isfinite(loss) else f"the gradient's length is {length.item():g}"
    first = ", ".join(str(i) for i in batch[:5].tolist())
    return (f"{what} in epoch {epoch + 1}, step {step + 1} (images {first}, ... of the data). No step was taken on it. "
            f"{_help(folder)}, or look at these images.")


def _help(folder: Folder) -> str:
    kept = "" if folder.path is None else f" {folder.path} keeps the last good state."
    return (f"The model has the weights with which the epoch began (or was taken up again).{kept} Try a lower learning "
            f"rate, clip=1.0")


def _is_finite(model: nn.Module) -> bool:
    return all(bool(p.isfinite().all()) for p in model.parameters())


@contextmanager
def _own_random_numbers(seed: int, team: Team, device: torch.device) -> Iterator[None]:
    """Dropout and the like draw from the global generators: seeded here, and given back as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed * team.size + team.rank)
        yield


def _random_states() -> list[Tensor]:
    states = [torch.get_rng_state()]
    return states + ([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])


def _set_random_states(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1 and torch.cuda.is_available():
        torch.cuda.set_rng_state(states[1])


def _check(model: nn.Module, data: Data, objective: object, threat: object, schedule: object, keep: str,
           patience: int | None, on_collapse: str, averaging: float | None, optimizer: str, clip: float | None,
           augment: Sequence[Augmentation], validation: tuple[Tensor, Tensor] | None) -> None:
    for name, value, choices in (("keep", keep, ("best", "last")), ("on_collapse", on_collapse, ("stop", "warn")),
                                 ("optimizer", optimizer, ("adamw", "sgd"))):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}; found {value!r}")
    if isinstance(objective, type) or not callable(objective):
        raise TypeError(f"objective must be one of this package's, such as Standard() with its parentheses, or a "
                        f"function (model, x, y) -> loss; found {objective!r}")
    if threat is not None and not isinstance(threat, ThreatModel):
        raise TypeError(f'threat must be a ThreatModel, such as ThreatModel("linf", 8/255); found {threat!r}')
    if schedule is not None and not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be OneCycle(...) or Piecewise(...); found {schedule!r}")
    if averaging is not None and not 0 < averaging < 1:
        raise ValueError(f"averaging is a decay between 0 and 1, such as .999; found {averaging}")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be positive, the longest that a gradient may be; found {clip}")
    if patience is not None:
        check_count("patience", patience)
        if validation is None:
            raise ValueError("patience compares epochs on validation images: give validation=(x, y)")
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("the model has no parameters that require a gradient: there is nothing to train")
    _check_data(data, augment, validation)


def _check_data(data: Data, augment: Sequence[Augmentation], validation: tuple[Tensor, Tensor] | None) -> None:
    if not isinstance(data, tuple) and not (isinstance(data, Dataset) and hasattr(data, "__len__")):
        raise TypeError(f"data must be images and labels, (x, y), or a map-style Dataset; found {type(data).__name__}")
    for name, pair in (("data", data), ("validation", validation)):
        if pair is None or isinstance(pair, Dataset):
            continue
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError(f"{name} must be images and labels, (x, y); found {type(pair).__name__} of {len(pair)}")
        check_images(pair[0])
        check_labels(pair[1], pair[0])
        if len(pair[0]) == 0:
            raise ValueError("there are no images to train on, or none to validate with")
    if _length(data) == 0:
        raise ValueError("there are no images to train on")
    if augment and isinstance(data, tuple) and data[0].ndim != 4:
        raise ValueError(f"augmentations change images (N, C, H, W); found shape {tuple(data[0].shape)}")
