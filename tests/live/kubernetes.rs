//! kubectl knows every field of the manifests. Their pod, from an image built from the package, sees pods made through
//! containerd's CRI, survives its daemon, and leaves nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memstock_tests::container::Place;
use memstock_tests::cri::{Containerd, NO_CONTAINERD};
use memstock_tests::exposition::Exposition;
use memstock_tests::kubernetes::{Manifests, NO_KUBECTL, NO_PODMAN, Play};
use memstock_tests::live::{is_refused, name};
use memstock_tests::poll::{SOON, poll_until, try_poll_until};
use memstock_tests::process::Program;
use memstock_tests::prometheus::{ABSENT, Programs, Prometheus};
use memstock_tests::skip::{in_guest, skip};
use memstock_tests::{binaries, http, live};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Building is slow: the package check reads every file with many programs.
const BUILD: Duration = Duration::from_secs(600);
const IMAGE: &str = concat!("localhost/memstock:", env!("CARGO_PKG_VERSION"));
const POD: [&str; 3] = ["shop", "web-0", "api"];

/// Collects what `asked` has and `known` has not.
fn unknown(asked: &Value, known: &Value, at: &str, found: &mut Vec<String>) {
    match (asked, known) {
        (Value::Object(asked), Value::Object(known)) => {
            for (key, value) in asked {
                unknown(
                    value,
                    known.get(key).unwrap_or(&Value::Null),
                    &format!("{at}/{key}"),
                    found,
                );
            }
        }
        (Value::Array(asked), Value::Array(known)) if asked.len() == known.len() => {
            for (n, (value, known)) in asked.iter().zip(known).enumerate() {
                unknown(value, known, &format!("{at}/{n}"), found);
            }
        }
        _ if asked == known => {}
        _ => found.push(format!("{at}: {asked}, known is {known}")),
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

#[test]
fn manifests_are_what_kubectl_knows() -> Result<()> {
    let Some(manifests) = Manifests::render(None)? else {
        skip(&name(), NO_KUBECTL);
        return Ok(());
    };
    let daemon = manifests.of("DaemonSet")?;
    let mut found = Vec::new();
    unknown(daemon, &manifests.typed()?, "", &mut found);
    ensure!(found.is_empty(), "{found:#?}");
    let container = &daemon["spec"]["template"]["spec"]["containers"][0];
    ensure!(container["image"] == IMAGE, "the version in kustomization.yaml: {container}");

    // It asks for the same capabilities as the systemd unit.
    let unit = fs::read_to_string(repository("contrib/systemd/memstock.service"))?;
    let of_unit = unit.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let of_unit: BTreeSet<_> =
        of_unit.flat_map(|line| line.split(' ')).filter_map(|it| it.strip_prefix("CAP_")).collect();
    let asked = container["securityContext"]["capabilities"]["add"].as_array().context("none")?;
    let asked: BTreeSet<_> = asked.iter().filter_map(Value::as_str).collect();
    ensure!(asked == of_unit, "{asked:?}, and the unit: {of_unit:?}");

    // memstock accepts its configuration.
    let config = repository("deploy/kubernetes/memstock.toml").display().to_string();
    let checked = memstock_tests::process::memstock(["run", "--config", &config, "--check"])?;
    let checked = checked.finish(SOON)?;
    ensure!(checked.code() == 0, "{checked:?}");
    Ok(())
}

/// The host's bpffs, which systemd mounts on a Kubernetes node.
struct Pins(bool);

impl Pins {
    fn mounted() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        if mounts.lines().any(|line| line.contains(" /sys/fs/bpf bpf ")) {
            return Ok(Self(false));
        }
        let done = Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]).status()?;
        ensure!(done.success(), "mount: {done}");
        Ok(Self(true))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if self.0 {
            let _ = Command::new("umount").arg("/sys/fs/bpf").status();
        }
    }
}

fn xtask(args: &[&str]) -> Result<String> {
    let mut command = Command::new(binaries::xtask()?);
    command.args(args);
    let done = Program::from(command).finish(BUILD)?;
    ensure!(done.code() == 0, "{args:?}: {done:?}");
    Ok(done.stdout.trim().to_owned())
}

/// Builds the image of the binary under test. The same package must make the same image.
fn image(play: &Play) -> Result<String> {
    let path = |name: &str| play.at(name).display().to_string();
    let binary = binaries::memstock()?.display().to_string();
    let deb = xtask(&["package", "--binary", &binary, "--output", &path("deb")])?;
    let files = [path("memstock.tar"), path("again.tar")];
    for file in &files {
        xtask(&["image", "--deb", &deb, "--output", file])?;
    }
    ensure!(fs::read(&files[0])? == fs::read(&files[1])?, "two images of one package differ");
    Ok(path("memstock.tar"))
}

/// The process of memstock's container.
fn daemon(play: &Play) -> Result<i32> {
    Ok(play.tell(&["inspect", "--format", "{{.State.Pid}}", "memstock-memstock"])?.parse()?)
}

