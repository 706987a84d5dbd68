#!/bin/sh
# Sees to it, at every start, that a stock system has what its seed ($1) carries. cloud-init calls it (bootcmd). It may
# lose its power at any moment: what is new is made beside what is there, the mark is written last.
set -eu
seed=$1 root=${2:-}
mark=$root/opt/lineside/.installed
payload=$(sha256sum < "$seed/SHA256SUMS")

installed() { [ -e "$mark" ] && [ "$(cat "$mark")" = "$payload" ]; }

take_in() {
    (cd "$seed" && sha256sum --quiet -c SHA256SUMS) || { echo "lineside: the payload is damaged: write the card again"; exit 1; }
    new=$root/opt/lineside/site.new
    rm -rf "$new"
    mkdir -p "$new"
    for wheel in "$seed"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$new"; done
    tar -xf "$seed/system.tar" -C "$root/"
    mkdir -p "$root/data" "$root/efi"
    # Our clock never begins before this system was put together.
    [ -e "$root/usr/lib/clock-epoch" ] || touch -r "$seed/SHA256SUMS" "$root/usr/lib/clock-epoch"
    sync
    rm -rf "$root/opt/lineside/site"
    mv "$new" "$root/opt/lineside/site"
    echo "$payload" > "$mark.new"
    sync
    mv "$mark.new" "$mark"
    sync
    echo "lineside: took the payload in, $(cut -d ' ' -f 1 /proc/uptime) s after the start"
}

installed && exit 0
take_in
[ -n "$root" ] && exit 0
systemd-sysusers /usr/lib/sysusers.d/lineside.conf
mkdir -p /data/lineside
chown lineside: /data/lineside
systemctl daemon-reload
systemctl start --no-block lineside-firstboot lineside-announce lineside lineside-claim.path lineside-clock.timer lineside-compile
