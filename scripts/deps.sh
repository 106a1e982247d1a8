#!/usr/bin/env bash
# Installs what is missing of the packages that fcvm needs: to build and to run,
# and with `deps.sh test` also what the tests compare fcvm with.
# Takes milliseconds where nothing is missing. Without apt, or without the right
# to use it, says what to install.
set -euo pipefail

# Programs of the system's administrator are not in every user's PATH.
PATH=$PATH:/usr/sbin:/sbin
purpose=${1:-run}
missing=()

# need PACKAGE TEST...: the package is missing where the test fails.
need() {
    local package=$1
    shift
    "$@" > /dev/null 2>&1 || missing+=("$package")
}

is_static() {
    test -x "$1" && ! ldd "$1"
}

case $(uname -m) in
    aarch64) qemu=qemu-system-arm ;;
    *) qemu=qemu-system-x86 ;;
esac

need gcc command -v cc
need libc6-dev test -e /usr/include/stdio.h
need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
need "$qemu" command -v "qemu-system-$(uname -m)"
need mmdebstrap command -v mmdebstrap
need debian-archive-keyring test -e /usr/share/keyrings/debian-archive-keyring.gpg
need e2fsprogs command -v mkfs.ext4
need uidmap command -v newuidmap
# Networks of VMs: for root, and for everybody else.
need nftables command -v nft
# shellcheck disable=SC1091
case $(. /etc/os-release && echo "$ID-${VERSION_ID:-}") in
    # They have no passt yet.
    debian-11 | ubuntu-20.04 | ubuntu-22.04) need slirp4netns command -v slirp4netns ;;
    *) need passt command -v pasta ;;
esac
# For the image of `make demo` and of the tests.
need busybox-static is_static /bin/busybox

if [[ $purpose == test ]]; then
    need attr command -v setfattr
    need btrfs-progs command -v mkfs.btrfs
    need fuse3 command -v fusermount3
    need docker-registry command -v docker-registry
    need iperf3 command -v iperf3
    need iproute2 command -v ip
    need iptables command -v iptables-nft
    need podman command -v podman
    need runc command -v runc
    need skopeo command -v skopeo
    need slirp4netns command -v slirp4netns
    need socat command -v socat
    need tmux command -v tmux
    need umoci command -v umoci
    need xz-utils command -v xz
fi

if ! command -v cargo > /dev/null; then
    echo "error: no cargo: install Rust from https://rustup.rs" >&2
    exit 1
fi

# Installs what is missing; fails where that cannot be done.
install_packages() {
    local as_root=()
    if [[ $EUID != 0 ]]; then
        as_root=(sudo)
    fi
    if ! command -v apt-get > /dev/null || { [[ $EUID != 0 ]] && ! command -v sudo > /dev/null; }; then
        echo "These Debian packages, or what this system has for them, are missing: ${missing[*]}" >&2
        if [[ $purpose == test ]]; then
            echo "Tests that need them will be skipped." >&2
            return 0
        fi
        return 1
    fi
    echo "installing ${missing[*]}"
    "${as_root[@]}" apt-get -qq update
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y -o Dpkg::Use-Pty=0 install --no-install-recommends "${missing[@]}" > /dev/null
}

if [[ ${#missing[@]} != 0 ]]; then
    install_packages
fi

# Programs that judge file systems: crates, installed into the target directory, once.
programs=${CARGO_TARGET_DIR:-target}/test-programs

# crate NAME VERSION: the program of that crate.
crate() {
    if ! grep -qsF "\"$1 $2 " "$programs/.crates.toml"; then
        cargo install --quiet --locked --debug --root "$programs" "$1@$2" ||
            echo "warning: no \`$1\`: tests that need it will be skipped" >&2
    fi
}

if [[ $purpose == test ]]; then
    crate fsx 0.3.2
    crate pjdfstest 0.2.2
fi
