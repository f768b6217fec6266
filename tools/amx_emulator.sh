#!/bin/bash
# Runs the AMX code on an emulated processor that has AMX, since few machines
# do: tests, and programs on a small model. It checks answers, never speed.
#
#   tools/amx_emulator.sh [BAZEL_OPTION...]   all checks below; the options go
#                                             to `bazelw build`
#   tools/amx_emulator.sh --run PROGRAM [ARGUMENT...]
#                                             one program, its output and status
#
# The emulated machine comes from a folder ../shared/amx beside the checkout, or
# from NIBBLE_AMX_MACHINE: its setup.sh builds the machine once (one to four
# minutes) into the cache that bazelw uses (NIBBLE_CACHE), and its run_amx.sh
# runs a program in it. Without the folder everything is skipped.
#
# Prints PASSED or FAILED for each check; the status is 0 if none failed.
set -uo pipefail

root=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd -P)
cd "$root" || exit 1
source_dir=${NIBBLE_AMX_MACHINE:-$root/../shared/amx}
data=${NIBBLE_SHARED_DATA:-$root/../shared/data}

if [[ ! -e $source_dir/setup.sh ]]; then
  printf 'SKIPPED amx_emulator: there is no ../shared/amx beside the checkout\n'
  exit 0
fi

# Sets `machine` to the folder of the built machine, and builds it first where
# that is not done.
prepare_machine() {
  local cache key program
  cache=${NIBBLE_CACHE:-${XDG_CACHE_HOME:-${HOME:?set NIBBLE_CACHE}/.cache}/nibble}
  key=$(cat "$source_dir"/* | cksum)
  machine=$cache/amx-${key%% *}
  [[ -e $machine/complete ]] && return
  for program in gcc g++ make patch xz objcopy; do
    if ! command -v "$program" >/dev/null; then
      bash tools/prepare_bazel.sh emulator </dev/null || return
      break
    fi
  done
  printf 'building the emulated machine\n'
  mkdir -p "$machine" || return
  # One build at a time: the second finds the first one's work done.
  (
    flock 9
    [[ -e $machine/complete ]] && exit
    bash "$source_dir/setup.sh" "$machine" </dev/null >"$machine/setup.log" 2>&1 &&
      : >"$machine/complete"
  ) 9>"$machine/lock" && return
  tail -n 20 "$machine/setup.log"
  return 1
}

# in_machine SECONDS [-f FILE]... PROGRAM [ARGUMENT...]
in_machine() {
  local limit=$1
  shift
  bash "$machine/run_amx.sh" -t "$limit" "$@" </dev/null
}

failed=0

# check NAME COMMAND...: one result; the command's output where it fails.
check() {
  local name=$1 status=PASSED seconds=$SECONDS
  shift
  if ! "$@" >"$work/log" 2>&1; then
    status=FAILED
    failed=$((failed + 1))
    tail -n 40 "$work/log"
  fi
  printf '%s amx_emulator %s (%d s)\n' "$status" "$name" $((SECONDS - seconds))
}

# run_test TARGET [FILTER]: a gtest binary. It fails as well where no test ran,
# or where one was skipped for want of AMX.
run_test() {
  local target=$1 filter=${2:-*} output program
  program=$bin/${target#//}
  output=$(in_machine 600 "${program/:/\/}" --gtest_filter="$filter" 2>&1)
  local status=$?
  printf '%s\n' "$output"
  [[ $status == 0 && $output == *"[  PASSED  ] "[1-9]* &&
    $output != *"lacks AMX"* && $output != *"cannot run"* ]]
}

# The same text from a model on tiles and without, with int8 activations, and
# with bf16 ones a text at all: their sums have an order of their own.
run_generate() {
  local group_size=$1 isa text= want= model=$work/model.nib
  local arguments=(--max_tokens=8 --temperature=0
    --prompt="Prince Andrew looked at the field, where the soldiers of")
  "$bin/apps/quantize" --model="$data/models/tolstoy-llama" --out="$model" \
    --group_size="$group_size" || return
  for isa in avx512_vnni amx; do
    text=$(in_machine 300 -f "$model" "$bin/apps/generate" \
      --model=model.nib --isa="$isa" "${arguments[@]}" 2>"$work/timing") ||
      return
    printf '%s: %s\n' "$isa" "$text"
    grep -q "; $isa, " "$work/timing" || return
    [[ -n ${want:=$text} && $text == "$want" ]] || return
  done
  text=$(in_machine 300 -f "$model" "$bin/apps/generate" --model=model.nib \
    --isa=amx --activations=bf16 "${arguments[@]}") || return
  printf 'bf16: %s\n' "$text"
  [[ -n $text ]]
}

# doctor finds that AMX is supported.
run_doctor() {
  local output
  output=$(in_machine 600 "$bin/apps/doctor" --quick 2>&1) || return
  printf '%s\n' "$output"
  grep -Eq '^ +amx +supported' <<<"$output"
}

prepare_machine || {
  printf 'FAILED amx_emulator: the machine could not be built\n'
  exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [[ ${1:-} == --run ]]; then
  shift
  bash "$machine/run_amx.sh" "$@"
  exit
fi

targets=(//kernels:cpu_test //kernels:amx_refusal_test
  //kernels/matmul:tiles_test //kernels/matmul:amx_kernels_test
  //kernels/matmul:kernels_test //kernels/matmul:integer_kernels_test
  //kernels/matmul:minimums_test //kernels/matmul:input_order_test
  //kernels/matmul:matmul_test
  //apps:doctor //apps:quantize //apps:generate)
./bazelw build "$@" "${targets[@]}" </dev/null || {
  printf 'FAILED amx_emulator: build\n'
  exit 1
}
bin=$(./bazelw info "$@" bazel-bin 2>/dev/null </dev/null)

check cpu_test run_test //kernels:cpu_test
check amx_refusal_test run_test //kernels:amx_refusal_test
check tiles_test run_test //kernels/matmul:tiles_test
check amx_kernels_test run_test //kernels/matmul:amx_kernels_test
check kernels_test run_test //kernels/matmul:kernels_test '*_amx-*emulated*'
# Without the sweeps, whose scalar reference takes minutes here.
check integer_kernels_test run_test //kernels/matmul:integer_kernels_test \
  '*_amx-*emulated*:*EveryGroupSize*:*Widths*:*LongRows*:*Tails*'
check minimums_test run_test //kernels/matmul:minimums_test \
  '*_amx-*emulated*:*EveryGroupSize*:*Widths*:*Tails*'
check input_order_test run_test //kernels/matmul:input_order_test \
  '*_amx-*emulated*'
check matmul_test run_test //kernels/matmul:matmul_test
check doctor run_doctor
if [[ -e $data/models/tolstoy-llama ]]; then
  for group_size in 128 32; do
    check "generate, groups of $group_size" run_generate "$group_size"
  done
else
  printf 'SKIPPED amx_emulator generate: there is no ../shared/data\n'
fi
[[ $failed == 0 ]]
