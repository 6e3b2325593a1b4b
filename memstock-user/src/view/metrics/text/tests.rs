//! The exposition of a reading made by hand: names, units, labels, escapes, and what is left out.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::*;
use crate::daemon::parts::Part;
use crate::host::cgroup::Pressure;
use crate::host::workload::{Kind, Workload};
use crate::model::{Cgroup, Cpu, Figure, Name, PageCounter, Sample, Slot};
use crate::view::metrics::check::{Checked, Proof};
use crate::view::metrics::health::{Cause, Reason};

fn cgroup(id: u64, path: &[u8], parent_id: Option<u64>, memory: [Option<u64>; 4]) -> Cgroup {
    use std::os::unix::ffi::OsStrExt as _;
    let path = Some(std::ffi::OsStr::from_bytes(path).into());
    let memory = PageCounter { stats: memory.map(Figure::from) };
    let mut cgroup = Cgroup { parent_id, memory, memsw: memory, ..Cgroup::default() };
    cgroup.name = Name::new(id, path);
    cgroup.stats[CgroupStat::Stocked as usize] = 3.into();
    cgroup.stats[CgroupStat::Faults as usize] = 9.into();
    cgroup.parts[MemoryStat::Needed as usize] =
        cgroup.memory.get(PageCounterStat::Usage).unwrap_or(0);
    cgroup
}

fn reading() -> Reading {
    let dying = |id, parent_id| Cgroup {
        is_dying: true,
        ..cgroup(id, b"", parent_id, [Some(5), None, Some(5), Some(0)])
    };
    let slot = Slot { nr_pages: 4, pending: 1, uncharge_pages: 2, ..Slot::default() };
    let cpu = Cpu { cpu: 3, online: true, slots: vec![slot], stats: [7.into(); 7] };
    let sample = Sample {
        batch: 32,
        cpus: vec![cpu],
        cgroups: vec![
            cgroup(1, b"/a", None, [Some(30), Some(40), Some(31), Some(2)]),
            cgroup(2, b"/a/b\"\\x2d", Some(1), [Some(20), Some(10), Some(21), Some(0)]),
            dying(3, Some(1)),
            dying(4, Some(3)),
        ],
        loss: vec![(Loss::EventsLost.stat(), 6), (Loss::Healed.stat(), 2)],
        ..Sample::default()
    };
    let proof = Proof { at: Instant::now(), drift: -2, cgroup: "/a".into(), ownerless: 1 };
    Reading {
        sample,
        page_size: 4096,
        stranded: [("/a".into(), 5), ("/other".into(), 6)].into(),
        records: Default::default(),
        left_out: 1,
        unreadable: 0,
        errors: std::array::from_fn(|n| u64::from(Part::ALL[n] == Part::Tree)),
        checked: Checked { exact: 3, moving: 4, last: Some(proof) },
        reasons: vec![Reason { cause: Cause::Drift, text: String::new() }],
    }
}

fn exposition(reading: Reading) -> String {
    text(Arc::new(reading), Arc::default()).unwrap()
}

fn check(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "no {line} in\n{text}");
    }
}

#[test]
fn numbers_have_their_names_units_and_labels() {
    let text = exposition(reading());
    check(
        &text,
        &[
            "# TYPE memstock_cpu_faults_total counter",
            "memstock_cpu_faults_total{cpu=\"3\"} 7",
            "memstock_cpu_charged_bytes_total{cpu=\"3\"} 28672",
            "memstock_cgroup_memory_needed_bytes{cgroup=\"/a\"} 122880",
            "memstock_cpu_online{cpu=\"3\"} 1",
            "memstock_slot_bytes{cpu=\"3\",slot=\"0\"} 16384",
            "memstock_slot_pending_bytes{cpu=\"3\",slot=\"0\"} 4096",
            "memstock_slot_uncharge_bytes{cpu=\"3\",slot=\"0\"} 8192",
            "# TYPE memstock_cgroup_memory_usage_bytes gauge",
            "memstock_cgroup_memory_usage_bytes{cgroup=\"/a\"} 122880",
            "memstock_cgroup_memory_failcnt_total{cgroup=\"/a\"} 2",
            "memstock_cgroup_stocked_bytes{cgroup=\"/a\"} 12288",
            "memstock_cgroup_faults_total{cgroup=\"/a\"} 9",
            "memstock_cgroup_kernel_stranded_bytes{cgroup=\"/a\"} 20480",
            "memstock_cgroup_info{cgroup=\"/a/b\\\"\\\\x2d\",cgroup_id=\"2\",parent=\"/a\"} 1",
            "memstock_cgroups 2",
            "memstock_batch_bytes 131072",
            "memstock_events_lost_total 6",
            "# TYPE memstock_healed_bytes_total counter",
            "memstock_healed_bytes_total 8192",
            "memstock_events_total{kind=\"oom-kill\"} 0",
            "memstock_degraded{reason=\"drift\"} 1",
            "memstock_degraded{reason=\"events-lost\"} 0",
            "memstock_checks_total{result=\"moving\"} 4",
            "memstock_drift_bytes -8192",
            "memstock_ownerless_bytes 4096",
        ],
    );
}

