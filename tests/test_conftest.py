"""The rule on skips, tried on small test files in a pytest of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

RULES = (Path(__file__).parent / "conftest.py").read_text(encoding="utf-8")
WITHOUT_PLUGINS = ("-p", "no:xdist", "-p", "no:nbval", "-p", "no:hypothesispytest")  # slow to load
VARIABLES = ("ROBUSTNESS_DATA", "ROBUSTNESS_REFERENCE_MODELS", "ROBUSTNESS_SMOOTHING_LOGS")
MARKERS = "[pytest]\nmarkers =\n    reference: x\n    browser: x\n"


def outcomes(pytester: pytest.Pytester, code: str) -> tuple[dict[str, int], str]:
    pytester.makeini(MARKERS)
    pytester.makeconftest(RULES)
    pytester.makepyfile(f"import pytest\n{code}")
    result = pytester.runpytest_inprocess("-rs", *WITHOUT_PLUGINS)
    return result.parseoutcomes(), result.stdout.str()


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "CI"):
        monkeypatch.delenv(name, raising=False)


REFERENCE_SKIP = "@pytest.mark.reference\ndef test_it(): pytest.skip('no net called a.pt')"
BROWSER_SKIP = "@pytest.mark.browser\n@pytest.mark.skipif(True, reason='no chromium')\ndef test_it(): pass"


def test_a_reference_test_may_be_skipped_where_nothing_is_set(pytester: pytest.Pytester) -> None:
    assert outcomes(pytester, REFERENCE_SKIP)[0] == {"skipped": 1}


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_skipped_reference_test_fails_where_one_is_set(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, variable: str, tmp_path: Path
) -> None:
    monkeypatch.setenv(variable, str(tmp_path))
    counts, text = outcomes(pytester, REFERENCE_SKIP)
    assert counts == {"failed": 1}
    assert variable in text
    assert "no net called a.pt" in text


def test_other_skips_stay_skips(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ROBUSTNESS_DATA", str(tmp_path))
    monkeypatch.setenv("CI", "true")
    assert outcomes(pytester, "def test_it(): pytest.skip('needs a mac')")[0] == {"skipped": 1}


def test_an_expected_failure_is_no_skip(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ROBUSTNESS_DATA", str(tmp_path))
    code = "@pytest.mark.reference\n@pytest.mark.xfail\ndef test_it(): assert False"
    assert outcomes(pytester, code)[0] == {"xfailed": 1}


@pytest.mark.parametrize("fixture", ["reference_models", "real_data", "smoothing_logs"])
def test_who_asks_for_the_real_things_is_a_reference_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fixture: str
) -> None:
    code = f"def test_it({fixture}): pytest.skip('cut short')"
    counts, text = outcomes(pytester, code)
    assert counts == {"skipped": 1}
    assert "set ROBUSTNESS_" in text
    for name in VARIABLES:
        monkeypatch.setenv(name, str(tmp_path))
    assert outcomes(pytester, code)[0] == {"failed": 1}


def test_a_folder_that_is_not_there_is_an_error(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ROBUSTNESS_DATA", str(tmp_path / "nowhere"))
    counts, text = outcomes(pytester, "def test_it(real_data): pass")
    assert counts == {"errors": 1}
    assert "no such folder" in text


def test_a_browser_test_may_be_skipped_at_home_and_not_on_the_build_server(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outcomes(pytester, BROWSER_SKIP)[0] == {"skipped": 1}
    monkeypatch.setenv("CI", "true")
    counts, text = outcomes(pytester, BROWSER_SKIP)
    assert counts == {"errors": 1}  # a failure before the test began
    assert "no chromium" in text


def test_a_file_that_skips_itself_is_an_error_on_the_build_server(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "pytest.skip('no playwright', allow_module_level=True)"
    assert outcomes(pytester, code)[0] == {"skipped": 1}
    monkeypatch.setenv("CI", "true")
    counts, text = outcomes(pytester, code)
    assert counts == {"errors": 1}
    assert "no playwright" in text


def test_one_thread_per_worker() -> None:
    import torch

    assert torch.get_num_threads() == 1
