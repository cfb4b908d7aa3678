"""Checks of the exercise `certified_accuracy`: a certificate by voting (Cohen, Rosenfeld and Kolter 2019)."""

from robustness_lib.grading.certified_accuracy.bound_and_radius import certified_radius, lower_bound
from robustness_lib.grading.certified_accuracy.certificate import certify
from robustness_lib.grading.certified_accuracy.curves import certified_accuracy, larger_wins
from robustness_lib.grading.certified_accuracy.picture import sandwich
from robustness_lib.grading.certified_accuracy.under_attack import attacked_accuracy
from robustness_lib.grading.certified_accuracy.under_noise import count_votes, noise_loss
from robustness_lib.grading.certified_accuracy.variants import CertifiedAccuracyTask, Voted, task
from robustness_lib.grading.given import certified_accuracy as given

__all__ = ["CertifiedAccuracyTask", "Voted", "attacked_accuracy", "certified_accuracy", "certified_radius", "certify",
           "count_votes", "given", "larger_wins", "lower_bound", "noise_loss", "sandwich", "task"]
