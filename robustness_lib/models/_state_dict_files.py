"""Weights into the model, whatever wrapped the network when they were saved; or a word on what does not fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robustness_lib.inputs import Say
from robustness_lib.models._name_layouts import Spelling, spellings
from robustness_lib.models._weights_files import State, read_state_dict

__all__ = ["State", "load_into", "outputs_held", "read_state_dict"]

# Where training scripts put the weights within a checkpoint, the more telling names first; RobustBench's files have
# them plain, or under "state_dict", and two of them under "last".
_NESTS = ("state_dict", "model_state_dict", "model", "net", "last", "module", "weights", "params")
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
_PREFIXES = ("model", "net", "backbone", "network")  # what people call the network in what they wrap it in
# A copy that only follows the weights that were trained.
_AVERAGES = re.compile(r"(^|[._])(ema|swa|avg|averaged?|shadow|momentum|teacher|target)([._]|$)")
# What a model's constructor sets and a file may lack: constants of the normalization, and what only counts.
_CONSTANTS = ("mean", "std", "mu", "sigma", "num_batches_tracked")
_NORMALIZERS = ("mean", "std", "mu", "sigma", "new_mean", "new_std", "pixel_mean", "pixel_std")
_COUNTERS = ("n_averaged", "total_ops", "total_params", "initted", "epoch", "step", "global_step", "iteration",
             "best_acc", "acc", "accuracy", "loss", "lr")  # one number each, beside the weights
_LEFT_OVER = 4  # times as many tensors as are used, under a name that anybody may choose: another network's, then
_SHOWN = 3  # names of each side in a refusal


@dataclass(frozen=True)
class _Fit:
    """One way to read the file's names. prefix: what stood before the names that are used. bare: parts of names that
    were left out wherever they stood. files: the file's name of each tensor of the model that it has. spelling: whose
    names the model's tensors were looked for by. wrong: in words, what keeps them from fitting. beside: the file's
    names that this leaves over, and that speak against nothing."""

    prefix: str
    bare: tuple[str, ...]
    files: Mapping[str, str]
    spelling: Spelling
    wrong: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    def state(self, state: State) -> State:
        """What the model loads."""
        return {mine: state[theirs] for mine, theirs in self.files.items()}

    @property
    def tensors(self) -> frozenset[str]:
        """What it uses of the file."""
        return frozenset(self.files.values())

    @property
    def usual(self) -> bool:
        """Nothing stands before the names but what people call a network and its wrappers."""
        return all(part in ("", *_NESTS, *_WRAPPERS, *_PREFIXES) for part in self.prefix.split("."))

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """The smaller, the likelier to be meant: no average over the weights, under names that people use."""
        order = ("", *_NESTS, *_WRAPPERS, *_PREFIXES).index(self.prefix.split(".")[0]) if self.usual else 0
        return bool(_AVERAGES.search(self.prefix.lower())), not self.usual, order

    @property
    def called(self) -> str:
        return self.prefix.rstrip(".") or "no name"


def load_into(model: nn.Module, state: State, path: Path, say: Say) -> None:
    """Load `state` into `model`: as it is, else without what wrapped the network in the file or wraps it in the model
    ("module.", "model.", any other name that stands before all), where that makes everything match. Into a residual net
    of this package also in the naming of others (`LAYOUTS`), every name of which must be known.

    Raises ValueError that names up to five tensors that do not fit, the first names of both sides and what was left
    out; and for two sets of weights that both fit where nothing says which is meant.
    """
    fit = _best(model, state, path, say)
    if fit.wrong:
        _load_as_the_model_knows_it(model, state, path, fit)
        return
    chosen = fit.state(state)
    if lost := [name for name, value in chosen.items() if value.is_floating_point() and value.isnan().any()]:
        say(f"{path.name} holds NaN in {_first(lost)}: whatever the model answers with such weights means nothing.")
    if fit.spelling.layout is not None:
        untold = fit.spelling.layout.untold
        say(f"{path.name} names its tensors as {fit.spelling.layout.called} does."
            + (f" The names do not tell {untold}; the accuracy on clean images will." if untold else ""))
    if any(value.dtype in (torch.float16, torch.bfloat16) for value in chosen.values()):
        say(f"{path.name} holds half precision; the model computes in float32.")
    on_meta = any(parameter.is_meta for parameter in model.parameters())  # there nothing can be written into
    if on_meta:
        mine = model.state_dict()
        chosen = {name: value.to(mine[name].dtype) for name, value in chosen.items()}
    model.load_state_dict(chosen, strict=False, assign=on_meta)
    kept = sorted(name for name in _constants(model) - fit.files.keys()
                  if not _counts(name) and not name.endswith("num_batches_tracked"))
    if kept:
        say(f"{path.name} has no {', '.join(kept)}: the model keeps what its constructor set.")
    _say_what_is_left(path, fit, state, say)


def _load_as_the_model_knows_it(model: nn.Module, state: State, path: Path, fit: _Fit) -> None:
    """A model may know older names of its own tensors: its word counts, before any refusal."""
    loaded = {name.removeprefix(fit.prefix): value for name, value in state.items() if name not in fit.beside}
    mine = model.state_dict()
    if all(_takes(mine[name], value) for name, value in loaded.items() if name in mine):
        with suppress(RuntimeError, AttributeError):
            model.load_state_dict(loaded)
            return
    raise ValueError(_refusal(path, fit, list(loaded), [fit.spelling.spelled.get(name, name) for name in mine]))


def outputs_held(model: nn.Module, state: State) -> int | None:
    """For how many classes the weights were made, where that alone keeps them from fitting: every tensor of another
    shape differs in its first length, from the model's one number of classes to one other number. Else None."""
    fit = min(_fits(model, state), key=lambda fit: (len(fit.wrong), fit.rank))
    expected = model.state_dict()
    pairs = [(expected[mine].shape, state[theirs].shape) for mine, theirs in fit.files.items()
             if not _takes(expected[mine], state[theirs])]
    if not pairs or any(not mine or not theirs or mine[1:] != theirs[1:] for mine, theirs in pairs):
        return None
    lengths = {(mine[0], theirs[0]) for mine, theirs in pairs}
    return lengths.pop()[1] if len(lengths) == 1 else None


