#!/usr/bin/env bash
# Checks format, lints and shell scripts. Nothing is changed.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/deps.sh
cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings
cargo clippy -p fcvm --lib --locked --features failpoints -- -D warnings
for script in .ci/run scripts/*.sh; do
    bash -n "$script"
done
scripts/lint-docs.sh
if command -v shellcheck > /dev/null; then
    shellcheck .ci/run scripts/*.sh
fi
