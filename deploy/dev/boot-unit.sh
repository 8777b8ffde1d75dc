#!/usr/bin/env bash
# usage: boot-unit.sh BINARY ETC
#
# Boots a systemd of its own, in namespaces of its own, with the units of deploy/systemd, the binary as /usr/bin/openclaw-controller and
# the directory ETC as /etc/openclaw-controller. Prints systemd's process id once it is there: `nsenter` gets there. Everything else is
# what this machine has, seen through a layer that is gone at the end; the network is shared. Ends on SIGTERM. Needs root, and systemd
# installed, though not running.
set -euo pipefail

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

units=$(dirname "$(dirname "$(realpath "$0")")")/systemd
systemd=/lib/systemd/systemd

# The second half: process 1 of the namespaces, which becomes systemd.
if [ "${1:-}" = --inside ]; then
  binary=$2
  etc=$3
  layers=$4
  mount -t tmpfs tmpfs "$layers"
  mkdir "$layers/above" "$layers/work" "$layers/root"
  mount -t overlay -o "lowerdir=/,upperdir=$layers/above,workdir=$layers/work" overlay "$layers/root"
  root=$layers/root
  mount -t proc proc "$root/proc"
  # Nothing in here may change the machine's settings.
  mount --bind "$root/proc/sys" "$root/proc/sys"
  mount -o remount,bind,ro "$root/proc/sys"
  mount -t sysfs -o ro sysfs "$root/sys"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  mount -t tmpfs tmpfs "$root/run"
  mount -t tmpfs tmpfs "$root/tmp"
  mount -t tmpfs tmpfs "$root/dev"
  for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
  done
  mkdir "$root/dev/shm" "$root/dev/pts"
  mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"

  # These units and no others of the machine's: what they wait for is there at once.
  mkdir "$root/run/units" "$root/run/old"
  cp "$units"/*.service "$root/run/units/"
  for target in sysinit basic shutdown network-online multi-user; do
    printf '[Unit]\nDescription=%s\n' "$target" >"$root/run/units/$target.target"
  done
  install -m 0755 "$binary" "$root/usr/bin/openclaw-controller"
  # What a controller of this machine has left is not this one's.
  rm -rf "$root/etc/openclaw-controller" "$root/var/lib/openclaw-controller" "$root/var/lib/private/openclaw-controller"
  cp -r --preserve=mode "$etc" "$root/etc/openclaw-controller"

  cd "$root"
  pivot_root . run/old
  cd /
  umount -l /run/old
  mount --make-rshared /
  exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=/run/units \
    "$systemd" --system --unit=multi-user.target --log-target=null --show-status=no
fi

[ $# = 2 ] || die "usage: ${0##*/} BINARY ETC"
[ "$(id -u)" = 0 ] || die "only root can boot a systemd"
[ -x "$systemd" ] || die "there is no $systemd: install the package systemd"

# systemd must be at the top of what it sees of the control groups.
top=$(findmnt --noheadings --output TARGET --types cgroup2 | head -n 1)
[ -n "$top" ] || die "no file system of the type cgroup2 is mounted"
group=$top$(sed -n 's/^0:://p' /proc/self/cgroup)/openclaw-controller-unit-$$
mkdir "$group"
layers=$(mktemp -d)
clean() {
  find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
  rmdir "$layers"
}
trap clean EXIT

(
  echo "$BASHPID" >"$group/cgroup.procs"
  # However this script ends, systemd and all that it has started end as well.
  exec setpriv --pdeathsig KILL unshare --fork --kill-child --pid --mount --uts --ipc --cgroup \
    bash "$0" --inside "$1" "$2" "$layers"
) &
child=$!
trap 'kill -KILL $child' TERM INT

for _ in $(seq 300); do
  pid=$(cat "/proc/$child/task/$child/children" 2>/dev/null || true)
  pid=${pid%% *}
  if [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = systemd ]; then
    printf '%s\n' "$pid"
    break
  fi
  kill -0 "$child" 2>/dev/null || die "systemd did not start"
  sleep 0.1
done
wait "$child" || true
# Once more: the first wait ends with the signal.
wait "$child" 2>/dev/null || true
for _ in $(seq 100); do
  [ -n "$(cat "$group/cgroup.procs" 2>/dev/null)$(find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null)" ] || break
  sleep 0.1
done
