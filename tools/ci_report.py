#!/usr/bin/env python3
"""Counts what Bazel itself reports of a test run.

    tools/ci_report.py EVENTS.json

EVENTS.json is what --build_event_json_file wrote. Standard output gets one line
of shell assignments, `passed=N failed=N`; standard error gets the failed targets
and the skipped test cases. A target that could not be built counts as failed.
"""

import json
import re
import sys
import urllib.parse

PASSED = ("PASSED", "FLAKY")
# GoogleTest's line for one skipped case, and the per-ISA launcher's.
SKIPPED = re.compile(r"^\[  SKIPPED \] (\S+)(?: \(\d+ ms\)|: this CPU lacks .*)$",
                     re.MULTILINE)


def read_events(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def outcomes(events):
    """Target label -> whether it built and, being a test, passed."""
    tests, failed_builds = {}, set()
    for event in events:
        identity = event["id"]
        if "testSummary" in identity and "testSummary" in event:
            label = identity["testSummary"]["label"]
            tests[label] = event["testSummary"]["overallStatus"] in PASSED
        elif "targetCompleted" in identity:
            if not event.get("completed", {}).get("success"):
                failed_builds.add(identity["targetCompleted"]["label"])
        elif "pattern" in identity and "aborted" in event:
            failed_builds.add(", ".join(identity["pattern"]["pattern"]))
    for label in failed_builds:
        tests[label] = False
    return tests


def skipped_cases(events):
    """Target label -> names of the test cases that its log shows as skipped."""
    skipped = {}
    for event in events:
        for output in event.get("testResult", {}).get("testActionOutput", []):
            address = urllib.parse.urlparse(output.get("uri", ""))
            if output.get("name") != "test.log" or address.scheme != "file":
                continue
            with open(urllib.parse.unquote(address.path), encoding="utf-8",
                      errors="replace") as log:
                cases = SKIPPED.findall(log.read())
            if cases:
                label = event["id"]["testResult"]["label"]
                skipped.setdefault(label, []).extend(cases)
    return skipped


def main(arguments):
    try:
        events = read_events(arguments[1])
    except OSError as error:
        print("ci_report: no events of the run: %s" % error, file=sys.stderr)
        events = []
    results = outcomes(events)
    for label, passed in sorted(results.items()):
        if not passed:
            print("FAILED %s" % label, file=sys.stderr)
    skipped = skipped_cases(events)
    for label, cases in sorted(skipped.items()):
        print("SKIPPED in %s: %s" % (label, ", ".join(cases)), file=sys.stderr)
    print("%d test cases SKIPPED" % sum(map(len, skipped.values())),
          file=sys.stderr)
    passed = sum(results.values())
    print("passed=%d failed=%d" % (passed, len(results) - passed))


if __name__ == "__main__":
    main(sys.argv)
