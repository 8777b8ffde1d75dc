#!/bin/sh
# usage: prometheusrule.sh >monitoring/prometheusrule.yaml
#
# Prints the rules of deploy/prometheus (*.rules.yaml) as one PrometheusRule. What is committed is what this prints; a test looks.
set -eu
cd "$(dirname "$0")"

cat <<'HEAD'
# Made by ../prometheusrule.sh from the rules in deploy/prometheus: change them there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: openclaw-controller
  labels:
    app.kubernetes.io/name: openclaw-controller
spec:
HEAD
found=
for file in ../prometheus/*.rules.yaml; do
  [ -e "$file" ] || continue
  [ -n "$found" ] || printf '  groups:\n'
  found=yes
  # Below its only key; two spaces further in.
  grep -q '^groups:$' "$file" || {
    printf '%s: %s does not begin its groups with a line "groups:"\n' "${0##*/}" "$file" >&2
    exit 1
  }
  sed -e '/^groups:$/d' -e 's/^\(.\)/  \1/' "$file"
done
[ -n "$found" ] || printf '  groups: []\n'
