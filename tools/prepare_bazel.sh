#!/bin/bash
# What bazelw does on a machine that is not ready yet.
#
#   prepare_bazel.sh bazel ROOT READY [BAZEL]  fills READY: bazel (the program
#       to run) and bazelrc. Beside READY lie the third-party sources and the
#       rules, in folders named by their lists' checksums.
#   prepare_bazel.sh clang         installs clang, its runtimes and symbolizer
#   prepare_bazel.sh clang-format  installs clang-format 14
#   prepare_bazel.sh emulator      installs what builds the AMX machine
set -euo pipefail

say() { printf 'bazelw: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

as_root() {
  if [[ $(id -u) == 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "'$*' needs root: run it as root once, or install sudo"
  fi
}

apt_install() {
  command -v apt-get >/dev/null ||
    die "no apt-get here: install $* in this system's own way"
  say "installing $*"
  local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q
    --no-install-recommends "$@")
  # Package lists may be missing or old: refresh them only then.
  as_root "${install[@]}" >&2 && return
  say "refreshing apt's package lists"
  as_root apt-get update -q >&2 ||
    die "apt-get update failed: check this machine's apt sources and network"
  as_root "${install[@]}" >&2 || die "apt-get could not install $*"
}

# ---- Bazel -----------------------------------------------------------------

is_debian_bazel() {
  [[ $(readlink -f "$1") == /usr/bin/bazel* &&
    -e /usr/share/bazel/install_base_key ]]
}

DEBIAN_RULES=(bazel-skylib bazel-rules-java bazel-rules-proto)

install_missing_rules() {
  [[ -d /usr/share/bazel/tools/skylib && -d /usr/share/bazel/rules/java &&
    -d /usr/share/bazel/rules/proto ]] || apt_install "${DEBIAN_RULES[@]}"
  command -v g++ >/dev/null || apt_install g++
}

install_debian_bazel() {
  apt_install bazel-bootstrap g++ "${DEBIAN_RULES[@]}"
  command -v bazel >/dev/null ||
    die "bazel-bootstrap is installed but there is no bazel on the PATH"
}

# Reaching GitHub is tried as the archives would be: name look-up, proxy and
# certificates included. git is the one client every machine with this tree has.
github_works() {
  GIT_TERMINAL_PROMPT=0 timeout 20 git ls-remote --exit-code \
    https://github.com/google/highway HEAD >/dev/null 2>&1
}

# ---- The generated bazelrc -------------------------------------------------

# Repository options belong to several commands, each of which has its own line.
for_commands() {
  local command
  for command in build fetch query sync; do
    printf '%s %s\n' "$command" "$1"
  done
}

override() {
  [[ -e $2 ]] || die "$2 is missing: reinstall Debian's package that holds it"
  for_commands "--override_repository=$1=$2"
}

# Debian's Bazel comes without the rules that Bazel otherwise downloads.
debian_rules_rc() {
  local shims=$1 rules=/usr/share/bazel/rules repository
  if [[ -d $rules/cc ]]; then # Bazel 7
    for repository in cc java python proto license; do
      override "rules_$repository" "$rules/$repository"
    done
  else # Bazel 4
    for repository in rules_cc remote_coverage_tools; do
      override "$repository" "$shims/$repository"
    done
    override rules_java "$rules/java"
    override rules_proto "$rules/proto"
  fi
  override bazel_skylib /usr/share/bazel/tools/skylib
}

# $1's major version; Debian's Bazel 4 does not tell its own.
major_version() {
  local version
  version=$(cd / && "$1" --version 2>/dev/null |
    sed -n 's/^bazel \([0-9]*\)\..*/\1/p')
  printf '%s' "${version:-4}"
}

# Prints the bazelrc; $3 is empty where sources come from their canonical URLs.
write_bazelrc() {
  local bazel=$1 shims=$2 sources=$3 repository config
  printf '# Written by bazelw.\n'
  if [[ $(major_version "$bazel") -ge 7 ]]; then
    printf 'common --noenable_bzlmod --enable_workspace\n'
  else
    # Its own lacks what newer build files select on. And protoc may be built as
    # programs are, or else Protobuf compiles twice; not so where it would be
    # sanitized, or might not run.
    override platforms "$shims/platforms"
    printf 'build --nodistinct_host_configuration\n'
    for config in sanitizer avx2 avx_vnni avx512 avx512_vnni amx; do
      printf 'build:%s --distinct_host_configuration\n' "$config"
    done
  fi
  if is_debian_bazel "$bazel"; then
    debian_rules_rc "$shims"
  fi
  if [[ -n $sources ]]; then
    for_commands "--distdir=$sources/distdir"
    for repository in com_google_absl minja; do
      override "$repository" "$sources/repositories/$repository"
    done
  fi
}

# A folder name for what is made from the files given.
checksum_of() {
  local sum
  sum=$(cat "$@" | cksum)
  printf '%s' "${sum%% *}"
}

# Prints a Bazel that starts here: $1 where that does, else Debian's.
working_bazel() {
  local bazel=$1
  # A bazelisk that cannot download Bazel is as good as none.
  if [[ -n $bazel ]] && ! (cd / && "$bazel" --version >/dev/null 2>&1); then
    say "$bazel does not start here; using Debian's Bazel"
    bazel=
  fi
  if [[ -z $bazel ]]; then
    install_debian_bazel
    bazel=$(command -v bazel)
  elif is_debian_bazel "$bazel"; then
    install_missing_rules
  fi
  printf '%s' "$bazel"
}

prepare_bazel() {
  local root=$1 ready=$2 bazel origin=${NIBBLE_SOURCES:-} shims sources=
  bazel=$(working_bazel "$3")
  if [[ -z $origin ]]; then
    if github_works; then origin=github; else origin=debian; fi
  fi
  shims=${ready%/*}/shims-$(checksum_of "$root"/third_party/shims/*/BUILD \
    "$root"/third_party/shims/*/*/*)
  if [[ ! -e $shims ]]; then
    rm -rf "$shims.new"
    cp -R "$root/third_party/shims" "$shims.new"
    mv "$shims.new" "$shims"
  fi
  if [[ $origin == debian ]]; then
    sources=${ready%/*}/sources-$(checksum_of \
      "$root/third_party/debian_sources.txt")
    if [[ ! -e $sources/complete ]]; then
      bash "$root/tools/fetch_debian_sources.sh" "$root" "$sources"
    fi
  fi
  mkdir -p "$ready"
  write_bazelrc "$bazel" "$shims" "$sources" >"$ready/bazelrc.new"
  mv "$ready/bazelrc.new" "$ready/bazelrc"
  printf '%s' "$bazel" >"$ready/bazel"
  say "ready: $bazel, third-party sources from $origin"
}

case ${1:-} in
  bazel)
    mkdir -p "${3%/*}"
    # One preparation at a time: the second finds the first one's work done.
    exec 9>"${3%/*}/lock"
    flock 9
    prepare_bazel "$2" "$3" "${4:-}"
    ;;
  clang) apt_install clang llvm ;;
  clang-format) apt_install clang-format-14 ;;
  emulator) apt_install build-essential patch xz-utils ;;
  *) die "usage: prepare_bazel.sh bazel ROOT READY [BAZEL] | clang | ..." ;;
esac
