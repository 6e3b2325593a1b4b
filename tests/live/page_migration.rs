//! Pages that compaction moves stay charged to the same cgroup, as by the kernel, if kernel functions can be traced
//! (`docs/limitations.md`).

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use memmap2::{Advice, MmapMut, UncheckedAdvice};
use memstock::engine::migrate;
use memstock::host::pages::{mapped_pages, own_pfn};
use memstock_tests::audit::beside;
use memstock_tests::live::{live, name};
use memstock_tests::load::Frozen;
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::skip::skip;
use memstock_tests::workload::hold::Mode;
use memstock_tests::{Engine, Holder, KernelCgroup, PAGE, TestCgroup, lru};

/// Pages to hold in each way.
const HELD: [(Mode, u32); 3] = [(Mode::AnonWrite, 8192), (Mode::Memfd, 4096), (Mode::Huge, 2048)];

/// Maps a quarter of the free memory in small pages, in this process, which is in no tracked cgroup.
fn filler() -> Result<MmapMut> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let free = text.lines().find_map(|line| line.strip_prefix("MemFree:")?.strip_suffix(" kB"));
    let free: usize = free.context("MemFree")?.trim().parse()?;
    let mut filler = MmapMut::map_anon((free * 1024 / 4).next_multiple_of(PAGE as usize))?;
    filler.advise(Advice::NoHugePage)?;
    filler.iter_mut().step_by(PAGE as usize).for_each(|byte| *byte = 1);
    Ok(filler)
}

/// Frees every other page. Compaction fills page blocks with holes, but not free ones.
fn punch(filler: &MmapMut) -> Result<()> {
    let page = PAGE as usize;
    for start in (0..filler.len()).step_by(2 * page) {
        // SAFETY: the contents are not used.
        unsafe { filler.unchecked_advise_range(UncheckedAdvice::DontNeed, start, page) }?;
    }
    Ok(())
}

/// The page frames that the holders have mapped.
fn frames(holders: &[Holder]) -> Result<BTreeSet<u64>> {
    let mut frames = BTreeSet::new();
    for holder in holders {
        mapped_pages(holder.id().cast_signed(), |page| {
            frames.insert(page.pfn);
        })?;
    }
    Ok(frames)
}

#[test]
fn pages_that_are_moved_stay_charged() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let engine = Engine::start(["--cgroup", top.path()])?;
        if let Err(error) = migrate::try_it() {
            ensure!(!engine.sees_migrations()?, "the engine sees migrations, although it cannot");
            skip(&name(), &format!("page migration cannot be seen: {error:#}"));
            return Ok(());
        }
        ensure!(engine.sees_migrations()?, "the engine does not see migrations, although it could");
        let kernel = KernelCgroup::beside(&top)?;
        let early = filler()?;
        let mut holders = Vec::new();
        for (mode, pages) in HELD {
            let mut builder = Holder::of(mode).pages(pages).cgroup(&top);
            if let Some(kernel) = &kernel {
                builder = builder.kernel(kernel);
            }
            let mut holder = builder.start()?;
            holder.get()?;
            holders.push(holder);
        }
        let late = filler()?;
        // Compaction moves pages up into holes. Whether memory is taken from high or low addresses first varies.
        let [at_first, at_last] = [&early, &late].map(|filler| own_pfn(&filler[filler.len() / 2]));
        let [high, low] = match at_first? > at_last? {
            true => [early, late],
            false => [late, early],
        };
        drop(low);
        punch(&high)?;
        lru::drain()?;
        let used = engine.used_at_rest(&top)?;
        let before = frames(&holders)?;
        let moved = try_poll_until(SOON, "compaction to move a thousand pages", || {
            fs::write("/proc/sys/vm/compact_memory", "1").context("compact_memory")?;
            let moved = before.difference(&frames(&holders)?).count();
            Ok((moved >= 1000).then_some(moved))
        })?;
        // The moves charged and uncharged nothing.
        let after = engine.used_at_rest(&top)?;
        ensure!(after == used, "{after} pages after {moved} were moved, {used} before");
        let frozen = Frozen::freeze(&top)?;
        let arguments = kernel.as_ref().map(|kernel| beside(&top, kernel).to_vec());
        let audit = engine.audit_at_rest(&arguments.unwrap_or_default())?;
        eprintln!("{moved} pages were moved: {audit}");
        if kernel.is_some() {
            ensure!(audit.agreement()?.counts.different() == 0, "{audit}");
        }
        drop(frozen);
        for holder in holders {
            holder.exit()?;
        }
        // Polls, since page tables go a grace period later, and missed frees are healed.
        try_poll_until(SOON, "all of it to be given back", || {
            lru::drain()?;
            engine.heal()?;
            Ok((engine.used_at_rest(&top)? == 0).then_some(()))
        })?;
        engine.stop().map(drop)
    })
}
