//! The files of each runtime as they really are, and files that must not be trusted.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Kind, Resolver, Workload};

const ID: &str = "d9c453c377690d0566e61a50381a9ca78a22ca55a70390ebfe4d44c0c10f512d";
const OTHER: &str = "cca89ed280590debe4e2d7939babdb2c94bb097a3ce0fb6a1426cc1c7670b23f";
const UID: &str = "0c7ee08e-2e1f-4d2c-9a55-0e8ae3b9a9d7";

/// A host with a hierarchy and the files of runtimes.
struct Host {
    root: TempDir,
    resolver: Resolver,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let owner = root.path().metadata().unwrap().uid();
        let resolver = Resolver::below(root.path().into(), owner);
        Self { root, resolver }
    }

    fn put(&self, path: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // As runtimes do it: a new file, renamed.
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &path).unwrap();
        path
    }

    fn hierarchy(&self) -> PathBuf {
        self.root.path().join("cgroup")
    }

    fn names(&mut self, paths: &[&str]) -> Vec<Option<Workload>> {
        let hierarchy = self.hierarchy();
        for path in paths {
            fs::create_dir_all(hierarchy.join(path.strip_prefix('/').unwrap())).unwrap();
        }
        let names = self.resolver.names(&hierarchy, paths.iter().map(Path::new));
        paths.iter().map(|path| names.get(Path::new(path)).cloned()).collect()
    }

    fn name(&mut self, path: &str) -> Option<String> {
        self.names(&[path]).remove(0).map(|workload| workload.name)
    }

    fn docker(&self, id: &str, name: &str) -> PathBuf {
        let text = format!(
            r#"{{"StreamConfig":{{}},"State":{{"Running":true,"Pid":4711}},"ID":"{id}","Created":"2026-11-29T12:00:00.1Z",
            "Args":[],"Config":{{"Hostname":"{}","Env":["PATH=/bin"],"Cmd":["sleep"]}},"Name":"{name}","Driver":"overlay2",
            "RestartCount":0,"AppArmorProfile":"","ResolvConfPath":""}}"#,
            &id[..12]
        );
        self.put(&format!("var/lib/docker/containers/{id}/config.v2.json"), text)
    }

    fn podman(&self, names: &[(&str, &str)]) -> PathBuf {
        let each = names.iter().map(|(id, name)| {
            format!(
                r#"{{"id":"{id}","names":["{name}"],"image":"0e36","layer":"1c59","metadata":"{{\"name\":\"old\"}}",
                "created":"2026-11-29T12:28:23.7Z","flags":{{"MountLabel":"","ProcessLabel":""}}}}"#
            )
        });
        let text = format!("[{}]", each.collect::<Vec<_>>().join(","));
        self.put("var/lib/containers/storage/overlay-containers/containers.json", text)
    }

    fn cri(&self, id: &str, path: &str, annotations: &str) -> PathBuf {
        let text = format!(
            r#"{{"ociVersion":"1.0.2-dev","process":{{"user":{{"uid":0,"gid":0}},"args":["/pause"]}},"root":{{"path":"rootfs"}},
            "annotations":{{{annotations}}},"linux":{{"resources":{{}},"cgroupsPath":"{path}","namespaces":[]}}}}"#
        );
        self.put(
            &format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json"),
            text,
        )
    }

    fn warnings(&mut self) -> Vec<String> {
        self.resolver.warnings()
    }
}

const SANDBOX: &str = r#""io.kubernetes.cri.container-type":"sandbox","io.kubernetes.cri.sandbox-name":"web-0",
    "io.kubernetes.cri.sandbox-namespace":"shop","io.kubernetes.cri.sandbox-uid":"0c7e""#;
const CONTAINER: &str = r#""io.kubernetes.cri.container-name":"api","io.kubernetes.cri.container-type":"container",
    "io.kubernetes.cri.image-name":"x","io.kubernetes.cri.sandbox-name":"web-0","io.kubernetes.cri.sandbox-namespace":"shop""#;

fn in_pod(container: Option<&str>) -> Workload {
    Workload::in_pod("shop".into(), "web-0".into(), container.map(str::to_owned))
}

#[test]
fn docker_and_a_rename() {
    let mut host = Host::new();
    let path = format!("/docker/{ID}");
    assert_eq!(host.name(&path), None);
    // The file appears a moment after the cgroup.
    host.docker(ID, "/web");
    assert_eq!(host.name(&path).as_deref(), Some("web"));
    assert_eq!(host.name(&format!("/system.slice/docker-{ID}.scope")).as_deref(), Some("web"));
    assert_eq!(host.name(&format!("/some/where/{ID}")).as_deref(), Some("web"));
    host.docker(ID, "/shop_web");
    assert_eq!(host.name(&path).as_deref(), Some("shop_web"));
    fs::remove_dir_all(host.root.path().join("var")).unwrap();
    assert_eq!(host.name(&path), None);
    assert_eq!(host.warnings(), Vec::<String>::new());
}

