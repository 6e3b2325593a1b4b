//! The Debian package is installed, used, upgraded, removed and purged in a fresh Debian root with nothing else in it,
//! as in a container. Everything is mounted in namespaces that end with the test, however it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memstock_tests::binaries;
use memstock_tests::live::{is_refused, live, name};
use memstock_tests::poll::SOON;
use memstock_tests::process::{Finished, Program, memstock};
use memstock_tests::skip::{in_guest, skip};
use tempfile::TempDir;

/// Time to download a hundred packages on a slow line.
const DOWNLOAD: Duration = Duration::from_secs(1200);
/// Building is slow: the package check reads every file with many programs.
const BUILD: Duration = Duration::from_secs(600);
/// The script to run in the root.
const INSIDE: &str = include_str!("package.sh");

/// Unpacks the root from an archive, mounts what a container has, and enters it. It is process 1 of a PID namespace, so
/// that nothing outlives it.
const OUTSIDE: &str = r#"set -e
mount -t tmpfs -o mode=755 root "$ROOT"
tar -C "$ROOT" -xpf "$ARCHIVE"
cp "$PACKAGES"/* "$ROOT/srv"
mount -t proc proc "$ROOT/proc"
mount -t sysfs sysfs "$ROOT/sys"
mount -t cgroup2 cgroup2 "$ROOT/sys/fs/cgroup"
mount -t bpf bpf "$ROOT/sys/fs/bpf"
mount --rbind /dev "$ROOT/dev"
exec chroot "$ROOT" /bin/sh /srv/inside
"#;

fn xtask(args: &[&str], deadline: Duration) -> Result<Finished> {
    let mut command = Command::new(binaries::xtask()?);
    command.args(args);
    Program::from(command).finish(deadline)
}

/// Builds the package of the binary under test, by the same code as for a release.
fn build(folder: &Path) -> Result<PathBuf> {
    let binary = binaries::memstock()?.display().to_string();
    let args = ["package", "--binary", &binary, "--output", &folder.display().to_string()];
    let built = xtask(&args, BUILD)?;
    ensure!(built.code() == 0, "{built:?}");
    Ok(built.stdout.lines().last().context("no path of a package")?.into())
}

fn must(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Makes the same package with a higher version.
fn newer(package: &Path, folder: &Path) -> Result<()> {
    let tree = tempfile::tempdir()?;
    must(Command::new("dpkg-deb").arg("--raw-extract").arg(package).arg(tree.path()))?;
    let control = tree.path().join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let version = text.lines().find(|line| line.starts_with("Version: ")).context("no version")?;
    fs::write(&control, text.replace(version, &format!("{version}newer1")))?;
    must(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "--build", "-Znone"])
            .arg(tree.path())
            .arg(folder.join("newer.deb")),
    )
    .map(drop)
}

/// The archive of a Debian root, and a folder with `memstock.deb` and `newer.deb`. `None` if they cannot be made,
/// which it reports.
pub fn root_and_packages(kind: &[&str]) -> Result<Option<(PathBuf, TempDir)>> {
    // Checked before an archive is fetched.
    if is_refused() {
        return Ok(None);
    }
    if in_guest() {
        return of_guest(kind);
    }
    let archive = xtask(&[&["debian-root"], kind].concat(), DOWNLOAD)?;
    if archive.code() != 0 {
        let reason = archive.stderr.lines().rfind(|line| line.starts_with("error: "));
        skip(&name(), reason.unwrap_or("no Debian root can be made"));
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    let package = build(folder.path())?;
    newer(&package, folder.path())?;
    fs::rename(&package, folder.path().join("memstock.deb"))?;
    Ok(Some((archive.stdout.trim_end().into(), folder)))
}

/// The same in a guest, which has at most a root that can be booted, made by `cargo xtask vm` (`vm/systemd.rs`).
fn of_guest(kind: &[&str]) -> Result<Option<(PathBuf, TempDir)>> {
    let made = Path::new("/memstock/debian");
    if kind != ["--systemd"] || !made.join("newer.deb").exists() {
        skip(&name(), "needs cargo xtask and Debian's archive, which a guest does not have");
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    for package in ["memstock.deb", "newer.deb"] {
        fs::copy(made.join(package), folder.path().join(package)).context(package)?;
    }
    Ok(Some((made.join("root.tar"), folder)))
}

/// The package that a guest of another architecture has beside the test binaries.
fn package_of_guest() -> Result<Option<PathBuf>> {
    let folder = binaries::memstock()?;
    let files = folder.ancestors().nth(2).context("no folder of the programs")?.read_dir()?;
    let mut packages = files.flatten().map(|file| file.path());
    Ok(packages.find(|path| path.extension().is_some_and(|kind| kind == "deb")))
}

/// Installed in the guest itself, whose dpkg knows of no other package.
fn in_the_guest(package: &Path) -> Result<()> {
    let dpkg = |args: &[&str]| must(Command::new("dpkg").args(args));
    fs::write("/var/lib/dpkg/status", "")?;
    let package = package.to_str().context("a path in UTF-8")?;
    dpkg(&["--force-depends", "--install", package])?;
    ensure!(dpkg(&["--verify", "memstock"])?.is_empty(), "not as it was packaged");
    let memstock = |args: &[&str]| {
        let mut command = Command::new("/usr/bin/memstock");
        command.args(args);
        Program::from(command).finish(10 * SOON)
    };
    let doctor = memstock(&["doctor"])?;
    ensure!(doctor.code() == 0, "{doctor:?}");
    let work = "head -c 4194304 /dev/zero | tail -c 4194304 > /dev/null";
    let stat = memstock(&["stat", "--", "sh", "-c", work])?;
    ensure!(stat.code() == 0 && stat.stderr.contains("needed_peak"), "{stat:?}");
    dpkg(&["--purge", "memstock"])?;
    ensure!(!Path::new("/usr/bin/memstock").exists(), "it was purged and is there");
    Ok(())
}

#[test]
#[ignore = "long"]
fn it_comes_works_and_goes() -> Result<()> {
    if let (true, Some(package)) = (in_guest(), package_of_guest()?) {
        return live(|| in_the_guest(&package));
    }
    let Some((archive, folder)) = root_and_packages(&[])? else { return Ok(()) };
    fs::write(folder.path().join("inside"), INSIDE)?;
    let root = tempfile::tempdir()?;
    live(|| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", OUTSIDE]);
        unshare.env("ROOT", root.path()).env("PACKAGES", folder.path());
        unshare.env("ARCHIVE", archive).env("LC_ALL", "C");
        unshare.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let done = Program::from(unshare).finish(10 * SOON)?;
        ensure!(
            done.code() == 0 && done.stdout.ends_with("all done\n"),
            "{}\nit said:\n{}\nand to standard error:\n{}",
            done.code(),
            done.stdout,
            done.stderr
        );
        Ok(())
    })
}

/// The manual pages are generated; mandoc checks that they are well-formed.
#[test]
fn manual_pages_can_be_read() -> Result<()> {
    if !Path::new("/usr/bin/mandoc").exists() {
        skip(&name(), "mandoc is not installed (Debian package mandoc)");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let written = memstock(["man", "--dir", &folder.path().display().to_string()])?.finish(SOON)?;
    ensure!(written.code() == 0, "{written:?}");
    let mut pages = 0;
    for entry in fs::read_dir(folder.path())? {
        let page = entry?.path();
        must(Command::new("mandoc").args(["-T", "lint", "-W", "error"]).arg(&page))?;
        pages += 1;
    }
    ensure!(pages > 5, "{pages} pages");
    Ok(())
}
