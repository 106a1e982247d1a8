#!/usr/bin/env bash
# Runs the fcvm that was built last.
set -euo pipefail

target=${CARGO_TARGET_DIR:-$(dirname "$0")/../target}
exec "$target/release/fcvm" "$@"
