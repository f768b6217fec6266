#!/bin/bash
# Tests require_isa.sh, the test launcher of the single-ISA configurations.
set -euo pipefail

launcher=$1
cpuinfo=$TEST_TMPDIR/cpuinfo

fail() {
  printf 'FAILED: %s\n' "$*" >&2
  exit 1
}

# Runs the launcher on a machine with the CPU flags $1 for the ISA $2.
launch() {
  printf 'processor\t: 0\nflags\t\t: %s\n' "$1" >"$cpuinfo"
  NIBBLE_CPUINFO=$cpuinfo "$launcher" "$2" "${@:3}"
}

AVX2='sse2 avx avx2 fma f16c bmi2 aes'

[[ $(launch "$AVX2" avx2 echo ran) == ran ]] ||
  fail "a supported instruction set runs the test"
[[ $(launch "sse2 avx" avx2 echo ran) == *SKIPPED*avx2* ]] ||
  fail "a missing instruction set reports SKIPPED and names the flag"
[[ $(launch "$AVX2 avx512f" avx512 echo ran) == *SKIPPED*avx512bw* ]] ||
  fail "one missing flag is enough to skip"
[[ $(launch "$AVX2" avx_vnni echo ran) == *SKIPPED*avx_vnni* ]] ||
  fail "AVX2 alone is not AVX-VNNI"
[[ $(launch "$AVX2 avx_vnni" avx_vnni echo ran) == ran ]] ||
  fail "AVX-VNNI runs without AVX-512"
if launch "$AVX2" avx2 false; then
  fail "a failing test fails"
fi
if launch "$AVX2" avx3000 echo ran 2>/dev/null; then
  fail "an unknown instruction set is an error"
fi