def _best(model: nn.Module, state: State, path: Path, say: Say) -> _Fit:
    """The way of reading that fits, or that comes nearest. Of two that fit the one that uses all that the other does
    and more (a network with its normalization, and the network alone). Where others hold different weights: by their
    names, which is said; raises ValueError where the names do not tell."""
    fits = sorted(_fits(model, state), key=lambda fit: (len(fit.wrong), fit.rank))
    first = fits[0]
    if first.wrong:  # of those that are as near: what has most taken off before its names
        return max((fit for fit in fits if len(fit.wrong) == len(first.wrong)), key=lambda fit: len(fit.prefix))
    fits = [fit for fit in fits if not any(fit.tensors < more.tensors for more in fits)]
    different: list[_Fit] = []
    for fit in fits:
        if not any(_same(fit, other, state) for other in different):
            different.append(fit)
    first, *others = different
    if others and others[0].rank == first.rank:
        names = ", ".join(fit.called for fit in (first, *others))
        raise ValueError(f"{path} holds several sets of weights that fit the model, under {names}, and nobody can tell "
                         f'which is meant: save the one that is, torch.save(its_state_dict, "weights.pt"), and name '
                         f"that file")
    if others:
        names = ", ".join(fit.called for fit in (first, *others))
        say(f"{path.name} holds weights under {names}; those under {first.called} are used.")
    return first


def _same(a: _Fit, b: _Fit, state: State) -> bool:
    return a.files.keys() == b.files.keys() and all(
        a.files[name] == b.files[name] or torch.equal(state[a.files[name]], state[b.files[name]]) for name in a.files)


