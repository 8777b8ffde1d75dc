#!/usr/bin/env bash
# usage: install-jq.sh
#
# Prints a directory with jq, which pages of the documentation use: the system's, otherwise Debian's package and its libraries,
# unpacked into the cache.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$(dirname "${BASH_SOURCE[0]}")/apt.sh"

home=$cache/jq

if found=$(command -v jq); then
  dirname "$found"
  exit
fi
if ! "$home/bin/jq" --version >/dev/null 2>&1; then
  lock jq
  if ! "$home/bin/jq" --version >/dev/null 2>&1; then
    say "Unpacking jq into $home …"
    make_work
    apt_update jq
    apt_unpack "$work/jq/root" jq libjq1 libonig5
    mkdir "$work/jq/bin"
    cat >"$work/jq/bin/jq" <<'JQ'
#!/bin/sh
# With the libraries that it was unpacked with.
root=$(dirname "$0")/../root
LD_LIBRARY_PATH=$(echo "$root"/usr/lib/*-linux-gnu) exec "$root/usr/bin/jq" "$@"
JQ
    chmod 755 "$work/jq/bin/jq"
    "$work/jq/bin/jq" --version >&2 || die "jq was unpacked, but does not run (see above)"
    place "$work/jq" "$home"
  fi
fi
printf '%s\n' "$home/bin"
