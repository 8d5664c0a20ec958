//! What the program is built from: cargo's crates, with their checksums and licences.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::tree::files;
use crate::run::{self, Command};

/// A crate in the program.
pub(super) struct Crate {
    /// cargo's name for it.
    pub(super) id: String,
    pub(super) name: String,
    pub(super) version: String,
    /// An SPDX expression.
    pub(super) licence: String,
    pub(super) folder: PathBuf,
    /// SHA-256 of what the registry has; none of httpmon's own crates.
    checksum: Option<String>,
    /// Their ids.
    pub(super) dependencies: Vec<String>,
}

impl Crate {
    pub(super) fn is_agent(&self) -> bool {
        self.is_own() && self.name == "monitor"
    }

    pub(super) fn is_own(&self) -> bool {
        self.checksum.is_none()
    }

    /// Its package URL. httpmon's own are in no registry, and crates of others there have their names.
    pub(super) fn reference(&self) -> String {
        let Self { name, version, .. } = self;
        if self.is_agent() {
            format!("pkg:generic/httpmon@{version}")
        } else if self.is_own() {
            format!("pkg:generic/httpmon@{version}#{name}")
        } else {
            // Of what a version may contain, `+` alone means something in a URL.
            format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
        }
    }

    pub(super) fn component(&self) -> Value {
        let mut component = json!({
            "type": "library",
            "bom-ref": self.reference(),
            "name": self.name,
            "version": self.version,
            "licenses": [{ "expression": self.licence }],
            "purl": self.reference(),
        });
        if let Some(checksum) = &self.checksum {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        component
    }
}

/// What the agent and the kernel object within it are built from, in their names' order.
pub(super) fn crates(triple: &str) -> Result<Vec<Crate>> {
    let root = run::root();
    let programs = ["--locked", "--features=monitor-ebpf/programs"];
    // cargo metadata resolves for the whole workspace, cargo tree for the crates that are asked for.
    let tree = run::output(
        Command::new("cargo")
            .args(["tree", "--package=monitor", "--package=monitor-ebpf", "--edges=normal"])
            .args(["--prefix=none", "--format={p}", "--target", triple])
            .args(programs)
            .current_dir(&root),
    )?;
    let built: BTreeSet<_> = tree.lines().filter_map(name_and_version).collect();
    let metadata = run::output(
        Command::new("cargo")
            .args(["metadata", "--format-version=1", "--filter-platform", triple])
            .args(programs)
            .current_dir(&root),
    )?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata's answer")?;
    let lock = fs::read_to_string(root.join("Cargo.lock"))?;
    let checksums = checksums(&lock);
    let nodes: BTreeMap<_, _> =
        list(&metadata["resolve"]["nodes"]).iter().map(|node| (node["id"].as_str(), node)).collect();

    let mut crates = Vec::new();
    for package in list(&metadata["packages"]) {
        let said = |key: &str| {
            let value = package[key].as_str();
            value.map(str::to_owned).with_context(|| format!("{} has no {key}", package["id"]))
        };
        let (name, version, manifest) =
            (said("name")?, said("version")?, PathBuf::from(said("manifest_path")?));
        if !built.contains(&(name.as_str(), version.as_str())) {
            continue;
        }
        let checksum = checksums.get(&(name.as_str(), version.as_str())).map(|sum| (*sum).to_owned());
        ensure!(
            checksum.is_some() || package["source"].is_null(),
            "{name} {version} has no checksum in Cargo.lock"
        );
        crates.push(Crate {
            licence: expression(&said("license")?),
            folder: manifest.parent().context("a manifest is in a directory")?.to_owned(),
            dependencies: normal_dependencies(nodes.get(&package["id"].as_str())),
            id: said("id")?,
            name,
            version,
            checksum,
        });
    }
    crates.sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
    ensure!(
        crates.len() == built.len(),
        "cargo tree has {} crates, cargo metadata {}",
        built.len(),
        crates.len()
    );
    Ok(crates)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// From a line of `cargo tree`, such as `log v0.4.28 (*)`.
fn name_and_version(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once(" v")?;
    Some((name, rest.split(' ').next()?))
}

/// The ids of what a node of cargo metadata's graph is built with, in order.
fn normal_dependencies(node: Option<&&Value>) -> Vec<String> {
    let dependencies = node.map_or(&[][..], |node| list(&node["deps"])).iter();
    let normal = dependencies.filter(|one| list(&one["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()));
    let ids: BTreeSet<_> = normal.filter_map(|one| one["pkg"].as_str()).collect();
    ids.into_iter().map(str::to_owned).collect()
}

/// By name and version, from `Cargo.lock`.
fn checksums(lock: &str) -> BTreeMap<(&str, &str), &str> {
    let value = |package: &'_ str, key: &str| -> Option<(usize, usize)> {
        let begin = package.find(&format!("\n{key} = \""))? + key.len() + 5;
        Some((begin, begin + package[begin..].find('"')?))
    };
    let packages = lock.split("[[package]]").skip(1);
    let of = |package, key: &str| value(package, key).map(|(begin, end)| &package[begin..end]);
    packages
        .filter_map(|package| {
            Some(((of(package, "name")?, of(package, "version")?), of(package, "checksum")?))
        })
        .collect()
}

/// Older manifests write `/` where SPDX has `OR`.
fn expression(licence: &str) -> String {
    licence.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ")
}

/// The texts of a crate's licences and notices.
pub(super) fn licences(folder: &Path) -> Result<Vec<String>> {
    const NAMES: [&str; 6] = ["licen", "copying", "copyright", "notice", "unlicense", "authors"];
    let mut texts = Vec::new();
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if !NAMES.iter().any(|begin| name.starts_with(begin)) {
            continue;
        }
        let path = entry.path();
        let found = if path.is_dir() { files(&path)? } else { vec![path] };
        for file in found {
            let text = fs::read(&file).with_context(|| file.display().to_string())?;
            texts.push(String::from_utf8_lossy(&text).replace("\r\n", "\n").trim_matches('\n').to_owned());
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_read_from_the_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"own\"\nversion = \"1.0.0\"\ndependencies = [\n \"a\",\n]\n\n\
                    [[package]]\nname = \"a\"\nversion = \"2.0.0\"\nsource = \"x\"\nchecksum = \"0a\"\n";
        assert_eq!(checksums(lock), [(("a", "2.0.0"), "0a")].into());
    }

    #[test]
    fn lines_of_the_tree_are_read() {
        assert_eq!(name_and_version("serde v1.0.0"), Some(("serde", "1.0.0")));
        assert_eq!(name_and_version("serde_derive v1.0.0 (proc-macro) (*)"), Some(("serde_derive", "1.0.0")));
        assert_eq!(name_and_version(""), None);
    }

    #[test]
    fn old_licence_expressions_become_spdx() {
        assert_eq!(expression("MIT/Apache-2.0"), "MIT OR Apache-2.0");
        assert_eq!(expression("Apache-2.0 / MIT"), "Apache-2.0 OR MIT");
        assert_eq!(expression("(MIT OR Apache-2.0) AND Unicode-3.0"), "(MIT OR Apache-2.0) AND Unicode-3.0");
    }
}
