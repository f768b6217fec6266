"""Compiler flags of nibble's own targets.

The .bazelrc adds -Werror to them in this workspace only: a project that embeds
nibble with another compiler sees warnings, not a broken build.
"""

NIBBLE_COPTS = [
    "-Wall",
    "-Wextra",
    # Highway's SSSE3 and SSE4 targets: no CPU of interest stops there, and each
    # target compiles every kernel once more.
    "-DHWY_DISABLED_TARGETS=0x1800",
]
