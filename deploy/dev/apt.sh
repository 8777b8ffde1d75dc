# shellcheck shell=bash
# Debian packages without installing them, so that an ordinary user can; source it after common.sh, do not run it.

# Everything of apt that would touch the system is pointed elsewhere; hooks of the machine's own configuration (images have
# some that delete from /var) are dropped. Prints the configuration; needs $work.
apt_configuration() {
  mkdir -p "$work/apt/state/lists/partial" "$work/apt/cache/archives/partial"
  cat <<CONFIGURATION
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::State "$work/apt/state";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "$work/apt/cache";
Dir::Cache::pkgcache "$work/apt/cache/pkgcache.bin";
Dir::Cache::srcpkgcache "$work/apt/cache/srcpkgcache.bin";
Debug::NoLocking "1";
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::Retries "3";
CONFIGURATION
}

# Fetches the package lists and sets $configuration to the file that apt-get and apt-cache are to be given with -c.
apt_update() { # WHAT
  need apt-get "$1 is not installed, and without apt-get it cannot be fetched: install it"
  need dpkg-deb "it belongs to the package dpkg"
  need ldd "it belongs to the package libc-bin"
  configuration=$work/apt.conf
  apt_configuration >"$configuration"
  say "Fetching package lists …"
  # One unreachable source of several is no obstacle as long as the packages are found below.
  apt-get -c "$configuration" -qq update >&2 || say "(some package lists could not be fetched)"
}

# Downloads packages and unpacks them into a directory; call apt_update first.
apt_unpack() { # DIRECTORY PACKAGE…
  local directory=$1 package
  shift
  mkdir -p "$work/packages" "$directory"
  (cd "$work/packages" && apt-get -c "$configuration" -qq download "$@") >&2 ||
    die "the packages $* could not be downloaded (see above)"
  for package in "$work/packages"/*.deb; do
    dpkg-deb -x "$package" "$directory"
  done
}

# Names the libraries that programs lack.
missing_libraries() { # PROGRAM…
  ldd "$@" | sed -nE 's/^\s*(\S+) => not found.*/\1/p' | sort -u | tr '\n' ' '
}
