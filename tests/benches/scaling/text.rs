//! The forecast of larger machines as text.

use std::fmt;

use memstock::view::show::table::plain;

use crate::forecast::{BATCHES, CPUS, Forecast, SOCKETS};

impl fmt::Display for Forecast {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { page_ns, transfer_ns: [local, remote], depth, shares, auto, patch } = self;
        writeln!(
            out,
            "All CPUs map, touch and unmap in one cgroup of {depth} levels: {page_ns} ns a page, {local} ns \
             for a line\nof the same socket, {remote} ns from another. The part of the ideal:"
        )?;
        for sockets in SOCKETS {
            let mut table = plain(
                std::iter::once("BATCH".to_owned()).chain(CPUS.map(|cpus| format!("{cpus} CPUS"))),
                &[],
            );
            for batch in BATCHES {
                let row = shares.iter().filter(|s| s.sockets == sockets && s.batch == batch);
                let cells = row.map(|share| format!("{:.2}", share.share));
                table.add_row(std::iter::once(batch.to_string()).chain(cells));
            }
            let row: Vec<_> = auto.iter().filter(|share| share.sockets == sockets).collect();
            let cells = row.iter().map(|share| format!("{}: {:.2}", share.batch, share.share));
            table.add_row(std::iter::once("auto".to_owned()).chain(cells));
            writeln!(out, "\n{sockets} socket(s)\n{table}")?;
        }
        writeln!(out, "\nauto: two pages for each CPU, from 32 to 256.\n")?;
        let off = |error: f64| format!("{:+.1} %", 100.0 * error);
        writeln!(
            out,
            "The patch's own 8 CPUs: an operation on the counter took {:.0} ns and the rest of a memory cgroup \
             {:.0} ns\na page, by its first two rows. The third row is then {:.2} M faults; measured were {:.2} M \
             ({}; {} to {}\nif an unmap uncharged 8 or 256 pages at once).",
            patch.transfer_ns,
            patch.added_ns,
            patch.expected / 1e6,
            patch.measured / 1e6,
            off(patch.expected / patch.measured - 1.0),
            off(patch.errors[0]),
            off(patch.errors[1]),
        )
    }
}
