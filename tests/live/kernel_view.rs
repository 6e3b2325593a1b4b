//! `memstock kernel`: the kernel's stock that it shows equals the kernel's counter minus the pages known to be in use,
//! and can be computed in closed form.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use memstock::engine::kernel_slots::KernelSlots;
use memstock::host;
use memstock::model::kernel::{CpuStocks, owned};
use memstock_tests::hotplug::{CpuOffline, can_go_offline};
use memstock_tests::interrupts::received;
use memstock_tests::kernel_cgroup::ABSENT;
use memstock_tests::live::name;
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::{Finished, memstock};
use memstock_tests::skip::skip;
use memstock_tests::task::enter_dir;
use memstock_tests::workload::cpus::on;
use memstock_tests::{KernelCgroup, PAGE, Task, leftovers, live};
use serde_json::Value;

/// `MEMCG_CHARGE_BATCH` since Linux 6.0; 32 before (`include/linux/memcontrol.h`).
const BATCH: u64 = 64;

/// A task that was moved into a memory cgroup of its own after its start, so that only the pages that it touches, and
/// the kernel's for it, are charged there.
struct Charged {
    // Dropped in this order: the cgroup must be empty.
    task: Task,
    cgroup: KernelCgroup,
    /// Pages that it has touched.
    nr_pages: u64,
}

impl Charged {
    fn start(cpu: u32) -> Result<Option<Self>> {
        let Some(cgroup) = KernelCgroup::new()? else {
            skip(&name(), ABSENT);
            return Ok(None);
        };
        let task = Task::start_outside(Some(cpu))?;
        fs::write(cgroup.dir().join("cgroup.procs"), task.id().to_string()).context("moving")?;
        Ok(Some(Self { task, cgroup, nr_pages: 0 }))
    }

    /// Touches pages whose page tables exist already.
    fn touch(&mut self, nr_pages: u64) -> Result<()> {
        self.nr_pages += self.task.touch(nr_pages)?;
        Ok(())
    }

    /// The kernel's counter, and the pages in the slots of all CPUs, or of one. The task waits, but others may evict
    /// its slots in between; then it looks again.
    fn look(&self, slots: &mut KernelSlots, cpu: Option<u32>) -> Result<(u64, u64)> {
        for _ in 0..100 {
            let before = self.in_slots(&slots.look()?, cpu)?;
            let usage = self.cgroup.usage_pages()?;
            if self.in_slots(&slots.look()?, cpu)? == before {
                return Ok((usage, before));
            }
        }
        bail!("{} is never still", self.cgroup.path())
    }

    fn in_slots(&self, cpus: &[CpuStocks], cpu: Option<u32>) -> Result<u64> {
        let id = self.cgroup.inode()?;
        let cpus = cpus.iter().filter(|it| cpu.is_none_or(|cpu| it.cpu == cpu));
        let slots = cpus.flat_map(|cpu| owned(&cpu.pages)).filter(|slot| slot.cgroup_id == id);
        Ok(slots.map(|slot| slot.left).sum())
    }

    /// Pages that the kernel has allocated for the task, usually none, since its pipes have theirs already. v1 counts
    /// them exactly and at once, without stock, in `memory.kmem.usage_in_bytes`. v2's `memory.stat` lags, so there
    /// they are usage minus slots and touched pages.
    fn kernels(&self, usage: u64, in_slots: u64) -> Result<u64> {
        let nr_pages = match self.cgroup.is_v2() {
            true => {
                (usage - in_slots).checked_sub(self.nr_pages).context("more used than charged")?
            }
            false => self.cgroup.kmem_pages()?,
        };
        ensure!(nr_pages <= 8, "{nr_pages} pages of the kernel's own for a task that waits");
        Ok(nr_pages)
    }
}