def _fits(model: nn.Module, state: State) -> list[_Fit]:
    """Every way of reading the names that fits; where there is none, every one that was tried: all have `wrong`."""
    expected = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    constants, own = _constants(model), {name.rpartition(".")[2] for name in expected}
    state = {name: value for name, value in state.items()
             if not (_counts(name) and value.numel() == 1 and name.rpartition(".")[2] not in own)}
    tried: list[_Fit] = []
    for words in ((), _WRAPPERS, (*_WRAPPERS, *_PREFIXES)):
        for spelling in spellings(model, list(expected)):
            tried += _pairings(spelling, constants, state, words)
        whole = [fit for fit in tried if not (expected.keys() - constants - fit.files.keys())
                 and all(_takes(expected[mine], state[theirs]) for mine, theirs in fit.files.items())]
        used = {name for fit in whole for name in fit.files.values()}
        fitting = [fit for one in whole if not (fit := _judged(one, expected, constants, state, used)).wrong]
        if fitting:
            return fitting
    return [_judged(fit, expected, constants, state, set(fit.files.values())) for fit in tried]


def _pairings(spelling: Spelling, constants: set[str], state: State, words: tuple[str, ...]) -> Iterator[_Fit]:
    """The model's names as they are spelled with the file's, both without these words, under every prefix that may
    stand before the file's or the model's."""
    theirs, mine = _without({name: name for name in state}, words), _without(spelling.names, words)
    if theirs is None or mine is None:
        return
    needed = [name for name, full in mine.items() if full not in constants] or list(mine)
    for inner in dict.fromkeys(("", _common(needed))):
        wanted = {name.removeprefix(inner): full for name, full in mine.items() if name.startswith(inner)}
        anchors = [name.removeprefix(inner) for name in (needed[0], needed[-1])] if needed else []
        outers = {name[:-len(anchor)] for anchor in anchors for name in theirs
                  if name == anchor or name.endswith(f".{anchor}")}
        tables = {"", *_tables(theirs)}
        for outer in sorted(outers | tables):
            files = {full: theirs[outer + name] for name, full in wanted.items() if outer + name in theirs}
            if inner:  # what stands beside the network in the model, such as constants of the normalization
                for before in _parents(outer):
                    files |= {full: theirs[before + name] for name, full in mine.items()
                              if full not in files and before + name in theirs}
            if files or outer in tables:
                yield _Fit(outer, words, files, spelling)


def _judged(fit: _Fit, expected: State, constants: set[str], state: State, used: set[str]) -> _Fit:
    """The same with what speaks against it. used: the file's names that this way of reading or another one uses, such
    as copies of the weights."""
    spelled = fit.spelling.spelled
    other = [_other(spelled[mine], expected[mine], state[theirs]) for mine, theirs in fit.files.items()
             if not _takes(expected[mine], state[theirs])]
    missing = [f"{spelled[name]} is missing" for name in expected if name not in fit.files and name not in constants]
    left = [name for name in state if name not in used]
    foreign = [name for name in left if (bare := _bare(name, fit.bare)).startswith(fit.prefix)
               and not fit.spelling.lies_beside(bare.removeprefix(fit.prefix))]
    strangers = set(foreign)
    beside = [name for name in left if name not in strangers]
    others = [name for name in _in_table(fit, beside) if not _normalizes(name, state)]
    a_layer = fit.prefix.rstrip(".").rpartition(".")[2].isdigit()  # of a list of them, and not a network in a wrapper
    if not fit.usual and len(others) > (0 if a_layer else _LEFT_OVER * len(fit.files)):
        foreign, beside = left, []
    strange = [f"{_bare(name, fit.bare).removeprefix(fit.prefix)} is not the model's" for name in foreign]
    wrong = (*other, *missing, *strange)
    return replace(fit, wrong=wrong or fit.spelling.differences, beside=tuple(beside))


def _takes(mine: Tensor, theirs: Tensor) -> bool:
    """Of one shape, which a lazy layer has not yet; with values, in a plain table; no whole numbers (of a quantized
    net) for others."""
    same = is_lazy(mine) or mine.shape == theirs.shape
    values = not theirs.is_meta and theirs.layout == torch.strided
    return same and values and (theirs.is_floating_point() or not mine.is_floating_point())


def _other(name: str, mine: Tensor, theirs: Tensor) -> str:
    if not is_lazy(mine) and mine.shape != theirs.shape:
        return f"{name} is {tuple(theirs.shape)}, not {tuple(mine.shape)}"
    if theirs.is_meta:
        return f"{name} has no values (it was saved from the meta device)"
    if theirs.layout != torch.strided:
        layout = str(theirs.layout).removeprefix("torch.")
        return f"{name} is a {layout} tensor, which .to_dense() makes a plain one before it is saved"
    return f"{name} is {theirs.dtype}, not {mine.dtype}".replace("torch.", "")


