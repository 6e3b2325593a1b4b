//! The results as tables, for the terminal and for `docs/measurements`, and the final verdict.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::Rehearsed;
use crate::cells::{Cell, Word, near};
use crate::degrees::Degrees;
use crate::rules::{MEMSTOCK, RULES, Rule};

const BEGIN: &str = "<!-- begin: cargo xtask bench rehearsal -->\n";
const END: &str = "<!-- end -->\n";

/// Formats bytes as the tables do.
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", in_mib(bytes))
}

fn in_mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The results of all programs.
pub struct Report<'a>(&'a [Rehearsed]);

impl<'a> Report<'a> {
    pub fn of(all: &'a [Rehearsed]) -> Self {
        Self(all)
    }

    /// Writes the report between the marks in `file`, or as the whole file if it has none.
    pub fn write(&self, file: &Path) -> Result<()> {
        let all = format!("{self}\n\n{}", Degrees::of(self.0));
        let old = fs::read_to_string(file).unwrap_or_default();
        let marked = old.split_once(BEGIN).and_then(|(before, rest)| {
            Some(format!("{before}{BEGIN}\n{all}\n{END}{}", rest.split_once(END)?.1))
        });
        let text = marked.unwrap_or_else(|| format!("{BEGIN}\n{all}\n{END}"));
        fs::write(file, text).with_context(|| file.display().to_string())
    }

    /// # Errors
    /// Lists the cells for which memstock was wrong and which are not near the boundary.
    pub fn verdict(&self) -> Result<()> {
        let wrong = self.0.iter().flat_map(|one| {
            let of = |cell: &Cell| match cell.word(&MEMSTOCK, &one.recording, one.boundary.lives) {
                Word::Unsafe => Some("did not live"),
                Word::Wasteful => Some("lived"),
                Word::Right | Word::Near => None,
            };
            one.cells.iter().filter_map(move |cell| {
                Some(format!("{} at {} {}", one.program.name, mib(cell.limit.bytes), of(cell)?))
            })
        });
        let wrong: Vec<_> = wrong.collect();
        if wrong.is_empty() {
            return Ok(());
        }
        bail!("memstock said otherwise: {}", wrong.join("; "))
    }

    fn programs(&self) -> Table {
        let mut table = Table::new([
            "program",
            "what it stresses",
            "peak",
            "needed",
            "lives from",
            "fast from",
            "needed is off by",
            "limits: right, near, wrong",
        ]);
        for one in self.0 {
            let Rehearsed { program, recording, cells, boundary, fast_from, .. } = one;
            let word = |cell: &Cell| cell.word(&MEMSTOCK, recording, boundary.lives);
            let count =
                |words: &[Word]| cells.iter().filter(|cell| words.contains(&word(cell))).count();
            let off = in_mib(recording.needed) - in_mib(boundary.lives);
            table.row([
                quoted(one),
                program.about.to_owned(),
                format!("{:.1}", in_mib(recording.peak)),
                format!("{:.1}", in_mib(recording.needed)),
                format!("{:.1}", in_mib(boundary.lives)),
                format!("{:.1}", in_mib(*fast_from)),
                format!("{off:+.1} ({:+.1} %)", 100.0 * off / in_mib(boundary.lives)),
                format!(
                    "{}, {}, {}",
                    count(&[Word::Right]),
                    count(&[Word::Near]),
                    count(&[Word::Unsafe, Word::Wasteful])
                ),
            ]);
        }
        table
    }

    fn rules(&self) -> Table {
        let mut table = Table::new([
            "rule",
            "words right",
            "said to live, did not",
            "said not to live, did",
            "boundary within 3 % or 2 MiB",
            "set as the limit: lives",
            "above the smallest that lives: median, most",
            "above the smallest that is at most 5 % slower",
        ]);
        for rule in &RULES {
            let words = self.0.iter().flat_map(|one| {
                let Rehearsed { recording, boundary, .. } = one;
                one.cells.iter().map(|cell| cell.word(rule, recording, boundary.lives))
            });
            let words: Vec<_> = words.filter(|&word| word != Word::Near).collect();
            let count = |wanted| words.iter().filter(|&&word| word == wanted).count();
            let exact = self.0.iter().filter(|one| {
                let from = (rule.boundary)(&one.recording);
                from.abs_diff(one.boundary.lives) <= near(one.boundary.lives)
            });
            let set: Vec<_> = self.0.iter().filter_map(|one| lives_as_set(rule, one)).collect();
            table.row([
                rule.name.to_owned(),
                format!("{} of {}", count(Word::Right), words.len()),
                count(Word::Unsafe).to_string(),
                count(Word::Wasteful).to_string(),
                format!("{} of {}", exact.count(), self.0.len()),
                format!("{} of {}", set.iter().filter(|&&lives| lives).count(), set.len()),
                self.waste(rule, |one| one.boundary.lives),
                self.waste(rule, |one| one.fast_from),
            ]);
        }
        table
    }

