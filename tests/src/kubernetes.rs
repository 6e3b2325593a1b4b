//! The manifests as kubectl renders them, and their pod as podman plays it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cgroup::{mount, remove};
use crate::container::{finish, program, remove_from_v1};

/// The reason of a test that skips because there is no kubectl.
pub const NO_KUBECTL: &str = "there is no kubectl here: `apt-get install kubernetes-client`";
/// The reason of a test that skips because [`Play::find`] found none.
pub const NO_PODMAN: &str =
    "there is no podman here, or no pause for its pods: `apt-get install podman runc catatonit`";

/// Where podman makes the cgroups of pods.
const PODS: &str = "libpod_parent";

fn kubectl(args: &[&str]) -> Result<String> {
    let mut command = Command::new("kubectl");
    // No server is asked, nor found.
    command.args(args).env("KUBECONFIG", "/dev/null");
    Ok(finish(command)?.stdout)
}

/// The manifests.
#[derive(Debug)]
pub struct Manifests {
    dir: TempDir,
    /// All documents, as they would be sent to a server.
    pub all: Vec<Value>,
}

impl Manifests {
    /// Renders them with another configuration of memstock, or that which they have.
    ///
    /// # Errors
    /// When kubectl refuses them.
    pub fn render(config: Option<&str>) -> Result<Option<Self>> {
        if program("kubectl", "").is_none() {
            return Ok(None);
        }
        let dir = TempDir::new()?;
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes");
        for entry in fs::read_dir(&deploy)? {
            let entry = entry?;
            fs::copy(entry.path(), dir.path().join(entry.file_name()))?;
        }
        if let Some(config) = config {
            fs::write(dir.path().join("memstock.toml"), config)?;
        }
        let text = kubectl(&["kustomize", &dir.path().display().to_string()])?;
        let file = dir.path().join("rendered");
        fs::write(&file, text)?;
        let file = file.display().to_string();
        // Nothing is changed: there is no such label. But it makes JSON of it.
        let text =
            kubectl(&["label", "--local", "--filename", &file, "none-", "--output", "json"])?;
        // Between the documents it says so.
        let json: String = text.lines().filter(|line| !line.starts_with("label ")).collect();
        let all = serde_json::Deserializer::from_str(&json).into_iter();
        let all = all.collect::<Result<_, _>>().context(json.clone())?;
        Ok(Some(Self { dir, all }))
    }

    /// The document of a kind.
    ///
    /// # Errors
    /// There is none.
    pub fn of(&self, kind: &str) -> Result<&Value> {
        let found = self.all.iter().find(|one| one["kind"] == kind);
        found.with_context(|| format!("no {kind} in {:?}", self.all))
    }

    /// What kubectl's own types have of the DaemonSet: what they do not know is not in it.
    ///
    /// # Errors
    /// Something is of another type than they say.
    pub fn typed(&self) -> Result<Value> {
        let file = self.dir.path().join("daemonset");
        let daemon = self.of("DaemonSet")?;
        fs::write(&file, daemon.to_string())?;
        let file = file.display().to_string();
        // Nothing is printed without a change.
        let other = "memstock=other";
        let args = ["set", "image", "--local", "--filename", &file, other, "--output", "json"];
        let mut typed: Value = serde_json::from_str(&kubectl(&args)?)?;
        let image = "/spec/template/spec/containers/0/image";
        let set = typed.pointer_mut(image).context("no image")?;
        ensure!(*set == "other", "{set}");
        *set = daemon.pointer(image).context("no image")?.clone();
        Ok(typed)
    }

    /// The DaemonSet's pod with its ConfigMap. Without its ports and probes, which are kubelet's: podman publishes ports
    /// only from a network of the pod's own, and probes with curl in the image and systemd on the host.
    ///
    /// # Errors
    /// When there is something missing.
    pub fn pod(&self) -> Result<String> {
        let mut pod = self.of("DaemonSet")?["spec"]["template"].clone();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["name"] = json!("memstock");
        let container = pod.pointer_mut("/spec/containers/0").and_then(Value::as_object_mut);
        let container = container.context("no container")?;
        for key in ["ports", "livenessProbe", "startupProbe"] {
            container.remove(key).with_context(|| format!("no {key}"))?;
        }
        Ok(format!("{}\n---\n{pod}\n", self.of("ConfigMap")?))
    }
}

/// podman with a storage of its own. Its pods and images are gone on `Drop`.
#[derive(Debug)]
pub struct Play {
    dir: TempDir,
    was_there: bool,
}

impl Play {
    /// If it is installed.
    ///
    /// # Errors
    /// When there is no folder for its storage to be had.
    pub fn find() -> Result<Option<Self>> {
        let programs = ["podman", "runc", "conmon", "catatonit"];
        if programs.iter().any(|name| program(name, "").is_none()) {
            return Ok(None);
        }
        let dir = tempfile::Builder::new().prefix("memstock-play-").tempdir_in("/var/tmp")?;
        // podman 4.3 does not know `hostPID`.
        let text = "[containers]\npidns = \"host\"\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
                    [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n";
        fs::write(dir.path().join("containers.conf"), text)?;
        let was_there = mount()?.join(PODS).exists();
        Ok(Some(Self { dir, was_there }))
    }

    /// A file for podman, or of it.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Does what is told.
    ///
    /// # Errors
    /// When it cannot.
    pub fn tell(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", self.at("containers.conf"));
        for (flag, dir) in [("--root", "storage"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(flag).arg(self.at(dir));
        }
        command.args(["--storage-driver", "vfs"]).args(args);
        finish(command).map(|finished| finished.stdout.trim().to_owned())
    }

    /// Plays a pod in the host's network.
    ///
    /// # Errors
    /// When podman cannot.
    pub fn play(&self, pod: &str) -> Result<()> {
        let file = self.at("pod.yaml");
        fs::write(&file, pod)?;
        self.tell(&["kube", "play", "--network", "host", &file.display().to_string()]).map(drop)
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        for args in [&["pod", "rm", "--all", "--force"][..], &["rmi", "--all", "--force"]] {
            if let Err(error) = self.tell(args) {
                eprintln!("{error:#}");
            }
        }
        if !self.was_there {
            remove_from_v1(&format!("/{PODS}"));
            if let Ok(mount) = mount() {
                remove(&mount.join(PODS));
            }
        }
    }
}
