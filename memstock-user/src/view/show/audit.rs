//! An audit as tables and as JSON. All figures are pages.

use std::io::{self, Write};

use comfy_table::Table;
use memstock_common::stat::Stat;
use serde_json::{Map, Value, json};

use super::json::insert_name;
use super::table::{head, label, plain};
use crate::audit::adoption::CgroupAdopted;
use crate::audit::stat;
use crate::audit::{Agreement, Audit, CgroupAudit};
use crate::model::Name;

/// The document that `memstock audit --json` prints.
pub fn document(audit: &Audit) -> Value {
    let mut kinds = Map::new();
    for (kind, agreement) in &audit.kinds {
        kinds.insert(kind.name().into(), counts(agreement).into());
    }
    let mut document = Map::new();
    document.insert("cgroups".into(), audit.cgroups.iter().map(cgroup).collect::<Vec<_>>().into());
    document.insert("exact".into(), audit.is_exact.into());
    for (stat, value) in sums(audit) {
        document.insert(stat.name.into(), value.into());
    }
    document.insert("kernel".into(), audit.agreement.as_ref().map_or(Value::Null, agreement));
    document.insert("file".into(), file(&audit.file).into());
    document.insert("kinds".into(), kinds.into());
    document.insert("repaired".into(), audit.repaired.as_deref().map_or(Value::Null, repaired));
    document.into()
}

fn sums(audit: &Audit) -> [(Stat, u64); 3] {
    let Audit { owned, ownerless, stale, .. } = *audit;
    [(stat::OWNED, owned), (stat::OWNERLESS, ownerless), (stat::STALE, stale)]
}

fn cgroup(cgroup: &CgroupAudit) -> Value {
    let mut row = named(&cgroup.name);
    row.insert("dying".into(), cgroup.is_dying.into());
    for (stat, value) in book(cgroup) {
        row.insert(stat.name.into(), json!(value));
    }
    row.insert("kernel".into(), cgroup.agreement.as_ref().map_or(Value::Null, agreement));
    row.into()
}

/// None is memory+swap that is not counted.
fn book(cgroup: &CgroupAudit) -> [(Stat, Option<i64>); 7] {
    let book = &cgroup.book;
    let signed = |value: u64| Some(value.cast_signed());
    [
        (stat::USAGE, signed(book.usage)),
        (stat::OWNED, signed(book.owned)),
        (stat::UNUSED, signed(book.unused)),
        (stat::DRIFT, Some(book.drift())),
        (stat::FILE, signed(book.owned_file)),
        (stat::FILE_DRIFT, Some(book.file_drift())),
        (stat::MEMSW_DRIFT, cgroup.has_memsw.then(|| book.memsw_drift())),
    ]
}

fn named(name: &Name) -> Map<String, Value> {
    let mut row = Map::new();
    insert_name(&mut row, name);
    row
}

fn agreement(agreement: &Agreement) -> Value {
    let mut row = counts(agreement);
    let percent = agreement.millipercent().map(|milli| milli as f64 / 1000.0);
    row.insert(stat::AGREEMENT.name.into(), json!(percent));
    row.into()
}

fn counts(agreement: &Agreement) -> Map<String, Value> {
    let counted = columns(agreement).map(|(stat, value)| (stat.name.into(), value.into()));
    counted.into_iter().collect()
}

/// Both have an owner by memstock, so none is another cgroup's.
fn file(agreement: &Agreement) -> Map<String, Value> {
    let counts = columns(agreement).into_iter().filter(|(stat, _)| *stat != stat::OTHER);
    counts.map(|(stat, value)| (stat.name.into(), value.into())).collect()
}

fn columns(agreement: &Agreement) -> [(Stat, u64); 4] {
    let Agreement { both, only_ours, only_kernels, other } = *agreement;
    [
        (stat::BOTH, both),
        (stat::ONLY_OURS, only_ours),
        (stat::ONLY_KERNELS, only_kernels),
        (stat::OTHER, other),
    ]
}

fn repaired(cgroups: &[CgroupAdopted]) -> Value {
    let row = |cgroup: &CgroupAdopted| {
        let mut row = named(&cgroup.name);
        row.insert(stat::ADOPTED.name.into(), cgroup.adopted.into());
        row.insert(stat::DISOWNED.name.into(), cgroup.disowned.into());
        Value::Object(row)
    };
    let (adopted, disowned) = moved(cgroups);
    let mut document = Map::new();
    document.insert(stat::ADOPTED.name.into(), adopted.into());
    document.insert(stat::DISOWNED.name.into(), disowned.into());
    document.insert("cgroups".into(), cgroups.iter().map(row).collect::<Vec<_>>().into());
    document.into()
}

fn moved(cgroups: &[CgroupAdopted]) -> (u64, u64) {
    let sum = |part: fn(&CgroupAdopted) -> u64| cgroups.iter().map(part).sum();
    (sum(|cgroup| cgroup.adopted), sum(|cgroup| cgroup.disowned))
}

