//! `memstock doctor` compared with an independent look at this host, without privilege, and on hosts that lack
//! something, which is hidden in a mount namespace.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use memstock_tests::cgroup::{mount, mount_v1_memory};
use memstock_tests::poll::SOON;
use memstock_tests::process::{Finished, Program, memstock};
use memstock_tests::{Engine, TestCgroup, binaries, live, release};
use serde_json::Value;

const SCHEMA: &str = include_str!("../../docs/schema/doctor.schema.json");

/// doctor's state of each facility, and the whole document.
struct Said {
    states: BTreeMap<String, String>,
    document: Value,
    finished: Finished,
}

impl Said {
    fn of(program: Program) -> Result<Self> {
        let finished = program.finish(3 * SOON)?;
        ensure!(finished.stderr.is_empty(), "{finished:?}");
        let document: Value =
            serde_json::from_str(&finished.stdout).with_context(|| format!("{finished:?}"))?;
        let schema = jsonschema::validator_for(&serde_json::from_str(SCHEMA)?)?;
        let errors: Vec<_> = schema.iter_errors(&document).map(|error| error.to_string()).collect();
        ensure!(errors.is_empty(), "{}: {document:#}", errors.join("; "));
        let facilities = document["facilities"].as_array().context("no facilities")?;
        let text =
            |facility: &Value, key: &str| facility[key].as_str().unwrap_or_default().to_owned();
        let states = facilities.iter().map(|row| (text(row, "name"), text(row, "state"))).collect();
        Ok(Self { states, document, finished })
    }

    fn here() -> Result<Self> {
        Self::of(memstock(["doctor", "--json"])?)
    }

    /// Runs doctor after `script` in a mount namespace.
    fn after(script: &str) -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec"]);
        command.arg(format!("{script}\nexec \"$0\" doctor --json")).arg(binaries::memstock()?);
        Self::of(command.into())
    }

    fn is(&self, name: &str, state: &str) -> Result<()> {
        let said = self.states.get(name).with_context(|| format!("no facility {name}"))?;
        ensure!(said == state, "{name} is {state}, not {said}: {:#}", self.document);
        Ok(())
    }

    fn is_there(&self, name: &str, is_there: bool) -> Result<()> {
        self.is(name, if is_there { "found" } else { "absent" })
    }

    fn code(&self, code: i32, missing: &[&str]) -> Result<()> {
        let said = &self.document["missing"];
        ensure!(
            self.finished.code() == code,
            "exit code {code}: {:?}, {said}",
            self.finished.status
        );
        ensure!(self.document["runs_here"] == (code == 0), "{said}");
        for name in missing {
            ensure!(
                said.as_array().is_some_and(|said| said.iter().any(|s| s == name)),
                "{name}: {said}"
            );
        }
        Ok(())
    }
}

/// Whether `/proc/self/status` has this capability (its number in `linux/capability.h`) in our effective set.
fn has_capability(number: u32) -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("no CapEff")?;
    Ok(u64::from_str_radix(set.trim(), 16)? >> number & 1 == 1)
}

#[test]
fn this_host_as_others_see_it() -> Result<()> {
    live(|| {
        let said = Said::here()?;
        said.code(0, &[])?;
        for (name, number) in [
            ("cap_dac_read_search", 2),
            ("cap_sys_ptrace", 19),
            ("cap_kill", 5),
            ("cap_ipc_lock", 14),
            ("cap_sys_resource", 24),
            ("cap_sys_nice", 23),
            ("root on the host", 21),
        ] {
            said.is_there(name, has_capability(number)?)?;
        }
        let there = |path: &str| Path::new(path).exists();
        said.is_there("btf", there("/sys/kernel/btf/vmlinux"))?;
        said.is_there("kpagecgroup", there("/proc/kpagecgroup"))?;
        said.is_there("kpageflags", there("/proc/kpageflags"))?;
        let controllers = fs::read_to_string(mount()?.join("cgroup.controllers"))?;
        let has_memory = controllers.split_whitespace().any(|name| name == "memory");
        said.is_there("memory controller of cgroup v2", has_memory)?;
        said.is_there("memory controller of cgroup v1", mount_v1_memory()?.is_some())?;
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        said.is_there("bpffs", mounts.contains(" /sys/fs/bpf bpf "))?;
        said.is("cgroup v2", "found")?;
        said.is_there("swap", fs::read_to_string("/proc/swaps")?.lines().count() > 1)?;
        said.is_there(
            "jit",
            fs::read_to_string("/proc/sys/net/core/bpf_jit_enable")?.trim() != "0",
        )?;
        ensure!(said.document["engine"] == "none", "{:#}", said.document);
        tracepoints(&said)?;

        // The table says the same.
        let table = memstock(["doctor"])?.finish(SOON)?;
        ensure!(table.code() == 0 && table.stderr.is_empty(), "{table:?}");
        for (name, state) in &said.states {
            let row = |line: &str| line.starts_with(state.as_str()) && line.contains(name.as_str());
            ensure!(table.stdout.lines().any(row), "{name} is {state}: {table:?}");
        }
        ensure!(table.stdout.contains("memstock runs here"), "{table:?}");
        Ok(())
    })
}

