//! `memstock bench`: measures what memstock costs here, and computes what it would cost elsewhere.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::closed_pipe_is_success;
use super::signals::Signals;
use super::start::remove_noted;
use crate::bench::peers::Peer;
use crate::bench::places::{NAME, Places};
use crate::bench::show::{self, plot};
use crate::bench::table1::{Effort, Table1, measure};
use crate::bench::{Interrupted, Stop, forecast, workers};
use crate::cli::{self, Bench, What};
use crate::engine::pins::Pins;
use crate::engine::remains::take_up;
use crate::exit::{Failure, SIGNALED};
use crate::host;
use crate::host::cgroup::{ById, CgroupMount, display};
use crate::host::lock::EngineLock;

/// Measures what is asked for; returns the exit code.
///
/// # Errors
/// An engine is running; the environment, a cgroup or the kernel does not allow it. Nothing stays behind.
pub fn bench(args: Bench) -> Result<u8> {
    match args.what {
        What::Table1(args) => table(args),
        What::Scaling(args) => {
            let forecast = forecast::forecast();
            picture(args.svg.as_deref(), || plot::forecast(&forecast))?;
            print(args.json, &forecast, |out| show::forecast::write(out, &forecast))
        }
        What::Worker(args) => workers::work(args.cpu, args.pages).map(|()| 0),
    }
}

/// The measuring blocks, so it has a thread of its own; this one hears signals.
fn table(args: cli::Table1) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut signals = Signals::catch(false)?;
        let stop = Stop::default();
        let told = stop.clone();
        let mut bench = tokio::task::spawn_blocking(move || measured(&args, &told));
        let (ended, signal) = tokio::select! {
            ended = &mut bench => (ended, None),
            signal = signals.any() => {
                stop.stop();
                (bench.await, Some(signal))
            }
        };
        match (ended.context("the bench has died")?, signal) {
            (Err(error), Some(signal)) if error.is::<Interrupted>() => {
                Ok(SIGNALED + signal.as_raw().cast_unsigned() as u8)
            }
            (ended, _) => ended,
        }
    })
}

fn measured(args: &cli::Table1, stop: &Stop) -> Result<u8> {
    host::require_privilege()?;
    let mount = CgroupMount::find()?;
    // So that none is started meanwhile, either.
    let mut lock = EngineLock::acquire()?;
    let done = measured_alone(args, stop, &mount, &mut lock);
    if let Err(error) = lock.forget(|id| mount.cgroup_of(id) == ById::Gone) {
        log::warn!("{error:#}");
    }
    drop(lock);
    let table = done?;
    picture(args.svg.as_deref(), || plot::table1(&table))?;
    print(args.json, &table, |out| show::table1::write(out, &table))
}

fn measured_alone(
    args: &cli::Table1,
    stop: &Stop,
    mount: &CgroupMount,
    lock: &mut EngineLock,
) -> Result<Table1> {
    let bpffs = host::bpffs()?;
    let pins = Pins::on(bpffs.dir);
    if take_up(&pins)?.is_some() {
        return Err(Failure::Running.error(
            "an engine is charging, and would be measured as well: end it with \"memstock stop\"",
        ));
    }
    remove_noted(mount, lock)?;
    let peers = if args.peers { peers(stop)? } else { Vec::new() };
    lock.note_making(Path::new(NAME))?;
    let top = mount.create(NAME)?;
    lock.note_cgroup(top.cgroup().id)?;
    let done = (|| {
        let places = Places::make(mount, top.cgroup())?;
        let online = host::cpus()?.online;
        let mut cpus = vec![online.clone()];
        if args.one && online.len() > 1 {
            cpus.insert(0, online[..1].to_vec());
        }
        let effort = Effort {
            rounds: args.rounds as usize,
            slice: Duration::from_millis(args.slice),
            pages: args.pages as usize,
        };
        let memstock = std::env::current_exe().context("cannot find our own program")?;
        let pins = Pins::at(bpffs.dir.join(NAME));
        measure(&effort, &cpus, &peers, &places, &memstock, &pins, stop)
    })();
    top.remove()?;
    bpffs.release()?;
    done
}

fn peers(stop: &Stop) -> Result<Vec<Peer>> {
    let (found, missing) = Peer::find(stop)?;
    for why in missing {
        log::warn!("left out: {why}");
    }
    Ok(found)
}

fn picture(file: Option<&Path>, draw: impl FnOnce() -> Result<String>) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    fs::write(file, draw()?).with_context(|| format!("cannot write {}", display(file)))
}

fn print<T: Serialize>(
    as_json: bool,
    value: &T,
    text: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
) -> Result<u8> {
    let mut out = io::stdout().lock();
    closed_pipe_is_success(if as_json {
        let json = serde_json::to_string_pretty(value).context("cannot make JSON")?;
        writeln!(out, "{json}")
    } else {
        text(&mut out)
    })
}
