"""tests/tally.py, which makes the closing line of ops/test, must not hide a failure or a skip."""

import pathlib
import subprocess
import sys

import pytest

TALLY = pathlib.Path(__file__).resolve().parents[1] / "tally.py"
SUMMARY = "[==========] 5 test(s) run.\n[  PASSED  ] {} test(s).\n"


def ctest_case(status, output, inside=""):
    return f'<testcase name="t" classname="t" status="{status}">{inside}<system-out>{output}</system-out></testcase>'


def tally(tmp_path, case, *flags):
    report = tmp_path / "report.xml"
    report.write_text(f"<testsuite>{case}</testsuite>", encoding="utf-8")
    done = subprocess.run([sys.executable, str(TALLY), *flags, str(report)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("case, counts", [
    (ctest_case("run", SUMMARY.format(5)), "5 0 0"),
    (ctest_case("run", SUMMARY.format(2) + SUMMARY.format(3)), "5 0 0"),
    (ctest_case("run", "no cmocka here"), "1 0 0"),
    (ctest_case("fail", SUMMARY.format(4) + "[  FAILED  ] 1 test(s), listed below:", "<failure/>"), "4 1 0"),
    (ctest_case("fail", "Segmentation fault", "<failure/>"), "0 1 0"),
    (ctest_case("fail", SUMMARY.format(5) + "LeakSanitizer", "<failure/>"), "5 1 0"),
    (ctest_case("fail", SUMMARY.format(3) + "skipped: why\n[  SKIPPED ] 1 test(s), listed below:\n"
                "[  FAILED  ] 1 test(s), listed below:", "<failure/>"), "3 1 1"),
    (ctest_case("notrun", "", '<skipped message="SKIP_RETURN_CODE=77"/>'), "0 0 1"),
    (ctest_case("notrun", "", '<skipped message="Unable to find executable"/>'), "0 1 0"),
    ('<testcase name="t" classname="m"/>', "1 0 0"),
    ('<testcase name="t" classname="m"><error message="setup"/></testcase>', "0 1 0"),
    ('<testcase name="t" classname="m"><skipped message="skipped: why"/></testcase>', "0 0 1"),
])
def test_counts(tmp_path, case, counts):
    assert tally(tmp_path, case)[-1] == counts


def test_reasons_are_told_and_can_be_failures(tmp_path):
    case = ctest_case("notrun", SUMMARY.format(4) + "skipped: no data\n[  SKIPPED ] 1 test(s), listed below:\n",
                      '<skipped message="SKIP_RETURN_CODE=77"/>')
    assert tally(tmp_path, case) == ["skipped: t: no data", "4 0 1"]
    assert tally(tmp_path, case, "--no-skips") == ["skipped: t: no data", "4 1 0"]
