//! The files of the package, and where Debian wants them. The packaged binary prints the completions and manual pages,
//! so they are of its version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::control::{Control, MAINTAINER};
use super::stage::{Stage, collect};
use super::{NAME, VERSION};
use crate::exec::{capture, root};
use crate::setup::BpfToolchain;

const DOC: &str = "usr/share/doc/memstock";
const MAN: &str = "usr/share/man/man1";
/// The configuration file, in `contrib` and in `/etc`, where the unit expects it.
pub const CONFIG: &str = "memstock.toml";
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/memstock"),
    ("zsh", "usr/share/zsh/vendor-completions/_memstock"),
    ("fish", "usr/share/fish/vendor_completions.d/memstock.fish"),
];
/// Parts of `contrib` that are not examples.
const PLACED: [&str; 3] = ["debian", "systemd", CONFIG];

/// Puts every file into the tree, except those of `control`.
pub fn put(
    stage: &Stage,
    binary: &Path,
    cross: Option<&BpfToolchain>,
    control: &Control,
    epoch: Option<&str>,
) -> Result<()> {
    let strip = cross.map_or_else(|| Command::new("strip"), BpfToolchain::strip);
    let start = || cross.map_or_else(|| Ok(Command::new(binary)), |bpf| bpf.start(binary));
    program(stage, binary, strip)?;
    let unit = read("contrib/systemd/memstock.service")?;
    stage.data("usr/lib/systemd/system/memstock.service", unit)?;
    stage.data(&format!("etc/{CONFIG}"), read(&format!("contrib/{CONFIG}"))?)?;
    for (shell, path) in COMPLETIONS {
        stage.data(path, capture(start()?.args(["completions", shell]))?)?;
    }
    manual(stage, start()?)?;
    documentation(stage)?;
    changelogs(stage, control, epoch)
}

fn program(stage: &Stage, binary: &Path, mut strip: Command) -> Result<()> {
    let path = format!("usr/bin/{NAME}");
    let bytes = fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
    stage.program(&path, bytes)?;
    // Line tables are of use to developers only. The BPF object is data to `strip`, and keeps its own.
    strip.args(["--remove-section=.comment", "--remove-section=.note"]).arg(stage.at(&path));
    capture(&mut strip).map(drop)
}

fn manual(stage: &Stage, mut memstock: Command) -> Result<()> {
    let dir = stage.dir(MAN)?;
    capture(memstock.args(["man", "--dir"]).arg(&dir))?;
    for page in stage.files()?.iter().filter(|path| path.starts_with(MAN)) {
        stage.gzip(page)?;
    }
    Ok(())
}

fn documentation(stage: &Stage) -> Result<()> {
    for name in ["README.md", "ARCHITECTURE.md"] {
        stage.data(&format!("{DOC}/{name}"), read(name)?)?;
    }
    stage.data(&format!("{DOC}/README.Debian"), read("contrib/debian/README.Debian")?)?;
    stage.data(&format!("{DOC}/copyright"), copyright()?)?;
    for path in files_of("docs")? {
        stage.data(&format!("{DOC}/{path}"), read(&path)?)?;
    }
    for path in files_of("contrib")? {
        let below = path.trim_start_matches("contrib/");
        if !PLACED.iter().any(|placed| Path::new(below).starts_with(placed)) {
            stage.data(&format!("{DOC}/examples/{below}"), read(&path)?)?;
        }
    }
    Ok(())
}

/// The copyright file, with the text of the MIT licence, which not every Debian system has.
fn copyright() -> Result<String> {
    let text = String::from_utf8(read("LICENSE-MIT")?).context("LICENSE-MIT")?;
    let indented = text.lines().map(|line| match line.trim_end() {
        "" => " .".to_owned(),
        line => format!(" {line}"),
    });
    let indented = indented.collect::<Vec<_>>().join("\n");
    let frame = String::from_utf8(read("contrib/debian/copyright")?).context("copyright")?;
    Ok(frame.replace("@MIT@", &indented))
}

/// Upstream's changelog, and the package's own, which has a single entry.
fn changelogs(stage: &Stage, control: &Control, epoch: Option<&str>) -> Result<()> {
    let upstream = format!("{DOC}/changelog");
    stage.data(&upstream, read("CHANGELOG.md")?)?;
    stage.gzip(&upstream)?;
    let mut date = Command::new("date");
    date.args(["--utc", "--rfc-email"]).args(epoch.map(|epoch| format!("--date=@{epoch}")));
    let date = capture(date.env("LC_ALL", "C"))?;
    let text = format!(
        "{NAME} ({}) unstable; urgency=medium\n\n  * Package of memstock {VERSION}.\n\n -- \
         {MAINTAINER}  {date}",
        control.version()
    );
    let path = format!("{DOC}/changelog.Debian");
    stage.data(&path, text)?;
    stage.gzip(&path)
}

/// The files below a folder of the workspace, with their paths in it.
fn files_of(folder: &str) -> Result<Vec<String>> {
    let mut found: Vec<PathBuf> = Vec::new();
    collect(&root().join(folder), &mut found)?;
    let below = |path: &PathBuf| Some(path.strip_prefix(root()).ok()?.to_str()?.to_owned());
    Ok(found.iter().filter_map(below).collect())
}

/// A file of the workspace.
pub fn read(path: &str) -> Result<Vec<u8>> {
    let file = root().join(path);
    fs::read(&file).with_context(|| format!("cannot read {}", file.display()))
}
