#!/usr/bin/env bash
# From a fresh machine to a container in a microVM, with a look at the clock
# after each step. Everything made is kept: a second demo takes seconds.
set -euo pipefail
cd "$(dirname "$0")/.."

steps=()

# step NAME COMMAND...: runs it and notes how long it took.
step() {
    local name=$1 started=${EPOCHREALTIME/./} took
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    "$@"
    took=$(((${EPOCHREALTIME/./} - started) / 1000))
    steps+=("$(printf '%-10s %4d.%03d s' "$name" $((took / 1000)) $((took % 1000)))")
}

# A root file system: one static program with a link for each of its names.
# The same busybox gives the same bytes, and so the same image.
import_hello() {
    local root link
    root=$(mktemp -d)
    mkdir -p "$root"/{bin,etc,tmp}
    cp /bin/busybox "$root/bin/busybox"
    for link in $(/bin/busybox --list); do
        [[ $link == busybox ]] || ln -s busybox "$root/bin/$link"
    done
    echo 'root:x:0:0:root:/:/bin/sh' > "$root/etc/passwd"
    tar -C "$root" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX -cf - . |
        scripts/fcvm.sh image import --env PATH=/bin --cmd sh localhost/hello -
    rm -r "$root"
}

run_hello() {
    # Logs say which hypervisor is started; the rest of them is left out.
    RUST_LOG=warn,qemu=debug scripts/fcvm.sh podman run --timings localhost/hello -- \
        sh -c 'echo "Hello from Linux $(uname -r), process $$, host name $(hostname)."' 2> "$messages"
}

messages=$(mktemp)
trap 'rm -f "$messages"' EXIT

step deps scripts/deps.sh
step build scripts/build.sh
step set-up scripts/fcvm.sh setup
step image import_hello
step run run_hello || { status=$?; cat "$messages" >&2; exit "$status"; }

hypervisor=$(grep -o 'qemu-system-[a-z0-9_]*' "$messages" | head -n 1 || true)
case $(grep -oE '"-accel" "[a-z]+' "$messages" || true) in
    *kvm) how="hardware virtualization (KVM)" ;;
    *tcg) how="software emulation (TCG)" ;;
    *) how="an unknown accelerator" ;;
esac

echo
echo "== where the time of the run went"
sed -n '/^stage /,$p' "$messages"
echo
echo "== steps"
printf '%s\n' "${steps[@]}"
echo
echo "The container ran in a virtual machine of its own: ${hypervisor:-unknown hypervisor}, $how."
echo "Try: ${CARGO_TARGET_DIR:-target}/release/fcvm podman run -i localhost/hello -- sh"
