#!/bin/bash
# Runs a test that was built for one instruction set, or reports it SKIPPED
# where the CPU has no such instructions.
#
#   require_isa.sh avx2|avx_vnni|avx512|avx512_vnni|amx TEST [ARGUMENT...]
#
# NIBBLE_CPUINFO, for tests, names a file to read instead of /proc/cpuinfo.
set -euo pipefail

isa=$1
shift
case $isa in
  avx2) needed=(avx2 fma f16c bmi2 aes) ;;
  avx_vnni) needed=(avx2 fma f16c bmi2 aes avx_vnni) ;;
  avx512) needed=(avx512f avx512bw avx512cd avx512dq avx512vl) ;;
  avx512_vnni)
    needed=(avx512_vnni avx512_vbmi2 avx512_bitalg avx512_vpopcntdq vaes
      vpclmulqdq)
    ;;
  amx) needed=(amx_tile amx_int8 amx_bf16 avx512_bf16 avx512_fp16) ;;
  *)
    printf 'require_isa.sh: unknown instruction set %s\n' "$isa" >&2
    exit 2
    ;;
esac

cpuinfo=${NIBBLE_CPUINFO:-/proc/cpuinfo}
flags=" $(sed -n 's/^flags[[:space:]]*: //p;T;q' "$cpuinfo") "
for flag in "${needed[@]}"; do
  if [[ $flags != *" $flag "* ]]; then
    printf '[  SKIPPED ] %s: this CPU lacks %s\n' "${TEST_TARGET:-$1}" "$flag"
    exit 0
  fi
done
exec "$@"
