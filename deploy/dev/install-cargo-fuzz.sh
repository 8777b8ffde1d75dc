#!/usr/bin/env bash
# usage: install-cargo-fuzz.sh
#
# Prints the path of cargo-fuzz, built from crates.io into the cache where the system has none.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

version=0.13.2
home=$cache/cargo-fuzz/$version
binary=$home/bin/cargo-fuzz

if [ ! -x "$binary" ]; then
  lock cargo-fuzz
  if [ ! -x "$binary" ]; then
    say "Building cargo-fuzz $version into $home …"
    make_work
    # Lock descriptor 9 must not leak into what cargo starts.
    (cd "$work" && cargo install --locked --quiet --root "$work/built" --target-dir "$work/target" "cargo-fuzz@$version" 9>&-) >&2 ||
      die "cargo could not build cargo-fuzz $version (see above; is the registry reachable?)"
    place "$work/built" "$home"
  fi
fi
printf '%s\n' "$binary"
