//! Containers of real runtimes in a test's cgroup. They use this host's programs, so no image is fetched. The cgroups
//! that a runtime makes in other hierarchies are removed too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cgroup::{TestCgroup, mount, remove};
use crate::poll::SOON;
use crate::process::{Finished, Program};

/// The environment variable by which `cargo xtask test` names the folder with `runc`.
pub const RUNC: &str = "MEMSTOCK_RUNC";
/// The reason of a test that skips because [`Runc::find`] found none.
pub const NO_RUNC: &str = "there is no runc here: `cargo xtask test` unpacks Debian's";
/// The reason of a test that skips because [`Podman::find`] found none.
pub const NO_PODMAN: &str = "there is no podman here: `apt-get install podman runc`";

/// Finds a program in the folder that the environment variable `var` names, else in those of `PATH`.
pub(crate) fn program(name: &str, var: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::var_os(var).map(PathBuf::from).into_iter();
    dirs.chain(std::env::split_paths(&path)).map(|dir| dir.join(name)).find(|file| file.is_file())
}

pub(crate) fn finish(command: Command) -> Result<Finished> {
    let what = format!("{command:?}");
    let finished = Program::from(command).finish(3 * SOON)?;
    ensure!(finished.code() == 0, "{what}: {finished:?}");
    Ok(finished)
}

/// Makes a root file system for containers, whose programs are this host's.
fn make_root(root: &Path) -> Result<()> {
    for dir in ["dev", "proc", "sys", "tmp", "etc", "run", "usr"] {
        fs::create_dir_all(root.join(dir))?;
    }
    for name in ["bin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name))?;
    }
    Ok(())
}

/// A cgroup for containers. `Drop` also removes those of the same path in all other hierarchies.
#[derive(Debug)]
pub struct Place(TestCgroup);

impl Place {
    /// Makes it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self> {
        TestCgroup::new().map(Self)
    }

    /// Makes it and one of the same path in each v1 hierarchy. Returns the folders of all.
    ///
    /// # Errors
    /// When one cannot be made.
    pub fn everywhere() -> Result<(Self, Vec<PathBuf>)> {
        let place = Self::new()?;
        let mut dirs = vec![place.cgroup().dir().to_owned()];
        for above in v1_mounts() {
            let dir = above.join(&place.path()[1..]);
            fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
            // A new cpuset cgroup has no CPUs and no memory nodes, and without them no task can enter.
            for file in ["cpuset.cpus", "cpuset.mems"].map(Path::new) {
                if let Ok(given) = fs::read(above.join(file)) {
                    fs::write(dir.join(file), given)?;
                }
            }
            // A new cpu cgroup has no real-time budget. Setting it fails if others were given all there is.
            let time = Path::new("cpu.rt_runtime_us");
            let _ = fs::read(above.join(time)).and_then(|all| fs::write(dir.join(time), all));
            dirs.push(dir);
        }
        Ok((place, dirs))
    }

    /// The cgroup.
    pub fn cgroup(&self) -> &TestCgroup {
        &self.0
    }

    /// Its path.
    pub fn path(&self) -> &str {
        self.0.path()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        remove_from_v1(self.path());
    }
}

/// Removes the cgroup of this path from all v1 hierarchies.
pub(crate) fn remove_from_v1(path: &str) {
    let own = mount().ok();
    for mount in v1_mounts() {
        let dir = mount.join(path.trim_start_matches('/'));
        if dir.is_dir() && own.as_ref().is_none_or(|own| !dir.starts_with(own)) {
            remove(&dir);
        }
    }
}

/// Where the v1 hierarchies are mounted.
fn v1_mounts() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let v1 = mounts.lines().filter(|line| line.contains(" - cgroup "));
    v1.filter_map(|line| line.split(' ').nth(4).map(PathBuf::from)).collect()
}

/// runc.
#[derive(Debug)]
pub struct Runc {
    program: PathBuf,
    bundles: TempDir,
}

/// A running runc container. Deleted on `Drop`.
#[derive(Debug)]
pub struct Contained<'a> {
    runc: &'a Runc,
    /// Its id, which is also its name.
    pub id: String,
    /// The path of its cgroup.
    pub path: String,
}