def _in_table(fit: _Fit, names: Iterable[str]) -> list[str]:
    """Those that lie in the table of a checkpoint that the weights lie in."""
    table = next((f"{nest}." for nest in _NESTS if fit.prefix.startswith(f"{nest}.")), "")
    return [name for name in names if name.startswith(table)]


def _refusal(path: Path, fit: _Fit, theirs: list[str], mine: list[str]) -> str:
    how = f", read as {fit.spelling.layout.called} names its tensors" if fit.spelling.layout is not None else ""
    more = f", and {len(fit.wrong) - 5} more" if len(fit.wrong) > 5 else ""
    stripped = [f'"{fit.prefix}" before all names'] * bool(fit.prefix)
    stripped += [f'"{word}." wherever it stood' for word in fit.bare if any(word in name.split(".") for name in theirs)]
    after = f", after taking off {' and '.join(stripped)}" if stripped else ""
    return (f"the weights in {path} do not fit the model{how}: {'; '.join(fit.wrong[:5])}{more}. The file holds "
            f"{len(theirs)} tensors ({_first(theirs)}){after}, and the model {len(mine)} ({_first(mine)}); build the "
            f"model that they were trained in (its size, its number of classes)")


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "") if names else "none"


def _say_what_is_left(path: Path, fit: _Fit, state: State, say: Say) -> None:
    """What lies beside the weights, anywhere in the file: the constants of a normalization and other parts."""
    left = [name for name in fit.beside if not _counts(name)]
    constants = [name for name in left if _normalizes(name, state)]
    if constants:
        figures = "; ".join(f"{name} {','.join(f'{float(one):.4g}' for one in state[name].flatten())}"
                            for name in constants[:2])
        say(f"{path.name} also holds the constants of a normalization ({figures}), for which the model has no place. "
            f"Unless it normalizes by itself, give them as mean and std (--mean, --std).")
    if others := [name for name in left if name not in constants]:
        what = "1 tensor that is" if len(others) == 1 else f"{len(others)} tensors that are"
        say(f"{path.name} also holds {what} not the model's ({_first(others)}), left out.")


# Names.

def _constants(model: nn.Module) -> set[str]:
    """What the model has by itself, and a file may lack: what its constructor sets, and what only counts."""
    return {name for name, _ in model.named_buffers() if name.rpartition(".")[2] in _CONSTANTS or _counts(name)}


def _counts(name: str) -> bool:
    return name.rpartition(".")[2] in _COUNTERS


def _normalizes(name: str, state: State) -> bool:
    return name.rpartition(".")[2] in _NORMALIZERS and state[name].numel() <= 16


def _bare(name: str, words: tuple[str, ...]) -> str:
    return ".".join(part for part in name.split(".") if part not in words) if words else name


def _without(names: Mapping[str, str], words: tuple[str, ...]) -> dict[str, str] | None:
    """The names without these words, each with what it stands for; None where two become one."""
    bare = {_bare(name, words): meant for name, meant in names.items()}
    return bare if len(bare) == len(names) else None


def _common(names: list[str]) -> str:
    """What all names begin with, in whole parts: "net.inner."; never a whole name."""
    parts = [name.split(".")[:-1] for name in names]
    common = [] if not parts else list(parts[0])
    for one in parts:
        while one[:len(common)] != common:
            common.pop()
    return "".join(f"{part}." for part in common)


def _parents(prefix: str) -> list[str]:
    """What lies around the place that a prefix names, the nearest first: "a.b." lies in "a." and in ""."""
    parts = prefix.split(".")[:-2]
    return ["".join(f"{part}." for part in parts[:length]) for length in range(len(parts), -1, -1)]


def _tables(names: Iterable[str]) -> set[str]:
    """The tables that weights are known to lie in, and what stands before all names."""
    names = list(names)
    return {f"{nest}." for nest in _NESTS if any(name.startswith(f"{nest}.") for name in names)} | {_common(names)}
