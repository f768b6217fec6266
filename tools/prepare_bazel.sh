#!/bin/bash
# What bazelw does on a machine that is not ready yet.
#
#   prepare_bazel.sh bazel ROOT READY [BAZEL]  fills READY: bazel (the program
#       to run) and bazelrc. Beside READY lie the third-party sources and the
#       rules, in folders named by their lists' checksums.
#   prepare_bazel.sh clang         installs clang, its runtimes and symbolizer
#   prepare_bazel.sh clang-format  installs clang-format 14
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

# ---- Third-party sources from Debian ---------------------------------------

# The address of the Debian archive that this machine's apt already uses, from
# sources.list or *.sources alike.
debian_archive() {
  local codename site release component
  codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  # shellcheck disable=SC2016  # apt-get expands these, not the shell.
  while read -r site release component; do
    if [[ $release == "$codename" && $component == main ]]; then
      printf '%s' "$site"
      return
    fi
  done < <(apt-get indextargets \
    --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    sort -u)
  die "apt's sources name no '$codename main' to get sources from; add it, or" \
    "set NIBBLE_SOURCES=github"
}

# A private sources list: the machine's own apt settings stay as they are.
write_sources_list() {
  local file=$1 site signed
  site=$(debian_archive)
  signed=/usr/share/keyrings/debian-archive-keyring.gpg
  [[ -e $signed ]] || apt_install debian-archive-keyring
  cat >"$file" <<LIST
Types: deb-src
URIs: $site
Suites: bookworm trixie
Components: main
Signed-By: $signed

Types: deb
URIs: $site
Suites: forky
Components: main
Signed-By: $signed
LIST
}

# An apt tool with the private list in the current folder. Old signatures will
# do (mirrors may serve a frozen archive): every file is checked by sha256.
private_apt() {
  local tool=$1
  shift
  "$tool" -qq -o Dir::Etc::sourcelist="$PWD/apt.sources" \
    -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists="$PWD/lists" \
    -o Dir::Cache="$PWD" -o APT::Sandbox::User=root \
    -o Acquire::Languages=none -o Acquire::Retries=3 \
    -o Acquire::Check-Valid-Until=false "$@"
}

# The version of source package $1 whose upstream tarball has sha256 $2.
version_holding() {
  private_apt apt-cache showsrc --only-source "$1" | awk -v sha256="$2" '
    $1 == "Version:" { version = $2 }
    $1 == sha256 && /\.orig\.tar\./ { found = version }
    END { print found }'
}

has_sha256() {
  printf '%s  %s\n' "$2" "$1" | sha256sum --check --status
}

# Downloads one line of debian_sources.txt into the current folder and prints
# the file's name.
download() {
  local package=$1 kind=$2 sha256=$3 version file
  if [[ $kind == headers ]]; then
    private_apt apt-get download "$package" >&2 || return 1
  else
    version=$(version_holding "$package" "$sha256")
    [[ -n $version ]] || return 1
    private_apt apt-get source --download-only --tar-only \
      "$package=$version" >&2 || return 1
  fi
  for file in "$package"_*.orig.tar.* "$package"_*.deb; do
    if [[ -e $file ]] && has_sha256 "$file" "$sha256"; then
      printf '%s' "$file"
      return
    fi
  done
  return 1
}

# A folder name for what is made from the files given.
checksum_of() {
  local sum
  sum=$(cat "$@" | cksum)
  printf '%s' "${sum%% *}"
}

# Fetches every source of debian_sources.txt into $2/distdir and
# $2/repositories.
fetch_debian_sources() {
  local root=$1 sources=$2 work package suite kind sha256 destination file
  work=$(mktemp -d "$sources.XXXXXX")
  # shellcheck disable=SC2064  # The folder's name as it is now.
  trap "rm -rf '$work'" EXIT
  cd "$work"
  mkdir -p lists/partial archives/partial "$sources/distdir" "$sources/repositories"
  write_sources_list apt.sources
  say "reading Debian's lists of source packages"
  private_apt apt-get update >&2 ||
    die "cannot read Debian's source lists: check the network and try again"
  while read -r package suite kind sha256 destination; do
    [[ -z $package || $package == '#'* ]] && continue
    say "fetching $package ($suite)"
    file=$(download "$package" "$kind" "$sha256") ||
      die "Debian no longer has $package with sha256 $sha256;" \
        "where GitHub can be reached, run with NIBBLE_SOURCES=github"
    case $kind in
      archive) mv "$file" "$sources/distdir/$destination" ;;
      repository)
        mkdir -p "$sources/repositories/$destination"
        tar -xf "$file" --strip-components=1 \
          -C "$sources/repositories/$destination"
        ;;
      headers)
        dpkg-deb -x "$file" unpacked
        mkdir -p "$sources/repositories/$destination"
        cp -R unpacked/usr/include "$sources/repositories/$destination/"
        cp "$root/third_party/$destination.BUILD" \
          "$sources/repositories/$destination/BUILD.bazel"
        ;;
      *) die "third_party/debian_sources.txt: unknown kind '$kind'" ;;
    esac
  done <"$root/third_party/debian_sources.txt"
  local repository
  for repository in "$sources"/repositories/*; do
    touch "$repository/WORKSPACE"
  done
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
    for config in sanitizer avx2 avx512 avx512_vnni amx; do
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
      (fetch_debian_sources "$root" "$sources")
      touch "$sources/complete"
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
  *) die "usage: prepare_bazel.sh bazel ROOT READY [BAZEL] | clang | ..." ;;
esac