#[test]
fn what_has_a_name_has_it_on_every_series() {
    let workload = |kind, name: &str, parts: [Option<&str>; 3]| {
        let [pod, namespace, container] = parts.map(|part| part.map(str::to_owned));
        Workload { kind, name: name.into(), pod, namespace, container }
    };
    let api = ["web-0", "shop", "api"].map(Some);
    let workloads = [
        (1, workload(Kind::Unit, "a.service", [None; 3])),
        (2, workload(Kind::Container, "shop/web-0/api", api)),
    ];
    let found = Found { workloads: workloads.into(), ..Found::default() };
    let text = text(Arc::new(reading()), Arc::new(found)).unwrap();
    let api = "container=\"api\",pod=\"web-0\",namespace=\"shop\"";
    let path = "cgroup=\"/a/b\\\"\\\\x2d\"";
    check(
        &text,
        &[
            "memstock_cgroup_memory_usage_bytes{cgroup=\"/a\",unit=\"a.service\"} 122880",
            &format!("memstock_cgroup_info{{{path},cgroup_id=\"2\",parent=\"/a\",{api}}} 1"),
            &format!("memstock_cgroup_stocked_bytes{{{path},{api}}} 12288"),
            &format!("memstock_cgroup_memory_limit_binding{{{path},ancestor=\"/a\",{api}}} 0"),
        ],
    );
    let of_one = |line: &&str| line.contains(path) && !line.contains("parent=");
    assert!(text.lines().filter(of_one).all(|line| line.contains(api)), "{text}");
}

#[test]
fn pressure_is_told_where_the_kernel_tells_it() {
    let mut pressure = Pressure::default();
    pressure.some.total = Duration::from_millis(1500);
    let found = Found { pressures: [(1, pressure)].into(), ..Found::default() };
    let text = text(Arc::new(reading()), Arc::new(found)).unwrap();
    check(
        &text,
        &[
            "memstock_cgroup_memory_pressure_waiting_seconds_total{cgroup=\"/a\"} 1.5",
            "memstock_cgroup_memory_pressure_stalled_seconds_total{cgroup=\"/a\"} 0.0",
        ],
    );
    let told = text.lines().filter(|line| line.starts_with("memstock_cgroup_memory_pressure"));
    assert_eq!(told.count(), 2, "nothing of the other cgroup: {text}");
}

#[test]
fn every_limit_above_is_told_and_one_binds() {
    let text = exposition(reading());
    let own = "{cgroup=\"/a/b\\\"\\\\x2d\",ancestor=\"/a/b\\\"\\\\x2d\"}";
    let above = "{cgroup=\"/a/b\\\"\\\\x2d\",ancestor=\"/a\"}";
    check(
        &text,
        &[
            &format!("memstock_cgroup_memory_headroom_bytes{own} -40960"),
            &format!("memstock_cgroup_memory_limit_binding{own} 1"),
            &format!("memstock_cgroup_memory_headroom_bytes{above} 40960"),
            &format!("memstock_cgroup_memory_limit_binding{above} 0"),
        ],
    );
}

#[test]
fn what_there_is_not_has_no_value() {
    let mut reading = reading();
    reading.sample.cgroups[1].memory.stats[PageCounterStat::Limit as usize] = Figure::default();
    reading.checked.last = None;
    reading.sample.cpus[0].stats[CpuStat::Faults as usize] = Figure::default();
    reading.sample.cgroups[0].stats[CgroupStat::Faults as usize] = Figure::default();
    let text = exposition(reading);
    assert_eq!(text.matches("\nmemstock_cgroup_memory_limit_bytes{").count(), 1);
    assert_eq!(text.matches("\nmemstock_cgroup_faults_total{").count(), 1);
    // Only cgroups that are tracked and have a memory cgroup.
    assert_eq!(text.matches("\nmemstock_cgroup_kernel_stranded_bytes{").count(), 1);
    let absent = ["memstock_cgroup_memsw", "memstock_drift_bytes", "memstock_cpu_faults_total"];
    for absent in
        absent.map(|name| format!("\n{name}")).iter().chain(&["Inf", "NaN"].map(String::from))
    {
        assert!(!text.contains(absent), "{absent} in\n{text}");
    }
}

#[test]
fn the_removed_are_told_in_sum() {
    let text = exposition(reading());
    // The upper one's usage includes the lower one's.
    check(&text, &["memstock_dying_cgroups 2", "memstock_dying_usage_bytes 20480"]);
}

#[test]
fn memsw_is_told_where_it_is_counted() {
    let mut reading = reading();
    reading.sample.has_memsw = true;
    let text = exposition(reading);
    check(&text, &["memstock_cgroup_memsw_usage_bytes{cgroup=\"/a\"} 122880"]);
    assert!(text.contains("\nmemstock_cgroup_memsw_headroom_bytes{"));
}

#[test]
fn no_two_cgroups_have_one_label() {
    let mut reading = reading();
    for (id, path) in [(10, b"/x\n".to_vec()), (11, b"/x\\x0a".to_vec())] {
        reading.sample.cgroups.push(cgroup(id, &path, None, [Some(1), None, None, None]));
    }
    let text = exposition(reading);
    check(
        &text,
        &[
            "memstock_cgroup_memory_usage_bytes{cgroup=\"/x\\\\x0a\"} 4096",
            "memstock_cgroup_memory_usage_bytes{cgroup=\"/x\\\\x0a (id 11)\"} 4096",
        ],
    );
    let series: Vec<_> =
        text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.rsplit_once(' ')).collect();
    let names: BTreeSet<_> = series.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), series.len());
}

#[test]
fn names_are_proper_and_differ() {
    let names: Vec<_> = Family::all().map(Family::name).collect();
    let proper = |name: &String| {
        name.starts_with("memstock_")
            && !name.contains("__")
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    assert!(names.iter().all(proper), "{names:?}");
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    let mut helps = Family::all().map(|family| family.stat().help);
    assert!(helps.all(|help| help.ends_with('.') && !help.contains(['\n', '\\'])));
}
