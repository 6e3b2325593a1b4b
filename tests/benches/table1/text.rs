//! The patch's table, measured here, as text.

use std::fmt;

use memstock::view::show::table::plain;
use memstock_tests::bench::statistics::Estimate;

use crate::machine::Machine;
use crate::measure::{Block, Row, Table1};

impl fmt::Display for Table1 {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, pages, rounds, slice_ms, kernel_charges_always, blocks } = self;
        let Machine { cpu, online, sockets, kernel, srso } = machine;
        writeln!(out, "{cpu}; {online} CPU(s) in {sockets} socket(s); Linux {kernel}")?;
        if !srso.is_empty() {
            writeln!(out, "SRSO: {srso}")?;
        }
        writeln!(
            out,
            "map, touch and unmap {pages} pages, a task a CPU; {rounds} slices of {slice_ms} ms for each row, in \
             turns,\neach compared with those of nothing attached before and after it; medians with 95 % intervals"
        )?;
        if *kernel_charges_always {
            writeln!(out, "the kernel's own v2 controller charges the tasks in every row")?;
        }
        blocks.iter().try_for_each(|block| self::block(out, block))
    }
}

/// The label of a row, with its levels.
pub fn label(row: &Row) -> String {
    match row.depth {
        Some(1) => format!("{}, 1 level", row.name),
        Some(depth) => format!("{}, {depth} levels", row.name),
        None => row.name.clone(),
    }
}

fn block(out: &mut fmt::Formatter<'_>, block: &Block) -> fmt::Result {
    let Block { cpus, control, control_ns, rows } = block;
    writeln!(
        out,
        "\n{cpus} busy CPU(s): nothing attached, {} M faults/s, {} ns of CPU time each",
        million(control),
        control_ns.digits(0)
    )?;
    let head = vec![
        "ATTACHED",
        "DELIVERS",
        "M FAULTS/S",
        "OF NOTHING ATTACHED",
        "BY CPU TIME",
        "ADDED NS A PAGE",
        "SLICES",
    ];
    let mut table = plain(head, &[0, 1]);
    for row in rows {
        table.add_row([
            label(row),
            row.delivers.to_owned(),
            million(&row.rate),
            row.ratio.digits(3),
            row.cpu_ratio.digits(3),
            row.added_ns.digits(0),
            row.slices.to_string(),
        ]);
    }
    writeln!(out, "{table}")
}

fn million(rate: &Estimate) -> String {
    format!("{:.3}", rate.median / 1e6)
}
