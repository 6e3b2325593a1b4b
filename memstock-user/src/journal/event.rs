//! Decodes the kernel half's events from the ring buffer. Publishes nothing: `journal` does.

use anyhow::{Context as _, Result, ensure};
use bytes::Buf;
use memstock_common::event::EventKind;
use memstock_common::{Event, Resource};

use crate::journal::record::{Cgroup, Limit};

/// An event with its tags checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// What happened.
    pub kind: EventKind,
    /// The resource of the limit that it is about.
    pub resource: Resource,
    /// The event as it was sent.
    pub event: Event,
}

/// Decodes one record of the ring buffer.
///
/// # Errors
/// Its size is wrong, or this version does not know its tags.
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

/// Turns a limit event into its record: names instead of ids, and usage in bytes instead of pages.
pub fn limit(decoded: &Decoded, name: impl Fn(u64) -> Cgroup, page_size: u64) -> Limit {
    let Decoded { resource, event, .. } = decoded;
    Limit {
        cgroup: name(event.cgroup_id),
        ancestor: name(event.ancestor_id),
        resource: (*resource).into(),
        nr_pages: event.nr_pages,
        usage: event.usage.saturating_mul(page_size),
        limit: event.limit.saturating_mul(page_size),
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
