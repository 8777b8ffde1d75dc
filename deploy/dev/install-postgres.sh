#!/usr/bin/env bash
# usage: install-postgres.sh
#
# Prints a directory with postgres, initdb and psql: the system's if it has a server of version 14 or later, otherwise
# Debian's packages, unpacked into the cache without installing them (so an ordinary user can).
#
# OPENCLAW_CONTROLLER_PG=cache passes over the system's.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$(dirname "${BASH_SOURCE[0]}")/apt.sh"

oldest=14
home=$cache/postgres
bin=$home/bin

complete() { # BIN_DIRECTORY
  local program
  for program in postgres initdb psql; do
    [ -x "$1/$program" ] || return 1
  done
  "$1/postgres" --version >/dev/null 2>&1
}

major() { # BIN_DIRECTORY
  "$1/postgres" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/'
}

system() {
  local candidate onpath
  onpath=$(command -v postgres || true)
  for candidate in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV) ${onpath:+"$(dirname "$onpath")"}; do
    if complete "$candidate" && [ "$(major "$candidate")" -ge "$oldest" ]; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  return 1
}

unpack() {
  apt_update "Postgres $oldest or later"
  local server
  server=$(apt-cache -c "$configuration" depends postgresql 2>/dev/null | sed -nE 's/^.*Depends: (postgresql-[0-9]+)$/\1/p' | head -n 1)
  [ -n "$server" ] || die "apt knows no package postgresql (see above; is there a source in /etc/apt, and is it reachable?)"
  local version=${server#postgresql-}
  [ "$version" -ge "$oldest" ] || die "this system's Postgres packages are of version $version, older than $oldest: install a later one"

  # The libraries that the system lacks; the just-in-time compiler's (100 MB) is optional in Postgres.
  local libraries
  libraries=$(apt-get -c "$configuration" -s -qq --no-install-recommends install "$server" "postgresql-client-$version" |
    sed -nE 's/^Inst (lib[^ ]+) .*/\1/p' | grep -vE '^libllvm|-perl$' || true)
  say "Downloading Postgres $version …"
  mkdir "$work/postgres" "$work/postgres/bin"
  # shellcheck disable=SC2086 # one argument per package is meant
  apt_unpack "$work/postgres/root" "$server" "postgresql-client-$version" $libraries

  # Small wrappers, so that nobody else needs to know where the libraries are.
  local program found path="" directory
  for directory in "$work"/postgres/root/usr/lib/*-linux-gnu* "$work"/postgres/root/lib/*-linux-gnu*; do
    [ ! -d "$directory" ] || path=$path${path:+:}$home${directory#"$work/postgres"}
  done
  for found in "$work/postgres/root/usr/lib/postgresql/$version/bin"/*; do
    program=$(basename "$found")
    printf '#!/bin/bash\nLD_LIBRARY_PATH=%q exec %q "$@"\n' "$path" "$home/root/usr/lib/postgresql/$version/bin/$program" \
      >"$work/postgres/bin/$program"
    chmod 755 "$work/postgres/bin/$program"
  done
  local missing
  missing=$(
    export LD_LIBRARY_PATH=${path//"$home"/"$work/postgres"}
    missing_libraries "$work/postgres/root/usr/lib/postgresql/$version/bin"/{postgres,initdb,psql}
  )
  [ -z "$missing" ] || die "Postgres was unpacked, but these libraries are missing: $missing"
  place "$work/postgres" "$home"
}

# Debian's Postgres has the path of the system's time zones compiled in, and a server without any is of no use.
time_zones() {
  [ ! -e /usr/share/zoneinfo/UTC ] || return 0
  [ "$(id -u)" = 0 ] || die "there are no time zones on this system: ask an administrator to install the package tzdata"
  say "Installing the package tzdata …"
  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends tzdata; } >&2 ||
    die "the package tzdata could not be installed (see above)"
}

if [ "${OPENCLAW_CONTROLLER_PG:-}" != cache ] && found=$(system); then
  printf '%s\n' "$found"
  exit
fi
if ! complete "$bin"; then
  lock postgres
  if ! complete "$bin"; then
    say "Unpacking Postgres into $home …"
    make_work
    unpack
    complete "$bin" || die "the Postgres unpacked into $home does not run: $("$bin/postgres" --version 2>&1 | head -n 3)"
  fi
fi
time_zones
printf '%s\n' "$bin"
