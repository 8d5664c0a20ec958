//! `cargo xtask ebpf`: the kernel object that users build with, from its sources.
//!
//! The object depends on the sources, the compiler, the linker and the standard library's sources, not on where
//! any of them lies: paths are remapped, debug information and names that carry hashes are taken out.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use object::build::elf::{Builder, SectionData};

use crate::run::{self, Command};

/// The compiler that the committed object is made with: `rustc -vV`'s commit, and rustup's name for it.
const COMPILER: (&str, &str) = ("e50aa6fba4e63ab34c72bf9acfd2c307c1155d1a", "nightly-2026-05-20");
const LINKER_VERSION: &str = "0.10.3";
/// Names a tarball of the standard library's sources, where rustup can't fetch its component rust-src.
const SOURCES_VARIABLE: &str = "HTTPMON_RUST_SRC";

/// Builds the object. With `check`, compares it with the committed one instead of replacing that.
pub(crate) fn ebpf(check: bool) -> Result<()> {
    let committed = run::root().join("monitor-ebpf/httpmon.bpf.o");
    let built = build()?;
    let old = fs::read(&committed).unwrap_or_default();
    if check {
        ensure!(
            old == built,
            "{} ({} bytes) is not what its sources make ({} bytes): run `cargo xtask ebpf` and commit the result",
            committed.display(),
            old.len(),
            built.len()
        );
        println!("{} matches its sources, byte for byte", committed.display());
    } else if old == built {
        println!("{} was up to date", committed.display());
    } else {
        fs::write(&committed, &built)?;
        println!("{} rebuilt: {} bytes", committed.display(), built.len());
    }
    Ok(())
}

fn build() -> Result<Vec<u8>> {
    let toolchain = compiler()?;
    let sysroot =
        PathBuf::from(run::output(Command::new("rustc").args([&toolchain, "--print", "sysroot"]))?.trim());
    library_sources(&toolchain, &sysroot)?;
    linker()?;
    let root = run::root();
    let target = root.join("target/ebpf");
    let mut flags = vec![
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
    ];
    flags.extend(run::remap(&sysroot)?);
    run::check(
        Command::new("cargo")
            .args([
                toolchain.as_str(),
                "build",
                "--package=monitor-ebpf",
                "--bin=monitor-ebpf",
                "--features=programs",
            ])
            .args(["--release", "--target=bpfel-unknown-none", "-Zbuild-std=core", "--target-dir"])
            .arg(&target)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env_remove("RUSTFLAGS")
            .env_remove("RUSTC")
            .env_remove("CARGO")
            .current_dir(&root),
    )?;
    strip(&fs::read(target.join("bpfel-unknown-none/release/monitor-ebpf"))?)
}

/// Takes out debug information and what differs between machines. BTF stays: the kernel wants it.
fn strip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut object = Builder::read(bytes).context("the linker's output can't be read")?;
    for section in &mut object.sections {
        let name = section.name.to_vec();
        let relocates_notes = name == b".rel.BTF" || name == b".rel.BTF.ext";
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_") || relocates_notes;
    }
    for symbol in &mut object.symbols {
        let name = symbol.name.to_vec();
        if name.starts_with(b"anon.") {
            symbol.name = b"anon".as_slice().into();
        }
        let in_deleted = symbol.section.is_some_and(|section| object.sections.get(section).delete);
        symbol.delete = in_deleted || symbol.st_type() == object::elf::STT_FILE;
    }
    object.delete_orphans();
    // LLVM keeps sections' and symbols' names in one table; the writer wants one of each.
    let names = object.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = SectionData::SectionString;
    for section in &mut object.sections {
        if *section.name == *b".strtab" {
            section.data = SectionData::String;
        }
    }
    ensure!(
        object
            .sections
            .iter()
            .any(|section| matches!(section.data, SectionData::Data(_)) && *section.name == *b".BTF"),
        "the linker's output has no BTF"
    );
    let mut stripped = Vec::new();
    object.write(&mut stripped).context("the object can't be written")?;
    Ok(stripped)
}

/// The toolchain's name as an argument of cargo and rustc, `+NAME`.
pub(crate) fn compiler() -> Result<String> {
    let (commit, dated) = COMPILER;
    let has = |name: &str| {
        run::output(Command::new("rustc").args([&format!("+{name}"), "-vV"]))
            .is_ok_and(|text| text.contains(commit))
    };
    if let Some(name) = ["nightly", dated].into_iter().find(|name| has(name)) {
        return Ok(format!("+{name}"));
    }
    run::check(Command::new("rustup").args(["toolchain", "install", dated, "--profile", "minimal"]))
        .with_context(|| format!("the object is made with rustc {commit}, rustup's {dated}"))?;
    ensure!(has(dated), "rustup's {dated} is not rustc {commit}");
    Ok(format!("+{dated}"))
}

/// The standard library's sources, into the toolchain.
fn library_sources(toolchain: &str, sysroot: &Path) -> Result<()> {
    let place = sysroot.join("lib/rustlib/src/rust");
    if place.join("library/core/src/lib.rs").exists() {
        return Ok(());
    }
    if let Some(tarball) = env::var_os(SOURCES_VARIABLE) {
        fs::create_dir_all(&place)?;
        return run::check(Command::new("tar").arg("-xf").arg(tarball).arg("-C").arg(place));
    }
    let name = toolchain.trim_start_matches('+');
    run::check(Command::new("rustup").args(["component", "add", "rust-src", "--toolchain", name]))
        .with_context(|| {
            format!(
                "where rustup can't fetch rust-src, name a tarball that holds library/ in {SOURCES_VARIABLE}"
            )
        })
}

fn linker() -> Result<()> {
    let expected = format!("bpf-linker {LINKER_VERSION}");
    let there =
        run::output(Command::new("bpf-linker").arg("--version")).is_ok_and(|text| text.trim() == expected);
    if there {
        return Ok(());
    }
    run::check(Command::new("cargo").args([
        "install",
        "bpf-linker",
        "--locked",
        "--version",
        LINKER_VERSION,
    ]))?;
    match run::output(Command::new("bpf-linker").arg("--version")) {
        Ok(text) if text.trim() == expected => Ok(()),
        Ok(text) => {
            bail!("bpf-linker is {}, not {LINKER_VERSION}; another one comes first in PATH", text.trim())
        }
        Err(error) => Err(error.context("cargo installed bpf-linker, but its directory is not in PATH")),
    }
}
