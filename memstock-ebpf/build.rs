//! Declares the cfg that `aya-build` sets, and has the BPF object linked again when bpf-linker changes.

use which::which;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(bpf_target_arch, values(any()))");
    // A build for this host (rebuild tracking, rust-analyzer) does not link with it.
    let for_bpf = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf");
    if let (true, Ok(linker)) = (for_bpf, which("bpf-linker")) {
        println!("cargo:rerun-if-changed={}", linker.display());
    }
}
