"""Checks of the exercise `trades_vs_pgd`: two ways of training on the worst case, and which of two nets is better
(Zhang et al. 2019, arXiv 1901.08573; Madry et al. 2018, arXiv 1706.06083)."""

from robustness_lib.grading.given import trades_vs_pgd as given
from robustness_lib.grading.trades_vs_pgd.comparison import conclude, which_is_better
from robustness_lib.grading.trades_vs_pgd.losses import kl, pgd_loss, trades_loss
from robustness_lib.grading.trades_vs_pgd.search import ascend, trades_point
from robustness_lib.grading.trades_vs_pgd.training import trained
from robustness_lib.grading.trades_vs_pgd.variants import TradesVsPgdTask, task
from robustness_lib.grading.trades_vs_pgd.verdicts import judged, robust, trap

__all__ = ["TradesVsPgdTask", "ascend", "conclude", "given", "judged", "kl", "pgd_loss", "robust", "task",
           "trades_loss", "trades_point", "trained", "trap", "which_is_better"]
