"""Tests of check_layers.py on small trees."""

import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import check_layers  # pylint: disable=wrong-import-position

LIBRARY = 'cc_library(name = "%s", hdrs = ["%s.h"], deps = %s)\n'


def violations(files):
    """What check_layers says of a tree of path -> text."""
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            full = os.path.join(root, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as file:
                file.write(text)
        return sorted(set(check_layers.check(root)))


class CheckLayersTest(unittest.TestCase):

    def assert_one(self, files, *fragments):
        found = violations(files)
        self.assertEqual(len(found), 1, found)
        for fragment in fragments:
            self.assertIn(fragment, found[0])

    def test_accepts_includes_from_lower_layers(self):
        self.assertEqual([], violations({
            "tensor/BUILD.bazel": LIBRARY % ("shape", "shape", []),
            "tensor/shape.h": "",
            "kernels/BUILD.bazel":
                LIBRARY % ("norm", "norm", ["//tensor:shape"]),
            "kernels/norm.h": '#include "tensor/shape.h"\n'}))

    def test_rejects_upward_dependency(self):
        self.assert_one(
            {"tensor/BUILD.bazel":
                LIBRARY % ("shape", "shape", ["//kernels:norm"])},
            "tensor/BUILD.bazel:1", "//kernels:norm", "tensor may use only []")

    def test_rejects_upward_dependency_inside_select(self):
        self.assert_one(
            {"kernels/BUILD.bazel": (
                'cc_library(name = "a", deps = [] + select({":x": '
                '["//models:decoder"], "//conditions:default": []}))\n')},
            "//models:decoder")

    def test_rejects_upward_include(self):
        self.assert_one(
            {"tensor/BUILD.bazel":
                LIBRARY % ("shape", "shape", []),
             "tensor/shape.h": '\n#include "runtime/engine.h"\n'},
            "tensor/shape.h:2", "runtime/engine.h")

    def test_rejects_model_code_in_tokenizer(self):
        self.assert_one(
            {"tokenizer/BUILD.bazel":
                LIBRARY % ("bpe", "bpe", ["//tensor:shape"])},
            "tokenizer may use only []")

    def test_rejects_include_without_direct_dependency(self):
        self.assert_one({
            "tensor/BUILD.bazel": LIBRARY % ("shape", "shape", []),
            "tensor/shape.h": "",
            "kernels/BUILD.bazel": LIBRARY % ("norm", "norm", []),
            "kernels/norm.h": '#include "tensor/shape.h"\n',
        }, "kernels/norm.h:1", "needs the direct dependency //tensor:shape")

    def test_rejects_include_of_unexported_header(self):
        self.assert_one({
            "kernels/BUILD.bazel": LIBRARY % ("norm", "norm", []),
            "kernels/norm.h": '#include "tensor/shape.h"\n',
        }, "no target exports")

    def test_rejects_testing_in_shipped_target(self):
        self.assert_one(
            {"models/BUILD.bazel":
                LIBRARY % ("decoder", "decoder", ["//testing:matchers"])},
            "only testonly targets use testing")

    def test_accepts_testing_in_tests(self):
        self.assertEqual([], violations(
            {"models/BUILD.bazel":
                'cc_test(name = "t", deps = ["//testing:matchers"])\n'
                'cc_library(name = "l", testonly = True, '
                'deps = ["//testing:matchers"])\n'}))

    def test_rejects_undocumented_public_library(self):
        build = ('cc_library(name = "%s", '
                 'visibility = ["//visibility:public"])\n')
        self.assert_one({
            "docs/embedding.md": "`@nibble//tensor:view` `@nibble//tensor`\n",
            "tensor/BUILD.bazel":
                build % "view" + build % "tensor" + build % "vie",
        }, "lacks @nibble//tensor:vie")

    def test_rejects_folder_of_one_machine(self):
        self.assert_one({"docs/a.md": "see /home/" "somebody/x\n"},
                        "docs/a.md:1")

    def test_rejects_unknown_host(self):
        self.assert_one({"docs/a.md": "ok\nhttps://" "mirror.invalid/x\n"},
                        "docs/a.md:2", "mirror.invalid")

    def test_accepts_known_and_example_hosts(self):
        self.assertEqual([], violations(
            {"docs/a.md": "https://github.com/a https://example.com/b\n"}))


if __name__ == "__main__":
    unittest.main()