/// Compares with the tracepoints that tracefs lists, which doctor does not use.
fn tracepoints(said: &Said) -> Result<()> {
    let listed = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec"])
        .arg("mount -t tracefs tracefs /mnt && ls -d /mnt/events/*/*/")
        .output()?;
    let listed = String::from_utf8(listed.stdout)?;
    ensure!(listed.lines().count() > 100, "tracefs cannot be read");
    let mut looked = 0;
    for name in said.states.keys().filter_map(|name| name.strip_prefix("tracepoint ")) {
        let is_listed = listed.lines().any(|line| line.ends_with(&format!("/{name}/")));
        said.is_there(&format!("tracepoint {name}"), is_listed)?;
        looked += 1;
    }
    ensure!(looked >= 10, "{looked} tracepoints");
    Ok(())
}

#[test]
fn without_privilege_most_is_unknown() -> Result<()> {
    live(|| {
        // In a folder that everybody can reach.
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let program = folder.path().join("memstock");
        fs::copy(binaries::memstock()?, &program)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
        command.arg("--bounding-set=-all").arg(&program).args(["doctor", "--json"]);
        let said = Said::of(command.into())?;
        said.code(120, &["root on the host", "programs", "bpf", "run folder"])?;
        for name in ["root on the host", "cap_kill"] {
            said.is(name, "absent")?;
        }
        for name in ["bpf", "programs", "struct pages", "kpageflags", "kpagecgroup"] {
            said.is(name, "unknown")?;
        }
        // Before Linux 6.9 the bits of an allocation's flags are macros, and only root's tracefs has them.
        said.is("btf", if release()? < (6, 9) { "unknown" } else { "found" })?;
        // What everybody can see is told to everybody.
        for name in ["tracepoint mm_page_alloc", "cgroup v2"] {
            said.is(name, "found")?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "long"]
fn what_is_hidden_is_absent() -> Result<()> {
    live(|| {
        let hide = |dir: &str| format!("mount -t tmpfs none {dir}");
        let said = Said::after(&hide("/sys/kernel/btf"))?;
        said.is("btf", "absent")?;
        said.is("struct pages", "absent")?;
        // What does not need it is found all the same.
        said.is("tracepoint mm_page_alloc", "found")?;
        said.code(121, &["btf", "struct pages", "programs"])?;

        let cgroups = "while umount -R /sys/fs/cgroup 2>/dev/null; do :; done";
        let said = Said::after(cgroups)?;
        said.is("cgroup v2", "absent")?;
        said.is("memory controller of cgroup v1", "absent")?;
        said.code(121, &["cgroup v2"])?;

        // `run` mounts bpffs if necessary, so its absence is no reason not to run.
        let bpffs = "while umount /sys/fs/bpf 2>/dev/null; do :; done";
        let said = Said::after(bpffs)?;
        said.is("bpffs", "absent")?;
        said.is("bpffs folder", "found")?;
        said.code(0, &[])?;

        let said = Said::after(&hide("/sys/fs"))?;
        said.is("bpffs folder", "absent")?;
        said.code(121, &["bpffs folder", "cgroup v2"])?;

        let said =
            Said::after(&format!("{}; mkdir /run/x; mount -o remount,ro /run", hide("/run")))?;
        said.is("run folder", "absent")?;
        said.code(121, &["run folder"])
    })
}

#[test]
fn a_running_engine_is_told_of() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let mut engine = Engine::start(["--cgroup", cgroup.path(), "--batch", "7"])?;
        let said = Said::here()?;
        said.code(0, &[])?;
        said.is("bpffs", "found")?;
        let text = said.document["engine"].as_str().unwrap_or_default().to_owned();
        let pid = engine.process().id();
        ensure!(
            text.contains(&format!("running (pid {pid})")) && text.contains("batch 7"),
            "{text}"
        );
        // The engine is not disturbed.
        engine.show()?.check()?;
        engine.kill()?;
        let Some(text) = Said::here()?.document["engine"].as_str().map(str::to_owned) else {
            bail!("no word of an engine");
        };
        ensure!(text.contains("without a daemon") && text.contains("memstock run"), "{text}");

        // An engine of another version.
        let other = Path::new("/sys/fs/bpf/memstock-9999");
        fs::create_dir(other)?;
        let said = Said::here();
        fs::remove_dir(other)?;
        let said = said?;
        said.is("no engine of another version", "absent")?;
        said.code(121, &["no engine of another version"])
    })
}

/// As in a pod with the host's PID namespace: its own cgroup namespace shows part of the hierarchy as `/..`.
#[test]
fn a_cgroup_namespace_of_its_own_hides_nothing() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let procs = cgroup.dir().join("cgroup.procs");
        let enter =
            format!("echo 0 > {}\nexec unshare --cgroup \"$0\" doctor --json", procs.display());
        let said = Said::after(&enter)?;
        said.is_there("cgroup v2", true)?;
        said.code(0, &[])
    })
}
