# SPDX-License-Identifier: Apache-2.0
"""Commands in another Debian root on this machine."""

from pathlib import Path

# $1 the root, $2 how many folders of the host come next (they appear under the same paths), then the command.
ENTER = """root=$1 binds=$2
shift 2
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount --bind /dev dev
mount -t tmpfs tmpfs run
while [ "$binds" -gt 0 ]; do
    mkdir -p ".$1"
    mount --bind "$1" ".$1"
    binds=$((binds - 1))
    shift
done
exec chroot . "$@"
"""


def command(root: Path, *arguments: str, binds: tuple[Path, ...] = ()) -> list[str]:
    """What runs `arguments` in the root, with /proc, /sys and /dev, in namespaces of mounts and processes that end with it."""
    return ["unshare", "--mount", "--pid", "--fork", "sh", "-euc", ENTER, "sh", str(root), str(len(binds)), *map(str, binds),
            *arguments]
