//! The patch's table, measured here, as text.

use std::io::{self, Write};

use crate::bench::machine::Machine;
use crate::bench::statistics::Estimate;
use crate::bench::table1::{Block, Row, Table1};
use crate::view::show::table::plain;

/// Writes it.
///
/// # Errors
/// `out` cannot be written.
pub fn write(out: &mut dyn Write, table: &Table1) -> io::Result<()> {
    let Table1 { machine, pages, rounds, slice_ms, kernel_charges_always, blocks } = table;
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

/// What a row is called, its levels with it.
pub(super) fn label(row: &Row) -> String {
    match row.depth {
        Some(1) => format!("{}, 1 level", row.name),
        Some(depth) => format!("{}, {depth} levels", row.name),
        None => row.name.clone(),
    }
}

fn block(out: &mut dyn Write, block: &Block) -> io::Result<()> {
    let Block { cpus, control, control_ns, control_misses, rows } = block;
    let counted = |misses: &Option<Estimate>| match misses {
        Some(misses) => format!("{:.2}", misses.median),
        None => "not available".to_owned(),
    };
    writeln!(
        out,
        "\n{cpus} busy CPU(s): nothing attached, {} M faults/s, {} ns of CPU time each; cache \
         misses a fault: {}",
        million(control),
        control_ns.digits(0),
        counted(control_misses)
    )?;
    let mut head = vec![
        "ATTACHED",
        "DELIVERS",
        "M FAULTS/S",
        "OF NOTHING ATTACHED",
        "BY CPU TIME",
        "ADDED NS A PAGE",
        "SLICES",
    ];
    if control_misses.is_some() {
        head.push("MISSES A FAULT");
    }
    let mut table = plain(head, &[0, 1]);
    for row in rows {
        let mut cells = vec![
            label(row),
            row.delivers.to_owned(),
            million(&row.rate),
            row.ratio.digits(3),
            row.cpu_ratio.digits(3),
            row.added_ns.digits(0),
            row.slices.to_string(),
        ];
        if control_misses.is_some() {
            cells.push(counted(&row.misses));
        }
        table.add_row(cells);
    }
    writeln!(out, "{table}")
}

fn million(rate: &Estimate) -> String {
    format!("{:.3}", rate.median / 1e6)
}