#[test]
fn podman_and_a_rename() {
    let mut host = Host::new();
    let path = format!("/libpod_parent/libpod-{ID}");
    host.podman(&[(OTHER, "db"), (ID, "web")]);
    let names = host.names(&[&path, &format!("/machine.slice/libpod-{OTHER}.scope")]);
    let expected = [("web"), ("db")].map(|name| Some(Workload::new(Kind::Container, name)));
    assert_eq!(names, expected);
    host.podman(&[(ID, "web2")]);
    assert_eq!(host.name(&path).as_deref(), Some("web2"));
    assert_eq!(host.name(&format!("/machine.slice/libpod-{OTHER}.scope")), None);
}

#[test]
fn a_pod_and_its_containers() {
    let mut host = Host::new();
    let pod = format!("/kubepods/burstable/pod{UID}");
    let (sandbox, api) = (format!("{pod}/{ID}"), format!("{pod}/{OTHER}"));
    host.cri(ID, &sandbox, SANDBOX);
    host.cri(OTHER, &api, CONTAINER);
    let names = host.names(&[&pod, &sandbox, &api]);
    let whole = Workload::pod("shop".into(), "web-0".into());
    assert_eq!(names, [Some(whole.clone()), Some(in_pod(None)), Some(in_pod(Some("api")))]);
    assert_eq!(names[1].as_ref().unwrap().name, "shop/web-0 (sandbox)");
    // Without its containers, kubelet's folders have the name.
    assert_eq!(host.name(&pod), None);
    fs::create_dir_all(host.root.path().join(format!("var/log/pods/shop_web-0_{UID}"))).unwrap();
    assert_eq!(host.names(&[&pod]), [Some(whole)]);
    // A container of the CRI plugin with another path.
    host.cri(OTHER, &format!("/k8s.io/{OTHER}"), CONTAINER);
    assert_eq!(host.names(&[&format!("/k8s.io/{OTHER}")]), [Some(in_pod(Some("api")))]);
}

#[test]
fn of_any_runtime_kubelet_has_the_names() {
    let mut host = Host::new();
    let path =
        format!("/kubepods.slice/kubepods-pod{}.slice/crio-{ID}.scope", UID.replace('-', "_"));
    assert_eq!(host.name(&path), None);
    let logs = host.root.path().join("var/log/containers");
    fs::create_dir_all(&logs).unwrap();
    symlink("/nowhere", logs.join(format!("web-0_shop_api-{ID}.log"))).unwrap();
    assert_eq!(host.names(&[&path]), [Some(in_pod(Some("api")))]);
}

#[test]
fn ctr_and_runc() {
    let mut host = Host::new();
    let task = "run/containerd/io.containerd.runtime.v2.task/default/box/config.json";
    let text = |path: &str| format!(r#"{{"linux":{{"cgroupsPath":"{path}"}}}}"#);
    host.put(task, text("/default/box"));
    assert_eq!(host.name("/default/box").as_deref(), Some("box"));
    // A cgroup of that path, but the container has another one.
    host.put(task, text("/elsewhere/box"));
    assert_eq!(host.name("/default/box"), None);
    let state = |id: &str, path: &str| {
        let dir = host.root.path().join("cgroup").join(path);
        let dir = dir.display();
        format!(
            r#"{{"id":"{id}","init_process_pid":27264,"init_process_start":1380,"config":{{"rootfs":"/b/rootfs","cgroups":{{}}}},
            "rootless":false,"cgroup_paths":{{"":"{dir}","memory":"/sys/fs/cgroup/memory/{path}"}},"namespace_paths":{{}}}}"#
        )
    };
    host.put("run/runc/try1/state.json", state("try1", "told/so"));
    host.put("run/runc/try2/state.json", state("try2", "system.slice/runc-try2.scope"));
    host.put("run/runc/else/state.json", state("another", "told/other"));
    assert_eq!(host.name("/told/so").as_deref(), Some("try1"));
    assert_eq!(host.name("/told/other"), None);
    let unit = host.names(&["/system.slice/runc-try2.scope", "/system.slice/a.service"]);
    assert_eq!(unit[0], Some(Workload::new(Kind::Container, "try2")));
    assert_eq!(unit[1].as_ref().unwrap().unit(), Some("a.service"));
    fs::remove_dir_all(host.root.path().join("run/runc/try1")).unwrap();
    assert_eq!(host.name("/told/so"), None);
}

