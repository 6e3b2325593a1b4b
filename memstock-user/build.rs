//! Builds the kernel half for the BPF target, to be embedded in the `memstock` binary.
//!
//! `cargo xtask` chooses the toolchain; a plain `cargo build` uses rustup's nightly.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};
use aya_build::{Package, Toolchain, build_ebpf};
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

/// The package of the BPF object.
const EBPF: &str = "memstock-ebpf";
/// The file that it builds.
const OBJECT: &str = "memstock-probes";
/// rustup name of the toolchain that compiles for BPF.
const TOOLCHAIN: &str = "MEMSTOCK_BPF_TOOLCHAIN";
/// `1` if that toolchain is stable, and needs `RUSTC_BOOTSTRAP` to use unstable features.
const BOOTSTRAP: &str = "MEMSTOCK_BPF_BOOTSTRAP";
/// Instruction set v3 for the BPF build. `aya-build` sets RUSTFLAGS itself, so the flag is passed through the profile,
/// and cleared for the build scripts and macros that are compiled for the host.
const TARGET_CPU: [(&str, &str); 3] = [
    ("CARGO_UNSTABLE_PROFILE_RUSTFLAGS", "true"),
    ("CARGO_PROFILE_RELEASE_RUSTFLAGS", "-Ctarget-cpu=v3"),
    ("CARGO_PROFILE_RELEASE_BUILD_OVERRIDE_RUSTFLAGS", ""),
];

fn main() -> Result<()> {
    println!("cargo:rerun-if-env-changed={TOOLCHAIN}");
    println!("cargo:rerun-if-env-changed={BOOTSTRAP}");
    let toolchain = env::var(TOOLCHAIN).ok().filter(|name| !name.is_empty());
    for (name, value) in TARGET_CPU {
        // SAFETY: a build script has one thread at this point.
        unsafe { env::set_var(name, value) };
    }
    if env::var(BOOTSTRAP).is_ok_and(|value| value == "1") {
        // SAFETY: as above.
        unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    }
    // `aya-build` would print cargo's progress as warnings of this script.
    // SAFETY: as above.
    unsafe { env::set_var("CARGO_TERM_QUIET", "true") };
    share_target_dir()?;
    let package = Package { name: EBPF, root_dir: "../memstock-ebpf", ..Package::default() };
    build_ebpf([package], toolchain.as_deref().map_or(Toolchain::Nightly, Toolchain::Custom))
        .context("cannot build the BPF object; `cargo xtask build` sets up what it needs")?;
    let object = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?).join(OBJECT);
    strip(&object).with_context(|| format!("cannot strip {}", object.display()))?;
    println!("cargo:rustc-env=MEMSTOCK_BPF_RUSTC={}", compiler(toolchain.as_deref())?);
    Ok(())
}

/// Makes all builds of this package (clippy, tests, release) share one build of the BPF object. `aya-build` gives each
/// its own target directory, which costs a minute and 200 MB.
fn share_target_dir() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    // TARGET/PROFILE/build/PACKAGE/out
    let shared =
        out.ancestors().nth(4).context("OUT_DIR is not below a target directory")?.join("bpf");
    let of_aya_build = out.join("aya-build/target").join(EBPF);
    match fs::read_link(&of_aya_build) {
        Ok(link) if link == shared => return Ok(()),
        // The target directory was moved.
        Ok(_) => fs::remove_file(&of_aya_build)?,
        // A directory that `aya-build` made before this function existed.
        Err(_) if of_aya_build.is_dir() => fs::remove_dir_all(&of_aya_build)?,
        Err(_) => {}
    }
    for dir in [&shared, &out.join("aya-build/target")] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    symlink(&shared, &of_aya_build)
        .with_context(|| format!("cannot link {}", of_aya_build.display()))
}

/// Removes the debug information: four fifths of the object, which would be embedded in the binary and locked in
/// memory. The compiler needs it to make BTF, which stays.
fn strip(object: &Path) -> Result<()> {
    let data = fs::read(object)?;
    let mut elf = Builder::read(&*data)?;
    for section in &mut elf.sections {
        let debug = [&b".debug_"[..], b".rel.debug_"];
        section.delete = debug.iter().any(|name| section.name.starts_with(name));
    }
    // Symbols of the deleted sections.
    elf.delete_orphans();
    // The linker puts all strings in one section; the writer needs section names in their own.
    let names = elf.sections.add();
    names.name = b".shstrtab"[..].into();
    (names.sh_type, names.data) = (SHT_STRTAB, SectionData::SectionString);
    let mut stripped = Vec::new();
    elf.write(&mut stripped)?;
    Ok(fs::write(object, stripped)?)
}

/// `rustc --version` of the BPF object's compiler: instruction counts depend on it.
fn compiler(toolchain: Option<&str>) -> Result<String> {
    let with_rustup = Command::new("rustup")
        .args(["run", toolchain.unwrap_or("nightly"), "rustc", "--version"])
        .output();
    let output = match with_rustup {
        Ok(output) => output,
        Err(_) => Command::new("rustc").arg("--version").output().context("cannot run rustc")?,
    };
    ensure!(output.status.success(), "rustc --version failed: {output:?}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
