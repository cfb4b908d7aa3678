"""Transfer: adversarial images of one model, shown to another (Papernot et al. 2017, arXiv 1602.02697)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from robustness_lib.attacks._bounded import BoundedAttack
from robustness_lib.attacks._search import Run, Search
from robustness_lib.attacks.pgd import PGD
from robustness_lib.querying.frozen import Classifier
from robustness_lib.querying.warnings import AttackWarning

__all__ = ["Transfer"]


@dataclass(frozen=True)
class Transfer(BoundedAttack):
    """The simplest black box: attack a surrogate, a model of one's own, and try the result on the victim.

    surrogate: a model with the victim's classes, on any device; left as it was. attack: run on the surrogate, under
    stop="never" whatever it says, since an image deep in the surrogate's error region is likelier to carry over than
    one at its edge; None means PGD(threat, steps=40). loss: what is reported of the victim's answer; the surrogate is
    attacked with the attack's own.

    The victim answers once per example, after the image itself under stop="success". `queries` and `calls` count the
    victim's answers only, and no gradients of it are taken.

    Raises TypeError for a surrogate that cannot be called or an attack that is no BoundedAttack, ValueError for an
    attack with another threat model.
    """

    surrogate: Classifier = field(repr=False)
    attack: BoundedAttack | None = None

    @property
    def follows_gradients(self) -> bool:
        return False  # only the surrogate's

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.surrogate):
            raise TypeError(f"surrogate must be a model: a callable from images to logits; found {self.surrogate!r}")
        if self.attack is None:
            return
        if not isinstance(self.attack, BoundedAttack):
            raise TypeError(f"attack must be an attack inside a threat model, such as PGD; found {self.attack!r}")
        if self.attack.threat != self.threat:
            raise ValueError(
                f"attack has the threat model {self.attack.threat} and Transfer {self.threat}; give both the same"
            )

    def _attack(self, search: Search, start: Tensor | None) -> None:
        run = Run(search, search.standing())
        begin = None if start is None else start[run.rows].contiguous()
        attack = replace(self.attack or PGD(self.threat, steps=40), stop="never")
        try:
            found = attack.run(self.surrogate, run.x.contiguous(), run.goal.y, run.goal.target,
                               index=run.index, start=begin)
        except (TypeError, ValueError) as error:
            error.add_note("(This was the attack on the surrogate, not on the victim.)")
            raise
        places = (run.rows.cpu() + search.offset).tolist()  # of the images shown to the surrogate, among all given
        search.notes += [AttackWarning(w.kind, f"on the surrogate: {w.message}", tuple(places[row] for row in w.rows),
                                       about="the surrogate") for w in found.warnings]
        x_adv = run.search.queried.layout.arrange(found.x_adv)
        logits = search.queried.logits(x_adv)
        run.offer(1, x_adv, run.goal.value(logits), logits)
        run.commit()
