//! During a minute of stress-ng, memstock and the kernel agree on the owner of at least 99.9 % of its user pages, at
//! every check.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use memstock_tests::audit::{Audit, beside};
use memstock_tests::kernel_cgroup::ABSENT;
use memstock_tests::live::{live, name};
use memstock_tests::load::Frozen;
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::Program;
use memstock_tests::skip::skip;
use memstock_tests::task::enter_both;
use memstock_tests::{Engine, KernelCgroup, TestCgroup, lru, scaled};
use rustix::process::Signal;

/// Stressors for every kind of memory that work in any container. Without a random seed, so that runs are alike, and
/// killable first when memory is short.
const STRESSORS: &str = "--no-rand-seed --oomable --vm 2 --vm-bytes 256m \
    --vm-madvise hugepage --mmap 1 --mmap-bytes 64m --mremap 1 --mremap-bytes 32m --fork 1 --fork-max 8 \
    --shm 1 --shm-bytes 8m --shm-objs 16 --shm-sysv 1 --shm-sysv-bytes 8m --shm-sysv-segs 4 --memfd 1 \
    --memfd-bytes 64m --hdd 1 --hdd-bytes 256m --copy-file 1 --copy-file-bytes 128m --readahead 1 \
    --readahead-bytes 64m";
/// Size of the test's own disk for their files.
const DISK_SIZE: u64 = 1 << 30;
const DISK: &str = "disk";
const MOUNT: &str = "mount";
/// The disk's image is in a tmpfs, so that the host's own file systems are not involved.
const TMPFS: &str = "/dev/shm";
/// Mounts the disk `$0` at `$1` in a private mount namespace, which ends with its last task.
const MOUNTED: &str = r#"mount -o loop "$0" "$1" && exec stress-ng --temp-path "$1" --timeout"#;
const MINUTE: Duration = Duration::from_secs(60);
/// Between two checks.
const LOOK: Duration = Duration::from_secs(4);
/// Minimum of checks; if they take long, the test takes more than a minute.
const LOOKS: u32 = 8;
/// When stress-ng ends at the latest, s.
const END: u32 = 600;
/// Minimum agreement on user pages, in percent.
const AGREEMENT: f64 = 99.9;

/// Compares both sides while the stressors are frozen.
fn look(engine: &Engine, cgroup: &TestCgroup, kernel: &KernelCgroup) -> Result<Audit> {
    let _frozen = Frozen::freeze(cgroup)?;
    lru::drain()?;
    engine.audit_at_rest(&beside(cgroup, kernel))
}

/// The command that runs the stressors for `seconds` on the disk in `dir`.
fn stress(dir: &Path, seconds: u32) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", &format!("{MOUNTED} {seconds}s {STRESSORS}")])
        .args([dir.join(DISK), dir.join(MOUNT)]);
    command
}

/// Makes the disk image in `dir`.
fn disk(dir: &Path) -> Result<()> {
    let file = dir.join(DISK);
    File::create(&file)?.set_len(DISK_SIZE)?;
    fs::create_dir(dir.join(MOUNT))?;
    let made =
        Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&file).output().context("mkfs.ext4")?;
    ensure!(made.status.success(), "mkfs.ext4: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

#[test]
#[ignore = "long"]
fn stress_ng_is_charged_as_the_kernel_does() -> Result<()> {
    live(|| {
        if Command::new("stress-ng").arg("--version").output().is_err() {
            skip(&name(), "stress-ng is not installed");
            return Ok(());
        }
        let dir = tempfile::Builder::new().prefix("memstock-test-").tempdir_in(TMPFS)?;
        let cgroup = TestCgroup::new()?;
        let Some(kernel) = KernelCgroup::beside(&cgroup)? else {
            skip(&name(), ABSENT);
            return Ok(());
        };
        disk(dir.path())?;
        // Its programs are on the host's file system. For each lookup, ext4 reads ahead up to 32 inode blocks into
        // unmovable pages: 186 such pages were seen after the host's caches had been dropped, 0.1 % of all. A run
        // before the engine starts reads them in.
        let before = Program::from(stress(dir.path(), 1)).finish(SOON)?;
        ensure!(before.code() == 0, "{before:?}");
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        let mut command = stress(dir.path(), END);
        enter_both(&mut command, &cgroup, &kernel)?;
        let mut stress = Program::from(command).start()?;
        let time = MINUTE * scaled(100) / 100;
        let start = Instant::now();
        let (mut looks, mut least, mut pages) = (0_u32, 100.0_f64, 0);
        loop {
            sleep(LOOK);
            if start.elapsed() >= time && looks >= scaled(LOOKS) {
                stress.signal(Signal::INT)?;
                break;
            }
            ensure!(stress.ended()?.is_none(), "it has ended: {}", stress.stderr()?);
            let audit = look(&engine, &cgroup, &kernel)?;
            eprintln!("{:2} s: {audit}", start.elapsed().as_secs());
            let counts = audit.agreement()?.counts;
            let (different, all) = (counts.different(), counts.either());
            // A check may fall between two mappings.
            if all == 0 {
                continue;
            }
            let percent = 100.0 - 100.0 * different as f64 / all as f64;
            ensure!(percent >= AGREEMENT, "only {percent} % agree: {audit}");
            let file = audit.file;
            let cache = file.both + file.only_ours + file.only_kernels;
            ensure!(
                1000 * (file.only_ours + file.only_kernels) <= cache.max(1000),
                "of the page cache: {audit}"
            );
            (looks, least) = (looks + 1, least.min(percent));
            pages = pages.max(all);
        }
        let ended = stress.wait(SOON)?;
        ensure!(ended.code() == 0, "{ended:?}");
        ensure!(pages > 10_000, "{looks} looks at {pages} pages: it hardly ran");
        eprintln!(
            "{looks} looks, at least {least} %, at most {pages} pages; {:?}",
            engine.show()?.loss
        );
        drop(dir);
        nothing_left(&engine, &cgroup, &kernel)?;
        engine.stop().map(drop)
    })
}

/// Checks that only a little page cache of the host's file systems is left: what was not cached before. That of the
/// disk went with it. Both sides agree, except on inode blocks that ext4 may have read ahead, up to 32 at a time,
/// where the run before did not look.
fn nothing_left(engine: &Engine, cgroup: &TestCgroup, kernel: &KernelCgroup) -> Result<()> {
    const CACHED: u64 = 4096;
    const UNSEEN: u64 = 2 * 32;
    let mut last = String::new();
    let audit = try_poll_until(SOON, "both sides to be empty", || {
        lru::drain()?;
        let audit = engine.audit(beside(cgroup, kernel))?;
        let (user, file) = (audit.agreement()?.counts, audit.kind("file"));
        let (owned, exact, kinds) = (audit.owned, audit.exact, &audit.kinds);
        last = format!("{owned} pages (exact: {exact}) of {kinds:?}; {audit}");
        let settled = audit.exact
            && user == file
            && (file.only_ours, file.other) == (0, 0)
            && file.only_kernels <= UNSEEN
            && audit.owned == file.both;
        if settled {
            return Ok(Some(audit));
        }
        engine.heal()?;
        Ok(None)
    })
    .with_context(|| last.clone())?;
    audit.check()?;
    eprintln!("left: {last}");
    ensure!(audit.owned <= CACHED, "{audit}");
    Ok(())
}
