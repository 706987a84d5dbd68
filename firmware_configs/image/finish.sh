#!/bin/sh
# Runs once in the new root ($1) before it is packed: users, units, byte code, a small initrd; nothing that differs between two builds.
set -eu
root=$1
drop=$2
in_root() { chroot "$root" env LC_ALL=C PYTHONHASHSEED=0 SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" "$@"; }

in_root systemd-sysusers
in_root usermod -p '*' root
in_root systemctl -q enable systemd-networkd systemd-resolved systemd-timesyncd lineside lineside-datadirs \
    lineside-firstboot lineside-claim.path lineside-healthy lineside-trial lineside-restart.path lineside-announce \
    lineside-coldplug lineside-clock.timer lineside-wifi
in_root systemctl -q mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer \
    e2scrub_reap.service getty@tty1.service serial-getty@.service getty-static.service \
    systemd-networkd-wait-online.service systemd-network-generator.service systemd-pcrphase.service \
    systemd-pcrphase-sysinit.service systemd-boot-system-token.service systemd-update-utmp.service \
    systemd-ask-password-console.path systemd-ask-password-wall.path remote-fs.target cryptsetup.target \
    integritysetup.target veritysetup.target
# What a box that decides has no use for, and what a read-only root has had done to it here: each is a process at the start.
in_root systemctl -q mask dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    sys-kernel-config.mount sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount systemd-binfmt.service \
    modprobe@.service systemd-modules-load.service systemd-pstore.service systemd-remount-fs.service \
    systemd-sysusers.service systemd-firstboot.service systemd-machine-id-commit.service
mkdir -p "$root/etc/systemd/system-generators"
for name in cryptsetup getty gpt-auto hibernate-resume integritysetup rc-local run system-update sysv veritysetup; do
    ln -s /dev/null "$root/etc/systemd/system-generators/systemd-$name-generator"
done

# At the first start the data partition is made before it can be waited for: the limit of that wait, which fstab says,
# begins when it was made, however long formatting takes on a slow card or a busy machine.
waited="$root/etc/systemd/system/dev-disk-by\\x2dpartlabel-lineside\\x2ddata.device.d"
mkdir -p "$waited"
printf '[Unit]\nAfter=systemd-repart.service\n' > "$waited/10-made.conf"

mkdir -p "$root/data" "$root/efi" "$root/boot"
: > "$root/etc/machine-id"
rm -rf "$root/var/lib/dbus/machine-id" "$root/etc/ssh/ssh_host_"* "$root/etc/lineside"
ln -s /data/lineside "$root/etc/lineside"
echo lineside > "$root/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost\n' > "$root/etc/hosts"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
# systemd never begins before this moment, whatever a clock without a battery says.
touch -d "@$SOURCE_DATE_EPOCH" "$root/usr/lib/clock-epoch"

# Python's own modules too: Debian's are compiled to be compared with their source, so each import reads both. Nothing
# on a read-only root can be another source than it was.
in_root python3 -m compileall -q -f -j 1 --invalidation-mode unchecked-hash /opt/lineside/site /usr/lib/python3.11 \
    >/dev/null || true

for kernel in "$root"/lib/modules/*; do
    version=${kernel##*/}
    for folder in $drop; do rm -rf "$kernel/kernel/$folder"; done
    in_root depmod "$version"
    in_root update-initramfs -c -k "$version" >/dev/null
    mv "$root/boot/initrd.img-$version" "$root/boot/initrd"
    cp "$root/boot/vmlinuz-$version" "$root/boot/vmlinuz"
done
cp "$root"/usr/lib/systemd/boot/efi/systemd-boot*.efi "$root/boot/boot.efi"
