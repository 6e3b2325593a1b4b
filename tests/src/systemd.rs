//! A Debian with its own systemd, booted by systemd-nspawn; the host needs no systemd. It has its own file systems,
//! processes and network, sees only the cgroups below those of the test, and ends with the test, however that ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::container::Place;
use crate::poll::{SOON, try_poll_until};
use crate::process::{Finished, Process, Program};
use crate::show::Show;

/// `PATH` in the Debian root.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Unpacks the archive, makes it the root, and boots it with the systemd-nspawn in it, which refuses to boot `/`
/// itself: hence the bind mount on `/media`. It is process 1 of a PID namespace, so that nothing outlives it.
const BOOT: &str = r#"set -e
mount -t tmpfs -o mode=755 root "$ROOT"
tar -C "$ROOT" -xpf "$ARCHIVE"
cp "$PACKAGES"/*.deb "$ROOT/srv"
mount -t proc proc "$ROOT/proc"
mount --rbind /sys "$ROOT/sys"
mount --rbind /dev "$ROOT/dev"
mount --bind "$ROOT" "$ROOT/media"
for dir in $CGROUPS; do echo 0 > "$dir/cgroup.procs"; done
cd "$ROOT"
pivot_root . mnt
umount --lazy /mnt
# systemd-nspawn's seccomp filter, meant for untrusted containers, refuses bpf(2).
SYSTEMD_SECCOMP=0 exec systemd-nspawn --directory=/media --machine="$NAME" --boot --register=no --keep-unit \
    --capability=all --console=pipe --settings=no --link-journal=no
"#;

/// A Debian that has booted. Killed on `Drop`, and its cgroups are removed.
#[derive(Debug)]
pub struct System {
    // Dropped in this order.
    process: Process,
    place: Place,
    init: u32,
    _root: TempDir,
}

impl System {
    /// Boots the root in this archive, with the packages of a folder in its `/srv`.
    ///
    /// # Errors
    /// When it does not come up. Includes its output.
    pub fn boot(archive: &Path, packages: &Path) -> Result<Self> {
        let root = tempfile::tempdir()?;
        let (place, dirs) = Place::everywhere()?;
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--net", "--pid", "--fork"]);
        command.args(["--kill-child", "sh", "-c", BOOT]).env_clear();
        command.envs([("PATH", PATH), ("LC_ALL", "C"), ("NAME", &place.path()[1..])]);
        command.env("ROOT", root.path()).env("ARCHIVE", archive).env("PACKAGES", packages);
        command.env("CGROUPS", dirs.join(" "));
        let process = Program::from(command).start()?;
        let mut system = Self { process, place, init: 0, _root: root };
        let ready = system.wait_until_ready();
        ready.with_context(|| {
            let said = [system.process.stdout(), system.process.stderr()];
            said.map(Result::unwrap_or_default).join("\n")
        })?;
        Ok(system)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let init = self.dir().join("init.scope/cgroup.procs");
        self.init = try_poll_until(3 * SOON, "a systemd", || {
            if let Some(status) = self.process.ended()? {
                bail!("it has ended with {status}");
            }
            let found = fs::read_to_string(&init).unwrap_or_default();
            Ok(found.lines().next().and_then(|id| id.parse().ok()))
        })?;
        try_poll_until(3 * SOON, "the end of the boot", || {
            let state = self.ask(&["systemctl", "is-system-running"])?;
            Ok(["running\n", "degraded\n"].contains(&&*state.stdout).then_some(()))
        })?;
        // systemd mounts it, but not in a container.
        self.tell(&["mount", "-t", "bpf", "-o", "mode=700", "bpf", "/sys/fs/bpf"]).map(drop)
    }

    /// The host's folder of its root cgroup.
    pub fn dir(&self) -> PathBuf {
        self.place.cgroup().dir().join("payload")
    }

    /// The host's path of one of its files.
    pub fn file(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// Writes a file in it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let file = self.file(path);
        let folder = file.parent().context("a file without a folder")?;
        fs::create_dir_all(folder).and_then(|()| fs::write(&file, text)).context(path.to_owned())
    }

    /// Runs a command in it as root.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn ask(&self, args: &[&str]) -> Result<Finished> {
        let mut command = Command::new("nsenter");
        command.args(["--all", "--root", "--wd", "--target", &self.init.to_string(), "--"]);
        command.args(args).env_clear().env("PATH", PATH).env("LC_ALL", "C");
        Program::from(command).finish(6 * SOON)
    }

    /// As [`Self::ask`], but the command must succeed. Returns its standard output.
    ///
    /// # Errors
    /// When it fails.
    pub fn tell(&self, args: &[&str]) -> Result<String> {
        let finished = self.ask(args)?;
        ensure!(finished.code() == 0, "{args:?}: {finished:?}");
        Ok(finished.stdout)
    }

    /// A property of a unit.
    ///
    /// # Errors
    /// When systemctl fails.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let said =
            self.tell(&["systemctl", "show", "--value", &format!("--property={name}"), unit])?;
        Ok(said.trim_end().to_owned())
    }

    /// The journal of a unit.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn journal(&self, unit: &str) -> Result<String> {
        self.tell(&["journalctl", "--no-pager", "--output=cat", &format!("--unit={unit}")])
    }

    /// A sample of the engine in it.
    ///
    /// # Errors
    /// When there is none.
    pub fn show(&self) -> Result<Show> {
        Show::parse(&self.tell(&["memstock", "show", "--json"])?)
    }
}
