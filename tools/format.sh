#!/bin/bash
# Formats the tracked C++ sources as .clang-format says.
#
#   tools/format.sh           rewrites them
#   tools/format.sh --check   names what is not formatted, and exits 1
#
# clang-format 14 (Debian 12's) decides: other versions format differently.
set -euo pipefail

root=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd -P)
cd "$root"

find_clang_format() {
  local program
  for program in clang-format-14 clang-format; do
    if "$program" --version 2>/dev/null | grep -q 'version 14\.'; then
      printf '%s' "$program"
      return
    fi
  done
  return 1
}

if ! program=$(find_clang_format); then
  bash tools/prepare_bazel.sh clang-format
  program=$(find_clang_format) || {
    printf 'format.sh: needs clang-format 14\n' >&2
    exit 1
  }
fi

mode=(-i)
[[ ${1:-} == --check ]] && mode=(--dry-run -Werror)
git ls-files -z -- '*.cc' '*.h' |
  xargs -0 -r -n 50 -P 2 "$program" --style=file "${mode[@]}"
