#!/usr/bin/env bash
# Runs the benchmarks; arguments go to them.
set -euo pipefail
cd "$(dirname "$0")/.."

for bench in start exec firecracker images; do
    cargo bench --quiet --locked -p fcvm --bench "$bench" -- "$@"
done