/// Writes the tables, and below them the sums.
///
/// # Errors
/// `out` cannot be written.
pub fn write(out: &mut dyn Write, audit: &Audit) -> io::Result<()> {
    writeln!(out, "{}\n", books(audit).trim_fmt())?;
    let sums = sums(audit).map(|(stat, value)| format!("{} {value}", stat.name));
    writeln!(out, "{}", sums.join(", "))?;
    if !audit.is_exact {
        writeln!(
            out,
            "moving: the figures changed while they were read; of several readings this has the \
             smallest drift, and it is not exact"
        )?;
    }
    let Agreement { both, only_ours, only_kernels, other: _ } = audit.file;
    writeln!(
        out,
        "page cache: {both} pages as the kernel has them, {only_ours} by memstock only, {only_kernels} by \
         the kernel only"
    )?;
    if let Some(agreement) = &audit.agreement {
        writeln!(out, "\n{}\n", kinds(audit).trim_fmt())?;
        writeln!(
            out,
            "agreement with the kernel {} of {} user pages",
            percent(agreement),
            agreement.either()
        )?;
    }
    if let Some(cgroups) = &audit.repaired {
        let (adopted, disowned) = moved(cgroups);
        writeln!(out, "repaired: {adopted} pages adopted, {disowned} pages disowned")?;
    }
    Ok(())
}

fn books(audit: &Audit) -> Table {
    let has_memsw = audit.cgroups.iter().any(|cgroup| cgroup.has_memsw);
    let is_compared = audit.agreement.is_some();
    let books = [stat::USAGE, stat::OWNED, stat::UNUSED, stat::DRIFT, stat::FILE, stat::FILE_DRIFT];
    let memsw = has_memsw.then_some(stat::MEMSW_DRIFT);
    let mut columns = vec!["CGROUP".to_owned()];
    columns.extend(books.into_iter().chain(memsw).map(|stat| head(stat.name)));
    if is_compared {
        columns.push("AGREEMENT".to_owned());
    }
    let mut table = plain(columns, &[0]);
    for cgroup in &audit.cgroups {
        let dying = if cgroup.is_dying { " (dying)" } else { "" };
        let mut row = vec![label(&cgroup.name) + dying];
        row.extend(
            book(cgroup).iter().filter_map(|(_, value)| value.map(|value| value.to_string())),
        );
        if is_compared {
            row.push(cgroup.agreement.as_ref().map_or_else(|| "-".to_owned(), percent));
        }
        table.add_row(row);
    }
    table
}

fn kinds(audit: &Audit) -> Table {
    let names = columns(&Agreement::default()).map(|(stat, _)| head(stat.name));
    let mut table = plain(std::iter::once("KIND".to_owned()).chain(names), &[0]);
    for (kind, agreement) in &audit.kinds {
        let counts = columns(agreement).map(|(_, value)| value.to_string());
        table.add_row(std::iter::once(kind.name().to_owned()).chain(counts));
    }
    table
}

/// With three decimals.
fn percent(agreement: &Agreement) -> String {
    match agreement.millipercent() {
        Some(milli) => format!("{}.{:03} %", milli / 1000, milli % 1000),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Book;
    use crate::host::pages::Kind;

    fn example() -> Audit {
        let agreement = Agreement { both: 1999, only_kernels: 1, ..Agreement::default() };
        Audit {
            cgroups: vec![CgroupAudit {
                name: Name { id: 7, path: Some("/a".into()) },
                is_dying: false,
                book: Book { usage: 2030, owned: 1999, unused: 32, ..Book::default() },
                has_memsw: false,
                agreement: Some(agreement),
            }],
            owned: 1999,
            ownerless: 0,
            stale: 2,
            is_exact: true,
            agreement: Some(agreement),
            file: Agreement { both: 5, only_ours: 1, ..Agreement::default() },
            kinds: vec![(Kind::PageTable, Agreement { only_ours: 3, ..Agreement::default() })],
            repaired: None,
        }
    }

    #[test]
    fn both_forms_say_the_same() {
        let audit = example();
        assert!(audit.is_off());
        let value = document(&audit);
        assert_eq!(value["cgroups"][0]["drift_pages"], -1);
        assert_eq!(value["cgroups"][0]["memsw_drift_pages"], Value::Null);
        assert_eq!(value["kernel"]["agreement_percent"], 99.95);
        assert_eq!(value["kinds"]["page table"]["only_ours_pages"], 3);
        assert_eq!(
            (&value["file"]["both_pages"], &value["file"]["only_ours_pages"]),
            (&json!(5), &json!(1))
        );
        assert_eq!(value["repaired"], Value::Null);
        assert_eq!((&value["exact"], &value["stale_pages"]), (&json!(true), &json!(2)));

        let mut text = Vec::new();
        write(&mut text, &audit).unwrap();
        let text = String::from_utf8(text).unwrap();
        for part in ["99.950 % of 2000 user pages", "-1", "page table", "stale_pages 2"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("MEMSW") && !text.contains("moving"));
    }

    #[test]
    fn a_moving_drift_is_no_proof() {
        let audit = Audit { is_exact: false, repaired: Some(Vec::new()), ..example() };
        assert!(!audit.is_off());
        let mut text = Vec::new();
        write(&mut text, &audit).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("moving:") && text.contains("repaired: 0"));
        assert_eq!(document(&audit)["repaired"]["adopted_pages"], 0);
    }
}
