#!/usr/bin/env bash
# Builds fcvm, and the agent as a static program where fcvm looks for it:
# in ../libexec/fcvm, seen from fcvm's own directory. `build.sh agent`: only that.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
if [[ ${1:-} != agent ]]; then
    cargo build --release --locked -p fcvm
fi

# One C library for all who build it: what is tested is what everybody has.
triple=$(uname -m)-unknown-linux-gnu
RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked -p fc-agent --target "$triple"

agent=$target/libexec/fcvm/fc-agent
# The same agent keeps its time stamp, by which fcvm knows it.
if ! cmp -s "$target/$triple/release/fc-agent" "$agent"; then
    install -D -m 755 "$target/$triple/release/fc-agent" "$agent"
fi
