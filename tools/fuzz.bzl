"""Fuzz targets that are ordinary tests outside --config=fuzz."""

load("@rules_cc//cc:defs.bzl", "cc_test")
load("//tools:copts.bzl", "NIBBLE_COPTS")

def nibble_fuzz_test(name, srcs, deps, seeds = [], size = "small"):
    """A libFuzzer entry point, LLVMFuzzerTestOneInput, as a test.

    With --config=fuzz the target is a libFuzzer binary: run it as
    `bazelw run --config=fuzz //pkg:name -- -max_total_time=300`. Without it the
    target replays the seeds and a fixed number of mutations of them.

    Args:
      name: the target's name.
      srcs: sources that define LLVMFuzzerTestOneInput.
      deps: their dependencies.
      seeds: files to start from; each is one input.
      size: the test's size.
    """
    fuzzing = "@nibble//tools:fuzzing"
    cc_test(
        name = name,
        size = size,
        srcs = srcs,
        args = select({
            fuzzing: ["-max_total_time=60"],
            "//conditions:default": ["$(locations %s)" % s for s in seeds],
        }),
        copts = NIBBLE_COPTS,
        data = seeds,
        linkopts = select({
            fuzzing: ["-fsanitize=fuzzer"],
            "//conditions:default": [],
        }),
        deps = deps + select({
            fuzzing: [],
            "//conditions:default": ["@nibble//tools:fuzz_replay"],
        }),
    )
