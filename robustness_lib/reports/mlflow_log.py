"""A report in MLflow, where that is installed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from robustness_lib.reports.page import save_page
from robustness_lib.reports.report import Report

__all__ = ["log_to_mlflow", "mlflow_wanted"]

_EXPERIMENT = "robustness"


def mlflow_wanted(asked: bool | None) -> bool:
    """Log? As asked; and where nobody says, if MLFLOW_TRACKING_URI names a server or store and MLflow is installed.
    Raises ValueError where it is asked for and not installed."""
    try:
        import mlflow  # noqa: F401
    except ImportError:
        if asked:
            raise ValueError("MLflow is not installed: pip install mlflow (or mlflow-skinny)") from None
        return False
    return bool(os.environ.get("MLFLOW_TRACKING_URI")) if asked is None else asked


def log_to_mlflow(report: Report, version: str) -> str:
    """One run in the experiment that MLFLOW_EXPERIMENT_NAME names, else "robustness": metrics, settings, the sentence,
    and report.json and report.html as files. Where it goes, MLFLOW_TRACKING_URI says. Returns the run's id.

    Raises ValueError, in MLflow's words, where that fails.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
    try:
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else client.create_experiment(name)
        run = client.create_run(number, run_name=version).info.run_id
        for metric, value in _metrics(report).items():
            client.log_metric(run, metric, value)
        for setting, words in _settings(report, version).items():
            client.log_param(run, setting, words)
        client.set_tag(run, "sentence", report.sentence)
        with tempfile.TemporaryDirectory() as folder:
            client.log_artifact(run, str(report.save(Path(folder) / "report.json")))
            client.log_artifact(run, str(save_page(report, Path(folder) / "report.html")))
        client.set_terminated(run)
    except MlflowException as error:
        raise ValueError(f"MLflow: {error}") from error
    return str(run)


def _metrics(report: Report) -> dict[str, float]:
    if not report.valid:
        return {"clean": report.clean_accuracy.value, "n": float(report.n)}
    low, high = report.robust_accuracy.interval
    accuracies = {"clean": report.clean_accuracy.value, "robust": report.robust_accuracy.value,
                  "robust_low": low, "robust_high": high, "n": float(report.n)}
    # MLflow takes letters, digits, - _ . / and spaces in names.
    return accuracies | {f"cumulative/{''.join(c if c.isalnum() or c in '-_./ ' else '_' for c in attack.name)}":
                         report.cumulative(attack.name).value for attack in report.attacks}


def _settings(report: Report, version: str) -> dict[str, str]:
    known = {"version": version, "threat": str(report.threat), "eps": repr(report.threat.eps), "suite": report.suite}
    known |= {f"{name}_fingerprint": value for name, value in report.fingerprints.items()}
    return known | {name: value[:500] for name, value in {**report.environment, **report.provenance}.items()}
