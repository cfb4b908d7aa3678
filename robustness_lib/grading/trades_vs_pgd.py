"""Checks of the exercise `trades_vs_pgd`: two ways of training on the worst case, and which of two nets is better
(Zhang et al. 2019, arXiv 1901.08573; Madry et al. 2018, arXiv 1706.06083)."""

from robustness_lib.grading._trades_losses import ascend, kl, pgd_loss, trades_loss, trades_point
from robustness_lib.grading._trades_task import TradesVsPgdTask, task
from robustness_lib.grading._trades_verdicts import conclude, judged, robust, trained, trap, which_is_better
from robustness_lib.grading.given import trades_vs_pgd as given

__all__ = ["TradesVsPgdTask", "ascend", "conclude", "given", "judged", "kl", "pgd_loss", "robust", "task",
           "trades_loss", "trades_point", "trained", "trap", "which_is_better"]