fn is_healthy(at: SocketAddr) -> bool {
    http::get(at, "/healthz").is_ok_and(|said| said.trim() == "alive")
}

#[test]
#[ignore = "long"]
fn the_pod_of_the_daemonset_sees_those_of_the_cri() -> Result<()> {
    // Checked before an image is built.
    if is_refused() {
        return Ok(());
    }
    if in_guest() {
        skip(&name(), "needs cargo xtask and podman, which a guest does not have");
        return Ok(());
    }
    let Some(play) = Play::find()? else {
        skip(&name(), NO_PODMAN);
        return Ok(());
    };
    let Some(programs) = Programs::find() else {
        skip(&name(), ABSENT);
        return Ok(());
    };
    if !Containerd::is_there() {
        skip(&name(), NO_CONTAINERD);
        return Ok(());
    }
    let archive = image(&play)?;
    let loaded = play.tell(&["load", "--input", &archive])?;
    ensure!(loaded.contains(IMAGE), "{loaded}");
    live(|| {
        let place = Place::new()?;
        // A port that was free a moment ago.
        let at = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let path = place.path();
        let config = format!("observe = true\nmetrics = \"{at}\"\n[[cgroup]]\npath = \"{path}\"\n");
        let Some(manifests) = Manifests::render(Some(&config))? else {
            skip(&name(), NO_KUBECTL);
            return Ok(());
        };
        let _pins = Pins::mounted()?;
        play.play(&manifests.pod()?)?;
        let healthy = poll_until(3 * SOON, "a healthy pod", || is_healthy(at).then_some(()));
        healthy.with_context(|| play.tell(&["logs", "memstock-memstock"]).unwrap_or_default())?;
        watches(&play, at, &place, &programs)?;
        // As `kubectl delete` does.
        play.tell(&["pod", "stop", "memstock"])?;
        play.tell(&["pod", "rm", "memstock"])?;
        Ok(())
    })
}

/// A scrape has the names of a CRI pod, which keeps its counters when the daemon dies.
fn watches(play: &Play, at: SocketAddr, place: &Place, programs: &Programs) -> Result<()> {
    let said =
        play.tell(&["exec", "memstock-memstock", "/usr/bin/memstock", "doctor", "--json"])?;
    let said: Value = serde_json::from_str(&said).context(said)?;
    ensure!(said["runs_here"] == true, "{said:#}");

    let images = play.tell(&["images", "--format", "{{.Repository}}:{{.Tag}}"])?;
    let pause = images.lines().find(|image| image.contains("pause")).context("no pause")?;
    let saved = play.at("pause.tar");
    play.tell(&["save", "--output", &saved.display().to_string(), pause])?;
    let state = play.at("containerd");
    fs::create_dir(&state)?;
    let containerd = Containerd::start(&state, &saved, pause)?;
    let pod = containerd.run(place.path(), pause, POD)?;

    let labels = format!("container=\"{}\",pod=\"{}\",namespace=\"{}\"", POD[2], POD[1], POD[0]);
    let charged = || -> Result<Option<f64>> {
        let all = Exposition::get(at)?;
        let mut of_it = all.of("memstock_cgroup_charged_bytes_total");
        let found =
            of_it.find(|(series, _)| series.contains(&pod.container) && series.contains(&labels));
        Ok(found.map(|(_, value)| value).filter(|&value| value > 0.0))
    };
    let before = try_poll_until(SOON, "its labels", charged)?;

    // To join with kubelet's metrics: the same three labels, and no others.
    let prometheus =
        Prometheus::start(programs, at, &repository("contrib/prometheus/memstock.rules.yml"))?;
    let kubelets = [("namespace", POD[0]), ("pod", POD[1]), ("container", POD[2])];
    let kubelets = kubelets.iter().fold("vector(2)".to_owned(), |query, (label, value)| {
        format!("label_replace({query}, \"{label}\", \"{value}\", \"\", \"\")")
    });
    let joined =
        format!("memstock_cgroup_memory_usage_bytes / on (namespace, pod, container) {kubelets}");
    try_poll_until(3 * SOON, "a scrape that joins", || {
        Ok(prometheus.query(&joined)?.first().filter(|(_, value)| *value > 0.0).map(|_| ()))
    })?;

    // The daemon dies, and podman restarts it, as kubelet would.
    let first = daemon(play)?;
    kill_process(Pid::from_raw(first).context("no daemon")?, Signal::KILL)?;
    try_poll_until(3 * SOON, "the next daemon", || {
        let next = daemon(play)?;
        Ok((next != 0 && next != first && is_healthy(at)).then_some(()))
    })?;
    let after = try_poll_until(SOON, "its labels again", charged)?;
    ensure!(after >= before, "{after} bytes charged, and before its death {before}");
    drop(pod);
    Ok(())
}
