//! Prints a diagnosis as a table with remedies, or as JSON.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::doctor::{Answer, Diagnosis, Need, State};
use crate::exit::printable;
use crate::view::show::table::plain;

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Document<'a> {
    /// Whether everything required was found.
    runs_here: bool,
    /// Names of the required facilities that were not found.
    missing: Vec<&'a str>,
    /// The state of a running engine. For people.
    engine: &'a str,
    facilities: Vec<Row<'a>>,
}

/// Something that a host can have, and memstock needs or can use.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Row<'a> {
    /// Its name, the same on every host.
    name: &'a str,
    /// Whether memstock can run without it.
    need: Need,
    /// Whether the host has it; unknown if that could not be determined.
    state: State,
    /// What exactly was found, or why not. For people.
    detail: &'a str,
    /// What the kernel said about each program that it refused.
    said: &'a [String],
    /// What memstock does with it.
    purpose: &'a str,
    /// What is lost if it is absent.
    without: &'a str,
    /// The one command, or kernel setting, that helps; null when it is found.
    remedy: Option<&'a str>,
}

/// The document that `memstock doctor --json` prints.
pub fn document(diagnosis: &Diagnosis) -> Value {
    json!(Document {
        runs_here: diagnosis.missing().next().is_none(),
        missing: diagnosis.missing().map(|answer| answer.facility.name.as_str()).collect(),
        engine: &diagnosis.engine,
        facilities: diagnosis.answers.iter().map(row).collect(),
    })
}

fn row(answer: &Answer) -> Row<'_> {
    let Answer { facility, finding } = answer;
    Row {
        name: &facility.name,
        need: facility.need,
        state: finding.state,
        detail: &finding.detail,
        said: &finding.said,
        purpose: facility.purpose,
        without: facility.without,
        remedy: answer.remedy(),
    }
}

/// Writes the table, and below it the consequences and remedies of what was not found.
///
/// # Errors
/// `out` cannot be written.
pub fn write(out: &mut dyn Write, diagnosis: &Diagnosis) -> io::Result<()> {
    let mut table = plain(["STATE", "NEED", "FACILITY", "DETAIL"], &[0, 1, 2, 3]);
    for Answer { facility, finding } in &diagnosis.answers {
        table.add_row([
            finding.state.name(),
            facility.need.name(),
            &facility.name,
            // Shortened: an error with all its causes is printed below.
            &short(&finding.detail),
        ]);
    }
    writeln!(out, "{}", table.trim_fmt())?;
    for answer in diagnosis.answers.iter().filter(|answer| answer.finding.state == State::Absent) {
        let Answer { facility, finding } = answer;
        writeln!(out, "\n{} ({}) is absent", facility.name, facility.need.name())?;
        if finding.detail != short(&finding.detail) {
            writeln!(out, "  why:     {}", printable(&finding.detail))?;
        }
        for line in &finding.said {
            writeln!(out, "  kernel:  {}", printable(line))?;
        }
        writeln!(out, "  for:     {}", facility.purpose)?;
        writeln!(out, "  without: {}", facility.without)?;
        writeln!(out, "  remedy:  {}", facility.remedy)?;
    }
    unknown(out, diagnosis)?;
    writeln!(out, "\nengine: {}\n{}", printable(&diagnosis.engine), verdict(diagnosis))
}

/// Grouped by remedy: usually many are unknown for one reason.
fn unknown(out: &mut dyn Write, diagnosis: &Diagnosis) -> io::Result<()> {
    let mut by_remedy = BTreeMap::<&str, Vec<&str>>::new();
    for answer in &diagnosis.answers {
        if let (State::Unknown, Some(remedy)) = (answer.finding.state, answer.remedy()) {
            by_remedy.entry(remedy).or_default().push(&answer.facility.name);
        }
    }
    for (remedy, names) in by_remedy {
        writeln!(out, "\nunknown: {}\n  remedy:  {}", names.join(", "), printable(remedy))?;
    }
    Ok(())
}

fn verdict(diagnosis: &Diagnosis) -> String {
    let of = |state: State| -> Vec<_> {
        let missing = diagnosis.missing().filter(|answer| answer.finding.state == state);
        missing.map(|answer| answer.facility.name.as_str()).collect()
    };
    let (absent, unknown) = (of(State::Absent), of(State::Unknown));
    let optional = diagnosis.answers.iter().filter(|answer| {
        answer.facility.need == Need::Optional && answer.finding.state == State::Absent
    });
    match (absent.as_slice(), unknown.as_slice()) {
        ([], []) => {
            format!("memstock runs here; {} optional facilities are absent", optional.count())
        }
        ([], unknown) => format!("whether memstock runs here is unknown: {}", unknown.join(", ")),
        (absent, _) => format!("memstock does not run here: {}", absent.join(", ")),
    }
}

/// Shortens a detail to fit into the table.
fn short(detail: &str) -> String {
    const LONGEST: usize = 60;
    let detail = printable(detail);
    if detail.chars().count() <= LONGEST {
        return detail;
    }
    detail.chars().take(LONGEST - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::{Finding, facilities};
    use crate::view::show::schema::publish;

    #[test]
    fn the_published_schema_is_up_to_date() {
        publish::<Document<'_>>("doctor");
    }

    #[test]
    fn both_forms_say_the_same() {
        let mut answers: Vec<_> = facilities()
            .into_iter()
            .map(|facility| Answer { facility, finding: Finding::found("") })
            .collect();
        let place = |name: &str| {
            facilities().iter().position(|facility| facility.name == name).expect("a facility")
        };
        answers[place("btf")].finding = Finding::absent("not\u{1b}[31m there".repeat(9));
        answers[place("jit")].finding = Finding::unknown("denied");
        answers[place("no lockdown")].finding = Finding::unknown_before("no file", "mount it");
        answers[place("programs")].finding =
            Finding { said: vec!["it refuses fault".into()], ..Finding::absent("1 of 9 refused") };
        let diagnosis = Diagnosis { answers, engine: "none".into() };
        let mut text = Vec::new();
        write(&mut text, &diagnosis).unwrap();
        let text = String::from_utf8(text).unwrap();
        for part in [
            "absent   required  btf ",
            "btf (required) is absent\n  why: ",
            "without: memstock does not run",
            "remedy:  boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
            "programs (required) is absent\n  kernel:  it refuses fault\n",
            "unknown: jit\n  remedy:  sudo memstock doctor",
            "unknown: no lockdown\n  remedy:  mount it",
            "engine: none\nmemstock does not run here: btf, programs\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
        let value = document(&diagnosis);
        assert_eq!(
            (&value["runs_here"], &value["missing"]),
            (&json!(false), &json!(["btf", "programs"]))
        );
        assert_eq!(value["facilities"][place("jit")]["state"], "unknown");
        assert_eq!(value["facilities"][place("bpf")]["remedy"], Value::Null);
        assert_eq!(diagnosis.exit_code(), 121);
    }
}
