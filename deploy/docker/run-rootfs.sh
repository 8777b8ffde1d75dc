#!/bin/sh
# usage: run-rootfs.sh DIRECTORY STATE [ARGUMENT…]
#
# Runs the controller with a directory of rootfs.sh as its root, as a container runtime does: as a user without rights, who can get
# none, on a file system that cannot be written to, with the directory STATE in the place of a volume. Needs root, or user namespaces.
set -eu

if [ $# -lt 2 ]; then
  echo "usage: ${0##*/} DIRECTORY STATE [ARGUMENT…]" >&2
  exit 1
fi
if [ -z "${RUN_ROOTFS_AS:-}" ]; then
  # In a mount namespace of its own: what is mounted below is gone when the controller is.
  if [ "$(id -u)" = 0 ]; then
    RUN_ROOTFS_AS=65532 exec unshare --mount sh "$0" "$@"
  fi
  RUN_ROOTFS_AS=0 exec unshare --map-root-user --mount sh "$0" "$@"
fi

root=$(realpath "$1")
state=$(realpath "$2")
as=$RUN_ROOTFS_AS
shift 2
unset RUN_ROOTFS_AS
# What a runtime adds to an image goes into a layer above it. The layers are mounted over the directory, whose own content is still
# what this process stands in.
cd "$root"
mount -t tmpfs tmpfs "$root"
mkdir "$root/above" "$root/work" "$root/merged"
mount -t overlay -o "lowerdir=.,upperdir=$root/above,workdir=$root/work" overlay "$root/merged"
root=$root/merged
for file in /etc/hosts /etc/resolv.conf; do
  [ ! -e "$file" ] || cat "$file" >"$root$file"
done
mount --bind "$state" "$root/var/lib/openclaw-controller"
mount -o remount,ro "$root"
export STATE_DIRECTORY=/var/lib/openclaw-controller
if [ "$as" = 0 ]; then
  # Root in its own namespace only, where it has nothing.
  exec setpriv --no-new-privs chroot "$root" /usr/bin/openclaw-controller "$@"
fi
exec setpriv --no-new-privs chroot --userspec="$as:$as" --groups= "$root" /usr/bin/openclaw-controller "$@"
