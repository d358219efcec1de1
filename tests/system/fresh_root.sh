#!/bin/bash
# A newcomer's command on a newcomer's machine: a minimal Debian with git, Python and pip and nothing else (no venv,
# no ensurepip, no mosquitto, empty apt lists), from a clone of HEAD, once as root and once as an ordinary user.
#
#   bash tests/system/fresh_root.sh test
#   bash tests/system/fresh_root.sh demo --seconds 60
#   SUITE=trixie USERS=dev bash tests/system/fresh_root.sh test -k layers
#   PREPARE="dpkg --purge python3-pip" bash tests/system/fresh_root.sh test    the root changed beforehand
#
# Needs root, mmdebstrap and the network. Runs in namespaces of its own and leaves nothing but the cached root.
set -euo pipefail
cd "$(dirname "$0")/../.."

suite=${SUITE:-bookworm}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lampione
tarball=$cache/$suite.tar
if [ ! -e "$tarball" ]; then
    mkdir -p "$cache"
    mmdebstrap --quiet --variant=minbase --include=git,python3,python3-pip,ca-certificates "$suite" "$tarball.new.tar"
    mv "$tarball.new.tar" "$tarball"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir "$root"
tar -xf "$tarball" -C "$root"
git bundle create -q "$root/lampione.bundle" HEAD
# The clone must reach the network the way this machine does.
cp /etc/resolv.conf /etc/hosts "$root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
chroot "$root" useradd --create-home dev
chroot "$root" sh -euc "${PREPARE:-true}"

inside() { # inside USER COMMAND...: in the root, with a clean environment and a process tree that dies with it
    unshare --mount --pid --fork --kill-child bash -euc '
        root=$1 user=$2; shift 2
        mount --make-rprivate /
        mount -t proc proc "$root/proc"
        mount -t tmpfs -o mode=755 tmpfs "$root/dev"
        for device in null zero full random urandom tty; do
            touch "$root/dev/$device"
            mount --bind "/dev/$device" "$root/dev/$device"
        done
        mkdir "$root/dev/pts" "$root/dev/shm"
        mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
        mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
        ln -s pts/ptmx "$root/dev/ptmx"
        ln -s /proc/self/fd "$root/dev/fd"
        home=/home/$user
        [ "$user" = root ] && home=/root
        exec chroot "$root" setpriv --reuid "$user" --regid "$user" --init-groups \
            env -i HOME="$home" USER="$user" LANG=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/bin \
            PIP_CERT=/etc/ssl/certs/ca-certificates.crt "$@"
    ' bash "$root" "$@"
}

failed=0
for user in ${USERS:-root dev}; do
    echo "== $suite, $user: python3 dev.py $*"
    inside "$user" sh -euc '
        cd
        git -c advice.detachedHead=false -c init.defaultBranch=main clone -q /lampione.bundle lampione
        cd lampione
        exec python3 dev.py "$@"
    ' sh "$@" && code=0 || code=$?
    echo "== $suite, $user: exit code $code"
    [ "$code" = 0 ] || failed=1
done
exit "$failed"
