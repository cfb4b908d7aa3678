"""AutoAttack with few steps, on a small net: for tests, and for the process that a test kills.

    python quick_auto_attack.py STATE RESULT [SECONDS]     SECONDS: a pause in each call of the model
"""

import dataclasses
import sys
import time

import torch
from torch import nn

from robustness_lib import ThreatModel
from robustness_lib.attacks import AutoAttack, SquareAttack

THREAT = ThreatModel("linf", 0.05)


class Quick(AutoAttack):
    def attacks(self, classes):
        return {name: dataclasses.replace(attack, **({"queries": 60} if isinstance(attack, SquareAttack)
                                                     else {"steps": 5}))
                for name, attack in super().attacks(classes).items()}


def problem(n=60, classes=6):
    """A net that is right on most images and breaks on about half: some fall to each of the attacks."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 5 * 4, classes)).eval()
        x = torch.rand(n, 2, 7, 6)
    with torch.no_grad():
        model[3].weight.mul_(6)
        y = model(x).argmax(1)
    y[::10] = (y[::10] + 1) % classes  # wrong from the start
    return model, x, y


def same(a, b):
    return (torch.equal(a.robust, b.robust) and torch.equal(a.x_adv, b.x_adv) and a.broken_by == b.broken_by
            and [dataclasses.replace(s, seconds=0) for s in a.stages]
            == [dataclasses.replace(s, seconds=0) for s in b.stages])


if __name__ == "__main__":
    torch.set_num_threads(1)
    model, x, y = problem()
    if len(sys.argv) > 3:
        model.register_forward_pre_hook(lambda *_: time.sleep(float(sys.argv[3])))
    result = Quick(THREAT).run(model, x, y, batch_size=8, state=sys.argv[1])
    torch.save((result.robust, result.x_adv), sys.argv[2])
