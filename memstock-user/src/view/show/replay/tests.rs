//! Output of a replay, for complete and for incomplete recordings.

use super::*;
use crate::forecast::replay::replay;
use crate::recording::{Charge, ChargeKind, Charger, End, Header};

/// A run of one cgroup on a host with pages of 64 KiB, and with a CPU that this host need not have.
fn recording(end: Option<End>) -> Recording {
    let events = (0..64).flat_map(|_| {
        let of = |kind| Charge { cpu: 500, index: 0, kind };
        [of(ChargeKind::Fault), of(ChargeKind::Charged(1))]
    });
    let cgroups = vec![Charger { index: 0, parent: None, path: None }];
    let charges = Charges { batch: 32, slots: 1, cgroups, events: events.collect() };
    let header = Header { page_size: 65536, command: vec!["a\nb".into()], ..Header::default() };
    Recording { header, charges: Some(charges), end, ..Recording::default() }
}

fn replayed(recording: &Recording) -> Replayed<'_> {
    let charges = recording.charges.as_ref().unwrap();
    let setting = Setting { batch: 32, slots: 1 };
    Replayed { recording, charges, rows: vec![(setting, replay(charges, setting))] }
}

fn text(recording: &Recording) -> String {
    let mut out = Vec::new();
    write(&mut out, &replayed(recording)).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_recording_of_another_host_is_in_its_own_units() {
    let whole = recording(Some(End::default()));
    let document = document(&replayed(&whole));
    let row = &document["settings"][0];
    assert_eq!((&document["lost"], &document["cpus"]), (&json!(0), &json!(1)));
    assert_eq!((&row["charged_pages"], &row["shared_operations"]), (&json!(64), &json!(2)));
    assert_eq!((&row["hit_rate"], &row["stranded_peak"]), (&json!(96.875), &json!(32 * 65536)));
    let text = text(&whole);
    assert!(
        text.starts_with(
            "a\\x0ab: 128 events of 1 cgroup on 1 CPU, recorded with batch 32 and 1 slot\n"
        ),
        "{text}"
    );
    assert!(text.contains(" 96.88 % ") && text.contains("2.0MiB"), "{text}");
}

#[test]
fn what_is_not_all_is_said_to_be_so() {
    assert!(!text(&recording(Some(End::default()))).contains("lost"));
    let lost = vec![("records".into(), 7), (CHARGES.into(), 3)];
    let lossy = recording(Some(End { lost, ..End::default() }));
    assert!(text(&lossy).contains("assumes    3 charges were lost"), "{}", text(&lossy));
    assert_eq!(document(&replayed(&lossy))["lost"], 3);
    let cut = recording(None);
    assert!(text(&cut).contains("assumes    The recording was cut short"));
    assert_eq!(document(&replayed(&cut))["lost"], Value::Null);
}
