#!/bin/sh
# The first process of the lane guest. Its root is the root of the machine that runs it, read-only; over it comes an overlay in
# memory, so that everything can be written to and nothing of it is kept. Then it runs the command in the share "lane" and
# switches off. $1 on the second call: the directory of the kernel.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8

if [ "$1" != overlaid ]; then
    mount -t proc proc /proc
    for word in $(cat /proc/cmdline); do
        case $word in vss.kernel=*) kernel=${word#vss.kernel=} ;; esac
    done
    modprobe -d "$kernel" overlay
    mount -t tmpfs -o size=75% tmpfs /mnt
    mkdir /mnt/upper /mnt/work /mnt/root
    mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work,index=off,xino=off overlay /mnt/root
    umount /proc
    exec chroot /mnt/root "$0" overlaid "$kernel"
fi

kernel=$2
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t devtmpfs dev /dev
mount -t debugfs debugfs /sys/kernel/debug
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mkdir -p /run/lock /run/lvm /run/lane
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
mkdir -p /lib/modules
ln -sfn "$kernel/usr/lib/modules/$(uname -r)" "/lib/modules/$(uname -r)"
mount -t virtiofs lane /run/lane
# The kernel asks for the others itself.
modprobe -a virtio_blk dm_mod loop
echo lane >/proc/sys/kernel/hostname
ip link set lo up
/lib/systemd/systemd-udevd --daemon
udevadm trigger --subsystem-match=block --action=add
udevadm settle --timeout=20

: >/run/lane/begun
setsid sh /run/lane/command </dev/null >/dev/vport0p1 2>&1
# Whole or not at all: the file is there only when the command has ended.
echo $? >/run/lane/status.new
mv /run/lane/status.new /run/lane/status
sync /run/lane/status
echo o >/proc/sysrq-trigger
sleep 10
