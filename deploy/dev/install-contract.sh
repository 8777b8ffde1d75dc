#!/usr/bin/env bash
# usage: install-contract.sh VERSION
#
# Prints the path of protocol.schema.json, the machine-readable contract of the gateway's protocol, of this version of the npm
# package @openclaw/gateway-protocol.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

version=${1:-}
[[ $version =~ ^[0-9]{4}\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] || die "usage: install-contract.sh VERSION, for example 2026.9.1 (not '$version')"

home=$cache/contract/$version
schema=node_modules/@openclaw/gateway-protocol/protocol.schema.json

if [ ! -s "$home/$schema" ]; then
  lock "contract-$version"
  if [ ! -s "$home/$schema" ]; then
    say "Installing @openclaw/gateway-protocol $version into $home …"
    make_work
    mkdir "$work/contract"
    npm_into "$work/contract" "@openclaw/gateway-protocol@$version"
    [ -s "$work/contract/$schema" ] || die "npm installed @openclaw/gateway-protocol@$version, but without protocol.schema.json"
    place "$work/contract" "$home"
  fi
fi
printf '%s\n' "$home/$schema"
