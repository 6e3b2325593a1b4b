//! Replays whose counts can be computed by hand.

use super::*;
use crate::recording::Charger;

fn charges(cgroups: u32, events: impl IntoIterator<Item = Charge>) -> Charges {
    let charger = |index| Charger { index, parent: None, path: None };
    Charges {
        batch: 32,
        slots: 1,
        cgroups: (0..cgroups).map(charger).collect(),
        events: events.into_iter().collect(),
    }
}

fn charge(cpu: u32, index: u32, kind: ChargeKind) -> Charge {
    Charge { cpu, index, kind }
}

/// A page fault and the charge of its page.
fn touched(cpu: u32, index: u32) -> [Charge; 2] {
    [charge(cpu, index, ChargeKind::Fault), charge(cpu, index, ChargeKind::Charged(1))]
}

#[test]
fn a_batch_is_charged_once() {
    let run = charges(1, (0..64).flat_map(|_| touched(3, 0)));
    for (batch, operations) in [(1, 64), (8, 8), (32, 2), (64, 1)] {
        let outcome = replay(&run, Setting { batch, slots: 1 });
        let counted =
            (outcome.faults, outcome.charged, outcome.charges, outcome.shared_operations());
        assert_eq!(counted, (64, 64, operations, operations), "batch {batch}");
        assert_eq!(outcome.from_stock, 64 - operations, "batch {batch}");
        assert_eq!((outcome.stranded_peak, outcome.stranded_end), (u64::from(batch), 0));
    }
}

#[test]
fn what_is_freed_is_stranded_until_it_is_drained() {
    let come = (0..64).flat_map(|_| touched(0, 0));
    let go = (0..64).map(|_| charge(1, 0, ChargeKind::Uncharged(1)));
    let stays = charges(1, come.clone().chain(go.clone()));
    let outcome = replay(&stays, Setting { batch: 32, slots: 1 });
    assert_eq!((outcome.uncharges, outcome.stranded_end), (2, 0));
    let outcome = replay(&stays, Setting { batch: 128, slots: 1 });
    assert_eq!((outcome.uncharges, outcome.stranded_end), (0, 64 + 64));
    let drained = [0, 1].map(|cpu| charge(cpu, 0, ChargeKind::Drained));
    let drained = charges(1, come.chain(go).chain(drained));
    let outcome = replay(&drained, Setting { batch: 128, slots: 1 });
    assert_eq!((outcome.drains, outcome.stranded_peak, outcome.stranded_end), (2, 128, 0));
}

#[test]
fn cgroups_that_take_turns_need_a_slot_each() {
    let run = charges(3, (0..96).flat_map(|n| touched(0, n % 3)));
    let one = replay(&run, Setting { batch: 32, slots: 1 });
    assert_eq!((one.charges, one.drains, one.from_stock), (96, 95, 0));
    let each = Setting { batch: 32, slots: slot_each(&run) };
    assert_eq!(each.slots, 3);
    let each = replay(&run, each);
    assert_eq!((each.charges, each.drains, each.from_stock), (3, 0, 93));
    assert_eq!(replay(&run, Setting { batch: 32, slots: 7 }), each);
}

#[test]
fn of_nothing_comes_nothing() {
    assert_eq!(replay(&Charges::default(), Setting { batch: 32, slots: 1 }), Outcome::default());
}