/// Each page takes one from the slot; when that is empty, a batch is charged. If the slot is drained in between,
/// because others need it or the kernel reclaims, it starts anew. The counter shows that by not being a multiple of a
/// batch.
#[test]
fn a_slot_holds_what_the_closed_form_says() -> Result<()> {
    const CPU: u32 = 0;
    live(|| {
        let Some(mut charged) = Charged::start(CPU)? else { return Ok(()) };
        let mut slots = KernelSlots::load(true)?;
        // Pages charged when the slot was last drained, and how often it was.
        let (mut since, mut given_back, mut kernels) = (0, 0, 0);
        for n in 1..=200 {
            charged.touch(1)?;
            let (usage, seen) = charged.look(&mut slots, Some(CPU))?;
            kernels = charged.kernels(usage, seen)?;
            let used = n + kernels;
            if (usage - since) % BATCH != 0 {
                // It was drained before the last page was charged, or after.
                since = if seen == 0 { used } else { used - 1 };
                given_back += 1;
            }
            let expected = (BATCH - (used - since) % BATCH) % BATCH;
            ensure!(
                seen == expected && usage == used + seen,
                "{n} pages, {kernels} of the kernel's, {usage} charged: {expected} left, and {seen} are shown"
            );
        }
        eprintln!("200 pages, {kernels} of the kernel's own; given back early {given_back} times");
        ensure!(given_back <= 20, "given back {given_back} times by others");
        // The command shows the same, if others leave the slot alone meanwhile.
        let row = try_poll_until(SOON, "a look at a slot that is still", || {
            let shown = json(&["--cgroup", charged.cgroup.path()])?;
            let rows = shown["cgroups"].as_array().context("no cgroups")?;
            ensure!(rows.len() == 1 && rows[0]["path"] == charged.cgroup.path(), "{shown:#}");
            Ok((rows[0]["error"] == 0).then(|| rows[0].clone()))
        })?;
        let [usage, stranded, net] = ["usage", "stranded", "net"]
            .map(|member| row[member].as_u64().map(|bytes| bytes / PAGE));
        ensure!(net == Some(200 + kernels), "{row:#}");
        ensure!(usage.zip(net).map(|(usage, net)| usage - net) == stranded, "{row:#}");
        // So does memory.stat, with a delay.
        let cgroup = &charged.cgroup;
        try_poll_until(SOON, "memory.stat to say what net usage is", || {
            let parts = cgroup.anonymous_pages()? + cgroup.cache_pages()? + cgroup.kmem_pages()?;
            Ok((Some(parts) == net).then_some(()))
        })
    })
}

/// One more cgroup than slots, in turns on one CPU: one of them has no slot, whichever the kernel chose (at random in
/// 6.16, round robin since). The rest of each batch is in a slot, or was given back.
#[test]
fn one_more_than_there_are_slots_evicts() -> Result<()> {
    const CPU: u32 = 0;
    live(|| {
        let mut slots = KernelSlots::load(true)?;
        let nr_slots = slots.look()?.first().map_or(0, |cpu| cpu.pages.len());
        let mut all = Vec::new();
        for _ in 0..=nr_slots {
            let Some(charged) = Charged::start(CPU)? else { return Ok(()) };
            all.push(charged);
        }
        let ids = all.iter().map(|it| it.cgroup.inode()).collect::<Result<BTreeSet<_>>>()?;
        let (mut holders, mut last_has_one) = (BTreeSet::new(), 0);
        for _ in 0..20 {
            for turn in 0..all.len() {
                all[turn].touch(3)?;
                let cpus = slots.look()?;
                let here = cpus.iter().find(|cpu| cpu.cpu == CPU).context("CPU 0")?;
                let ours: Vec<_> =
                    owned(&here.pages).filter(|slot| ids.contains(&slot.cgroup_id)).collect();
                let owners: BTreeSet<_> = ours.iter().map(|slot| slot.cgroup_id).collect();
                ensure!(owners.len() == ours.len() && ours.len() <= nr_slots, "{ours:?}");
                ensure!(ours.iter().all(|slot| slot.left <= BATCH), "{ours:?}");
                last_has_one += u64::from(owners.contains(&all[turn].cgroup.inode()?));
                holders.insert(owners);
                for charged in &all {
                    let (usage, seen) = charged.look(&mut slots, None)?;
                    let used = charged.nr_pages + charged.kernels(usage, seen)?;
                    ensure!(usage == used + seen, "{usage} charged, {used} used, {seen} in slots");
                }
            }
        }
        let turns = 20 * all.len() as u64;
        eprintln!(
            "{} cgroups in {nr_slots} slots: {} sets of holders, {last_has_one} of {turns} times who charged last has one",
            all.len(),
            holders.len()
        );
        ensure!(holders.len() > 1, "nobody was ever evicted");
        ensure!(last_has_one > turns / 2, "{last_has_one} of {turns}");
        Ok(())
    })
}

