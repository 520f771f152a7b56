"""tally.py [--no-skips] REPORT... - counts the tests in JUnit reports of ctest and pytest.

A cmocka program counts as the tests inside it, taken from its summary; any other ctest entry counts as one. Prints the
reason of every skip and the name of every failure, and last `PASSED FAILED SKIPPED` for the script that called.
With --no-skips a skipped test counts as failed.
"""

import re
import sys
import xml.etree.ElementTree as tree

SUMMARY = re.compile(r"^\[  (PASSED|FAILED|SKIPPED) *\] (\d+) test\(s\)", re.M)
REASON = re.compile(r"^skipped: (.*)$", re.M)


def count_case(case):
    """(passed, failed, skipped) of one entry, and why it skipped."""
    output = "".join(part.text or "" for part in case.iter("system-out"))
    skip = case.find("skipped")
    bad = case.find("failure") is not None or case.find("error") is not None
    bad = bad or case.get("status") == "fail"
    # ctest: a test that ran says SKIP_RETURN_CODE; otherwise it could not be run at all.
    bad = bad or (case.get("status") == "notrun" and not skip.get("message", "").startswith("SKIP_"))
    reasons = REASON.findall(output)
    counts = {"PASSED": 0, "FAILED": 0, "SKIPPED": 0}
    for word, number in SUMMARY.findall(output):
        counts[word] += int(number)
    passed, failed, skipped = counts["PASSED"], counts["FAILED"], counts["SKIPPED"]
    if passed + failed + skipped == 0:
        skipped = 1 if (skip is not None or reasons) and not bad else 0
        passed = 0 if bad or skipped else 1
    if bad and failed == 0:
        failed = 1  # it died before or after its summary
    if skipped and not reasons:
        reasons = [(skip.get("message") or skip.text or "").strip() if skip is not None else "no reason given"]
    return passed, failed, skipped, reasons


def main():
    arguments = sys.argv[1:]
    no_skips = "--no-skips" in arguments
    totals = [0, 0, 0]
    for report in (a for a in arguments if not a.startswith("--")):
        for case in tree.parse(report).getroot().iter("testcase"):
            passed, failed, skipped, reasons = count_case(case)
            name = "::".join(filter(None, (case.get("classname"), case.get("name"))))
            if case.get("classname") == case.get("name"):
                name = case.get("name")
            if failed:
                print(f"failed: {name}")
            for reason in reasons if skipped else []:
                print(f"skipped: {name}: {reason.removeprefix('skipped: ')}")
            if no_skips:
                failed, skipped = failed + skipped, 0
            totals = [totals[0] + passed, totals[1] + failed, totals[2] + skipped]
    print(*totals)


main()
