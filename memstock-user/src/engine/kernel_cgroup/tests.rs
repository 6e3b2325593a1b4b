//! The mapping of cgroups, on trees made by hand.

use memstock_common::NO_INDEX;

use super::*;
use crate::exit::exit_code;
use crate::host::pages::Kind;

/// /t with /t/a, /t/a/b, and a removed one (4) that was in /t/a; /u beside it.
fn tracked() -> Tracked {
    Tracked::of(&[
        (1, NO_INDEX, Some("/t")),
        (2, 1, Some("/t/a")),
        (3, 2, Some("/t/a/b")),
        (4, 2, None),
        (5, NO_INDEX, Some("/u")),
    ])
}

/// The kernel has counterparts of /t and /t/a, and two cgroups that are not tracked.
fn map() -> KernelMap {
    let mut map = KernelMap::default();
    let numbers = [("", 100), ("a", 101), ("c", 102), ("a/x", 103)];
    let numbers = numbers.map(|(path, number)| (path.into(), number));
    map.add_tree("/t".as_ref(), &numbers, &tracked());
    map.resolve(&tracked());
    map
}

fn seen(index: u32, number: u64) -> PageView {
    let kind = Kind::Anonymous;
    PageView { pfn: 0, index, number, kind, is_file: Some(false), is_our_file: false }
}

#[test]
fn a_cgroup_without_counterpart_stands_for_its_nearest_ancestor() {
    let map = map();
    let counters = [100, 101, 102, 103, 104, 0].map(|number| map.counter(number));
    assert_eq!(counters, [Some(1), Some(2), Some(1), Some(2), None, None]);
    assert!([1, 2, 3, 4].into_iter().all(|index| map.knows(index)));
    assert!(!map.knows(5) && !map.knows(6) && !map.knows(NO_INDEX));
    assert!(!map.is_empty() && KernelMap::default().is_empty());
    assert_eq!(KernelMap::default().counter(0), None);
}

#[test]
fn verdicts() {
    use Verdict::{Both, Neither, OnlyKernels, OnlyOurs, Other};
    let map = map();
    for (index, number, verdict) in [
        (1, 100, Both),
        // Not tracked: we charge it to /t.
        (1, 102, Both),
        (2, 103, Both),
        // /t/a/b has no counterpart: the kernel charges /t/a.
        (3, 101, Both),
        // Removed on our side.
        (4, 101, Both),
        (4, 103, Both),
        (2, 100, Other),
        (4, 100, Other),
        (1, 101, Other),
        (2, 0, OnlyOurs),
        (2, 999, OnlyOurs),
        (NO_INDEX, 101, OnlyKernels),
        (NO_INDEX, 999, Neither),
        // The kernel does not know /u.
        (5, 999, Neither),
        (5, 101, Other),
    ] {
        assert_eq!(map.judge(&seen(index, number)), verdict, "{index} {number}");
    }
}

#[test]
fn tracked_cgroups_are_found_by_path() {
    let tracked = tracked();
    let nearest = |path: &str| tracked.nearest(path.as_ref());
    assert_eq!(nearest("/t/a/b/c/d"), Some(3));
    assert_eq!(nearest("/t/x"), Some(1));
    assert_eq!(nearest("/tt"), None);
    assert_eq!(tracked.roots(), [Path::new("/t"), Path::new("/u")]);
    assert_eq!((tracked.living(4), tracked.living(3), tracked.living(9)), (Some(2), Some(3), None));
    assert_eq!(tracked.lineage(4).collect::<Vec<_>>(), [4, 2, 1]);
    assert!(tracked.is_dying(4) && !tracked.is_dying(3));
}

fn mount(fs_type: &str, point: &Path) -> Mount {
    let point = point.to_path_buf();
    Mount { device: 0, root: "/".into(), point, fs_type: fs_type.into(), source: Vec::new() }
}

#[test]
fn a_kernel_cgroup_is_a_directory_or_a_path() {
    let dir = tempfile::tempdir().unwrap();
    let (memory, cpu) = (dir.path().join("memory"), dir.path().join("cpu"));
    for path in ["memory", "memory/a", "memory/a/b", "cpu/a"] {
        fs::create_dir_all(dir.path().join(path)).unwrap();
        if path.starts_with("memory") {
            fs::write(dir.path().join(path).join(MEMORY_FILES[0]), "0\n").unwrap();
        }
    }
    let mounts = [mount("cgroup", &cpu), mount("cgroup", &memory), mount("cgroup2", "/z".as_ref())];
    let found = |path: &Path| kernel_dir(&mounts, path);
    assert_eq!(found(&memory.join("a")).unwrap(), memory.join("a"));
    assert_eq!(found("/a/b".as_ref()).unwrap(), memory.join("a/b"));
    assert_eq!(found("a/./b".as_ref()).unwrap(), memory.join("a/b"));
    for (path, code, part) in [
        (PathBuf::from("/none"), 122, "there is no cgroup"),
        (cpu.join("a"), 122, "not a memory cgroup"),
        (memory.clone(), 122, "root cgroup"),
        ("/".into(), 122, "root cgroup"),
        ("/a/../..".into(), 122, "not allowed"),
    ] {
        let error = found(&path).unwrap_err();
        assert!(error.to_string().contains(part), "{error:#}");
        assert_eq!(exit_code(&error), code, "{error:#}");
    }
    let error = kernel_dir(&mounts[..1], "/a".as_ref()).unwrap_err();
    assert_eq!(exit_code(&error), 121);

    let numbers = memory_cgroups(&memory);
    let below: Vec<_> = numbers.iter().map(|(below, _)| below.to_str().unwrap()).collect();
    assert_eq!(below, ["", "a", "a/b"]);
    assert_eq!(numbers[1].1, fs::metadata(memory.join("a")).unwrap().ino());
}