#[test]
fn a_cpu_that_goes_has_nothing() -> Result<()> {
    const CPU: u32 = 1;
    live(|| {
        if !can_go_offline(CPU) {
            skip(&name(), "CPU 1 cannot be taken offline here");
            return Ok(());
        }
        let Some(mut charged) = Charged::start(CPU)? else { return Ok(()) };
        let mut slots = KernelSlots::load(true)?;
        charged.touch(10)?;
        let (usage, held) = charged.look(&mut slots, Some(CPU))?;
        ensure!(held > 0 && held < BATCH, "{held} pages after 10");
        let offline = CpuOffline::take(CPU)?;
        ensure!(slots.look()?.iter().all(|cpu| cpu.cpu != CPU), "it is offline");
        let (left, seen) = charged.look(&mut slots, None)?;
        ensure!(usage - left == held && seen == 0, "{held} held, {usage} to {left}, {seen} seen");
        offline.back()?;
        let cpus = slots.look()?;
        ensure!(cpus.iter().any(|cpu| cpu.cpu == CPU), "{cpus:?}");
        ensure!(charged.in_slots(&cpus, None)? == 0, "{cpus:?}");
        eprintln!("{held} pages were given back");
        Ok(())
    })
}

/// Exact: the kernel adds up its CPUs' counts at least every 2 s (`FLUSH_TIME`), so `memory.stat` may lag, but is not
/// wrong.
#[test]
fn on_v2_memory_stat_has_what_is_not_in_slots() -> Result<()> {
    live(|| {
        let Some(mut charged) = Charged::start(0)? else { return Ok(()) };
        if !charged.cgroup.is_v2() {
            skip(
                &name(),
                "the memory controller is on cgroup v1, whose memory.stat has no kernel memory",
            );
            return Ok(());
        }
        let (mut slots, dir) = (KernelSlots::load(true)?, tempfile::tempdir()?);
        for nr_pages in [1, 30, 200] {
            charged.touch(nr_pages)?;
            // Page cache, and the kernel's memory for a file.
            let mut write = Command::new("sh");
            write
                .args(["-c", "head -c 200000 /dev/zero > $0"])
                .arg(dir.path().join(nr_pages.to_string()));
            enter_dir(&mut write, charged.cgroup.dir())?;
            ensure!(write.status()?.success(), "writing a file");
            let (usage, parts) = try_poll_until(SOON, "memory.stat to add up", || {
                let (usage, seen) = charged.look(&mut slots, None)?;
                let parts = charged.cgroup.accounted_pages()?;
                Ok((usage - seen == parts).then_some((usage, parts)))
            })?;
            ensure!(parts > charged.nr_pages, "no file in {parts} pages");
            eprintln!("{usage} pages charged, {} in slots, {parts} in memory.stat", usage - parts);
        }
        Ok(())
    })
}

fn run(args: &[&str]) -> Result<Finished> {
    memstock(["kernel", "--isolated"].iter().chain(args))?.finish(SOON)
}

