#!/bin/sh
# Puts ko on the PATH of the following steps, sets KO_DOCKER_REPO, and logs in to ghcr.io.
#
# Reads SETUP_VERSION, SETUP_USE_SUDO, SETUP_URL, SETUP_TOKEN and SETUP_REPOSITORY of action.yml, and the runner's
# variables. KO_DOCKER_REPO stays if it is set.
set -eu

fail() {
  # One line: no part of it can be another command of the runner.
  printf '::error title=setup-ko::%s\n' "$(printf %s "$1" | tr '\r\n' '  ' | sed 's/%/%25/g')" >&2
  exit 1
}

# The name of the executable for this machine, as in a release.
executable() {
  case $RUNNER_ARCH in
    X64) arch=x64 ;;
    ARM64) arch=arm64 ;;
    *) fail "There is no ko for the architecture $RUNNER_ARCH of this runner: releases have X64 and ARM64" ;;
  esac
  case $RUNNER_OS in
    Linux) echo "ko-linux-$arch$(libc)" ;;
    macOS) echo "ko-darwin-$arch" ;;
    Windows)
      [ $arch = x64 ] || fail "There is no ko for Windows on $RUNNER_ARCH: releases have X64"
      echo ko-windows-x64.exe
      ;;
    *) fail "There is no ko for the system $RUNNER_OS of this runner: releases have Linux, macOS and Windows" ;;
  esac
}

# Alpine and others have musl instead of glibc.
libc() {
  if ldd --version 2>&1 | grep -qi musl; then echo -musl; fi
}

fetch() {
  if command -v curl >/dev/null; then
    curl -fsSL --retry 3 -o "$2" "$1"
  else
    wget -q -O "$2" "$1"
  fi || fail "Cannot download $1: check the inputs version and url"
}

digest() {
  if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -c1-64
}

# Downloads the executable into the file $1, and compares it with SHA256SUMS.
download() {
  name=$(executable)
  base=${SETUP_URL%/}
  if [ -z "$base" ]; then
    releases="${GITHUB_SERVER_URL:-https://github.com}/${SETUP_REPOSITORY:-$GITHUB_REPOSITORY}/releases"
    case $SETUP_VERSION in
      latest-release) base=$releases/latest/download ;;
      *) base=$releases/download/$SETUP_VERSION ;;
    esac
  fi
  fetch "$base/SHA256SUMS" "$1.sums"
  want=$(sed -n "s/^\([0-9a-f]\{64\}\) [ *]$name\$/\1/p" "$1.sums")
  [ -n "$want" ] || fail "$base/SHA256SUMS does not list $name"
  fetch "$base/$name" "$1"
  got=$(digest "$1")
  [ "$got" = "$want" ] || fail "The digest of $base/$name is $got, but SHA256SUMS says $want"
  rm "$1.sums"
}

# Compiles the commit that the action is taken from into the file $1.
compile() {
  command -v npm >/dev/null || fail "Cannot compile ko: version tip needs Node with npm, see actions/setup-node"
  (cd "$GITHUB_ACTION_PATH/../../.." && npm ci && npm run build -- --outfile "$1") >&2
}

case $SETUP_VERSION in
  latest-release | tip | v[0-9]*) ;;
  *) fail "Cannot use version $SETUP_VERSION: wanted tip, latest-release, or a release such as v0.1.0" ;;
esac

folder=$RUNNER_TEMP/setup-ko
suffix=
[ "$RUNNER_OS" != Windows ] || suffix=.exe
mkdir -p "$folder"
# It gets its name when it is complete and checked.
if [ "$SETUP_VERSION" = tip ]; then compile "$folder/unchecked"; else download "$folder/unchecked"; fi
chmod +x "$folder/unchecked"
mv "$folder/unchecked" "$folder/ko$suffix"
if ! version=$("$folder/ko$suffix" version); then
  fail "ko does not start on this machine. On Alpine: apk add libstdc++. On Linux it needs glibc 2.17 or later, and a CPU with SSE 4.2"
fi
if [ "$SETUP_USE_SUDO" = true ] && command -v sudo >/dev/null; then
  sudo install -m 755 "$folder/ko$suffix" "/usr/local/bin/ko$suffix"
else
  echo "$folder" >>"$GITHUB_PATH"
fi
echo "Installed ko $version" >&2

if [ -n "${KO_DOCKER_REPO:-}" ]; then
  echo "KO_DOCKER_REPO is $KO_DOCKER_REPO: there is no login to ghcr.io" >&2
  # A file of the runner has one variable in a line: a value of several lines would set others.
  case $KO_DOCKER_REPO in *'
'*) fail "Cannot use KO_DOCKER_REPO: it has several lines" ;; esac
else
  KO_DOCKER_REPO=ghcr.io/$(printf %s "$GITHUB_REPOSITORY" | tr '[:upper:]' '[:lower:]')
  printf %s "$SETUP_TOKEN" | "$folder/ko$suffix" login ghcr.io --username "${GITHUB_ACTOR:-ko}" --password-stdin
  echo "KO_DOCKER_REPO is $KO_DOCKER_REPO" >&2
fi
echo "KO_DOCKER_REPO=$KO_DOCKER_REPO" >>"$GITHUB_ENV"
