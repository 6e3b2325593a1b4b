//! Loom: what a CPU remembers of a task's cgroup, beside a move of the task.

#[path = "support/checked.rs"]
mod checked;
mod support;

use checked::Checked;
use loom::sync::Arc;
use loom::thread;
use memstock_common::{Identity, Word};
use support::NewWord;

const TASK: u64 = 1;
const OLD: u64 = 10;
const NEW: u64 = 20;

/// The kernel's side: where the task is, and the generation that `regroup` changes afterwards.
struct Kernel {
    cgroup: Checked,
    generation: Checked,
}

impl Kernel {
    /// A fault, as the probe has it: the generation first.
    fn fault(&self, identity: &Identity<Checked>) -> u32 {
        let generation = self.generation.load();
        identity.owner(TASK, generation, || self.cgroup.load() as u32)
    }
}

/// However a fault and a move meet, no fault after the move is charged to the old cgroup.
#[test]
fn move_beside_fault() {
    loom::model(|| {
        let kernel = Arc::new(Kernel { cgroup: Checked::new(OLD), generation: Checked::new(1) });
        let moving = Arc::clone(&kernel);
        let mover = thread::spawn(move || {
            moving.cgroup.swap(NEW);
            moving.generation.fetch_add(1);
        });
        let identity =
            Identity { task: Checked::new(0), generation: Checked::new(0), owner: Checked::new(0) };
        for _ in 0..2 {
            let owner = u64::from(kernel.fault(&identity));
            assert!(owner == OLD || owner == NEW);
        }
        mover.join().expect("the mover does not panic");
        assert_eq!(u64::from(kernel.fault(&identity)), NEW);
    });
}
