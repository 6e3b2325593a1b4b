//! How long the tasks of a cgroup have waited for memory or for I/O: its `memory.pressure` and `io.pressure`
//! (Documentation/accounting/psi.rst).

use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::read;

/// More bytes than two lines of three percentages and a count of microseconds.
const LONGEST: usize = 256;

/// A line of such a file.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// Percent of the last ten seconds.
    pub avg10: f64,
    /// Since the cgroup was created.
    pub total: Duration,
}

/// The pressure on a cgroup, descendants included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// Time in which at least one task waited.
    pub some: Stall,
    /// Time in which no task could run because all of them waited.
    pub full: Stall,
}

impl Pressure {
    /// The file about memory.
    pub const MEMORY: &str = "memory.pressure";
    /// The file about I/O.
    pub const IO: &str = "io.pressure";

    /// That of the cgroup at `path` in the hierarchy mounted at `hierarchy`, by its file `name`; `None` if the cgroup is
    /// gone or the kernel does not account pressure for it (`psi=0`, `cgroup.pressure`). The kernel sums it up over all
    /// CPUs when it is asked.
    pub fn of(hierarchy: &Path, path: &Path, name: &str) -> Option<Self> {
        let inside = path.strip_prefix("/").unwrap_or(path);
        let file = hierarchy.join(inside).join(name);
        let file = open(file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        // The kernel writes all of it at the first read; std would ask for its size, and then for more.
        let mut text = [0; LONGEST];
        let length = read(&file, &mut text).ok()?;
        parse(str::from_utf8(&text[..length]).ok()?)
    }
}

fn parse(text: &str) -> Option<Pressure> {
    let stall = |kind: &str| {
        let mut fields = text.lines().find_map(|line| line.strip_prefix(kind))?.split_whitespace();
        let mut value = |key: &str| fields.find_map(|field| field.strip_prefix(key));
        let avg10 = value("avg10=")?.parse().ok()?;
        Some(Stall { avg10, total: Duration::from_micros(value("total=")?.parse().ok()?) })
    };
    Some(Pressure { some: stall("some ")?, full: stall("full ")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read() {
        let text = "some avg10=12.50 avg60=3.00 avg300=0.10 total=1500000\n\
            full avg10=0.00 avg60=0.00 avg300=0.00 total=42\n";
        let some = Stall { avg10: 12.5, total: Duration::from_millis(1500) };
        let full = Stall { avg10: 0.0, total: Duration::from_micros(42) };
        assert_eq!(parse(text), Some(Pressure { some, full }));
        for bad in ["", "some avg10=1 total=2\n", "some avg10=x total=2\nfull avg10=0 total=0\n"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
