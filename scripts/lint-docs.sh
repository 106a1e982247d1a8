#!/usr/bin/env bash
# Checks that the reference has every environment variable of the sources and no
# other, and that links between documents lead somewhere.
set -euo pipefail
cd "$(dirname "$0")/.."

status=0
variables() {
    grep -rhoE 'FCVM_[A-Z]+(_[A-Z]+)*' "$@" | sort -u
}
if ! diff <(variables crates/*/src crates/*/benches tests/*.rs scripts) <(variables docs/reference/environment.md); then
    echo "error: docs/reference/environment.md (>) has other variables than the sources (<)" >&2
    status=1
fi

while IFS=: read -r file link; do
    target=$(dirname "$file")/${link%%#*}
    if [[ ! -e $target ]]; then
        echo "error: $file: no \`$link\`" >&2
        status=1
    fi
done < <(git ls-files '*.md' | xargs grep -oHE '\]\([^)#:]+(#[^)]*)?\)' | sed -E 's/\]\(([^)]*)\)/\1/')
exit "$status"
