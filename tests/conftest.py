"""What all tests share: one thread per worker, real data and models, and which skips count as failures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, also by processes that tests start

import pytest
import torch

torch.set_num_threads(1)

pytest_plugins = ["pytester"]

DATA = "ROBUSTNESS_DATA"
MODELS = "ROBUSTNESS_REFERENCE_MODELS"
LOGS = "ROBUSTNESS_SMOOTHING_LOGS"
FIXTURES = {"real_data": DATA, "reference_models": MODELS, "smoothing_logs": LOGS}


def _folder(variable: str, holds: str) -> Path:
    """The folder that an environment variable names; skips the test where it is not set."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"set {variable} to the folder that holds {holds}")
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"{variable} is set to {value}, and there is no such folder")
    return folder


@pytest.fixture(scope="session")
def reference_models() -> Path:
    """The folder of other people's trained models."""
    return _folder(MODELS, "other people's trained models, such as mnist-wk17a.pt")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets."""
    return _folder(DATA, "real data sets, such as MNIST/raw and cifar10-test.npz")


@pytest.fixture(scope="session")
def smoothing_logs() -> Path:
    """The folder of published certificates."""
    return _folder(LOGS, "published certificates, such as cifar10-resnet110-sigma0.25.tsv")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for the real things is a reference test, marked or not."""
    for item in items:
        if FIXTURES.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.reference)


def _why_not_skipped(item: pytest.Item) -> str | None:
    """Why this test may not be skipped here, or None where it may."""
    asked = getattr(item, "fixturenames", ())
    needs = [name for fixture, name in FIXTURES.items() if fixture in asked]
    given = [name for name in needs or FIXTURES.values() if os.environ.get(name)]
    if given and len(given) >= len(needs) and item.get_closest_marker("reference"):
        return f"a reference test may not be skipped where {' and '.join(given)} is set"
    if os.environ.get("CI") and item.get_closest_marker("browser"):
        return "a browser test may not be skipped on the build server (CI is set): install chromium"
    return None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """A file that skips itself hides its marks, and with them what must not be skipped: an error on CI."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"a whole file may not be skipped where CI is set; it said: {report.longrepr[2]}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    reason = _why_not_skipped(item) if report.skipped and not hasattr(report, "wasxfail") else None
    if reason:
        report.outcome = "failed"
        report.longrepr = f"{reason}; the test said: {report.longrepr[2]}"
    return report
