//! The table of metrics in `docs/metrics.md`, generated from the declarations; the test fails if it is out of date.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::*;

const BEGIN: &str = "<!-- made from the declarations by `cargo xtask test --bless` -->\n";
const END: &str = "<!-- end of what is made -->\n";

fn table() -> String {
    let mut text = "| metric | type | labels | what it is |\n|---|---|---|---|\n".to_owned();
    for family in Family::all() {
        let Stat { trend, help, .. } = family.stat();
        let kind = match trend {
            Trend::Gauge => "gauge",
            Trend::Counter => "counter",
        };
        let labels: Vec<_> = family.labels().iter().map(|label| format!("`{label}`")).collect();
        let unit = match family.unit() {
            Some(MetricUnit::Bytes) => " Bytes.",
            Some(_) => " Seconds.",
            None => "",
        };
        writeln!(text, "| `{}` | {kind} | {} | {help}{unit} |", family.name(), labels.join(", "))
            .unwrap();
    }
    text
}

#[test]
fn the_documented_metrics_are_those_that_there_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("where the list begins");
    let (_, after) = rest.split_once(END).expect("where the list ends");
    let made = format!("{before}{BEGIN}\n{}\n{END}{after}", table());
    if std::env::var_os("MEMSTOCK_BLESS").is_some() {
        fs::write(&path, made).unwrap();
        return;
    }
    assert!(made == text, "docs/metrics.md is out of date: cargo xtask test --bless");
}

#[test]
fn every_reason_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = fs::read_to_string(&path).unwrap();
    for &cause in crate::view::metrics::health::Cause::ALL {
        assert!(text.contains(&format!("| `{}` |", cause.name())), "{}", cause.name());
    }
}
