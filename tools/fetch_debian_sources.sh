#!/bin/bash
# Fetches the third-party sources of third_party/debian_sources.txt with apt.
#
#   fetch_debian_sources.sh ROOT FOLDER
#
# FOLDER gets distdir/ (archives under the names that their URLs end in),
# repositories/ (unpacked folders) and, last of all, the file `complete`. What
# apt needs for that is private: the machine's own settings and lists stay as
# they are.
set -euo pipefail

say() { printf 'bazelw: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

# The address of the Debian archive that this machine's apt already uses, from
# sources.list or *.sources alike.
debian_archive() {
  local codename site release component
  codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  # shellcheck disable=SC2016  # apt-get expands these, not the shell.
  while read -r site release component; do
    [[ $component == main ]] || continue
    case $release in
      "$codename" | oldstable | stable | testing | sid | unstable)
        printf '%s' "$site"
        return
        ;;
    esac
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
  [[ -e $signed ]] || die "no $signed: install debian-archive-keyring"
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

# Puts one downloaded file where it belongs in $sources.
store() {
  local file=$1 kind=$2 destination=$3
  local repository=$sources/repositories/$destination
  case $kind in
    archive) mv "$file" "$sources/distdir/$destination" ;;
    repository)
      mkdir -p "$repository"
      tar -xf "$file" --strip-components=1 -C "$repository"
      touch "$repository/WORKSPACE"
      ;;
    headers)
      mkdir -p "$repository"
      dpkg-deb -x "$file" unpacked
      cp -R unpacked/usr/include "$repository/"
      cp "$root/third_party/$destination.BUILD" "$repository/BUILD.bazel"
      touch "$repository/WORKSPACE"
      ;;
    *) die "$list: unknown kind '$kind'" ;;
  esac
}

[[ $# == 2 ]] || die "usage: fetch_debian_sources.sh ROOT FOLDER"
root=$1
sources=$2
list=$root/third_party/debian_sources.txt
work=$(mktemp -d "$sources.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir -p lists/partial archives/partial "$sources/distdir" \
  "$sources/repositories"
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
  store "$file" "$kind" "$destination"
done <"$list"
touch "$sources/complete"
