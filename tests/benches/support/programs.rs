//! The programs of a page as sequences of calls: its fault, its allocation and its free.

use anyhow::Result;
use aya::programs::{Program, RawTracePoint};
use memstock::engine::load::{Loaded, Settings};
use memstock::engine::object::PROBE;
use memstock_common::NO_LIMIT;

use crate::calls::{Arguments, Call, Home};
use crate::loaded::{empty, engine};

/// The programs of a page.
pub const PAGE: [(&str, Arguments); 3] =
    [(PROBE, Arguments::Fault), ("page_alloc", Arguments::Alloc), ("page_free", Arguments::Free)];

/// An engine that tracks the last `levels` cgroups of the chain that we are in.
pub fn tracking(settings: Settings, home: &Home, levels: usize) -> Result<Loaded> {
    let loaded = engine(settings)?;
    let mut parent = None;
    for cgroup in &home.chain[home.chain.len() - levels..] {
        parent = Some(loaded.engine.register(cgroup.id, parent, NO_LIMIT, NO_LIMIT)?);
    }
    Ok(loaded)
}

/// The programs of an engine, which can be borrowed together.
pub struct Programs {
    /// The programs of a page.
    pub page: [RawTracePoint; 3],
    /// The empty program.
    pub empty: RawTracePoint,
}

/// A handle to a loaded program that does not borrow its engine.
pub fn handle(program: &Program) -> Result<RawTracePoint> {
    Ok(RawTracePoint::from_program_info(program.info()?, "".into())?)
}

impl Programs {
    pub fn of(loaded: &mut Loaded) -> Result<Self> {
        let mut named = |name| handle(loaded.program(name)?);
        let page = PAGE.map(|(name, _)| named(name));
        let [fault, alloc, free] = page;
        Ok(Self { page: [fault?, alloc?, free?], empty: empty()? })
    }

    /// The calls of a page.
    pub fn sequence(&self) -> Vec<Call<'_>> {
        let calls = self.page.iter().zip(PAGE).map(|(program, (_, args))| Call { program, args });
        calls.collect()
    }

    pub fn nothing(&self) -> Call<'_> {
        Call { program: &self.empty, args: Arguments::None }
    }
}
