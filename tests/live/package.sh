# What the live test of the package does inside a fresh Debian root, as process 1. Ends with "all done".
set -eux

# All files except dpkg's own.
list() {
    find / -xdev \( -path /srv -o -path /var/lib/dpkg -o -path /var/log \) -prune -o -printf '%y %m %p\n' | sort
}
left() {
    find /sys/fs/bpf /run /sys/fs/cgroup -name 'memstock*'
}

list > /srv/before
dpkg --install /srv/memstock.deb
test -z "$(dpkg --verify memstock)"

# Everything is in place.
for file in bash-completion/completions/memstock zsh/vendor-completions/_memstock \
    fish/vendor_completions.d/memstock.fish man/man1/memstock.1.gz man/man1/memstock-run.1.gz \
    doc/memstock/copyright doc/memstock/changelog.gz doc/memstock/README.md doc/memstock/docs/exit-codes.md; do
    test -s /usr/share/$file
done
test -s /usr/lib/systemd/system/memstock.service
test "$(stat -c '%U %a' /usr/bin/memstock)" = 'root 755'
test "$(bash -c 'source /usr/share/bash-completion/completions/memstock
    COMP_WORDS=(memstock dr) COMP_CWORD=1; _memstock memstock dr memstock; echo "${COMPREPLY[*]}"')" = drain

# It works.
code=0
memstock run -- sh -c 'head -c 4M /dev/zero | tail -c 4M > /dev/null; exit 7' 2> /srv/summary || code=$?
cat /srv/summary
test $code = 7
awk '/^pages charged / { pages = $3 } END { exit !(pages > 100) }' /srv/summary
test -z "$(left)"

# An upgrade leaves a running daemon and a changed configuration alone.
memstock run --quiet --new memstock-test-package &
daemon=$!
until memstock show > /dev/null 2>&1; do kill -0 $daemon; sleep 0.1; done
echo '# changed' >> /etc/memstock.toml
dpkg --install /srv/newer.deb
kill -0 $daemon
memstock show
grep -q '^# changed' /etc/memstock.toml

# Removing the package ends an engine without a daemon. (This root does not look like a chroot from inside.)
! ischroot
kill -KILL $daemon
wait $daemon || true
memstock show
dpkg --remove memstock
test -z "$(left)"
test ! -e /usr/bin/memstock
mkdir -p /etc/systemd/system/multi-user.target.wants
ln -s /usr/lib/systemd/system/memstock.service /etc/systemd/system/multi-user.target.wants
dpkg --purge memstock
list > /srv/after
diff /srv/before /srv/after
echo all done