    /// How far a rule's limits, if the program lives at them, are above the smallest that does.
    fn waste(&self, rule: &Rule, smallest: fn(&Rehearsed) -> u64) -> String {
        let living = self.0.iter().filter(|one| lives_as_set(rule, one) == Some(true));
        let above = living.map(|one| {
            let limit = (rule.lives_from)(&one.recording);
            100.0 * (in_mib(limit) / in_mib(smallest(one)) - 1.0)
        });
        let mut above: Vec<_> = above.collect();
        above.sort_by(f64::total_cmp);
        match (above.get(above.len() / 2), above.last()) {
            (Some(median), Some(most)) => format!("{median:.0} %, {most:.0} %"),
            _ => "-".to_owned(),
        }
    }

    /// The limit that each rule sets, and how far above the smallest limit it is, or that it is too small.
    fn limits(&self) -> Table {
        let rules = RULES.map(|rule| rule.name);
        let head = ["program", "lives from"].into_iter().chain(rules);
        let mut table = Table { rows: vec![head.map(str::to_owned).collect()] };
        for one in self.0 {
            let set = RULES.iter().map(|rule| {
                let limit = in_mib((rule.lives_from)(&one.recording));
                let above = 100.0 * (limit / in_mib(one.boundary.lives) - 1.0);
                match lives_as_set(rule, one) {
                    Some(true) => format!("{limit:.1} ({above:+.0} %)"),
                    Some(false) => format!("{limit:.1} **oom**"),
                    None => format!("{limit:.1}"),
                }
            });
            let smallest = format!("{:.1}", in_mib(one.boundary.lives));
            table.rows.push([quoted(one), smallest].into_iter().chain(set).collect());
        }
        table
    }

    fn cells(&self) -> Table {
        let mut table = Table::new(["program", "each limit in MiB, and what came of it"]);
        for one in self.0 {
            let Rehearsed { recording, cells, boundary, .. } = one;
            let cell = |cell: &Cell| {
                let outcome = if cell.lived() { "lives" } else { "oom" };
                let mark = match cell.word(&MEMSTOCK, recording, boundary.lives) {
                    Word::Right => "",
                    Word::Near if cell.broke_the_word(recording) => " (near, said to live)",
                    Word::Near => " (near)",
                    Word::Unsafe | Word::Wasteful => " **wrong**",
                };
                format!("{:.1} {outcome}{mark}", in_mib(cell.limit.bytes))
            };
            table.row([quoted(one), cells.iter().map(cell).collect::<Vec<_>>().join(", ")]);
        }
        table
    }
}

pub fn quoted(one: &Rehearsed) -> String {
    format!("`{}`", one.program.name.replace('|', "\\|"))
}

/// Whether the program lived at the limit that the rule would have set; `None` if it was not run there.
fn lives_as_set(rule: &Rule, one: &Rehearsed) -> Option<bool> {
    let cell = one.cells.iter().find(|cell| cell.limit.name == rule.name);
    cell.map(Cell::lived)
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(all) = self;
        writeln!(f, "{}\n{}\n{}\n{}", self.programs(), self.rules(), self.limits(), self.cells())?;
        let broken = all.iter().flat_map(|one| {
            let broken = one.cells.iter().filter(|cell| cell.broke_the_word(&one.recording));
            broken.map(|cell| cell.word(&MEMSTOCK, &one.recording, one.boundary.lives))
        });
        let (near, far): (Vec<_>, Vec<_>) = broken.partition(|&word| word == Word::Near);
        let cells = all.iter().flat_map(|one| &one.cells);
        write!(
            f,
            "Out of memory where memstock said that it lives: at {} limits further than 3 % or 2 MiB from the \
             boundary, at {} nearer ones; {} limits, {} runs.",
            far.len(),
            near.len(),
            cells.clone().count(),
            cells.map(|cell| cell.runs.len()).sum::<usize>()
        )?;
        let lost = all.iter().filter(|one| !one.recording.loss.is_empty());
        let lost: Vec<_> =
            lost.map(|one| format!("{} ({})", quoted(one), one.recording.loss)).collect();
        if lost.is_empty() {
            return Ok(());
        }
        write!(
            f,
            "\n\nLost, skipped or merged while it was recorded, as memstock says: {}.",
            lost.join("; ")
        )
    }
}

/// A Markdown table: a header row, then the others.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned).to_vec()] }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, row) in self.rows.iter().enumerate() {
            writeln!(f, "| {} |", row.join(" | "))?;
            if n == 0 {
                writeln!(f, "|{}", "---|".repeat(row.len()))?;
            }
        }
        Ok(())
    }
}
