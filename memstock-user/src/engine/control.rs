//! Asks the kernel half for changes: runs its control programs with `BPF_PROG_TEST_RUN`.

use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _};
use memstock_common::MAX_DEPTH;
use memstock_common::adopt::Window;
use memstock_common::control::{
    Answer, Drain, Flush, Index, Limits, MAX_ARGS, Refusal, Register, Reset, Swapped,
};
use memstock_common::event::Unknown;

use super::pins::Pins;
use super::{Engine, program};
use crate::exit::Failure;

/// The control programs of a pinned engine. They are opened when the first of them is run: a verb that only reads needs
/// none, and aya first tries out what the kernel can do, by loading programs. A daemon opens them at once
/// ([`Engine::open_with_control`]), whatever becomes of the pins.
pub struct Control {
    pins: Pins,
    programs: OnceLock<Programs>,
}

struct Programs {
    register: RawTracePoint,
    reset: RawTracePoint,
    close: RawTracePoint,
    flush: RawTracePoint,
    release: RawTracePoint,
    swapped: RawTracePoint,
    renew_lease: RawTracePoint,
    rearm: RawTracePoint,
    limits: RawTracePoint,
    drain: RawTracePoint,
    adopt: RawTracePoint,
    doubt: RawTracePoint,
    disown: RawTracePoint,
    reparent: RawTracePoint,
    doubt_free: RawTracePoint,
    disown_free: RawTracePoint,
    file_pages: RawTracePoint,
}

impl Programs {
    fn open(pins: &Pins) -> Result<Self> {
        let open = |name| program::open(pins, name);
        Ok(Self {
            register: open("control_register")?,
            reset: open("control_reset")?,
            close: open("control_close")?,
            flush: open("control_flush")?,
            release: open("control_release")?,
            swapped: open("control_swapped")?,
            renew_lease: open("control_renew_lease")?,
            rearm: open("control_rearm")?,
            limits: open("control_limits")?,
            drain: open("control_drain")?,
            adopt: open("control_adopt")?,
            doubt: open("control_doubt")?,
            disown: open("control_disown")?,
            reparent: open("control_reparent")?,
            doubt_free: open("control_doubt_free")?,
            disown_free: open("control_disown_free")?,
            file_pages: open("control_file_pages")?,
        })
    }
}

impl Engine {
    /// Opens the pinned engine and its control programs.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_with_control(pins: &Pins) -> Result<Self> {
        let engine = Self::open(pins)?;
        engine.control().programs()?;
        Ok(engine)
    }
}

impl Control {
    /// The control programs with these pins.
    pub fn of(pins: &Pins) -> Self {
        Self { pins: pins.clone(), programs: OnceLock::new() }
    }

    fn programs(&self) -> Result<&Programs> {
        if let Some(programs) = self.programs.get() {
            return Ok(programs);
        }
        let programs = Programs::open(&self.pins)?;
        Ok(self.programs.get_or_init(|| programs))
    }

    pub(super) fn register(&self, args: Register) -> Result<()> {
        run(&self.programs()?.register, "control_register", args.to_args()).map(drop)
    }

    pub(super) fn reset(&self, index: u32, cpu: u32) -> Result<()> {
        run(&self.programs()?.reset, "control_reset", Reset { index, cpu }.to_args()).map(drop)
    }

    pub(super) fn close(&self, index: u32) -> Result<()> {
        run(&self.programs()?.close, "control_close", Index { index }.to_args()).map(drop)
    }

    pub(super) fn flush(&self, index: u32, cpu: u32, slot: u32) -> Result<u32> {
        run(&self.programs()?.flush, "control_flush", Flush { index, cpu, slot }.to_args())
    }

    /// Frees the counter of a dying cgroup.
    ///
    /// # Errors
    /// It is tracked, or something is charged to it.
    pub fn release(&self, index: u32) -> Result<()> {
        run(&self.programs()?.release, "control_release", Index { index }.to_args()).map(drop)
    }

    /// Sets how many pages the cgroup's own tasks have in swap.
    ///
    /// # Errors
    /// There is no such counter.
    pub fn swapped(&self, index: u32, nr_pages: u64) -> Result<()> {
        run(&self.programs()?.swapped, "control_swapped", Swapped { index, nr_pages }.to_args())
            .map(drop)
    }

