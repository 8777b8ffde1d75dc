#!/usr/bin/env bash
# usage: install-chromium.sh
#
# Prints a program that starts Chromium: Debian's package with all libraries that the system lacks and a font, unpacked into the
# cache without installing them (so an ordinary user can). The system's own browser is passed over: what is tested with is then
# the same wherever the tests run, fonts included.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$(dirname "${BASH_SOURCE[0]}")/apt.sh"

home=$cache/chromium
bin=$home/bin/chromium

runs() { # PROGRAM
  [ -x "$1" ] && timeout 120 "$1" --version >/dev/null 2>&1
}

# A wrapper, so that nobody else needs to know where libraries and fonts are. Whether there is a sandbox is for its caller to say.
wrapper() {
  local path="" directory
  for directory in "$work"/chromium/root/usr/lib/*-linux-gnu* "$work"/chromium/root/lib/*-linux-gnu* \
    "$work"/chromium/root/usr/lib/*-linux-gnu*/pulseaudio; do
    [ ! -d "$directory" ] || path=$path${path:+:}$home${directory#"$work/chromium"}
  done
  mkdir "$work/chromium/bin"
  cat >"$work/chromium/fonts.conf" <<FONTS
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>$home/root/usr/share/fonts</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
  <alias><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>
  <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
FONTS
  cat >"$work/chromium/bin/chromium" <<WRAPPER
#!/bin/bash
export LD_LIBRARY_PATH=$(printf %q "$path")
export FONTCONFIG_FILE=$(printf %q "$home/fonts.conf")
exec $(printf %q "$home/root/usr/lib/chromium/chromium") "\$@"
WRAPPER
  chmod 755 "$work/chromium/bin/chromium"
}

unpack() {
  apt_update "Chromium"
  local packages
  packages=$(apt-get -c "$configuration" -s -qq --no-install-recommends install chromium fonts-dejavu-core |
    sed -nE 's/^Inst ([^ ]+) .*/\1/p')
  # What the system has installed already is not listed; the browser and its font must be in the cache all the same.
  packages=$(printf '%s\n' chromium chromium-common fonts-dejavu-core "$packages" | sort -u)
  say "Downloading Chromium and its libraries …"
  # shellcheck disable=SC2086 # one argument per package is meant
  apt_unpack "$work/chromium/root" $packages
  [ -x "$work/chromium/root/usr/lib/chromium/chromium" ] || die "the package chromium has no /usr/lib/chromium/chromium"
  wrapper
  local missing
  missing=$(
    export LD_LIBRARY_PATH
    LD_LIBRARY_PATH=$(sed -nE 's/^export LD_LIBRARY_PATH=//p' "$work/chromium/bin/chromium")
    LD_LIBRARY_PATH=${LD_LIBRARY_PATH//"$home"/"$work/chromium"}
    missing_libraries "$work/chromium/root/usr/lib/chromium/chromium"
  )
  [ -z "$missing" ] || die "Chromium was unpacked, but these libraries are missing: $missing"
  place "$work/chromium" "$home"
}

if ! runs "$bin"; then
  lock chromium
  if ! runs "$bin"; then
    say "Unpacking Chromium into $home …"
    make_work
    unpack
    runs "$bin" || die "the Chromium unpacked into $home does not run: $("$bin" --version 2>&1 | head -n 3)"
  fi
fi
printf '%s\n' "$bin"
