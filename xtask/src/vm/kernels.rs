//! Stock kernels of Debian, as they come.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::debian;
use crate::run::{self, Command};

/// A series of kernels that Debian has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Series {
    /// Debian 11
    #[value(name = "5.10")]
    V5_10,
    /// Debian 12
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13
    #[value(name = "6.12")]
    V6_12,
    /// The newest 7.x that Debian has
    #[value(name = "7")]
    V7,
}

impl Series {
    /// All, oldest first.
    pub(super) const ALL: [Self; 4] = [Self::V5_10, Self::V6_1, Self::V6_12, Self::V7];

    /// What it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7 => "7",
        }
    }

    fn suites(self) -> &'static [&'static str] {
        match self {
            Self::V5_10 => &["bullseye"],
            Self::V6_1 => &["bookworm"],
            Self::V6_12 => &["trixie"],
            Self::V7 => &["sid", "trixie-backports"],
        }
    }

    /// Fetches it, unless it is there.
    pub(super) fn fetch(self) -> Result<Kernel> {
        let name = self.name();
        let tree = debian::unpacked(&format!("linux-{name}"), self.suites(), |apt| {
            let mut images = apt.names(&format!("linux-image-{name}."))?;
            images.retain(|image| image.ends_with("-cloud-amd64"));
            let image = images.into_iter().max_by_key(|image| numbers(image));
            let image = image.with_context(|| format!("Debian has no kernel {name} here"))?;
            // From 6.19 the image's parts are packages of their own.
            let part = |name: &String| {
                ["base", "binary", "modules"].iter().any(|part| name.starts_with(&format!("linux-{part}-")))
            };
            let parts = apt.dependencies(&image)?.into_iter().filter(part);
            Ok([image.clone()].into_iter().chain(parts).collect())
        })?;
        Kernel::find(&tree).with_context(|| format!("there is no kernel in {}", tree.display()))
    }
}

/// All numbers in a name: they order versions.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// A kernel that is there to be booted.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// Its release, as `uname -r` tells it.
    pub(super) release: String,
    /// The bootable image.
    pub(super) image: PathBuf,
    /// Where `lib/modules/RELEASE` is.
    base: PathBuf,
}

impl Kernel {
    fn find(tree: &Path) -> Result<Self> {
        let base = [tree.join("usr"), tree.to_owned()];
        let base = base.into_iter().find(|base| base.join("lib/modules").exists()).context("no modules")?;
        let modules = fs::read_dir(base.join("lib/modules"))?.next().context("no modules")??;
        let release = modules.file_name().to_string_lossy().into_owned();
        let images = [tree.join("boot").join(format!("vmlinuz-{release}")), modules.path().join("vmlinuz")];
        let image = images.into_iter().find(|image| image.exists()).context("no image")?;
        if !modules.path().join("modules.dep").exists() {
            run::check(Command::new("/sbin/depmod").arg("--basedir").arg(&base).arg(&release))?;
        }
        Ok(Self { release, image, base })
    }

    /// The files of these modules and of all that they need, in the order of loading. Those that are built in have none.
    pub(super) fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for name in names {
            let text = run::output(
                Command::new("/sbin/modprobe")
                    .args([
                        "--show-depends",
                        "--config=/dev/null",
                        "--set-version",
                        &self.release,
                        "--dirname",
                    ])
                    .arg(&self.base)
                    .arg(name),
            )?;
            for file in text.lines().filter_map(|line| line.strip_prefix("insmod ")) {
                let file = PathBuf::from(file.trim());
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_kernels_come_after_older_ones() {
        let newest = ["linux-image-7.2.13+deb14-cloud-amd64", "linux-image-7.10.1+deb14-cloud-amd64"]
            .into_iter()
            .max_by_key(|name| numbers(name));
        assert_eq!(newest, Some("linux-image-7.10.1+deb14-cloud-amd64"));
    }
}
