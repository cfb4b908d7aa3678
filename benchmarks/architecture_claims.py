"""What is said in print of architecture and robustness, as claims that section `claims` of architectures.py judges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = ["CLAIMS", "LEADERBOARD", "Claim"]


@dataclass(frozen=True)
class Claim:
    """knobs: those turned, as architectures.py names them. sign: 1 where the claim is that `measure` rises, −1 where it
    falls. size: the least change that the source reports, as a share of the images; None where it gives none that is
    about this knob alone. source: keys of references.bib."""

    words: str
    source: str
    knobs: tuple[str, ...]
    sign: int = 1
    size: float | None = None
    measure: str = "robust"

    RULE: ClassVar[str] = (
        "'holds': the 95 % interval lies wholly on the side that is claimed. 'does not': it lies wholly on the other "
        "side; or it holds 0, ends below the size that the source reports, and an effect of that size would have been "
        "seen with a probability of 80 % or more. 'cannot tell': everything else. All of it holds for this small net, "
        "these images and this short training, and for nothing larger.")

    def verdict(self, interval: tuple[float, float], visible: float) -> tuple[str, str]:
        """The verdict and its reason. interval: of the effect. visible: the smallest effect that would be seen."""
        low, high = sorted(self.sign * end for end in interval)
        if low > 0:
            return "holds", "the interval lies on the side that is claimed"
        if high < 0:
            return "does not", "the interval lies on the other side"
        if self.size is None:
            return "cannot tell", "the interval holds 0, and no size is claimed"
        if high < self.size and visible <= self.size:
            return "does not", "the interval holds 0 and ends below the size claimed, which would have been seen"
        return "cannot tell", "the interval holds 0, and an effect of the size claimed is not ruled out"


CLAIMS = (
    # There of images of another distribution, not of attacks.
    Claim("Larger kernels are more robust", "wang2023cnns", ("kernel 5", "kernel 7")),
    Claim("Smooth activations are more robust: 33.0 % to 42.3 % on ImageNet, from ReLU to SiLU", "xie2020smooth",
          ("SiLU", "softplus"), size=0.093),
    Claim("Wider nets are more robust", "madry2018towards", ("width 16",)),
    Claim("Narrower nets are less robust", "madry2018towards", ("width 4",), sign=-1),
    Claim("Wider nets are right more often on clean images", "wu2021wider", ("width 16",), measure="clean"),
    Claim("Wider nets lose more of it to the attack", "wu2021wider", ("width 16",), measure="lost to the attack"),
    # 57.09 and 60.97, the nearest of the four pairs of one paper below; 3 to 4 times as many parameters, as here.
    Claim("A ResNet-18 cannot compete: a net with about four times as many parameters is ahead of it",
          "robustbench2026zoo", ("width 16",), size=0.0388),
)

# CIFAR-10, L∞, 8/255, AutoAttack, in percent; files of the folder model_info/cifar10/Linf, read in November 2026.
LEADERBOARD: dict[str, Any] = {
    "source": "robustbench2026zoo",
    "read": "2026-11-30",
    "one paper, two nets": [
        {"files": ["Rade2021Helper_R18_ddpm", "Rade2021Helper_ddpm"], "nets": ["PreActResNet-18", "WideResNet-28-10"],
         "clean": [86.86, 88.16], "robust": [57.09, 60.97]},
        {"files": ["Rebuffi2021Fixing_R18_ddpm", "Rebuffi2021Fixing_28_10_cutmix_ddpm"],
         "nets": ["ResNet-18", "WideResNet-28-10"], "clean": [83.53, 87.33], "robust": [56.66, 60.73]},
        {"files": ["Sehwag2021Proxy_R18", "Sehwag2021Proxy"], "nets": ["ResNet-18", "WideResNet-34-10"],
         "clean": [84.38, 85.85], "robust": [54.43, 59.09]},
        {"files": ["Addepalli2022Efficient_RN18", "Addepalli2022Efficient_WRN_34_10"],
         "nets": ["ResNet-18", "WideResNet-34-10"], "clean": [85.71, 88.71], "robust": [52.48, 57.81]}],
    "a larger net, older": {"file": "Rice2020Overfitting", "net": "WideResNet-34-20", "clean": 85.34, "robust": 53.42},
    "the largest": {"file": "Bartoldson2024Adversarial_WRN-94-16", "net": "WideResNet-94-16", "clean": 93.68,
                    "robust": 73.71},
    # From the README of github.com/zhichao-lu/robust-residual-network, the code of that paper; TRADES, AutoAttack.
    "one training, two sizes": {"source": "huang2023revisiting", "nets": ["WideResNet-28-10", "WideResNet-70-16"],
                                "million parameters": [36.5, 267], "clean": [84.62, 85.51], "robust": [51.66, 52.80]},
    "in words": "In each of four papers the wider net is ahead of its ResNet-18, by 3.9 to 5.3 points. Three of these "
                "ResNet-18s, trained on a million synthetic images or more, are ahead of a WideResNet-34-20 of the "
                "year before, which has no such images: what one trains on counts for as much as the net.",
}
