//! From the path of a cgroup to what it can be. Pure. Knows the spellings of kubelet and the runtimes, with cgroupfs
//! and with systemd as their cgroup driver.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// What a path tells about its cgroup.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// A container of docker with this id.
    Docker(String),
    /// A container of podman.
    Podman(String),
    /// A container of a pod, made by kubelet's runtime.
    InPod(String),
    /// The pod with this uid.
    Pod(String),
    /// A machine of this name.
    Machine(String),
    /// A unit of this name.
    Unit(String),
    /// The path does not tell: a container, if its runtime has the path in its files.
    Unknown,
}

/// Suffixes of systemd units that have cgroups.
const UNITS: [&str; 6] = [".service", ".scope", ".slice", ".socket", ".mount", ".swap"];

/// Whether the cgroup at `path` is a container or in one, which names what is below it as it likes.
pub(super) fn is_in_container(path: &Path) -> bool {
    let mut above = std::iter::successors(Some(path), |path| Some(split(path)?.0));
    above.any(|path| one(path).is_some_and(|it| it.has_inside()))
}

/// What the cgroup at `path` can be if its parent is not [in a container](is_in_container); none for the root.
pub(super) fn place(path: &Path) -> Option<Place> {
    // No runtime makes names that are not UTF-8.
    let last = split(path)?.1.to_str()?;
    one(path).or_else(|| unit(last, path)).or(Some(Place::Unknown))
}

/// The parent's path, empty if that is the root, and the cgroup's own name; none for the root. `Path` walks over all
/// components; here one slash is before each name and none at the end, so the last slash is enough.
pub(super) fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    let bytes = path.as_os_str().as_bytes();
    let slash = bytes.iter().rposition(|&byte| byte == b'/')?;
    let [above, name] = [&bytes[..slash], &bytes[slash + 1..]].map(OsStr::from_bytes);
    (!name.is_empty()).then_some((Path::new(above), name))
}

impl Place {
    /// Whether cgroups below it are inside of a container.
    fn has_inside(&self) -> bool {
        matches!(self, Self::Docker(_) | Self::Podman(_) | Self::InPod(_) | Self::Machine(_))
    }
}

/// What the cgroup at `path` is, by its own name and that of its parent.
fn one(path: &Path) -> Option<Place> {
    let (above, last) = split(path)?;
    let last = last.to_str()?;
    let above = split(above).and_then(|(_, name)| name.to_str()).unwrap_or_default();
    if let Some(uid) = pod(last, above) {
        return Some(Place::Pod(uid));
    }
    let (stem, is_scope) = match last.strip_suffix(".scope") {
        Some(stem) => (stem, true),
        None => (last, false),
    };
    let id_after =
        |prefix: &str| stem.strip_prefix(prefix).filter(|id| is_id(id)).map(str::to_owned);
    // containerd with the cgroupfs driver, given a slice: `….slice:cri-containerd:<id>`.
    let colons = last.rsplit_once(':').filter(|(of, _)| of.ends_with(":cri-containerd"));
    let colons = colons.map(|(_, id)| id).filter(|id| is_id(id));
    if let Some(id) =
        id_after("cri-containerd-").or_else(|| id_after("crio-")).or(colons.map(Into::into))
    {
        return Some(Place::InPod(id));
    }
    if pod(above, "kubepods").is_some() {
        let id = if is_scope { stem.strip_prefix("docker-")? } else { last };
        return is_id(id).then(|| Place::InPod(id.to_owned()));
    }
    if let Some(id) = id_after("libpod-") {
        return Some(Place::Podman(id));
    }
    if let Some(id) = id_after("docker-").filter(|_| is_scope) {
        return Some(Place::Docker(id));
    }
    if above == "docker" && is_id(last) {
        return Some(Place::Docker(last.to_owned()));
    }
    machine(last, stem, above, is_scope).map(Place::Machine)
}

/// The uid of a pod.
fn pod(last: &str, above: &str) -> Option<String> {
    let is_uid = |uid: &str| {
        uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
    };
    if let Some(stem) = last.strip_suffix(".slice") {
        // `-` separates slices, so the uid has `_` instead.
        let (of, uid) = stem.rsplit_once("-pod")?;
        let uid = uid.replace('_', "-");
        return (of.contains("kubepods") && is_uid(&uid)).then_some(uid);
    }
    let uid = last.strip_prefix("pod")?;
    let is_kubelets = ["kubepods", "burstable", "besteffort", "guaranteed"].contains(&above);
    (is_kubelets && is_uid(uid)).then(|| uid.to_owned())
}

fn machine(last: &str, stem: &str, above: &str, is_scope: bool) -> Option<String> {
    let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    if let Some(name) = last.strip_prefix("lxc.payload.") {
        return named(name);
    }
    if above == "lxc" || above == "lxc.payload" {
        return named(last);
    }
    if above != "machine.slice" {
        return None;
    }
    if let Some(name) = last.strip_prefix("systemd-nspawn@") {
        return unescape(name.strip_suffix(".service")?);
    }
    unescape(stem.strip_prefix("machine-").filter(|_| is_scope)?)
}

/// Undoes systemd's escaping of a name in that of a unit.
fn unescape(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let digits = [*high, *low];
                bytes.push(u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?);
                rest = tail;
            }
            (b'-', _) => bytes.push(b'/'),
            (&byte, _) => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok().filter(|name| !name.is_empty())
}

