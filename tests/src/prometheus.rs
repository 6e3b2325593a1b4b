//! Debian's Prometheus and promtool.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::http;
use crate::poll::{SOON, try_poll_until};
use crate::process::{Finished, Process, Program};

/// The environment variable by which `cargo xtask test` names the folder with both programs.
pub const VAR: &str = "MEMSTOCK_PROMETHEUS";
/// The reason of a test that skips because [`Programs::find`] found none.
pub const ABSENT: &str = "there is no Prometheus here: `cargo xtask test` unpacks Debian's";

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs(PathBuf);

impl Programs {
    /// Looks in the folder that [`VAR`] names, else in those of `PATH`.
    pub fn find() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::env::var_os(VAR).map(PathBuf::from).into_iter();
        let has_both =
            |dir: &PathBuf| ["prometheus", "promtool"].iter().all(|name| dir.join(name).is_file());
        dirs.chain(std::env::split_paths(&path)).find(has_both).map(Self)
    }

    /// Runs `promtool` in a folder, with `input` as its standard input.
    ///
    /// # Errors
    /// When it cannot be started, or does not end in time.
    pub fn promtool(&self, args: &[&str], dir: &Path, input: &str) -> Result<Finished> {
        let given = TempDir::new()?;
        let file = given.path().join("input");
        fs::write(&file, input)?;
        let mut command = Command::new("sh");
        command.current_dir(dir).args(["-c", "exec \"$0\" \"$@\" < \"$INPUT\""]);
        command.arg(self.0.join("promtool")).args(args).env("INPUT", &file);
        Program::from(command).finish(3 * SOON)
    }
}

/// A Prometheus that scrapes one address each second. Terminated and reaped on `Drop`.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    address: SocketAddr,
    // Dropped after the process.
    _dir: TempDir,
}

impl Prometheus {
    /// Starts it with these alert rules, and waits until it is ready.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub fn start(programs: &Programs, target: SocketAddr, rules: &Path) -> Result<Self> {
        let dir = TempDir::new().context("a folder for Prometheus")?;
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{:?}]\n\
             scrape_configs:\n  - job_name: memstock\n    static_configs: [{{targets: [\"{target}\"]}}]\n",
            rules.display().to_string()
        );
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, config)?;
        // A port that was free a moment ago: Prometheus does not print which one it would choose by itself.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = Command::new(programs.0.join("prometheus"));
        command.current_dir(dir.path());
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        let process = Program::from(command).start()?;
        let mut prometheus = Self { process, address, _dir: dir };
        prometheus.wait_until_ready()?;
        Ok(prometheus)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let ready = try_poll_until(3 * SOON, "a Prometheus that is ready", || {
            ensure!(self.process.ended()?.is_none(), "it has ended");
            let answer = http::ask(self.address, "GET", "/-/ready", &[]);
            Ok(answer.is_ok_and(|answer| answer.status == 200).then_some(()))
        });
        ready.with_context(|| self.process.stderr().unwrap_or_default())
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Runs a query. Returns the labels and the value of each series.
    ///
    /// # Errors
    /// When Prometheus refuses it.
    pub fn query(&self, query: &str) -> Result<Vec<(Value, f64)>> {
        let path = format!("/api/v1/query?query={}", http::encoded(query));
        let answer = http::ask(self.address, "GET", &path, &[])?;
        let reply: Value =
            serde_json::from_str(&answer.body).with_context(|| answer.body.clone())?;
        ensure!(reply["status"] == "success", "{query}: {reply}");
        let all = reply["data"]["result"].as_array().with_context(|| reply.to_string())?;
        let value = |one: &Value| {
            let value = one["value"][1].as_str().and_then(|value| value.parse().ok());
            Ok((one["metric"].clone(), value.with_context(|| one.to_string())?))
        };
        all.iter().map(value).collect()
    }

    /// The value of a query with exactly one result.
    ///
    /// # Errors
    /// When it has none or several.
    pub fn one(&self, query: &str) -> Result<f64> {
        let all = self.query(query)?;
        ensure!(all.len() == 1, "{query}: {all:?}");
        Ok(all[0].1)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let ended = self.process.signal(Signal::TERM).and_then(|()| self.process.wait(SOON));
        if let Err(error) = ended {
            eprintln!("Prometheus does not stop: {error:#}");
        }
    }
}
