//! Every number that people see: its name, unit and help, declared once.
//!
//! Tables, JSON and metrics render these declarations and repeat none of the names.

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Memory; stored in pages, shown in bytes.
    Bytes,
    /// Pages.
    Pages,
    /// Anything else that is counted.
    Count,
    /// Time, in seconds.
    Seconds,
    /// Hundredths of a whole.
    Percent,
}

/// How a number behaves over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trend {
    /// Goes up and down.
    Gauge,
    /// Only goes up while the engine runs.
    Counter,
}

/// The declaration of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The name in JSON and in column heads.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// How it behaves.
    pub trend: Trend,
    /// One sentence.
    pub help: &'static str,
}

/// One of the sets of declarations below.
pub trait Stats: Copy + 'static {
    /// All of them, in the order in which they are shown.
    const ALL: &'static [Self];

    /// The declaration.
    fn stat(self) -> Stat;
}

macro_rules! stats {
    ($(#[$doc:meta])* $set:ident { $($variant:ident: $name:literal $unit:ident $trend:ident $help:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum $set { $(#[doc = $help] $variant,)+ }

        impl $set {
            /// All of them, in the order in which they are shown.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// How many there are.
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// The declaration.
            pub const fn stat(self) -> Stat {
                match self {
                    $(Self::$variant => Stat {
                        name: $name, unit: Unit::$unit, trend: Trend::$trend, help: $help,
                    },)+
                }
            }
        }

        impl Stats for $set {
            const ALL: &'static [Self] = Self::ALL;

            fn stat(self) -> Stat {
                Self::stat(self)
            }
        }
    };
}

stats! {
    /// Per CPU.
    CpuStat {
        Faults: "faults" Count Counter "Page faults of tracked cgroups; unknown where the kernel has no tracepoints for them.",
        Charged: "charged_pages" Pages Counter "Charged to tracked cgroups as they were allocated.",
        FromStock: "from_stock_pages" Pages Counter "Charged from a stock, without a charge on the shared counters.",
        Refills: "refills" Count Counter "Times charged pages were put into the stock after a miss.",
        Drains: "drains" Count Counter "Times stocked pages were given back unused.",
        Charges: "charges" Count Counter "Charges on the shared counters.",
        Uncharges: "uncharges" Count Counter "Uncharges of freed pages on the shared counters.",
    }
}

stats! {
    /// Per CPU: its state, not its work.
    CpuState {
        Online: "online" Count Gauge "Whether the CPU is online: 1, or 0.",
    }
}

stats! {
    /// Per slot of a CPU's stock.
    SlotStat {
        NrPages: "nr_pages" Pages Gauge "In the stock, pending ones included.",
        Pending: "pending" Pages Gauge "Taken from the stock by faults, and not yet by an allocation.",
        UnchargePages: "uncharge_pages" Pages Gauge "In the uncharge batch.",
    }
}

stats! {
    /// Per resource (memory, memory+swap) of a tracked cgroup.
    PageCounterStat {
        Usage: "usage" Bytes Gauge "Charged to the cgroup and its descendants, stocked pages included.",
        Limit: "limit" Bytes Gauge "Hard limit.",
        Watermark: "watermark" Bytes Gauge "Highest usage so far.",
        Failcnt: "failcnt" Count Counter "Charges refused at this cgroup's limit, batches included.",
    }
}

stats! {
    /// What the memory of a tracked cgroup consists of.
    MemoryStat {
        File: "file" Bytes Gauge "Page cache of the cgroup and its descendants that the kernel could reclaim.",
        Needed: "needed" Bytes Gauge "Usage less file and stocked: what the kernel could not reclaim without swap.",
        NeededWatermark: "needed_watermark" Bytes Gauge "Highest usage less file so far: the smallest limit at which the kernel would have killed nobody; too high by at most two batches for each slot of a CPU.",
        FileOver: "file_over_limit" Bytes Gauge "Page cache above the hard limit while needed is not above it: nobody is killed for it.",
    }
}

stats! {
    /// Per resource of a tracked cgroup, and per limit that it is under: its own and its ancestors'.
    LimitStat {
        Headroom: "headroom" Bytes Gauge "Limit less what the ancestor needs: how much more it may need before a process is killed; negative above the limit.",
        Binding: "limit_binding" Count Gauge "1 for the limit that will be reached first: the one with the least headroom, the nearest if several are equal; else 0.",
    }
}

stats! {
    /// Per tracked cgroup.
    CgroupStat {
        Stocked: "stocked" Bytes Gauge "Charged to the cgroup and not in use: in the CPUs' stocks, pending, or in an uncharge batch.",
        Faults: "faults" Count Counter "Page faults; unknown where the kernel has no tracepoints for them.",
        Charged: "charged_pages" Pages Counter "Charged as they were allocated.",
        FromStock: "from_stock_pages" Pages Counter "Charged from a stock, without a charge on the shared counters.",
        Singles: "singles" Count Counter "Charges for which only the pages needed fitted, not a batch.",
        Forced: "forced" Count Counter "Pages charged although a limit was reached.",
    }
}

stats! {
    /// Of a command that `memstock stat` ran, in addition to what is shown of its cgroup and of the CPUs.
    CommandStat {
        Peak: "peak" Bytes Gauge "Highest usage of the cgroup, stocked pages included.",
        NeededPeak: "needed_peak" Bytes Gauge "Highest usage of the cgroup less page cache that the kernel could reclaim: the smallest limit at which it would have killed nobody.",
        End: "end" Bytes Gauge "Usage of the cgroup when the command had ended: what it left behind, stocked pages included.",
        Stranded: "stranded" Bytes Gauge "Stocked for the cgroup when the command had ended: charged and not in use.",
        HitRate: "hit_rate" Percent Gauge "Pages charged from a stock, of all that were charged.",
        SharedOperations: "shared_operations" Count Counter "Charges, uncharges and drains on the shared counters.",
        WallTime: "wall_time" Seconds Gauge "From before the command's start to its end.",
        UserTime: "user_time" Seconds Gauge "In user space: the command and the processes that it has waited for.",
        SystemTime: "system_time" Seconds Gauge "In the kernel: the command and the processes that it has waited for.",
        MaxRss: "max_rss" Bytes Gauge "The kernel's figure to compare with: the largest resident set of the command or of one process that it has waited for; none when memstock's own was larger, which the kernel counts as well.",
    }
}

stats! {
    /// Of the kernel's own memory controller while `memstock stat --kernel-stock` ran a command.
    KernelStat {
        Charges: "charges" Count Counter "Charges that the kernel's own memory controller was asked for (try_charge_memcg).",
        Charged: "charged" Bytes Counter "Memory that these charges asked for.",
        SharedOperations: "shared_operations" Count Counter "Charges on its shared counters (page_counter_try_charge), for what its stocks did not have.",
    }
}

stats! {
    /// Of the kernel's own memory controller, per tracked cgroup: with `memstock run --kernel-stock`.
    KernelStockStat {
        Stranded: "stranded" Bytes Gauge "In the per-CPU stocks of the kernel's own memory controller, for the memory cgroup of this path and those below it: charged by the kernel, and used by nobody; without those of isolated CPUs, and only with --kernel-stock.",
    }
}

stats! {
    /// Per tracked cgroup, from its `memory.pressure`, where the kernel accounts pressure.
    PressureStat {
        Waiting: "waiting" Seconds Counter "Time in which at least one task of the cgroup or below it waited for memory (memory.pressure, some).",
        Stalled: "stalled" Seconds Counter "Time in which all of its tasks that could have run waited for memory (memory.pressure, full).",
    }
}

stats! {
    /// Of the engine as a whole.
    EngineStat {
        Batch: "batch" Pages Gauge "Charged at once on a miss.",
        Cgroups: "cgroups" Count Gauge "Tracked cgroups.",
        DyingCgroups: "dying_cgroups" Count Gauge "Removed cgroups that still have pages charged to them.",
        DyingUsage: "dying_usage" Bytes Gauge "Still charged to removed cgroups.",
    }
}

stats! {
    /// Of the daemon: counted from its start, not from the engine's.
    DaemonStat {
        Events: "events" Count Counter "Records of the event stream, by kind.",
        LeftOut: "cgroups_left_out" Count Counter "Times a cgroup could not be registered; it is charged to its nearest tracked ancestor instead.",
        Errors: "daemon_errors" Count Counter "Errors of the daemon, by part; each part goes on and tries again.",
        Degraded: "degraded" Count Gauge "Whether the daemon is degraded, by reason: 1, or 0.",
        Checks: "checks" Count Counter "Checks that usage is what the pages add up to, by result: exact, or moving when too much changed meanwhile.",
        Drift: "drift" Pages Gauge "Largest difference that the last exact check found in one cgroup: 0, or a defect.",
        Ownerless: "ownerless" Pages Gauge "Owned by or stocked for no counter in use, as found by the last exact check: 0, or a defect.",
    }
}

stats! {
    /// Always 1; the information is in the labels.
    Info {
        Build: "build_info" Count Gauge "The version that runs; always 1.",
        Cgroup: "cgroup_info" Count Gauge "The cgroup v2 id of a tracked cgroup, and its nearest tracked ancestor; always 1.",
    }
}

stats! {
    /// Everything that was lost, skipped, merged or done in a slower way. Also the index into the per-CPU map `LOSS`.
    Loss {
        EventsLost: "events_lost" Count Counter "Events dropped because the ring buffer was full.",
        EventsMerged: "events_merged" Count Counter "Limit events merged into one sent less than 1 ms before.",
        ReclaimsMerged: "reclaims_merged" Count Counter "Starts of reclaim merged into one reported less than 1 ms before.",
        TailCallsFailed: "tail_calls_failed" Count Counter "Misses left to the allocation because the tail call fell through.",
        RefillsReturned: "refills_returned" Pages Counter "Pages of a batch that found no room in the stock and were uncharged.",
        CountersMissing: "counters_missing" Count Counter "Charges not made because a map entry was missing: a defect if not 0.",
        Healed: "healed" Pages Counter "Pages whose free was lost, uncharged when that was found.",
        PagesOutside: "pages_outside" Pages Counter "Pages allocated or freed outside the page-owner map: not charged.",
        MovedUnseen: "moved_unseen" Pages Counter "Pages that the kernel moved unseen on this host, because its functions cannot be traced; those that were charged are now charged to nobody.",
        BlocksMixed: "blocks_mixed" Pages Counter "Pages that kept their owner because their block had too many different ones.",
    }
}

stats! {
    /// Of a drain that was asked for.
    DrainStat {
        NrPages: "nr_pages" Pages Gauge "Given back.",
        TookUs: "took_us" Count Gauge "Time from the first stock to the last, in microseconds.",
    }
}

stats! {
    /// Of the probes; counted by the kernel.
    ProbeStat {
        RecursionMisses: "recursion_misses" Count Counter "Runs of a probe that the kernel skipped because the probe was already running on that CPU, and that no second program made up for.",
    }
}

stats! {
    /// Of the event stream; not stored, since each loss is a record of its own.
    StreamStat {
        EventsUnreadable: "events_unreadable" Count Counter "Events of the kernel half that the user half could not decode.",
        RecordsLost: "records_lost" Count Counter "Records that a reader of the event stream did not get.",
    }
}
