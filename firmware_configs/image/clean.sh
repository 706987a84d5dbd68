#!/bin/sh
# Takes out of the new root ($1) what a device never reads, and what two builds would not have in common.
set -eu
root=$1
rm -rf "$root"/boot/* "$root"/vmlinuz* "$root"/initrd.img* "$root"/usr/lib/modules/*/build "$root"/usr/lib/modules/*/source \
    "$root"/var/cache/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/var/backups/* "$root"/var/lib/systemd/* \
    "$root"/var/lib/initramfs-tools "$root"/etc/ld.so.cache~ "$root"/etc/passwd- "$root"/etc/group- \
    "$root"/etc/shadow- "$root"/etc/gshadow- "$root"/etc/subuid- "$root"/etc/subgid- "$root"/.dockerenv
# mmdebstrap's own settings lie there until it ends: without them its last apt-get would clean this machine's lists.
find "$root/tmp" -mindepth 1 -maxdepth 1 ! -name 'mmdebstrap.*' -exec rm -rf {} +
