# usage: guardian.sh DIRECTORY SIGNAL
#
# Waits until standard input closes, which the kernel does when the owning process ends, however it ends. Then ends every
# process that carries the directory's tag in its environment, SIGNAL first, and removes the directory (unless the owner has
# written "keep").
set -u
trap '' INT TERM HUP
directory=$1
signal=$2
keep=
while read -r word; do
  [ "$word" = keep ] && keep=yes
done

tagged() {
  grep -lzxF "OPENCLAW_LAB_DIR=$directory" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3
}

end() { # SIGNAL TENTHS_OF_A_SECOND: success once nothing is left
  local pids tenths=$2
  while pids=$(tagged) && [ -n "$pids" ]; do
    [ "$tenths" -gt 0 ] || return 1
    # The signal is sent once; KILL again and again, for a process may fork while it is being killed.
    if [ "$tenths" = "$2" ] || [ "$1" = KILL ]; then
      # shellcheck disable=SC2086 # one argument per process is meant
      kill -s "$1" $pids 2>/dev/null
    fi
    sleep 0.1
    tenths=$((tenths - 1))
  done
  return 0
}

# A current gateway keeps locks below /tmp whatever TMPDIR says, named by the hash of its database's path.
remove_locks() {
  local locks database hash
  locks=/tmp/openclaw-state-locks-$(id -u)
  [ -d "$locks" ] || return 0
  find "$directory" -name '*.sqlite' 2>/dev/null | while read -r database; do
    hash=$(printf %s "$database" | sha256sum | cut -c1-8)
    rm -f -- "$locks"/*."$hash".lock.sqlite*
  done
  rmdir -- "$locks" 2>/dev/null
}

end "$signal" 40 || end KILL 50
remove_locks
[ -n "$keep" ] || for _ in 1 2 3; do
  rm -rf -- "$directory" && break
  sleep 0.2
done
