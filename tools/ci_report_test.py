"""Tests of ci_report.py on events as Bazel writes them."""

import os
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import ci_report  # pylint: disable=wrong-import-position


def summary(label, status):
    return {"id": {"testSummary": {"label": label}},
            "testSummary": {"overallStatus": status}}


def completed(label, success):
    return {"id": {"targetCompleted": {"label": label}},
            "completed": {"success": True} if success else {}}


class CiReportTest(unittest.TestCase):

    def test_counts_each_test_once(self):
        self.assertEqual(
            {"//a:x": True, "//a:y": False, "//a:z": True, "//a:t": False},
            ci_report.outcomes([
                completed("//a:x", True), summary("//a:x", "PASSED"),
                completed("//a:y", True), summary("//a:y", "FAILED"),
                summary("//a:z", "FLAKY"), summary("//a:t", "TIMEOUT")]))

    def test_library_that_builds_is_no_result(self):
        self.assertEqual({}, ci_report.outcomes([completed("//a:lib", True)]))

    def test_target_that_does_not_build_fails(self):
        self.assertEqual(
            {"//a:lib": False, "//a:x": False},
            ci_report.outcomes([
                completed("//a:lib", False), completed("//a:x", False),
                summary("//a:x", "NO_STATUS")]))

    def test_target_that_cannot_be_analyzed_fails(self):
        aborted = {"id": {"targetCompleted": {"label": "//a:x"}},
                   "aborted": {"reason": "ANALYSIS_FAILURE"}}
        self.assertEqual({"//a:x": False}, ci_report.outcomes([aborted]))

    def test_pattern_that_cannot_be_loaded_fails(self):
        aborted = {"id": {"pattern": {"pattern": ["//..."]}},
                   "aborted": {"reason": "LOADING_FAILURE"}}
        self.assertEqual({"//...": False}, ci_report.outcomes([aborted]))

    def test_names_skipped_cases_once(self):
        with tempfile.TemporaryDirectory() as folder:
            log = pathlib.Path(folder, "test.log")
            log.write_text(
                "[ RUN      ] Amx.Adds\n"
                "[  SKIPPED ] Amx.Adds (0 ms)\n"
                "[  SKIPPED ] 1 test, listed below:\n"
                "[  SKIPPED ] Amx.Adds\n"
                "[  SKIPPED ] //a:y: this CPU lacks avx2\n", encoding="utf-8")
            event = {"id": {"testResult": {"label": "//a:x"}},
                     "testResult": {"testActionOutput": [
                         {"name": "test.log", "uri": log.as_uri()},
                         {"name": "test.xml", "uri": "file:///none"}]}}
            self.assertEqual({"//a:x": ["Amx.Adds", "//a:y"]},
                             ci_report.skipped_cases([event]))


if __name__ == "__main__":
    unittest.main()
