//! From ring buffer to people: decodes the kernel half's events.

use std::fmt;

use anyhow::{Context as _, Result, ensure};
use bytes::Buf;
use memstock_common::event::EventKind;
use memstock_common::{Event, Resource};

use crate::cgroup::{CgroupMount, display};

/// An event with its tags checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// What happened.
    pub kind: EventKind,
    /// Which limit it is about.
    pub resource: Resource,
    /// The record.
    pub event: Event,
}

/// Decodes one record of the ring buffer.
///
/// # Errors
/// It has another size, or tags that this version does not know.
pub fn decode(mut record: &[u8]) -> Result<Decoded> {
    ensure!(
        record.len() == size_of::<Event>(),
        "an event of {} bytes, not {}",
        record.len(),
        size_of::<Event>()
    );
    let event = Event {
        kind: record.get_u32_ne(),
        resource: record.get_u32_ne(),
        time_ns: record.get_u64_ne(),
        cgroup_id: record.get_u64_ne(),
        ancestor_id: record.get_u64_ne(),
        nr_pages: record.get_u64_ne(),
        usage: record.get_u64_ne(),
        limit: record.get_u64_ne(),
        cpu: record.get_u64_ne(),
    };
    let unknown = |unknown| anyhow::anyhow!("{unknown}");
    Ok(Decoded {
        kind: event.kind.try_into().map_err(unknown).context("event kind")?,
        resource: event.resource.try_into().map_err(unknown).context("event resource")?,
        event,
    })
}

/// An event as one line, cgroups by path.
pub struct Line<'a> {
    /// The event.
    pub decoded: &'a Decoded,
    /// Where its cgroups are.
    pub mount: &'a CgroupMount,
    /// Bytes in a page.
    pub page_size: u64,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Decoded { kind, resource, event } = self.decoded;
        let path = |id| match self.mount.path_of(id) {
            Some(path) => display(&path),
            None => format!("(removed, id {id})"),
        };
        let kind = match kind {
            EventKind::LimitNear => "limit-near",
            EventKind::LimitHit => "limit-hit",
            EventKind::CgroupMade => {
                return write!(f, "event: cgroup-made cgroup={}", path(event.cgroup_id));
            }
            EventKind::CgroupRemoved => {
                return write!(f, "event: cgroup-removed cgroup={}", path(event.cgroup_id));
            }
            EventKind::CpuHotplug => return write!(f, "event: cpu-hotplug cpu={}", event.cpu),
            EventKind::ReclaimBegan => return f.write_str("event: reclaim-began"),
        };
        let resource = match resource {
            Resource::Memory => "memory",
            Resource::Memsw => "memsw",
        };
        write!(
            f,
            "event: {kind} cgroup={} ancestor={} resource={resource} nr_pages={} usage={} limit={}",
            path(event.cgroup_id),
            path(event.ancestor_id),
            event.nr_pages,
            event.usage * self.page_size,
            event.limit.saturating_mul(self.page_size),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, resource: u32) -> Vec<u8> {
        let mut record = Vec::new();
        record.extend(kind.to_ne_bytes());
        record.extend(resource.to_ne_bytes());
        for field in 1..=7u64 {
            record.extend(field.to_ne_bytes());
        }
        record
    }

    #[test]
    fn decodes_the_fields_in_order() {
        let decoded = decode(&record(2, 1)).unwrap();
        assert_eq!(decoded.kind, EventKind::LimitHit);
        assert_eq!(decoded.resource, Resource::Memsw);
        let Event { time_ns, cgroup_id, ancestor_id, nr_pages, usage, limit, cpu, .. } =
            decoded.event;
        let fields = [time_ns, cgroup_id, ancestor_id, nr_pages, usage, limit, cpu];
        assert_eq!(fields, [1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert!(decode(&record(99, 0)).is_err());
        assert!(decode(&record(1, 99)).is_err());
        assert!(decode(&record(1, 0)[1..]).is_err());
        assert!(decode(&[]).is_err());
    }
}
