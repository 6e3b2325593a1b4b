//! A recording says why its program may need more than was seen, and so does what is recommended from it.

use std::fs;

use anyhow::{Context, Result, ensure};
use memstock::recording::read;
use memstock_tests::kernel_cgroup::KernelCgroup;
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::{Finished, memstock};
use memstock_tests::skip::skip;
use memstock_tests::{Engine, TestCgroup, leftovers, live};
use rustix::process::{Pid, Signal, kill_process};

use crate::record::{Recorded, program};

/// 60 MiB of private memory, as a script.
const GREEDY: &str = "head -c 60M /dev/zero | tail -c 60M >/dev/null";

fn record(args: &[&str]) -> Result<Recorded> {
    let folder = tempfile::tempdir()?;
    let finished = program(folder.path(), args)?.finish(3 * SOON)?;
    Ok(Recorded { folder, finished })
}

/// Makes sure that it warns of this, at its end and later.
fn warns(recorded: &Recorded, of: &str) -> Result<()> {
    ensure!(recorded.finished.stderr.contains(of), "{of}: {:?}", recorded.finished);
    warns_later(recorded, of)
}

/// Makes sure that each form of what is recommended warns of this.
fn warns_later(Recorded { folder, .. }: &Recorded, of: &str) -> Result<()> {
    let file = folder.path().join("data").display().to_string();
    for format in ["table", "json", "yaml", "systemd"] {
        let said = memstock(["recommend", &file, "--format", format])?.finish(SOON)?;
        ensure!(said.code() == 0 && said.stdout.contains(of), "{format}: {said:?}");
    }
    let said = memstock(["rehearse", &file])?.finish(SOON)?;
    ensure!(said.stdout.contains(of), "{said:?}");
    Ok(())
}

#[test]
fn a_limit_of_ours_that_was_hit_is_told_of() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let limit = format!("{}=40M", cgroup.path());
        let _engine = Engine::start(["--cgroup", cgroup.path(), "--limit", &limit])?;
        let recorded = record(&["--cgroup", cgroup.path(), "--", "sh", "-c", GREEDY])?;
        warns(&recorded, &format!("memstock's limit of 40.0MiB for {} was hit", cgroup.path()))?;
        let recorded = record(&["--cgroup", cgroup.path(), "--", "true"])?;
        let end = recorded.read()?.end.context("no end")?;
        ensure!(end.warnings.is_empty(), "{end:?}");
        Ok(())
    })
}

/// The command enters a memory cgroup with a limit by itself, as on v1 any task may; on v2 the kernel's limit is that of
/// the recorded cgroup.
#[test]
fn a_limit_of_the_kernels_that_was_hit_is_told_of() -> Result<()> {
    const NAME: &str = "record_warnings::a_limit_of_the_kernels_that_was_hit_is_told_of";
    live(|| {
        let cgroup = TestCgroup::new()?;
        let Some(kernel) = KernelCgroup::beside(&cgroup)? else {
            skip(NAME, "there is no memory controller");
            return Ok(());
        };
        kernel.limit(Some(10_240))?;
        let (dir, below) = (kernel.dir().display().to_string(), ["--cgroup", cgroup.path()]);
        let enter = format!("echo $$ >{dir}/cgroup.procs; exec sh -c '{GREEDY}'");
        let _engine = Engine::start(below)?;
        let script = if kernel.is_v2() { GREEDY } else { &enter };
        let recorded = record(&[&below[..], &["--", "sh", "-c", script]].concat())?;
        let file = if kernel.is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
        warns(&recorded, &format!("the kernel's {file} of 40.0MiB for {dir} was hit"))
    })
}

/// Ends the process whose id COMMAND has printed.
fn end(command: &Finished) -> Result<()> {
    let pid = Pid::from_raw(command.stdout.trim().parse()?).context("no pid")?;
    kill_process(pid, Signal::KILL).context("kill")
}

#[test]
fn who_runs_on_or_leaves_is_told_of() -> Result<()> {
    live(|| {
        let script = ["--", "sh", "-c", "sleep 60 </dev/null >/dev/null 2>&1 & echo $!"];
        let recorded = record(&script)?;
        end(&recorded.finished)?;
        warns(&recorded, "1 process ran on when COMMAND ended")?;
        let measured = memstock([&["stat"][..], &script].concat())?.finish(SOON)?;
        end(&measured)?;
        ensure!(measured.stderr.contains("1 process runs on in "), "{measured:?}");
        let other = TestCgroup::new()?;
        let script = format!("echo $$ >{}/cgroup.procs; exec true", other.dir().display());
        warns(&record(&["--", "sh", "-c", &script])?, "1 process left the cgroup")?;
        warns_later(&record(&["--", "sh", "-c", "exit 7"])?, "COMMAND ended with 7")
    })
}

/// Also of one that has a `/proc` of its own, as a container has.
#[test]
fn who_reads_the_hosts_memory_is_told_of() -> Result<()> {
    live(|| {
        let read = "cat /proc/meminfo >/dev/null";
        let reads = "cat: reads /proc/meminfo, and may size itself by the host's memory";
        warns_later(&record(&["--", "sh", "-c", read])?, reads)?;
        // The files of a new namespace are watched once its first program is known, so it reads more than once.
        let often = format!("for n in $(seq 50); do {read}; sleep 0.02; done");
        let own = ["--", "unshare", "-mpf", "--mount-proc", "sh", "-c", &often];
        warns_later(&record(&own)?, reads)?;
        let end = record(&["--", "cat", "/proc/stat"])?;
        let said = memstock(["rehearse", &end.folder.path().join("data").display().to_string()])?;
        let said = said.finish(SOON)?.stdout;
        ensure!(said.contains("no runtime that sizes itself"), "{said}");
        Ok(())
    })
}

/// Of a cgroup that is made again while it is recorded, only the first is recorded; of one in which nothing happens,
/// nothing can be recommended.
#[test]
fn what_was_not_recorded_is_not_recommended_from() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let recorded = record(&["--seconds", "1", "--cgroup", cgroup.path()])?;
        let file = recorded.folder.path().join("data").display().to_string();
        let said = memstock(["recommend", &file])?.finish(SOON)?;
        ensure!(said.code() == 125 && said.stderr.contains("nothing was charged"), "{said:?}");

        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        let mut recorder = program(folder.path(), &["--cgroup", cgroup.path()])?.start()?;
        try_poll_until(SOON, "the recording", || Ok(read(&data).is_ok().then_some(())))?;
        fs::remove_dir(cgroup.dir())?;
        fs::create_dir(cgroup.dir())?;
        let finished = recorder.wait(SOON)?;
        ensure!(finished.code() == 0, "{finished:?}");
        ensure!(finished.stderr.contains("because the cgroup was removed"), "{finished:?}");
        fs::remove_dir(cgroup.dir())?;
        leftovers::none()
    })
}

/// COMMAND would sleep before its exec, and is waited for.
#[test]
fn nothing_is_run_in_a_frozen_cgroup() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        fs::write(cgroup.dir().join("cgroup.freeze"), "1")?;
        let said = format!("cgroup {} is frozen", cgroup.dir().display());
        for verb in ["record", "stat"] {
            let args = [verb, "--cgroup", cgroup.path(), "--", "true"];
            let refused = memstock(args)?.finish(SOON)?;
            ensure!(refused.code() == 122 && refused.stderr.contains(&said), "{refused:?}");
        }
        drop(cgroup);
        leftovers::none()
    })
}
