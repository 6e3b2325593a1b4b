//! `cargo xtask image`: makes an OCI image of the Debian package. Its one layer has the program, the libraries that it
//! is linked with, and their copyright. buildah and podman are not used, so it needs no root, no network and none of
//! their storage; and the same package and libraries give the same image, byte for byte.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::stage::Stage;
use super::{LIBRARIES, NAME, VERSION, last_commit, package};
use crate::arch::Arch;
use crate::exec::{capture, target_dir};

const PROGRAM: &str = "usr/bin/memstock";
const COPYRIGHT: &str = "usr/share/doc/memstock/copyright";

/// Makes the image of the package `deb`, or of one that it builds, and prints the image's path.
pub fn run(deb: Option<&Path>, output: Option<&Path>) -> Result<()> {
    let deb = match deb {
        Some(deb) => deb.to_owned(),
        None => package(None, None, 1, Arch::HOST)?,
    };
    let output = match output {
        Some(output) => output.to_owned(),
        None => target_dir().join(format!("{NAME}-{VERSION}.oci.tar")),
    };
    let epoch = last_commit().unwrap_or_else(|| "0".to_owned());
    let layout = Stage::new()?;
    let root = Stage::new()?;
    fill(&root, &deb)?;
    let layer = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    archive(root.root(), layer.path(), &epoch)?;
    let layer = blob(&layout, &read(layer.path())?, "layer.v1.tar")?;
    let config = json!({
        "architecture": architecture()?,
        "os": "linux",
        "config": { "Entrypoint": [format!("/{PROGRAM}")], "Cmd": ["--help"] },
        // The layer is not compressed, so its diff_id is its digest.
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let config = blob(&layout, config.to_string().as_bytes(), "config.v1+json")?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media("manifest.v1+json"),
        "config": config,
        "layers": [layer],
    });
    let mut manifest = blob(&layout, manifest.to_string().as_bytes(), "manifest.v1+json")?;
    // podman and containerd take the image's name from these when they load it.
    manifest["annotations"] = json!({
        "io.containerd.image.name": format!("localhost/{NAME}:{VERSION}"),
        "org.opencontainers.image.ref.name": format!("localhost/{NAME}:{VERSION}"),
    });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    layout.data("index.json", index.to_string())?;
    layout.data("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }).to_string())?;
    archive(layout.root(), &output, &epoch)?;
    println!("{}", output.display());
    Ok(())
}

/// Puts the files of the image into `root`.
fn fill(root: &Stage, deb: &Path) -> Result<()> {
    let unpacked = Stage::new()?;
    capture(Command::new("dpkg-deb").arg("-x").arg(deb).arg(unpacked.root()))?;
    let program = unpacked.at(PROGRAM);
    root.program(PROGRAM, read(&program)?)?;
    root.data(COPYRIGHT, read(&unpacked.at(COPYRIGHT))?)?;
    for library in libraries(&capture(Command::new("ldd").arg(&program))?) {
        root.program(library.trim_start_matches('/'), read(Path::new(library))?)?;
    }
    for package in LIBRARIES {
        let copyright = format!("usr/share/doc/{package}/copyright");
        root.data(&copyright, read(&Path::new("/").join(&copyright))?)?;
    }
    // Mount points, because the root is read-only.
    for dir in ["dev", "etc/memstock", "proc", "run", "sys", "var/log"] {
        root.dir(dir)?;
    }
    Ok(())
}

/// The files that `ldd` names; the vDSO has none.
fn libraries(said: &str) -> Vec<&str> {
    said.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .collect()
}

/// Packs a tree reproducibly: nothing in the tar depends on who made it, or when.
fn archive(tree: &Path, file: &Path, epoch: &str) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--format=gnu", "--owner=0", "--group=0"]);
    tar.args(["--numeric-owner", &format!("--mtime=@{epoch}"), "--file"]);
    capture(tar.arg(file).arg("--directory").arg(tree).arg(".")).map(drop)
}

/// Adds a blob to the layout, and returns its descriptor.
fn blob(layout: &Stage, bytes: &[u8], kind: &str) -> Result<Value> {
    layout.data("blob", bytes)?;
    let said = capture(Command::new("sha256sum").arg(layout.at("blob")))?;
    let digest = said.split_whitespace().next().context("sha256sum says nothing")?;
    layout.dir("blobs/sha256")?;
    fs::rename(layout.at("blob"), layout.at(&format!("blobs/sha256/{digest}")))?;
    Ok(json!({
        "mediaType": media(kind),
        "digest": format!("sha256:{digest}"),
        "size": bytes.len(),
    }))
}

fn media(kind: &str) -> String {
    format!("application/vnd.oci.image.{kind}")
}

/// The architecture's name in Go, which is also Debian's for all that memstock runs on.
fn architecture() -> Result<String> {
    let said = capture(Command::new("dpkg").arg("--print-architecture"))?;
    Ok(said.trim().to_owned())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read() {
        let said = "\tlinux-vdso.so.1 (0x00007f)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t\
                    /lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found = libraries(said);
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }
}
