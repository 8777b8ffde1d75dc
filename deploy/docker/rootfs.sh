#!/bin/sh
# usage: rootfs.sh BINARY DIRECTORY
#
# Fills an empty directory with all that the controller needs to run with it as its root directory: the binary and the libraries
# that it is linked with, the certificate authorities of this system, and names for its user. No shell, no package manager, nothing
# else. The Dockerfile makes its image of that directory; without Docker the same can be run by chroot (run-rootfs.sh).
set -eu

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

[ $# = 2 ] || die "usage: ${0##*/} BINARY DIRECTORY"
binary=$1
root=$2
id=65532

[ -x "$binary" ] || die "$binary is no program: build it first (cargo build --release --locked)"
[ -d "$root" ] || die "$root is no directory: make an empty one first"
[ -z "$(ls -A "$root")" ] || die "$root is not empty"
authorities=/etc/ssl/certs/ca-certificates.crt
[ -e "$authorities" ] || die "$authorities is missing: install the package ca-certificates"

install -D -m 0755 "$binary" "$root/usr/bin/openclaw-controller"
libraries=$(ldd "$binary") || die "ldd cannot tell the libraries of $binary"
case $libraries in
  *"not found"*) die "a library of $binary is missing: $libraries" ;;
esac
# Each under the path by which it is asked for; the last of them is the loader.
for library in $(printf '%s\n' "$libraries" | sed -nE 's/^.* => (\/[^ ]+) .*/\1/p; s/^[[:space:]]*(\/[^ ]+) \(.*/\1/p'); do
  install -D -m 0755 "$library" "$root$library"
done
install -D -m 0644 "$authorities" "$root$authorities"

mkdir -p "$root/etc"
printf 'openclaw-controller:x:%s:%s:openclaw-controller:/var/lib/openclaw-controller:/usr/sbin/nologin\n' $id $id >"$root/etc/passwd"
printf 'openclaw-controller:x:%s:\n' $id >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
chmod 0644 "$root/etc/passwd" "$root/etc/group" "$root/etc/nsswitch.conf"

# Where the key is kept by which gateways know this controller, and the tokens that they issue to it: the only place that it ever
# writes to.
mkdir -p "$root/var/lib/openclaw-controller"
chmod 0700 "$root/var/lib/openclaw-controller"
[ "$(id -u)" != 0 ] || chown $id:$id "$root/var/lib/openclaw-controller"
