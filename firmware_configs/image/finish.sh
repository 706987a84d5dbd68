#!/bin/sh
# Runs once in the new root ($1) before it is packed: users, units, byte code, a small initrd; nothing that differs between two builds.
set -eu
root=$1
drop=$2
in_root() { chroot "$root" env LC_ALL=C PYTHONHASHSEED=0 SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" "$@"; }

in_root systemd-sysusers
in_root usermod -p '*' root
in_root systemctl -q enable systemd-networkd systemd-resolved systemd-timesyncd lineside lineside-datadirs \
    lineside-firstboot lineside-claim.path lineside-healthy lineside-announce lineside-clock.timer lineside-wifi
in_root systemctl -q mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer \
    e2scrub_reap.service getty@tty1.service serial-getty@.service systemd-networkd-wait-online.service \
    systemd-pcrphase.service systemd-pcrphase-sysinit.service systemd-update-utmp.service

mkdir -p "$root/data" "$root/efi" "$root/boot"
: > "$root/etc/machine-id"
rm -rf "$root/var/lib/dbus/machine-id" "$root/etc/ssh/ssh_host_"* "$root/etc/lineside"
ln -s /data/lineside "$root/etc/lineside"
echo lineside > "$root/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost\n' > "$root/etc/hosts"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
# systemd never begins before this moment, whatever a clock without a battery says.
touch -d "@$SOURCE_DATE_EPOCH" "$root/usr/lib/clock-epoch"

in_root python3 -m compileall -q -j 1 --invalidation-mode unchecked-hash /opt/lineside/site || true

for kernel in "$root"/lib/modules/*; do
    version=${kernel##*/}
    for folder in $drop; do rm -rf "$kernel/kernel/$folder"; done
    in_root depmod "$version"
    in_root update-initramfs -c -k "$version" >/dev/null
    mv "$root/boot/initrd.img-$version" "$root/boot/initrd"
    cp "$root/boot/vmlinuz-$version" "$root/boot/vmlinuz"
done
cp "$root"/usr/lib/systemd/boot/efi/systemd-boot*.efi "$root/boot/boot.efi"