#[test]
fn what_is_hostile_is_told_of_once_and_names_nobody() {
    let mut host = Host::new();
    let path = format!("/docker/{ID}");
    let file = host.docker(ID, "/web");
    let deep = |n| format!(r#"{{"Name":{}{}}}"#, "[".repeat(n), "]".repeat(n));
    let long = "x".repeat(1000);
    for (text, why) in [
        // 10 MiB.
        (format!(r#"{{"Name":"web","x":"{}"}}"#, "y".repeat(10 << 20)), "larger than 1 MiB"),
        (deep(100_000), "not the JSON"),
        (r#"{"Name":17}"#.to_owned(), "not the JSON"),
        (r#"{"Name":"web""#.to_owned(), "not the JSON"),
        (String::new(), "not the JSON"),
        ("\u{0}\u{1}".to_owned(), "not the JSON"),
    ] {
        host.put(&format!("var/lib/docker/containers/{ID}/config.v2.json"), &text);
        host.resolver = Resolver::below(host.root.path().into(), host.resolver.owner());
        assert_eq!((host.name(&path), host.name(&path)), (None, None), "{why}");
        let warnings = host.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].contains(why) && warnings[0].contains("config.v2.json"),
            "{warnings:?}"
        );
    }
    // The field is not read, so it is not too deep.
    let around = format!(r#"{{"x":{}{},"Name":"/web"}}"#, "[".repeat(100_000), "]".repeat(100_000));
    for (text, name) in [
        (around, Some("web")),
        (r#"{"Name":"/a\u001b[31mb"}"#.to_owned(), None),
        (r#"{"Name":"/a\nb"}"#.to_owned(), None),
        (r#"{"Name":"//docker/x"}"#.to_owned(), None),
        (r#"{"Name":"/ "}"#.to_owned(), None),
        (format!(r#"{{"Name":"/{long}"}}"#), None),
        (r#"{"Name":"/\u202edesrever"}"#.to_owned(), Some("\u{202e}desrever")),
    ] {
        host.put(&format!("var/lib/docker/containers/{ID}/config.v2.json"), text);
        assert_eq!(host.name(&path).as_deref(), name);
    }
    // Harmless when shown.
    let shown = Workload::new(Kind::Container, "\u{202e}desrever").to_string();
    assert_eq!(shown, "\\u{202e}desrever");
    drop(file);
}

#[test]
fn links_fifos_directories_and_files_of_others_are_not_read() {
    let mut host = Host::new();
    let path = format!("/docker/{ID}");
    let real = host.docker(OTHER, "/web");
    let file = host.docker(ID, "/web");
    let refused = |host: &mut Host, why: &str| {
        assert_eq!(host.name(&path), None, "{why}");
        let warnings = host.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(why), "{why}: {warnings:?}");
        host.resolver = Resolver::below(host.root.path().into(), host.resolver.owner());
    };
    fs::remove_file(&file).unwrap();
    symlink(&real, &file).unwrap();
    refused(&mut host, "symbolic link");
    fs::remove_file(&file).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &file,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    refused(&mut host, "not a regular file");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    refused(&mut host, "not a regular file");
    fs::remove_dir(&file).unwrap();
    host.docker(ID, "/web");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    refused(&mut host, "anybody may write to it");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o660)).unwrap();
    let group = host.resolver.owner() + 1;
    std::os::unix::fs::chown(&file, None, Some(group)).unwrap();
    refused(&mut host, &format!("group {group} may write to it"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(host.name(&path).as_deref(), Some("web"));
    // As if the file had another owner; so do the cgroups, and only root's are named.
    let owner = host.resolver.owner();
    host.resolver = Resolver::below(host.root.path().into(), owner + 1);
    assert_eq!(host.name(&path), None);
    let mut trust = super::file::Trust::new(owner + 1);
    let mut files = super::file::Files::<serde_json::Value>::new(super::file::SMALL);
    assert!(files.json(&file, &mut trust).is_none());
    assert!(trust.warnings[0].contains(&format!("belongs to uid {owner}")));
}

#[test]
fn a_file_is_read_once_and_forgotten_with_its_container() {
    let mut trust =
        super::file::Trust::new(tempfile::tempdir().unwrap().path().metadata().unwrap().uid());
    let mut files = super::file::Files::<serde_json::Value>::new(super::file::SMALL);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x");
    let mut written = File::create(&file).unwrap();
    written.write_all(b"[1]").unwrap();
    // Just written, it may be written again without a change of its timestamp.
    let first = files.json(&file, &mut trust).unwrap();
    assert!(!std::sync::Arc::ptr_eq(&first, &files.json(&file, &mut trust).unwrap()));
    written.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let first = files.json(&file, &mut trust).unwrap();
    let again = files.json(&file, &mut trust).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &again));
    written.write_all(b" ").unwrap();
    let changed = files.json(&file, &mut trust).unwrap();
    assert!(!std::sync::Arc::ptr_eq(&first, &changed));
    files.forget_unused();
    assert_eq!(files.nr_known(), 1);
    files.forget_unused();
    assert_eq!(files.nr_known(), 0);
}

#[test]
fn nothing_is_kept_of_containers_that_are_gone() {
    let mut host = Host::new();
    for n in 0..50 {
        let id = format!("{n:064x}");
        host.docker(&id, &format!("/c{n}"));
        assert_eq!(host.name(&format!("/docker/{id}")).as_deref(), Some(&*format!("c{n}")));
        fs::remove_dir_all(host.root.path().join(format!("var/lib/docker/containers/{id}")))
            .unwrap();
    }
    assert_eq!(host.name("/docker"), None);
    assert_eq!(host.resolver.nr_known(), 0);
}
