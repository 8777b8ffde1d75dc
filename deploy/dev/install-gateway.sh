#!/usr/bin/env bash
set -euo pipefail
echo "$OPENCLAW_CONTROLLER_CACHE/openclaw/$1/node_modules/openclaw"