/// A unit of the system's manager: only slices are above it.
fn unit(last: &str, path: &Path) -> Option<Place> {
    if !UNITS.iter().any(|end| last.len() > end.len() && last.ends_with(end)) {
        return None;
    }
    let mut above = path.ancestors().skip(1).filter_map(Path::file_name).peekable();
    let is_top = last.ends_with(".slice") || last == "init.scope";
    let is_slice = |name: &OsStr| name.to_str().is_some_and(|name| name.ends_with(".slice"));
    let is_manager = if above.peek().is_none() { is_top } else { above.all(is_slice) };
    is_manager.then(|| Place::Unit(last.to_owned()))
}

/// Whether it is an id in the form of docker, podman, containerd's CRI plugin and CRI-O.
pub(super) fn is_id(text: impl AsRef<OsStr>) -> bool {
    let bytes = text.as_ref().as_encoded_bytes();
    bytes.len() == 64 && bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    const UID: &str = "0c7ee08e-2e1f-4d2c-9a55-0e8ae3b9a9d7";

    fn expand(path: &str) -> String {
        path.replace("$UID_", &UID.replace('-', "_")).replace("$UID", UID).replace("$ID", ID)
    }

    fn placed(path: &str) -> Option<Place> {
        let path = PathBuf::from(expand(path));
        if is_in_container(path.parent()?) { None } else { place(&path) }
    }

    #[test]
    fn each_spelling_is_understood() {
        let (docker, podman) = (Place::Docker(ID.into()), Place::Podman(ID.into()));
        let (in_pod, pod) = (Place::InPod(ID.into()), Place::Pod(UID.into()));
        let machine = |name: &str| Place::Machine(name.into());
        let unit = |name: &str| Place::Unit(name.into());
        for (path, expected) in [
            ("/docker/$ID", docker.clone()),
            ("/system.slice/docker-$ID.scope", docker.clone()),
            ("/my.slice/docker-$ID.scope", docker),
            ("/libpod_parent/libpod-$ID", podman.clone()),
            ("/libpod_parent/$ID/libpod-$ID", podman.clone()),
            ("/machine.slice/libpod-$ID.scope", podman.clone()),
            ("/machine.slice/machine-libpod_pod_$ID.slice/libpod-$ID.scope", podman),
            ("/kubepods/burstable/pod$UID/$ID", in_pod.clone()),
            ("/kubepods/pod$UID/$ID", in_pod.clone()),
            ("/kubepods/besteffort/pod$UID/crio-$ID", in_pod.clone()),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod$UID_.slice/cri-containerd-$ID.scope",
                in_pod.clone(),
            ),
            ("/kubepods.slice/kubepods-pod$UID_.slice/crio-$ID.scope", in_pod.clone()),
            ("/kubepods.slice/kubepods-pod$UID_.slice/docker-$ID.scope", in_pod.clone()),
            (
                "/system.slice/containerd.service/kubepods-burstable-pod$UID_.slice:cri-containerd:$ID",
                in_pod,
            ),
            ("/kubepods/besteffort/pod$UID", pod.clone()),
            ("/kubepods.slice/kubepods-pod$UID_.slice", pod.clone()),
            ("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod$UID_.slice", pod),
            ("/lxc.payload.web", machine("web")),
            ("/lxc/web", machine("web")),
            ("/machine.slice/systemd-nspawn@my\\x2dbox.service", machine("my-box")),
            ("/machine.slice/machine-box.scope", machine("box")),
            ("/system.slice/nginx.service", unit("nginx.service")),
            ("/system.slice/system-getty.slice/getty@tty1.service", unit("getty@tty1.service")),
            ("/system.slice", unit("system.slice")),
            ("/init.scope", unit("init.scope")),
            ("/user.slice/user-1000.slice/session-3.scope", unit("session-3.scope")),
            ("/system.slice/crio-conmon-$ID.scope", unit(&format!("crio-conmon-{ID}.scope"))),
            ("/machine.slice/libpod-conmon-$ID.scope", unit(&format!("libpod-conmon-{ID}.scope"))),
            ("/system.slice/runc-web.scope", unit("runc-web.scope")),
            ("/default/web", Place::Unknown),
            ("/$ID", Place::Unknown),
            ("/anything", Place::Unknown),
            ("/kubepods", Place::Unknown),
            ("/docker", Place::Unknown),
            // Not the manager's: anybody who may make cgroups there can have made it.
            ("/mine/nginx.service", Place::Unknown),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service",
                Place::Unknown,
            ),
            ("/.service", Place::Unknown),
            ("/docker/short", Place::Unknown),
            ("/kubepods/burstable/podnone/$ID", Place::Unknown),
        ] {
            assert_eq!(placed(path), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_is_inside_is_not_named() {
        for path in [
            "/docker/$ID/init.scope",
            "/docker/$ID/system.slice/nginx.service",
            "/docker/$ID/kubelet/kubepods/pod$UID/$ID",
            "/machine.slice/libpod-$ID.scope/container",
            "/kubepods/pod$UID/$ID/inner",
            "/lxc.payload.web/system.slice",
            "/",
            "",
        ] {
            assert_eq!(placed(path), None, "{path}");
        }
    }

    #[test]
    fn names_of_bytes_are_none() {
        let odd = OsStr::from_bytes(b"/system.slice/\xff.service");
        assert_eq!(place(Path::new(odd)), None);
        assert_eq!(unescape("a\\x2"), Some("a\\x2".into()));
        assert_eq!(unescape("a\\xzz"), None);
        assert_eq!(unescape("a\\xff"), None);
    }
}
