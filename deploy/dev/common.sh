# shellcheck shell=bash
# What the installation scripts share; source it, do not run it.
#
# Each script prints, as its last line on standard output, the path it provides; whatever it has to say goes to standard error.
# Nothing is installed into the system: everything goes into the cache directory, below a temporary name first, so that an
# interrupted installation is never mistaken for a finished one. Locks make parallel calls wait for the first.

set -euo pipefail
# Root's Postgres runs as another user, who must be able to read what root installs.
umask 022

if [ -n "${OPENCLAW_CONTROLLER_CACHE:-}" ]; then
  cache=$OPENCLAW_CONTROLLER_CACHE
elif [ "$(id -u)" = 0 ]; then
  cache=/var/cache/openclaw-controller
else
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/openclaw-controller
fi

say() {
  printf '%s\n' "$*" >&2
}

die() {
  say "${0##*/}: $*"
  exit 1
}

need() { # COMMAND ADVICE
  command -v "$1" >/dev/null || die "$1 is needed and not found: $2"
}

# Waits for the lock NAME, held until the script ends.
lock() { # NAME
  mkdir -p "$cache" || die "cannot create the cache directory $cache (set OPENCLAW_CONTROLLER_CACHE to another)"
  exec 9>"$cache/.lock-$1" || die "cannot write to the cache directory $cache (set OPENCLAW_CONTROLLER_CACHE to another)"
  flock -w 1200 9 || die "another installation of $1 has held $cache/.lock-$1 for 20 minutes; end it and try again"
}

# Sets $work to an empty directory inside the cache (a rename must not cross file systems), removed when the script ends.
make_work() {
  work=$(mktemp -d "$cache/.work-XXXXXXXX")
  chmod 755 "$work"
  trap 'rm -rf -- "$work"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# Moves a finished directory to its place, over an unfinished or outdated one.
place() { # FROM TO
  mkdir -p "$(dirname "$2")"
  [ ! -e "$2" ] || mv "$2" "$work/replaced"
  mv "$1" "$2"
}

# Installs npm packages into a directory, without running anything of theirs.
npm_into() { # DIRECTORY PACKAGE…
  local directory=$1
  shift
  need npm "install Node's npm (any version), for example with 'apt-get install npm'"
  [ -e "$directory/package.json" ] || printf '{"private": true}\n' >"$directory/package.json"
  # Lock descriptor 9 must not leak into what npm starts.
  (cd "$directory" && npm install --ignore-scripts --no-audit --no-fund --no-package-lock --no-update-notifier \
    --loglevel=error "$@" 9>&-) >&2 || die "npm could not install $* (see above; is the registry reachable?)"
}
