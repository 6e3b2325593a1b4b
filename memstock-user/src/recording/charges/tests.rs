//! Charges that are valid and charges that are refused.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Charge, ChargeKind, Charger, Charges};
use crate::recording::{Header, Writer, parse};

fn kind() -> impl Strategy<Value = ChargeKind> {
    prop_oneof![
        Just(ChargeKind::Fault),
        (1..=1024_u32).prop_map(ChargeKind::Charged),
        (1..=1024_u32).prop_map(ChargeKind::Uncharged),
        Just(ChargeKind::Drained),
    ]
}

prop_compose! {
    /// Charges of a few cgroups, each below the one before it.
    pub(crate) fn charges()(
        batch in 1..=1024_u32,
        slots in 1..=64_u32,
        events in vec((0..4_u32, 0..3_u32, kind()), 0..32),
    ) -> Charges {
        let charger = |index: u32| {
            Charger { index, parent: index.checked_sub(1), path: Some(format!("/{index}").into()) }
        };
        let event = |(cpu, index, kind)| {
            Charge { cpu, index: if kind == ChargeKind::Drained { 0 } else { index }, kind }
        };
        let cgroups = (0..3).map(charger).collect();
        Charges { batch, slots, cgroups, events: events.into_iter().map(event).collect() }
    }
}

/// Writes the charges.
pub(crate) fn write(charges: &Charges, writer: &mut Writer<impl std::io::Write>) {
    writer.charges(charges.batch, charges.slots).unwrap();
    charges.cgroups.iter().for_each(|it| writer.charger(it).unwrap());
    charges.events.iter().for_each(|&it| writer.charge(it).unwrap());
}

fn is_read(charges: &Charges) -> bool {
    let mut bytes = Vec::new();
    let header = Header { page_size: 4096, ..Header::default() };
    let mut writer = Writer::new(&mut bytes, &header).unwrap();
    write(charges, &mut writer);
    writer.flush().unwrap();
    parse(&bytes).is_ok_and(|read| read.charges.as_ref() == Some(charges))
}

#[test]
fn what_no_engine_says_is_refused() {
    let charger = |index, parent| Charger { index, parent, path: None };
    let fine = Charges { batch: 32, slots: 7, cgroups: vec![charger(0, None)], events: vec![] };
    let charge = |cpu, index, kind| Charge { cpu, index, kind };
    assert!(is_read(&fine));
    let chain = (1..16).map(|index| charger(index, Some(index - 1)));
    let deepest: Vec<_> = fine.cgroups.iter().cloned().chain(chain).collect();
    assert!(is_read(&Charges { cgroups: deepest.clone(), ..fine.clone() }));
    let deeper = [deepest, vec![charger(16, Some(15))]].concat();
    for cgroups in [
        deeper,
        vec![charger(0, None), charger(0, None)],
        vec![charger(1, Some(0)), charger(0, None)],
        vec![charger(1 << 20, None)],
        vec![charger(0, Some(0))],
    ] {
        assert!(!is_read(&Charges { cgroups: cgroups.clone(), ..fine.clone() }), "{cgroups:?}");
    }
    for (batch, slots) in [(0, 1), (1025, 1), (1, 0), (1, 65)] {
        assert!(!is_read(&Charges { batch, slots, ..fine.clone() }), "{batch} {slots}");
    }
    for (event, is_fine) in [
        (charge(8191, 0, ChargeKind::Fault), true),
        (charge(8192, 0, ChargeKind::Fault), false),
        (charge(0, 1, ChargeKind::Fault), false),
        (charge(0, 0, ChargeKind::Charged(1024)), true),
        (charge(0, 0, ChargeKind::Charged(1025)), false),
        (charge(0, 0, ChargeKind::Uncharged(u32::MAX)), false),
        (charge(0, 0, ChargeKind::Drained), true),
    ] {
        assert_eq!(is_read(&Charges { events: vec![event], ..fine.clone() }), is_fine, "{event:?}");
    }
}