impl Runc {
    /// Looks for runc in the folder that [`RUNC`] names, else in those of `PATH`.
    ///
    /// # Errors
    /// When it cannot make a folder for bundles.
    pub fn find() -> Result<Option<Self>> {
        let Some(program) = program("runc", RUNC) else { return Ok(None) };
        Ok(Some(Self { program, bundles: tempfile::tempdir()? }))
    }

    /// Runs `sleep` in a container of this id in a cgroup of its own below `place`, called `name`.
    ///
    /// # Errors
    /// When runc cannot.
    pub fn run(&self, place: &Place, name: &str, id: &str) -> Result<Contained<'_>> {
        let path = format!("{}/{name}", place.path());
        let bundle = self.bundles.path().join(id);
        if !bundle.exists() {
            make_root(&bundle.join("root"))?;
        }
        fs::write(bundle.join("config.json"), config(&path).to_string())?;
        let mut command = Command::new(&self.program);
        command.args(["run", "--detach", "--bundle"]).arg(&bundle).arg(id);
        finish(command)?;
        Ok(Contained { runc: self, id: id.to_owned(), path })
    }
}

fn config(path: &str) -> Value {
    let namespaces = ["pid", "mount", "ipc", "uts"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/usr/bin/sleep", "1000"],
            "env": ["PATH=/usr/bin"],
            "cwd": "/",
        },
        "root": { "path": "root" },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            {
                "destination": "/usr", "type": "bind", "source": "/usr",
                "options": ["rbind", "rprivate", "ro"],
            },
        ],
        "linux": { "cgroupsPath": path, "namespaces": namespaces },
    })
}

impl Drop for Contained<'_> {
    fn drop(&mut self) {
        let mut command = Command::new(&self.runc.program);
        command.args(["delete", "--force", &self.id]);
        if let Err(error) = finish(command) {
            eprintln!("{error:#}");
        }
    }
}

/// podman, with runc.
#[derive(Debug)]
pub struct Podman {
    dir: TempDir,
}

/// A podman container. Removed on `Drop`.
#[derive(Debug)]
pub struct Pod<'a> {
    podman: &'a Podman,
    /// Its id.
    pub id: String,
}

impl Podman {
    /// Podman, if it is installed.
    ///
    /// # Errors
    /// When it cannot make a folder for the containers' root.
    pub fn find() -> Result<Option<Self>> {
        if ["podman", "runc", "conmon"].iter().any(|name| program(name, "").is_none()) {
            return Ok(None);
        }
        let dir = tempfile::tempdir()?;
        make_root(&dir.path().join("root"))?;
        // Podman's own defaults are refused where this process has lower limits.
        let text = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
                    [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n";
        fs::write(dir.path().join("containers.conf"), text)?;
        Ok(Some(Self { dir }))
    }

    /// Runs podman with these arguments. Returns its standard output.
    ///
    /// # Errors
    /// When it fails.
    pub fn tell(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", self.dir.path().join("containers.conf")).args(args);
        finish(command).map(|finished| finished.stdout)
    }

    /// Runs `sleep` in a container of this name, below `place`.
    ///
    /// # Errors
    /// When podman cannot.
    pub fn run(&self, place: &Place, name: &str) -> Result<Pod<'_>> {
        let root = self.dir.path().join("root");
        let root = root.to_str().context("a folder of text")?;
        let parent = format!("--cgroup-parent={}", place.path());
        let args = ["run", "--detach", "--name", name, &parent, "--network=none"];
        let usr = ["--volume", "/usr:/usr:ro", "--rootfs", root, "/usr/bin/sleep", "1000"];
        let id = self.tell(&[&args[..], &usr[..]].concat())?;
        Ok(Pod { podman: self, id: id.trim().to_owned() })
    }
}

impl Pod<'_> {
    /// The path of its cgroup below `place`.
    pub fn path(&self, place: &Place) -> String {
        format!("{}/libpod-{}", place.path(), self.id)
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.podman.tell(&["rm", "--force", "--time=0", &self.id]) {
            eprintln!("{error:#}");
        }
    }
}
