//! The Kubernetes manifests as kubectl renders them, and their pod as `podman kube play` runs it.

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
    // Makes sure that no server is contacted.
    command.args(args).env("KUBECONFIG", "/dev/null");
    Ok(finish(command)?.stdout)
}

/// The rendered manifests.
#[derive(Debug)]
pub struct Manifests {
    dir: TempDir,
    /// All documents, as kubectl would send them to a server.
    pub all: Vec<Value>,
}

impl Manifests {
    /// Renders them, with `config` in place of their memstock configuration if given. `None` without kubectl.
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
        // Removes a label that does not exist, in order to convert YAML to JSON.
        let text =
            kubectl(&["label", "--local", "--filename", &file, "none-", "--output", "json"])?;
        // kubectl prints a line `label …` between the documents.
        let json: String = text.lines().filter(|line| !line.starts_with("label ")).collect();
        let all = serde_json::Deserializer::from_str(&json).into_iter();
        let all = all.collect::<Result<_, _>>().context(json.clone())?;
        Ok(Some(Self { dir, all }))
    }

    /// The document of a kind.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(&self, kind: &str) -> Result<&Value> {
        let found = self.all.iter().find(|one| one["kind"] == kind);
        found.with_context(|| format!("no {kind} in {:?}", self.all))
    }

    /// The DaemonSet after a round trip through kubectl's own types, which drop unknown fields.
    ///
    /// # Errors
    /// When a field has the wrong type.
    pub fn typed(&self) -> Result<Value> {
        let file = self.dir.path().join("daemonset");
        let daemon = self.of("DaemonSet")?;
        fs::write(&file, daemon.to_string())?;
        let file = file.display().to_string();
        // kubectl prints nothing without a change, so the image is changed and put back.
        let other = "memstock=other";
        let args = ["set", "image", "--local", "--filename", &file, other, "--output", "json"];
        let mut typed: Value = serde_json::from_str(&kubectl(&args)?)?;
        let image = "/spec/template/spec/containers/0/image";
        let set = typed.pointer_mut(image).context("no image")?;
        ensure!(*set == "other", "{set}");
        *set = daemon.pointer(image).context("no image")?.clone();
        Ok(typed)
    }

    /// The DaemonSet's pod with its ConfigMap, but without ports and probes, which are kubelet's work: podman publishes
    /// ports only from a network of the pod's own, and its probes need curl in the image and systemd on the host.
    ///
    /// # Errors
    /// When something is missing.
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

/// Podman with a storage of its own. Its pods and images are removed on `Drop`.
#[derive(Debug)]
pub struct Play {
    dir: TempDir,
    was_there: bool,
}

impl Play {
    /// Podman, if it is installed with what its pods need.
    ///
    /// # Errors
    /// When it cannot make a folder for the storage.
    pub fn find() -> Result<Option<Self>> {
        let programs = ["podman", "runc", "conmon", "catatonit"];
        if programs.iter().any(|name| program(name, "").is_none()) {
            return Ok(None);
        }
        let dir = tempfile::Builder::new().prefix("memstock-play-").tempdir_in("/var/tmp")?;
        // Podman 4.3 does not know `hostPID`.
        let text = "[containers]\npidns = \"host\"\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
                    [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n";
        fs::write(dir.path().join("containers.conf"), text)?;
        let was_there = mount()?.join(PODS).exists();
        Ok(Some(Self { dir, was_there }))
    }

    /// The path of a file in podman's folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs podman with these arguments. Returns its standard output.
    ///
    /// # Errors
    /// When it fails.
    pub fn tell(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", self.at("containers.conf"));
        for (flag, dir) in [("--root", "storage"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(flag).arg(self.at(dir));
        }
        command.args(["--storage-driver", "vfs"]).args(args);
        finish(command).map(|finished| finished.stdout.trim().to_owned())
    }

    /// Runs a pod in the host's network.
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
