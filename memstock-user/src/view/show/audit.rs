//! An audit as tables, headed by the names of the JSON members in `document`. All figures are in pages.

mod document;

use std::io::{self, Write};

use comfy_table::Table;

#[cfg(test)]
pub(super) use self::document::Document;
pub use self::document::document;
use self::document::{Moved, counts, ledger, members, moved, sums};
use super::table::{head, label, plain};
use crate::audit::{Agreement, Audit, Ledger};

/// Writes the tables, then the sums.
///
/// # Errors
/// `out` cannot be written.
pub fn write(out: &mut dyn Write, audit: &Audit) -> io::Result<()> {
    writeln!(out, "{}\n", ledgers(audit).trim_fmt())?;
    let sums = members(sums(audit)).map(|(name, value)| format!("{name} {value}"));
    writeln!(out, "{}", sums.collect::<Vec<_>>().join(", "))?;
    if !audit.is_exact {
        writeln!(
            out,
            "moving: the figures changed while they were read; this reading has the smallest drift \
             of several, and is not exact"
        )?;
    }
    let Agreement { both, only_ours, only_kernels, other: _ } = audit.file;
    writeln!(
        out,
        "page cache: {both} pages by memstock and the kernel, {only_ours} by memstock only, {only_kernels} \
         by the kernel only"
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
        let Moved { adopted_pages: adopted, disowned_pages: disowned } = moved(cgroups);
        writeln!(out, "repaired: {adopted} pages adopted, {disowned} pages disowned")?;
    }
    Ok(())
}

fn ledgers(audit: &Audit) -> Table {
    let has_memsw = audit.cgroups.iter().any(|cgroup| cgroup.has_memsw);
    let is_compared = audit.agreement.is_some();
    let mut columns = vec!["CGROUP".to_owned()];
    columns.extend(members(ledger(&Ledger::default(), has_memsw)).map(|(name, _)| head(&name)));
    if is_compared {
        columns.push("AGREEMENT".to_owned());
    }
    let mut table = plain(columns, &[0]);
    for cgroup in &audit.cgroups {
        let dying = if cgroup.is_dying { " (dying)" } else { "" };
        let mut row = vec![label(&cgroup.name) + dying];
        let ledger = ledger(&cgroup.ledger, cgroup.has_memsw);
        row.extend(members(ledger).map(|(_, value)| value.to_string()));
        if is_compared {
            row.push(cgroup.agreement.as_ref().map_or_else(|| "-".to_owned(), percent));
        }
        table.add_row(row);
    }
    table
}

fn kinds(audit: &Audit) -> Table {
    let names = members(counts(&Agreement::default())).map(|(name, _)| head(&name));
    let mut table = plain(std::iter::once("KIND".to_owned()).chain(names), &[0]);
    for (kind, agreement) in &audit.kinds {
        let counts = members(counts(agreement)).map(|(_, value)| value.to_string());
        table.add_row(std::iter::once(kind.name().to_owned()).chain(counts));
    }
    table
}

/// Formats a percentage with three decimals.
fn percent(agreement: &Agreement) -> String {
    match agreement.millipercent() {
        Some(milli) => format!("{}.{:03} %", milli / 1000, milli % 1000),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::audit::CgroupAudit;
    use crate::host::pages::Kind;
    use crate::model::Name;

    fn example() -> Audit {
        let agreement = Agreement { both: 1999, only_kernels: 1, ..Agreement::default() };
        Audit {
            cgroups: vec![CgroupAudit {
                name: Name::new(7, Some("/a".into())),
                is_dying: false,
                ledger: Ledger { usage: 2030, owned: 1999, unused: 32, ..Ledger::default() },
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
