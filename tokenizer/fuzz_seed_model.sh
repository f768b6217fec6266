#!/bin/bash
# Writes a SentencePiece model of a few pieces: where fuzzing starts.

# piece TEXT TYPE: field 1 of the model; text is field 1 of it, score 2, type 3.
# shellcheck disable=SC2059
piece() {
  local text length
  text=$(printf "$1" | wc -c)
  length=$((text + 9))
  printf "\\x0a\\x$(printf %02x $length)\\x0a\\x$(printf %02x "$text")$1"
  printf "\\x15\\x00\\x00\\x80\\xbf\\x18\\x0$2"
}

piece '<unk>' 2
piece '<s>' 3
piece '</s>' 3
piece '\xe2\x96\x81' 1
piece 'a' 1
piece 'b' 5
piece 'ab' 1
piece '\xe2\x96\x81ab' 1
piece 'ba' 4
# The trainer (field 2): BPE.  The normalizer (field 3): a dummy prefix, extra
# white space removed.
printf '\x12\x02\x18\x02\x1a\x04\x18\x01\x20\x01'
