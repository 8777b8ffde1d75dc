#!/usr/bin/env bash
set -euo pipefail
ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1
