//! Against the real hierarchy, as root; makes only cgroups called `memstock-unit-*`.

use super::*;
use crate::exit::exit_code;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command, Stdio};

fn mount() -> CgroupMount {
    CgroupMount::find().unwrap()
}

/// Whether there is no hierarchy to look at, as in a container.
fn is_unmounted() -> bool {
    CgroupMount::find().is_err() && memstock_tests::live::has_no_cgroups()
}

fn create(name: &str) -> OwnedCgroup {
    mount().create(name).unwrap()
}

/// A sleeping process, killed when dropped.
struct Sleeper(Child);

impl Sleeper {
    fn inside(dir: &Path) -> Self {
        let child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let sleeper = Self(child);
        fs::write(dir.join("cgroup.procs"), sleeper.0.id().to_string()).unwrap();
        sleeper
    }

    fn cgroup(&self) -> String {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", self.0.id())).unwrap();
        text.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn refused(result: Result<impl std::fmt::Debug>) -> String {
    let error = result.unwrap_err();
    assert_eq!(exit_code(&error), 122, "{error:#}");
    let text = format!("{error:#}");
    assert!(!text.contains('\n'));
    text
}

#[test]
fn a_threaded_cgroup_cannot_be_limited() {
    if memstock_tests::live::has_no_cgroups() {
        return;
    }
    let mount = mount();
    let domain = create("memstock-unit-domain");
    let threaded = create("memstock-unit-domain/threads");
    fs::write(threaded.cgroup().dir.join("cgroup.type"), "threaded").unwrap();
    let below = create("memstock-unit-domain/threads/below");
    domain.cgroup().can_be_limited().unwrap();
    for cgroup in [threaded.cgroup(), below.cgroup()] {
        let text = refused(cgroup.can_be_limited());
        assert!(text.ends_with("which is in /memstock-unit-domain: limit that one"), "{text}");
    }
    assert_eq!(mount.children(domain.cgroup()).unwrap(), [threaded.cgroup().clone()]);
    for owned in [below, threaded, domain] {
        owned.remove().unwrap();
    }
}

#[test]
fn the_id_is_the_inode_and_leads_back() {
    if memstock_tests::live::has_no_cgroups() {
        return;
    }
    let mount = mount();
    let owned = create("memstock-unit-id");
    let cgroup = owned.cgroup().clone();
    assert_eq!(cgroup.path, Path::new("/memstock-unit-id"));
    assert_eq!(cgroup.dir, mount.dir().join("memstock-unit-id"));
    #[cfg(target_pointer_width = "64")]
    assert_eq!(cgroup.id, fs::metadata(&cgroup.dir).unwrap().ino());
    assert_eq!(mount.path_of(cgroup.id).as_ref(), Some(&cgroup.path));
    assert_eq!(mount.lineage(cgroup.id), ById::Found(vec![cgroup.clone()]));
    assert_eq!(mount.cgroup_of(cgroup.id), ById::Found(cgroup.clone()));
    owned.remove().unwrap();
    assert_eq!(mount.path_of(cgroup.id), None);
    assert_eq!(mount.cgroup_of(cgroup.id), ById::Gone);
    assert_eq!(mount.path_of(u64::MAX), None);
    let root = fs::metadata(mount.dir()).unwrap().ino();
    assert_eq!(mount.path_of(root), Some("/".into()));
}

#[test]
fn a_path_may_be_given_in_several_ways() {
    if memstock_tests::live::has_no_cgroups() {
        return;
    }
    let mount = mount();
    let owned = create("memstock-unit-paths");
    let inner = mount.create("/memstock-unit-paths/b").unwrap();
    for path in ["memstock-unit-paths/b", "/memstock-unit-paths/b/", "./memstock-unit-paths//b/."] {
        assert_eq!(mount.resolve(path).unwrap(), *inner.cgroup(), "{path}");
    }
    assert_eq!(mount.resolve(&inner.cgroup().dir).unwrap(), *inner.cgroup());

    let links = tempfile::tempdir().unwrap();
    let link = links.path().join("cg");
    std::os::unix::fs::symlink(mount.dir(), &link).unwrap();
    assert_eq!(mount.resolve(link.join("memstock-unit-paths/b")).unwrap(), *inner.cgroup());
    assert!(refused(mount.resolve(&link)).contains("root"));
    inner.remove().unwrap();
    owned.remove().unwrap();
}

#[test]
fn what_is_no_cgroup_is_refused() {
    if is_unmounted() {
        return;
    }
    let mount = mount();
    let resolve = |path: &str| refused(mount.resolve(path));
    let root = "the root cgroup is never charged: name a cgroup below it";
    assert_eq!(resolve("/"), root);
    assert_eq!(resolve("."), root);
    assert_eq!(refused(mount.resolve(mount.dir())), root);
    assert_eq!(resolve(""), "an empty path names no cgroup");
    assert!(resolve("/memstock-unit-none").starts_with("no cgroup /memstock-unit-none in /sys"));
    assert!(resolve("/tmp").starts_with("no cgroup /tmp in"));
    assert!(resolve("cgroup.procs").starts_with("/cgroup.procs is not a cgroup"));
    assert!(resolve("a/../b").contains("\"..\" is not allowed"));
    assert!(resolve("memstock-unit\n\x1b").starts_with("no cgroup /memstock-unit\\x0a\\x1b in"));
    assert!(resolve(&"x".repeat(5000)).starts_with("cannot use cgroup"));
}

#[test]
fn v1_paths_are_named_as_such() {
    if is_unmounted() {
        return;
    }
    let mount = CgroupMount { v1: vec!["/sys/fs/cgroup/v1test".into()], ..mount() };
    let text = refused(mount.resolve("/sys/fs/cgroup/v1test/x"));
    assert!(text.starts_with("/sys/fs/cgroup/v1test/x is a cgroup v1 path"), "{text}");
    assert!(text.contains("memstock tracks cgroup v2, which is at"), "{text}");
    // A v2 mount inside a v1 one is v2.
    let nested = CgroupMount { v1: vec!["/sys".into()], ..mount };
    assert!(refused(nested.resolve(nested.dir())).contains("root cgroup"));
}

#[test]
fn the_whole_hierarchy_is_taken_and_its_absence_told() {
    if is_unmounted() {
        return;
    }
    let real = mount();
    let entry = |root: &str, point: &Path, fs_type: &str| Mount {
        device: 0,
        root: root.into(),
        point: point.into(),
        fs_type: fs_type.into(),
        source: Vec::new(),
    };
    let found = CgroupMount::among(vec![
        entry("/part", real.dir(), "cgroup2"),
        // Hidden by another mount.
        entry("/", Path::new("/proc"), "cgroup2"),
        entry("/", real.dir(), "cgroup2"),
        entry("/", Path::new("/v1"), "cgroup"),
    ])
    .unwrap();
    assert_eq!((found.dir(), &found.v1[..]), (real.dir(), &[PathBuf::from("/v1")][..]));
    let part = CgroupMount::among(vec![entry("/part", real.dir(), "cgroup2")]).unwrap_err();
    assert!(part.to_string().contains("only in part"), "{part}");
    let none = CgroupMount::among(Vec::new()).unwrap_err();
    assert!(none.to_string().starts_with("cgroup v2 is not mounted"), "{none}");
    assert_eq!((exit_code(&part), exit_code(&none)), (121, 121));
}

#[test]
fn bad_names_are_not_made() {
    if memstock_tests::live::has_no_cgroups() {
        return;
    }
    let mount = mount();
    let create = |name: &str| refused(mount.create(name));
    assert_eq!(create(""), "an empty path names no cgroup");
    assert!(create(".").contains("root cgroup"));
    assert!(create("/").contains("root cgroup"));
    assert!(create("..").contains("\"..\""));
    assert!(create("memstock-unit-x/../y").contains("\"..\""));
    assert!(create("memstock-unit-none/x").contains("parent cgroup does not exist"));
    assert!(create("cgroup.procs/x").contains("parent cgroup does not exist"));
    assert!(create("cgroup.procs").contains("name of a control file"));
    assert!(create("memstock-unit-\n").contains("refuses this name"));
    assert!(create(&"x".repeat(5000)).contains("File name too long"));
    let owned = mount.create("/memstock-unit-twice").unwrap();
    assert!(create("memstock-unit-twice").starts_with("memstock-unit-twice: the cgroup exists"));
    drop(owned);
    assert!(!mount.dir().join("memstock-unit-twice").exists());
}

#[test]
fn names_are_bytes() {
    if memstock_tests::live::has_no_cgroups() {
        return;
    }
    let mount = mount();
    let name = OsStr::from_bytes(b"memstock-unit-\xff \x1b(deleted)");
    let owned = mount.create(name).unwrap();
    let cgroup = owned.cgroup();
    assert_eq!(display(&cgroup.path), "/memstock-unit-\\xff \\x1b(deleted)");
    assert_eq!(mount.path_of(cgroup.id).as_ref(), Some(&cgroup.path));
    assert_eq!(mount.resolve(name).unwrap(), *cgroup);
    owned.remove().unwrap();
}

#[test]
fn tasks_go_to_the_parent_and_descendants_go_with_it() {
    if memstock_tests::live::has_no_cgroups() {
        return;
    }
    let outer = create("memstock-unit-outer");
    let owned = mount().create("memstock-unit-outer/mine").unwrap();
    let dir = owned.cgroup().dir.clone();
    fs::create_dir_all(dir.join("a/b/c")).unwrap();
    fs::create_dir(dir.join("d")).unwrap();
    let sibling = mount().create("memstock-unit-outer/sibling").unwrap();
    let bystander = Sleeper::inside(&sibling.cgroup().dir);
    let tasks = [&dir, &dir.join("a/b/c"), &dir.join("d")].map(|dir| Sleeper::inside(dir));
    owned.remove().unwrap();
    assert!(!dir.exists());
    for task in &tasks {
        assert_eq!(task.cgroup(), "/memstock-unit-outer");
    }
    assert_eq!(bystander.cgroup(), "/memstock-unit-outer/sibling");
    drop((tasks, bystander));
    sibling.remove().unwrap();
    outer.remove().unwrap();
}

#[test]
fn threaded_cgroups_are_emptied_too() {
    if memstock_tests::live::has_no_cgroups() {
        return;
    }
    let owned = create("memstock-unit-threads");
    let dir = owned.cgroup().dir.clone();
    let task = Sleeper::inside(&dir);
    let threaded = dir.join("t");
    fs::create_dir(&threaded).unwrap();
    fs::write(threaded.join("cgroup.type"), "threaded").unwrap();
    fs::write(threaded.join("cgroup.threads"), task.0.id().to_string()).unwrap();
    assert_eq!(task.cgroup(), "/memstock-unit-threads/t");
    owned.remove().unwrap();
    assert_eq!(task.cgroup(), "/");
    assert!(!dir.exists());
}

#[test]
fn a_fork_storm_does_not_keep_it() {
    if memstock_tests::live::has_no_cgroups() {
        return;
    }
    let owned = create("memstock-unit-storm");
    let dir = owned.cgroup().dir.clone();
    let script = "for i in $(seq 300); do sleep 0.01 & done; wait";
    let mut storm = Command::new("sh").args(["-c", script]).spawn().unwrap();
    fs::write(dir.join("cgroup.procs"), storm.id().to_string()).unwrap();
    drop(owned);
    assert!(!dir.exists());
    storm.wait().unwrap();
}

#[test]
fn what_a_dead_engine_left_is_removed_by_its_id() {
    if memstock_tests::live::has_no_cgroups() {
        return;
    }
    let mount = mount();
    let dir = mount.dir().join("memstock-unit-left");
    fs::create_dir(&dir).unwrap();
    let id = mount.resolve("memstock-unit-left").unwrap().id;
    let task = Sleeper::inside(&dir);
    mount.remove_left_behind(id).unwrap();
    assert_eq!(task.cgroup(), "/");
    assert!(!dir.exists());
    mount.remove_left_behind(id).unwrap();
    let root = fs::metadata(mount.dir()).unwrap().ino();
    assert!(refused(mount.remove_left_behind(root)).contains("root"));
}

#[test]
fn a_namesake_is_left_alone() {
    if memstock_tests::live::has_no_cgroups() {
        return;
    }
    let owned = create("memstock-unit-namesake");
    let dir = owned.cgroup().dir.clone();
    fs::remove_dir(&dir).unwrap();
    fs::create_dir(&dir).unwrap();
    let other = Sleeper::inside(&dir);
    owned.remove().unwrap();
    assert_eq!(other.cgroup(), "/memstock-unit-namesake");
    drop(other);
    // A zombie does not keep a cgroup busy, but its exit may take a moment.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while fs::remove_dir(&dir).is_err() {
        assert!(std::time::Instant::now() < deadline);
    }
}

#[test]
fn bytes_are_given_where_the_name_is_not_what_is_shown() {
    for plain in ["/a b", "/a\\x2db", "/é\"=-", "/a\\xff"] {
        assert_eq!((display(plain).as_str(), hex_unless_plain(plain)), (plain, None));
    }
    let odd = OsStr::from_bytes(b"/a\xff");
    // Displayed like the last one above.
    assert_eq!(display(odd), "/a\\xff");
    assert_eq!(hex_unless_plain(odd).as_deref(), Some("2f61ff"));
    assert_eq!(hex_unless_plain("/\x1b").as_deref(), Some("2f1b"));
}
