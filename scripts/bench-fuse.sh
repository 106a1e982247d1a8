#!/usr/bin/env bash
# Measures fuse-pipe: the table of a directory and of what shows it elsewhere, then frames by themselves.
# Arguments go to the table, which runs alone where it prints JSON or measures one directory.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --quiet --release --locked -p fuse-pipe --examples
"${CARGO_TARGET_DIR:-target}/release/examples/fuse-bench" "$@"
case " $* " in
    *" --json "* | *" --on"*) ;;
    *) cargo bench --quiet --locked -p fuse-pipe --bench protocol ;;
esac
