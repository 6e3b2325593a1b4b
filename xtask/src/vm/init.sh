#!/bin/busybox sh
# The guest's init: mounts what a host has, runs the tests or shows memstock, reports the results, and powers off.
# Its own lines begin with "memstock-vm: " (see console.rs). /memstock/run.env says what to run.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/memstock
. /memstock/run.env

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
# An example of the README packs /usr/include.
mkdir -p /dev/shm /dev/pts /usr/include
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=755 tmpfs /run
# Not a tmpfs: the project may be in /tmp on the host, and its documents are at the same path here.
chmod 1777 /tmp /var/tmp
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
# Not the console's line: the second one, or the only one that there is of its kind.
line=/dev/ttyS1
[ "$(uname -m)" = aarch64 ] && line=/dev/ttyS0
exec </dev/null >"$line" 2>&1

if [ "$CGROUPS" = hybrid ]; then
    mount -t tmpfs tmpfs /sys/fs/cgroup
    mkdir /sys/fs/cgroup/unified /sys/fs/cgroup/memory
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
    mount -t cgroup -o memory cgroup /sys/fs/cgroup/memory
else
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    [ "$CGROUPS" = none ] || echo +memory >/sys/fs/cgroup/cgroup.subtree_control
fi
ip link set lo up
for module in /lib/modules/*.ko; do insmod "$module"; done

# Emulated CPUs can stop for seconds; a real lock-up lasts.
echo 60 >/proc/sys/kernel/watchdog_thresh
ulimit -n 65536
echo "memstock-vm: booted $(uname -r), CPUs $(cat /sys/devices/system/cpu/online), in $(cut -d' ' -f1 /proc/uptime) s"

cd /memstock
if [ -n "$SHOWS" ]; then
    echo "memstock-vm: run memstock run $*"
    release/memstock run "$@"
    echo "memstock-vm: ran $?"
fi
bounded() {
    echo "memstock-vm: run $1"
    shift
    timeout -s KILL "$BOUND" "$@"
    echo "memstock-vm: ran $?"
}
for bench in release/deps/bench_*; do
    [ -e "$bench" ] && bounded "${bench##*/}" "$bench" "$@"
done
# Each module runs in its own process, so that one that dies or hangs does not affect the others.
live=release/deps/live
if [ -e "$live" ]; then
    all=$("$live" --list --format terse "$@" | sed -n 's/: test$//p')
    for module in $(echo "$all" | sed 's/::.*//' | uniq); do
        case " ${MODULES:-$module} " in *" $module "*) ;; *) continue ;; esac
        # With --exact no test matches the filters in "$@", so only the listed tests run.
        bounded "$module" "$live" --test-threads=1 --include-ignored --exact "$@" \
            $(echo "$all" | grep "^$module::" | grep -v panics_in_a_terminal)
    done
fi
for cpu in /sys/devices/system/cpu/cpu[1-9]*/online; do echo 1 >"$cpu"; done

echo "memstock-vm: file skips"
cat "$MEMSTOCK_SKIPS" 2>/dev/null
echo "memstock-vm: end"
if [ -n "$MEMSTOCK_BLESS" ]; then
    echo "memstock-vm: file budget"
    cat "$BUDGET"
    echo "memstock-vm: end"
fi
echo "memstock-vm: done"
sync
poweroff -f
