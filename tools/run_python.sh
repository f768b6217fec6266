#!/bin/bash
# Runs a Python file as a Bazel test: py_test would need rules that not every
# Bazel brings, and python3 comes with Debian's Bazel.
set -euo pipefail
exec env PYTHONDONTWRITEBYTECODE=1 python3 "$@"
