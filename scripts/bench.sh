#!/usr/bin/env bash
# Runs the benchmark; arguments go to it.
set -euo pipefail
cd "$(dirname "$0")/.."

exec cargo bench --quiet --locked -p fcvm --bench start -- "$@"