    /// Renews the lease: for a second the kernel half throttles tasks above a limit.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn renew_lease(&self) -> Result<()> {
        run(&self.programs()?.renew_lease, "control_renew_lease", [0; MAX_ARGS]).map(drop)
    }

    /// Makes the next limit hit at this counter send its event at once.
    ///
    /// # Errors
    /// There is no such counter.
    pub fn rearm(&self, index: u32) -> Result<()> {
        run(&self.programs()?.rearm, "control_rearm", Index { index }.to_args()).map(drop)
    }

    /// Sets limits, all of the request or none; waits while somebody else sets some. The inner error says why it was
    /// refused: [`Refusal::Busy`] or [`Refusal::Order`].
    ///
    /// # Errors
    /// There is no such counter.
    pub fn limits(&self, asked: Limits) -> Result<Result<(), Refusal>> {
        const NAME: &str = "control_limits";
        let deadline = Instant::now() + Duration::from_secs(1);
        loop {
            match answer(&self.programs()?.limits, NAME, asked.to_args())?.result() {
                Err(Ok(Refusal::Setting)) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(1));
                }
                Err(Ok(why @ (Refusal::Busy | Refusal::Order))) => return Ok(Err(why)),
                other => return accepted(NAME, other).map(|_| Ok(())),
            }
        }
    }

    /// Drains one slot of one CPU if it is cached for the subtree of counter `subtree` (`NO_INDEX`: for anybody), and
    /// returns the pages given back.
    ///
    /// # Errors
    /// There is no such CPU or slot.
    pub fn drain(&self, cpu: u32, slot: u32, subtree: u32) -> Result<u32> {
        run(&self.programs()?.drain, "control_drain", Drain { cpu, slot, subtree }.to_args())
    }
}

impl Control {
    /// Charges pages of `window` without an owner to its cgroup; returns how many there were. They stay marked until
    /// they are allocated or freed.
    ///
    /// # Errors
    /// There is no such counter, or a page frame is outside the owner map.
    pub fn adopt(&self, window: Window) -> Result<u32> {
        run(&self.programs()?.adopt, "control_adopt", window.to_args())
    }

    /// Marks pages of `window` that its cgroup owns; returns how many it marked.
    ///
    /// # Errors
    /// As for [`adopt`](Self::adopt).
    pub fn doubt(&self, window: Window) -> Result<u32> {
        run(&self.programs()?.doubt, "control_doubt", window.to_args())
    }

    /// Uncharges pages of `window` that its cgroup owns and that are still marked; returns how many
    /// there were.
    ///
    /// # Errors
    /// As for [`adopt`](Self::adopt).
    pub fn disown(&self, window: Window) -> Result<u32> {
        run(&self.programs()?.disown, "control_disown", window.to_args())
    }

    /// Gives pages of `window` that a dying cgroup owns to its parent counter, which may be dying as well; returns how many
    /// there were.
    ///
    /// # Errors
    /// As for [`adopt`](Self::adopt); it is tracked, or has no parent.
    pub fn reparent(&self, window: Window) -> Result<u32> {
        run(&self.programs()?.reparent, "control_reparent", window.to_args())
    }

    /// Marks pages of `window` that have an owner although they are free; returns how many it marked.
    ///
    /// # Errors
    /// A page frame is outside the owner map.
    pub fn doubt_free(&self, window: Window) -> Result<u32> {
        run(&self.programs()?.doubt_free, "control_doubt_free", window.to_args())
    }

    /// Uncharges pages of `window` that are marked and free, and clears the mark of those that are not free; returns
    /// how many it uncharged.
    ///
    /// # Errors
    /// As for [`doubt_free`](Self::doubt_free).
    pub fn disown_free(&self, window: Window) -> Result<u32> {
        run(&self.programs()?.disown_free, "control_disown_free", window.to_args())
    }

    /// Stores the file of each page of `window` in the map `FILE_PAGES`; returns how many are page cache.
    ///
    /// # Errors
    /// As for [`doubt_free`](Self::doubt_free).
    pub(super) fn file_pages(&self, window: Window) -> Result<u32> {
        run(&self.programs()?.file_pages, "control_file_pages", window.to_args())
    }
}

fn run(program: &RawTracePoint, name: &str, args: [u64; MAX_ARGS]) -> Result<u32> {
    accepted(name, answer(program, name, args)?.result())
}

fn answer(program: &RawTracePoint, name: &str, args: [u64; MAX_ARGS]) -> Result<Answer> {
    let result = program
        .test_run(RawTracePointRunOptions { args, cpu: None })
        .with_context(|| format!("cannot run the program {name}"))?;
    Ok(Answer(result.return_value))
}

fn accepted(name: &str, result: Result<u32, Result<Refusal, Unknown>>) -> Result<u32> {
    result.map_err(|refusal| {
        let why = match refusal {
            Ok(Refusal::Missing) => "no such counter, CPU or slot".to_owned(),
            Ok(Refusal::Taken) => "the cgroup is tracked already".to_owned(),
            Ok(Refusal::Busy) => {
                "the usage is above that limit, or something is still charged".to_owned()
            }
            Ok(Refusal::Full) => "the kernel has no room for one more tracked cgroup".to_owned(),
            Ok(Refusal::Deep) => format!("more than {MAX_DEPTH} levels of tracked cgroups"),
            Ok(Refusal::Setting) => "limits are being set: try again".to_owned(),
            Ok(Refusal::Order) => {
                "memory and swap together may not be limited to less than memory alone".to_owned()
            }
            Err(unknown) => unknown.to_string(),
        };
        Failure::Other.error(format!("{name} refused: {why}"))
    })
}
