//! Loom: a CPU that is drained while it still runs, and two CPUs that report the same event.

use crate::support::checked::{Checked, Model, beside, explore, shape};
use crate::support::{NewWord, Shape, owner};
use loom::sync::Arc;
use memstock_common::drain::cpu_hotplug;
use memstock_common::event::{EVENT_INTERVAL_NS, may_send};
use memstock_common::uncharge::uncharge_pages;
use memstock_common::{NO_INDEX, charge};

/// In the first steps down and the last steps up, the CPU still faults and frees.
#[test]
fn hotplug_beside_fault_and_uncharge() {
    explore(|| {
        let world = Arc::new(Model::new(Shape { cpus: 2, ..shape(1, 3) }));
        world.add(0, NO_INDEX);
        world.touch(0, 0, 0);
        charge::charge_forced(&world.cpu(0), 0, 1);
        beside(
            &world,
            |world| cpu_hotplug(&world.cpu(1), 0, 1),
            |world| {
                uncharge_pages(&world.cpu(0), owner(0), 1);
                world.touch(0, 0, 1);
            },
        );
        // The CPU is dead now: what it left is drained.
        cpu_hotplug(&world.cpu(1), 0, 1);
        assert_eq!(world.usage(0), 2);
        world.assert_owned(&[2]);
    });
}

#[test]
fn one_of_two_is_told() {
    for last in [0, 1, 1 + EVENT_INTERVAL_NS] {
        explore(move || {
            let world = Arc::new(Model::new(shape(1, 1)));
            let sent = Arc::new(Checked::new(last));
            let other = Arc::clone(&sent);
            let now = 2 + 2 * EVENT_INTERVAL_NS;
            let send = move |sent: &Checked| may_send(sent, now, EVENT_INTERVAL_NS);
            let (one, two) = beside(&world, move |_| send(&other), |_| send(&sent));
            assert!(one != two, "{one} and {two}");
        });
    }
}
