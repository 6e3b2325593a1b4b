//! Compares two versions of a configuration with what is in force. Pure.

use memstock_common::NO_LIMIT;

use super::super::targets::Target;
use crate::enforce::setting::Limits;

/// A change; they are applied in the order of the variants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A cgroup is no longer named.
    Removed(&'a Target),
    /// A cgroup's limits: those in force, and those wanted.
    Limits(&'a Target, Limits, Limits),
    /// A named cgroup is not tracked yet.
    Added(&'a Target),
}

/// The changes that lead from `old` to `new`; `in_force` returns the limits of a tracked cgroup.
///
/// The limits of the file are in force afterwards, whoever changed them meanwhile. A limit that the file no longer has
/// is lifted; one that it never had is left alone.
pub fn diff<'a>(
    old: &'a [Target],
    new: &'a [Target],
    in_force: impl Fn(u64) -> Option<Limits>,
) -> Vec<Change<'a>> {
    let find = |among: &'a [Target], id| among.iter().find(|target| target.cgroup.id == id);
    let mut changes = Vec::new();
    let mut limits = Vec::new();
    for target in old {
        // A cgroup that is gone took its limits with it.
        if find(new, target.cgroup.id).is_none()
            && let Some(now) = in_force(target.cgroup.id)
        {
            changes.push(Change::Removed(target));
            limits.push((target, now, wished(now, Some(target), None)));
        }
    }
    for target in new {
        if let Some(now) = in_force(target.cgroup.id) {
            limits.push((target, now, wished(now, find(old, target.cgroup.id), Some(target))));
        }
    }
    let differ = limits.into_iter().filter(|(_, now, to)| now != to);
    changes.extend(differ.map(|(target, now, to)| Change::Limits(target, now, to)));
    let added = new.iter().filter(|target| in_force(target.cgroup.id).is_none());
    changes.extend(added.map(Change::Added));
    changes
}

fn wished(now: Limits, old: Option<&Target>, new: Option<&Target>) -> Limits {
    let one = |now: u64, of: fn(&Target) -> Option<u64>| match (new.and_then(of), old.and_then(of))
    {
        (Some(limit), _) => limit,
        (None, Some(_)) => NO_LIMIT,
        (None, None) => now,
    };
    Limits {
        memory: one(now.memory, |target| target.memory_limit),
        memsw: one(now.memsw, |target| target.memsw_limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cgroup::Cgroup;

    fn target(id: u64, memory_limit: Option<u64>, memsw_limit: Option<u64>) -> Target {
        let path = format!("/{id}");
        let cgroup = Cgroup { dir: path.clone().into(), path: path.into(), id };
        Target { cgroup, memory_limit, memsw_limit }
    }

    fn limits(memory: u64, memsw: u64) -> Limits {
        Limits { memory, memsw }
    }

    const NONE: u64 = NO_LIMIT;

    #[test]
    fn nothing_is_different() {
        let same = [target(1, Some(10), None), target(2, None, None)];
        let in_force = |id| Some(if id == 1 { limits(10, NONE) } else { limits(7, 9) });
        assert_eq!(diff(&same, &same, in_force), []);
    }

    #[test]
    fn the_file_holds_whoever_changed_it() {
        let old = [target(1, Some(10), None)];
        let now = |_| Some(limits(99, 100));
        // The file is unchanged, but `memstock limit` has changed the limit.
        let expected = [Change::Limits(&old[0], limits(99, 100), limits(10, 100))];
        assert_eq!(diff(&old, &old, now), expected);
        let new = [target(1, Some(20), Some(30))];
        let expected = [Change::Limits(&new[0], limits(99, 100), limits(20, 30))];
        assert_eq!(diff(&old, &new, now), expected);
    }

    #[test]
    fn what_is_not_said_any_more_is_lifted() {
        let old = [target(1, Some(10), Some(20)), target(2, None, Some(5)), target(3, None, None)];
        let now = |_| Some(limits(10, 20));
        let new = [target(1, None, Some(20))];
        let expected = [
            Change::Removed(&old[1]),
            Change::Removed(&old[2]),
            Change::Limits(&old[1], limits(10, 20), limits(10, NONE)),
            Change::Limits(&new[0], limits(10, 20), limits(NONE, 20)),
        ];
        assert_eq!(diff(&old, &new, now), expected);
    }

    #[test]
    fn one_that_is_not_tracked_is_added() {
        let (old, new) = ([target(1, Some(10), None)], [target(2, Some(10), None)]);
        // The cgroup was re-created: it has another id, and the old one needs no change.
        assert_eq!(diff(&old, &new, |_| None), [Change::Added(&new[0])]);
    }
}
