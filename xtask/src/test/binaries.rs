//! The programs that tests are built into, as cargo names them.
//!
//! They are built by one call and started from here. Each `cargo test -p …` would build what they depend on once
//! more: with other features, as they are united over the packages of a call.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::exec;
use crate::setup::BpfToolchain;

/// For everything that can be tested.
pub const ALL: [&str; 4] = ["--lib", "--bins", "--tests", "--benches"];

/// What cargo calls an integration test.
pub const TEST: &str = "test";
/// And a benchmark.
pub const BENCH: &str = "bench";

/// One program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// The folder of its package.
    pub package: PathBuf,
    /// `lib`, `bin`, `test` or `bench`.
    pub kind: String,
    /// That of the target.
    pub name: String,
    /// The program.
    pub path: PathBuf,
}

impl Binary {
    /// How it is started, as cargo does.
    pub fn command(&self) -> Command {
        let mut cmd = Command::new(&self.path);
        cmd.current_dir(&self.package);
        cmd
    }

    /// Whether its package is the workspace's folder `name`.
    pub fn is_of(&self, name: &str) -> bool {
        self.package.ends_with(name)
    }
}

/// Builds what `cargo test` with these arguments would run.
pub fn build(bpf: &BpfToolchain, args: &[&str]) -> Result<Vec<Binary>> {
    let mut cmd = exec::cargo(&["test", "--no-run", "--message-format=json-render-diagnostics"]);
    let mut found = Vec::new();
    exec::tee(bpf.apply(cmd.args(args))?, |line| found.extend(binary(line)))?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// That of which a line of cargo's output tells.
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

/// Of several, those of the package in the folder `package`.
///
/// # Errors
/// There is none: the folder was renamed.
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
