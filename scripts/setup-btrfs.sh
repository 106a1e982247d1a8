#!/usr/bin/env bash
# Makes a data directory whose files are copied without their data: a btrfs in one file, mounted there.
# A second run finds it, mounts it where it is not mounted (after a reboot, say), and makes it larger
# where SIZE is more than it has.
#
#   FCVM_DATA_DIR  where it is mounted [default: /var/lib/fcvm]
#   IMAGE          the file [default: FCVM_DATA_DIR.btrfs]
#   SIZE           how much it holds, as truncate takes it; the file grows with what is in it [default: 64G]
set -euo pipefail

# Programs of the system's administrator are not in every user's PATH.
PATH=$PATH:/usr/sbin:/sbin
directory=$(realpath -m "${FCVM_DATA_DIR:-/var/lib/fcvm}")
image=$(realpath -m "${IMAGE:-$directory.btrfs}")
size=${SIZE:-64G}
# The least that mkfs.btrfs takes.
least=$((128 << 20))

fail() {
    echo "error: $1" >&2
    if [[ -n ${2:-} ]]; then echo "hint: $2" >&2; fi
    exit 1
}

[[ $EUID == 0 ]] || fail "only root may mount" "sudo make setup-btrfs"
for program in mkfs.btrfs losetup mountpoint; do
    command -v "$program" > /dev/null || fail "no \`$program\`" "apt-get install btrfs-progs util-linux mount"
done
bytes=$(numfmt --from=iec -- "$size" 2> /dev/null) || fail "SIZE \`$size\` is no size" "SIZE=64G"
((bytes >= least)) || fail "SIZE \`$size\` is too little for a btrfs" "128M is the least"
case $image in
    "$directory"/*) fail "\`$image\` is below \`$directory\`, where it is to be mounted" "name another IMAGE" ;;
esac

mounted=no
if mountpoint -q "$directory"; then
    [[ $(stat -f -c %T "$directory") == btrfs ]] ||
        fail "another file system is mounted at \`$directory\`" "name another directory with FCVM_DATA_DIR"
    device=$(findmnt -n -o SOURCE --mountpoint "$directory")
    backing=$(losetup -n -O BACK-FILE "$device" 2> /dev/null || true)
    [[ $backing == "$image" ]] ||
        fail "\`$directory\` is another btrfs already, \`$device\`" "nothing is to be done for reflinks there"
    mounted=yes
elif [[ -n $(find "$directory" -mindepth 1 -maxdepth 1 -print -quit 2> /dev/null) ]]; then
    fail "\`$directory\` is not empty: what is there would be hidden" \
        "move it away and back afterwards, or name another directory with FCVM_DATA_DIR"
fi

if [[ ! -e $image ]]; then
    mkdir -p "$(dirname "$image")"
    # Made under another name: interrupted, it is made again.
    new=$(mktemp "$image.XXXXXX")
    trap 'rm -f "$new"' EXIT
    truncate -s "$bytes" "$new"
    mkfs.btrfs -q "$new" > /dev/null
    mv "$new" "$image"
    trap - EXIT
elif [[ $mounted == no && $(blkid -p -s TYPE -o value "$image" 2> /dev/null) != btrfs ]]; then
    fail "\`$image\` is there and is no btrfs" "name another IMAGE, or remove it"
fi
if (($(stat -c %s "$image") < bytes)); then
    truncate -s "$bytes" "$image"
fi

if [[ $mounted == no ]]; then
    mkdir -p "$directory"
    mount -t btrfs -o loop,noatime "$image" "$directory" ||
        fail "\`$image\` cannot be mounted" "this kernel may have no btrfs, or no loop devices"
    # Root's own is for root; another one is of whom it is made for.
    if [[ -n ${SUDO_UID:-} && $directory != /var/lib/* ]]; then
        chown "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$directory"
    fi
fi
# What the file has more than the file system, that takes.
losetup -c "$(findmnt -n -o SOURCE --mountpoint "$directory")"
btrfs -q filesystem resize max "$directory"

echo "$directory is a btrfs in $image, of $(df -h --output=size "$directory" | tail -n 1 | tr -d ' ')"
echo "to have it after a reboot, in /etc/fstab: $image $directory btrfs loop,noatime,nofail 0 0"
