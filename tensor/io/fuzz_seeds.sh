#!/bin/bash
# Writes a small sound GGUF file and a small sound safetensors file, from which
# the fuzz targets start: fuzz_seeds.sh GGUF SAFETENSORS
set -eu

# little SIZE VALUE: the value's bytes, lowest first.
little() {
  local value=$2 i
  for ((i = 0; i < $1; i++)); do
    printf "\\x$(printf %02x $((value & 255)))"
    value=$((value >> 8))
  done
}
u32() { little 4 "$1"; }
u64() { little 8 "$1"; }
text() { u64 "${#1}"; printf %s "$1"; }
pad() { head -c "$1" /dev/zero; }

{
  printf GGUF; u32 3; u64 3; u64 5
  text general.alignment; u32 4; u32 32
  text name; u32 8; text value
  text tokens; u32 9; u32 8; u64 2; text a; text bc
  text scores; u32 9; u32 6; u64 2; u32 0; u32 1065353216
  text flag; u32 7; little 1 1
  text plain; u32 1; u64 2; u32 0; u64 0
  text blocks; u32 2; u64 32; u64 1; u32 8; u64 32
  text minimums; u32 2; u64 256; u64 2; u32 12; u64 96
} > "$1"
pad $(((32 - $(wc -c < "$1") % 32) % 32)) >> "$1"
pad $((96 + 2 * 144)) >> "$1"

header='{"__metadata__":{"format":"pt"},'
header+='"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},'
header+='"b":{"dtype":"I8","shape":[3],"data_offsets":[8,11]},'
header+='"c":{"dtype":"BF16","shape":[],"data_offsets":[11,13]}}'
{ text "$header"; pad 13; } > "$2"
