//! Builds the test binaries, and finds them in cargo's output.
//!
//! One call of cargo builds them all. Each `cargo test -p …` would build the dependencies again with other features,
//! because cargo unifies features over the packages of a call.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::exec;
use crate::setup::BpfToolchain;

/// Arguments of `cargo test` for everything that can be tested.
pub const ALL: [&str; 4] = ["--lib", "--bins", "--tests", "--benches"];

/// cargo's kind of an integration test.
pub const TEST: &str = "test";
/// cargo's kind of a benchmark.
pub const BENCH: &str = "bench";

/// One test binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// The folder of its package.
    pub package: PathBuf,
    /// `lib`, `bin`, `test` or `bench`.
    pub kind: String,
    /// The name of the target.
    pub name: String,
    /// The path of the binary.
    pub path: PathBuf,
}

impl Binary {
    /// The command that starts it, in its package's folder like cargo's.
    pub fn command(&self) -> Command {
        let mut cmd = Command::new(&self.path);
        cmd.current_dir(&self.package);
        cmd
    }

    /// Whether its package is in the workspace's folder `name`.
    pub fn is_of(&self, name: &str) -> bool {
        self.package.ends_with(name)
    }
}

/// Builds the binaries that `cargo test` with these arguments would run.
pub fn build(bpf: &BpfToolchain, args: &[&str]) -> Result<Vec<Binary>> {
    let mut cmd = exec::cargo(&["test", "--no-run", "--message-format=json-render-diagnostics"]);
    let mut found = Vec::new();
    exec::tee(bpf.apply(cmd.args(args))?, |line| found.extend(binary(line)))?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// The test binary that a line of cargo's output reports, if it does.
fn binary(line: &str) -> Option<Binary> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let is_test = message.pointer("/profile/test")?.as_bool()?;
    let text = |pointer| message.pointer(pointer)?.as_str();
    let binary = Binary {
        package: Path::new(text("/manifest_path")?).parent()?.into(),
        kind: text("/target/kind/0")?.into(),
        name: text("/target/name")?.into(),
        path: text("/executable")?.into(),
    };
    (is_test || binary.kind == BENCH).then_some(binary)
}

/// Those binaries that belong to the package in the folder `package`.
///
/// # Errors
/// If there is none, perhaps because the folder was renamed.
pub fn of<'a>(all: &'a [Binary], package: &str) -> Result<Vec<&'a Binary>> {
    let found: Vec<_> = all.iter().filter(|binary| binary.is_of(package)).collect();
    (!found.is_empty()).then_some(found).with_context(|| format!("no tests of {package} are built"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_benchmarks_are_found_in_what_cargo_says() {
        let line = |kind: &str, name: &str, is_test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","profile":{{"test":{is_test}}},"target":{{"kind":["{kind}"],"name":"{name}"}},"executable":"/t/{name}-1"}}"#
            )
        };
        let live = binary(&line("test", "live", true)).unwrap();
        assert_eq!((&*live.name, live.path.to_str()), ("live", Some("/t/live-1")));
        assert!(live.is_of("tests") && !live.is_of("xtask"));
        assert_eq!(binary(&line(BENCH, "page", false)).unwrap().kind, BENCH);
        // What a test starts, and what is no message.
        assert_eq!(binary(&line("bin", "memstock", false)), None);
        assert_eq!(binary("warning: it"), None);
        assert!(of(&[live], "xtask").is_err());
    }
}
