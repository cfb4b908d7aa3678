"""Other libraries' attacks at settings equal to ours: each a function (model, x, y) -> x_adv."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustness_lib import ThreatModel, attacks

__all__ = ["Attacker", "apgd_attackers", "cw_attackers", "in_batches", "pgd_attackers", "square_attackers",
           "torchattacks_fab"]

Attacker = Callable[[nn.Module, Tensor, Tensor], Tensor]
BATCH = 128  # with it the peers take up to a third less time than with 500 images at once


def in_batches(attacker: Attacker) -> Attacker:
    return lambda model, x, y: torch.cat([attacker(model, *part) for part in zip(x.split(BATCH), y.split(BATCH),
                                                                                 strict=True)])


def foolbox_attack(attack: Any, eps: float | None) -> Attacker:
    import foolbox

    def attacker(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return attack(foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, y, epsilons=eps)[1]

    return in_batches(attacker)


def art_attack(name: str, **settings: Any) -> Attacker:
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    def attacker(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        classifier = PyTorchClassifier(model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0.0, 1.0),
                                       device_type="cpu")
        attack = getattr(evasion, name)(classifier, batch_size=BATCH, verbose=False, **settings)
        return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))

    return attacker


def pgd_attackers(eps: float, steps: int) -> dict[str, Attacker]:
    import foolbox
    import torchattacks

    step_size = 2.5 * eps / steps
    return {
        "ours": attacks.PGD(ThreatModel("linf", eps), steps=steps, step_size=step_size),
        "torchattacks": in_batches(lambda model, x, y: torchattacks.PGD(
            model, eps=eps, alpha=step_size, steps=steps, random_start=True)(x, y)),
        "foolbox": foolbox_attack(foolbox.attacks.LinfPGD(abs_stepsize=step_size, steps=steps, random_start=True), eps),
        "art": art_attack("ProjectedGradientDescent", norm=np.inf, eps=eps, eps_step=step_size, max_iter=steps,
                          num_random_init=1),
    }


def apgd_attackers(eps: float, steps: int) -> dict[str, Attacker]:
    import torchattacks

    return {
        "ours": attacks.AutoPGD(ThreatModel("linf", eps), steps=steps, loss="ce"),
        "torchattacks": in_batches(lambda model, x, y: torchattacks.APGD(
            model, norm="Linf", eps=eps, steps=steps, n_restarts=1, loss="ce", rho=0.75)(x, y)),
        "art": art_attack("AutoProjectedGradientDescent", norm=np.inf, eps=eps, eps_step=2 * eps, max_iter=steps,
                          nb_random_init=1, loss_type="cross_entropy"),
    }


def cw_attackers(search_steps: int, steps: int, lr: float = 0.01, initial_c: float = 1.0) -> dict[str, Attacker]:
    import foolbox

    return {
        "ours": attacks.CarliniWagnerL2(search_steps=search_steps, steps=steps, lr=lr, initial_c=initial_c),
        "torchattacks": in_batches(torchattacks_cw(
            np.geomspace(initial_c / 10, 10 * initial_c, search_steps).tolist(), steps, lr)),
        "foolbox": foolbox_attack(foolbox.attacks.L2CarliniWagnerAttack(
            binary_search_steps=search_steps, steps=steps, stepsize=lr, initial_const=initial_c), None),
        "art": art_attack("CarliniL2Method", binary_search_steps=search_steps, max_iter=steps, learning_rate=lr,
                          initial_const=initial_c),
    }


def nearest(x: Tensor, candidates: Iterator[tuple[Tensor, Tensor]], norm: str) -> Tensor:
    """Of each image's candidates (images, who counts), the nearest that counts; x where there is none."""
    best, least = x.clone(), torch.full((len(x),), torch.inf, dtype=torch.float64)
    for candidate, counts in candidates:
        distance = torch.where(counts, ThreatModel(norm, 1).distance(candidate, x), torch.inf)
        nearer = distance < least
        best[nearer], least[nearer] = candidate[nearer], distance[nearer]
    return best


def torchattacks_cw(constants: list[float], steps: int, lr: float) -> Attacker:
    """It has no search over c: one run a constant, and the nearest is kept."""
    import torchattacks

    def attacker(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        runs = (torchattacks.CW(model, c=c, steps=steps, lr=lr)(x, y) for c in constants)
        return nearest(x, ((x_adv, (x_adv != x).flatten(1).any(1)) for x_adv in runs), "l2")

    return attacker


def torchattacks_fab(norm: str, steps: int) -> Attacker:
    """Its own loop over the classes ends at the first one within ε: here each class is run, the nearest kept."""
    import torchattacks

    def attacker(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        attack = torchattacks.FAB(model, norm=norm.capitalize(), steps=steps, n_restarts=1, multi_targeted=True,
                                  n_classes=10)

        def runs() -> Iterator[tuple[Tensor, Tensor]]:
            for attack.target_class in range(2, 11):
                x_adv = attack.attack_single_run_targeted(x, y)
                yield x_adv, (x_adv != x).flatten(1).any(1)

        return nearest(x, runs(), norm)

    return attacker


def square_attackers(eps: float, queries: int) -> dict[str, Attacker]:
    import torchattacks

    return {
        "ours": attacks.SquareAttack(ThreatModel("linf", eps), queries=queries),
        "torchattacks": in_batches(lambda model, x, y: torchattacks.Square(
            model, norm="Linf", eps=eps, n_queries=queries, n_restarts=1, p_init=0.8)(x, y)),
        "art": art_attack("SquareAttack", norm=np.inf, eps=eps, max_iter=queries, p_init=0.8, nb_restarts=1),
    }
