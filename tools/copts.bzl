"""Compiler flags of nibble's own targets.

The .bazelrc adds -Werror to them in this workspace only: a project that embeds
nibble with another compiler sees warnings, not a broken build.
"""

NIBBLE_COPTS = [
    "-Wall",
    "-Wextra",
]
