#!/usr/bin/env bash
# usage: install-gateway.sh VERSION
#
# Prints the package directory of this OpenClaw version, installed from npm (about 650 MB each).
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

version=${1:-}
[[ $version =~ ^[0-9]{4}\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] || die "usage: install-gateway.sh VERSION, for example 2026.9.6 (not '$version')"

home=$cache/openclaw/$version
package=$home/node_modules/openclaw

installed() { # PACKAGE_DIRECTORY
  [ -e "$1/openclaw.mjs" ] && grep -qF "\"version\": \"$version\"" "$1/package.json" 2>/dev/null
}

if ! installed "$package"; then
  lock "openclaw-$version"
  if ! installed "$package"; then
    say "Installing OpenClaw $version into $home (about 650 MB) …"
    make_work
    mkdir "$work/openclaw"
    case $version in
      # Most of these pull one dependency from git, which needs credentials; the registry has the same. Later ones have none.
      2026.[123].*) printf '{"private": true, "overrides": {"libsignal": "2.0.1"}}\n' >"$work/openclaw/package.json" ;;
    esac
    npm_into "$work/openclaw" "openclaw@$version"
    installed "$work/openclaw/node_modules/openclaw" || die "npm installed openclaw@$version, but not with the expected content"
    place "$work/openclaw" "$home"
  fi
fi

# npm leaves out optional packages for which the Node that it runs on itself is too old. The gateway runs on a newer one, and its
# doctor cannot move a state without this package.
case $(uname -m) in
  aarch64) native=@openclaw/fs-safe-linux-arm64-gnu ;;
  *) native=@openclaw/fs-safe-linux-x64-gnu ;;
esac
native_version=$(sed -n "s|.*\"$native\": \"\([0-9][^\"]*\)\".*|\1|p" "$home/node_modules/@openclaw/fs-safe/package.json" 2>/dev/null || true)
if [ -n "$native_version" ] && [ ! -e "$home/node_modules/$native/package.json" ]; then
  lock "openclaw-$version"
  if [ ! -e "$home/node_modules/$native/package.json" ]; then
    [ -n "${work:-}" ] || make_work
    mkdir "$work/native"
    npm_into "$work/native" "$native@$native_version"
    place "$work/native/node_modules/$native" "$home/node_modules/$native"
  fi
fi
printf '%s\n' "$package"
