//! Pods made as kubelet makes them: through CRI, in a containerd of our own. Debian has no CRI client, so curl sends
//! the few small protobuf messages over HTTP/2, and they are encoded here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::container::{finish, program};
use crate::poll::{SOON, poll_until};
use crate::process::{Process, Program};

/// The reason of a test that skips because [`Containerd::is_there`] says no.
pub const NO_CONTAINERD: &str =
    "there is no containerd here, or one runs already: `apt-get install containerd curl`";

/// memstock reads containers' names from this state folder, so our containerd must use it.
const STATE: &str = "/run/containerd";

/// A length-delimited protobuf field: a string or a message.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![(number << 3) | 2];
    length(&mut bytes, value.len());
    [bytes, value.to_vec()].concat()
}

/// A varint field with a value below 128.
fn number(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value]
}

/// A varint: seven bits per byte, lowest first.
fn length(bytes: &mut Vec<u8>, mut left: usize) {
    while left > 0x7f {
        bytes.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
}

/// A containerd of our own. Terminated on `Drop`.
#[derive(Debug)]
pub struct Containerd {
    process: Process,
    dir: PathBuf,
    was_there: bool,
}

/// A pod with one container that does nothing. Removed on `Drop`.
#[derive(Debug)]
pub struct Pod<'a> {
    containerd: &'a Containerd,
    sandbox: Vec<u8>,
    /// The id of its container.
    pub container: String,
}

impl Containerd {
    /// Whether containerd and what it needs are installed, and none is running.
    pub fn is_there() -> bool {
        let programs = ["containerd", "ctr", "curl", "runc"];
        programs.iter().all(|name| program(name, "").is_some())
            && std::os::unix::net::UnixStream::connect(format!("{STATE}/containerd.sock")).is_err()
    }

    /// Starts it in a folder. It uses the image `image` from `archive` for sandboxes too.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub fn start(dir: &Path, archive: &Path, image: &str) -> Result<Self> {
        let was_there = Path::new(STATE).exists();
        let root = dir.display();
        // Without CAP_SYS_RESOURCE a process must not lower its OOM score, hence `restrict_oom_score_adj`.
        let text = format!(
            "version = 2\nroot = '{root}/root'\nstate = '{STATE}'\n[grpc]\naddress = '{root}/sock'\n[ttrpc]\naddress = \
             '{root}/ttrpc'\n[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = '{image}'\nrestrict_oom_score_adj = \
             true\ndisable_apparmor = true\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\nsnapshotter = 'native'\n"
        );
        let config = dir.join("containerd.toml");
        fs::write(&config, text)?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(&config);
        let process = Program::from(command).start()?;
        let started = Self { process, dir: dir.to_owned(), was_there };
        let ctr = |args: &[&str]| {
            let mut command = Command::new("ctr");
            command.arg("--address").arg(started.dir.join("sock")).args(args);
            finish(command)
        };
        poll_until(SOON, "a containerd that answers", || ctr(&["version"]).ok())
            .with_context(|| started.process.stderr().unwrap_or_default())?;
        let archive = archive.to_str().context("a path of text")?;
        ctr(&["--namespace", "k8s.io", "images", "import", archive])?;
        Ok(started)
    }

    /// Calls a method. Returns the value of the answer's first field, if it has one.
    fn call(&self, method: &str, message: &[u8]) -> Result<Vec<u8>> {
        let (ask, answer) = (self.dir.join("ask"), self.dir.join("answer"));
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len())?.to_be_bytes());
        frame.extend(message);
        fs::write(&ask, frame)?;
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--http2-prior-knowledge", "--dump-header", "-"]);
        curl.args(["--header", "content-type: application/grpc", "--header", "te: trailers"]);
        curl.arg("--unix-socket").arg(self.dir.join("sock")).arg("--output").arg(&answer);
        curl.arg("--data-binary").arg(format!("@{}", ask.display()));
        curl.arg(format!("http://localhost/runtime.v1.RuntimeService/{method}"));
        let head = finish(curl)?.stdout;
        ensure!(head.contains("grpc-status: 0"), "{method}: {head}");
        // Skip the frame (5 bytes) and the tag and length of its only field.
        Ok(fs::read(answer)?.get(7..).unwrap_or_default().to_vec())
    }

    /// Makes a pod below a cgroup, as kubelet's driver for cgroupfs does, and starts its container.
    ///
    /// # Errors
    /// When it is refused.
    pub fn run(
        &self,
        parent: &str,
        image: &str,
        [namespace, pod, name]: [&str; 3],
    ) -> Result<Pod<'_>> {
        let uid = "1b4e28ba-2fa1-11d2-883f-0016d3cca427";
        let text = |number, text: &str| field(number, text.as_bytes());
        let metadata = [text(1, pod), text(2, uid), text(3, namespace)].concat();
        // The host's network, since there is no CNI.
        let namespaces = field(1, &number(1, 2));
        let cgroup = text(1, &format!("{parent}/burstable/pod{uid}"));
        let linux = [cgroup, field(2, &namespaces)].concat();
        let config = [field(1, &metadata), field(8, &linux)].concat();
        let sandbox = self.call("RunPodSandbox", &field(1, &config))?;
        let mut made = Pod { containerd: self, sandbox, container: String::new() };
        let container = [field(1, &text(1, name)), field(2, &text(1, image))].concat();
        let all = [field(1, &made.sandbox), field(2, &container), field(3, &config)].concat();
        let id = self.call("CreateContainer", &all)?;
        self.call("StartContainer", &field(1, &id))?;
        made.container = String::from_utf8(id)?;
        Ok(made)
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        for method in ["StopPodSandbox", "RemovePodSandbox"] {
            if let Err(error) = self.containerd.call(method, &field(1, &self.sandbox)) {
                eprintln!("{error:#}");
            }
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let ended = self.process.signal(Signal::TERM).and_then(|()| self.process.wait(SOON));
        if let Err(error) = ended {
            eprintln!("containerd does not stop: {error:#}");
        }
        if !self.was_there {
            let _ = fs::remove_dir_all(STATE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_fields_have_long_lengths() {
        assert_eq!(field(1, b"ab"), [0x0a, 2, b'a', b'b']);
        assert_eq!(field(8, &[7; 300])[..3], [0x42, 0xac, 0x02]);
        assert_eq!(number(1, 2), [8, 2]);
    }
}