/// Its JSON, checked against the schema.
fn json(args: &[&str]) -> Result<Value> {
    const SCHEMA: &str = include_str!("../../docs/schema/kernel.schema.json");
    let finished = run(&[&["--json"], args].concat())?;
    ensure!(finished.code() == 0 && finished.stderr.is_empty(), "{finished:?}");
    let schema = jsonschema::validator_for(&serde_json::from_str(SCHEMA)?)?;
    let mut last = Value::Null;
    let values = serde_json::Deserializer::from_str(&finished.stdout).into_iter::<Value>();
    for value in values {
        last = value?;
        let errors: Vec<_> = schema.iter_errors(&last).map(|error| error.to_string()).collect();
        ensure!(errors.is_empty(), "{errors:?} in {last:#}");
    }
    Ok(last)
}

#[test]
fn the_command_line() -> Result<()> {
    live(|| {
        let Some(mut charged) = Charged::start(0)? else { return Ok(()) };
        charged.touch(20)?;
        let path = charged.cgroup.path().to_owned();
        let dir = charged.cgroup.dir().display().to_string();
        let watched = json(&["--watch", "-n", "3", "--delay", "0.1", "--cgroup", &dir])?;
        ensure!(watched["since"]["changed_hands"].is_u64(), "{watched:#}");
        ensure!(json(&["--cgroup", &path])?["since"].is_null());
        let table = run(&[])?;
        let has = |line: &str| line.split_whitespace().any(|word| word == path);
        ensure!(table.stdout.lines().filter(|line| has(line)).count() == 2, "{table:?}");
        for (args, code, said) in [
            (&["--cgroup", "/memstock-test-none"][..], 122, "no memory cgroup"),
            (&["--cgroup", "/a/../b"], 122, "\"..\""),
            (&["--delay", "2"], 2, "--watch"),
            (&["--watch", "--delay", "0"], 2, "seconds"),
        ] {
            let refused = run(args)?;
            ensure!(refused.code() == code && refused.stdout.is_empty(), "{args:?}: {refused:?}");
            let one_line = refused.stderr.lines().count() == 1 && refused.stderr.contains(said);
            ensure!(one_line, "{args:?}: {refused:?}");
        }
        leftovers::nothing_held()
    })
}

/// Reads the kernel's stocks 30 times, on CPU 0; returns how many interrupts another CPU was sent meanwhile, and whether
/// it was read. Loading the program, which is done once, interrupts all.
fn interrupts_of(cpu: u32, args: &[&str]) -> Result<(u64, bool)> {
    let args = [&["kernel", "--json", "--watch", "-n", "30", "--delay", "0.1"], args].concat();
    let before = received()?;
    let finished = on(0, || memstock(&args)?.finish(SOON))?;
    let sent = received()?[&cpu] - before[&cpu];
    ensure!(finished.code() == 0, "{args:?}: {finished:?}");
    let line = finished.stdout.lines().last().context("no line")?;
    let shown: Value = serde_json::from_str(line)?;
    let cpus = shown["cpus"].as_array().context("cpus")?;
    let is_read = cpus.iter().any(|row| row["cpu"] == cpu);
    let is_named = finished.stderr.contains("isolated CPUs are not read");
    ensure!(is_named != is_read, "{}", finished.stderr);
    Ok((sent, is_read))
}

#[test]
fn isolated_cpus_are_not_interrupted() -> Result<()> {
    live(|| {
        let cpus = host::cpus()?;
        let Some(&cpu) = cpus.online.iter().find(|cpu| cpus.isolated.contains(cpu)) else {
            skip(&name(), "no CPU is isolated");
            return Ok(());
        };
        let (few, is_read) = interrupts_of(cpu, &[])?;
        ensure!(!is_read, "CPU {cpu} is isolated and was read");
        let (many, is_read) = interrupts_of(cpu, &["--isolated"])?;
        ensure!(is_read, "CPU {cpu} was not read");
        println!("CPU {cpu} was sent {few} interrupts, and {many} with --isolated");
        // A sample looks at a CPU twice. Half of these may hide behind what else interrupts it.
        ensure!(many >= few + 30, "{few} interrupts, and {many} with --isolated");
        Ok(())
    })
}
