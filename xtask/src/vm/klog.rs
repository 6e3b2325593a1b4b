//! Finds complaints in a kernel's log. Only parses text.

/// What a line contains if the kernel reports a fault of its own.
const COMPLAINTS: &[&str] = &[
    "BUG:",
    "WARNING:",
    "Oops",
    "general protection fault",
    "kernel BUG at",
    "Kernel panic",
    "soft lockup",
    "hard LOCKUP",
    "detected stall",
    "rcu: INFO:",
    "self-detected stall",
    "blocked for more than",
    "possible recursive locking",
    "possible circular locking",
    "inconsistent lock state",
    "suspicious RCU usage",
    "list_add corruption",
    "list_del corruption",
    "refcount_t:",
    "UBSAN:",
    "KASAN:",
    "Bad page state",
    "Bad rss-counter",
    "page allocation failure",
];
/// How many lines are reported; more would add nothing.
const MOST: usize = 5;

/// The first [`MOST`] lines that are complaints.
pub fn complaints(log: &str) -> Vec<&str> {
    let complains = |line: &&str| COMPLAINTS.iter().any(|complaint| line.contains(complaint));
    log.lines().map(str::trim_end).filter(complains).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_told_from_chatter() {
        let log = "[    0.1] Linux version 6.1\n\
                   [    9.1] memory: usage 16384kB, limit 16384kB, failcnt 12\n\
                   [   12.5] WARNING: CPU: 1 PID: 77 at mm/page_counter.c:56 page_counter_cancel\r\n\
                   [   99.1] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:\n";
        let found = complaints(log);
        assert_eq!(found.len(), 2);
        assert!(found[0].ends_with("page_counter_cancel"), "{found:?}");
    }
}
