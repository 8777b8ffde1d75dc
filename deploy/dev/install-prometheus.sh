#!/usr/bin/env bash
# usage: install-prometheus.sh
#
# Prints a directory with prometheus and promtool: the system's if it has both in version 2.40 or later, otherwise Debian's
# package, unpacked into the cache without installing it (so an ordinary user can, and no server is started by the way).
#
# OPENCLAW_CONTROLLER_PROMETHEUS=cache passes over the system's.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$(dirname "${BASH_SOURCE[0]}")/apt.sh"

oldest=2.40
home=$cache/prometheus
bin=$home/root/usr/bin

suits() { # BIN_DIRECTORY
  local version
  [ -x "$1/prometheus" ] && [ -x "$1/promtool" ] || return 1
  version=$("$1/prometheus" --version 2>&1 | sed -nE 's/^prometheus, version ([0-9]+\.[0-9]+).*/\1/p')
  [ -n "$version" ] && [ "$(printf '%s\n' "$oldest" "$version" | sort -V | head -n 1)" = "$oldest" ]
}

if [ "${OPENCLAW_CONTROLLER_PROMETHEUS:-}" != cache ] && found=$(command -v prometheus) && suits "$(dirname "$found")"; then
  dirname "$found"
  exit
fi
if ! suits "$bin"; then
  lock prometheus
  if ! suits "$bin"; then
    say "Unpacking Prometheus into $home …"
    make_work
    apt_update "Prometheus $oldest or later"
    apt_unpack "$work/prometheus/root" prometheus
    unpacked=$work/prometheus/root/usr/bin
    missing=$(missing_libraries "$unpacked/prometheus" "$unpacked/promtool")
    [ -z "$missing" ] || die "Prometheus was unpacked, but these libraries are missing: $missing"
    suits "$unpacked" || die "this system's package prometheus is older than $oldest or does not run: $("$unpacked/prometheus" --version 2>&1 | head -n 3)"
    place "$work/prometheus" "$home"
  fi
fi
printf '%s\n' "$bin"
