//! If the tail call falls through, the allocation charges instead, and each page is still counted.

use std::path::Path;

use anyhow::{Result, ensure};
use memstock::engine::pins::Pins;
use memstock::host;
use memstock_tests::live::{live, name};
use memstock_tests::skip::skip;
use memstock_tests::{Engine, Task, TestCgroup, bpf};

const CPU: u32 = 1;
const BATCH: u64 = 32;

/// A tail call falls through when its entry is empty, among other reasons that a test cannot cause. No tolerance: see
/// `live::faults`.
#[test]
fn counting_stays_exact_without_the_tail_call() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let mut task = Task::start(&cgroup, Some(CPU))?;
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        task.touch(1000)?;
        let whole = engine.show()?;
        if whole.cgroup(cgroup.path())?.faults.is_none() {
            skip(&name(), "without tracepoints for page faults there is no tail call");
            return engine.stop().map(drop);
        }
        ensure!(whole.loss.tail_calls_failed == 0, "without cause: {:?}", whole.loss);

        bpf::delete_entry(&Pins::on(Path::new(host::BPFFS)).map("TAIL_CALLS"), 0)?;
        let before = engine.show()?;
        task.touch(1000)?;
        let show = engine.show()?;
        let seen = show.cgroup(cgroup.path())?;
        let misses = 2000_u64.div_ceil(BATCH);
        let counted = (seen.faults(), seen.charged_pages, seen.missed());
        ensure!(counted == (2000, 2000, misses), "{seen:#?}");
        show.check()?;

        let misses = misses - before.cgroup(cgroup.path())?.missed();
        let failed = show.loss.tail_calls_failed;
        ensure!(failed == misses, "{misses} misses, {failed} tail calls failed");
        engine.stop().map(drop)
    })
}
