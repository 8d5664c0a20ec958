//! A directory that becomes a package.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::run::{self, Command};

/// A directory that becomes a package.
pub(super) struct Tree(pub(super) PathBuf);

impl Tree {
    pub(super) fn put(&self, place: &str, from: &Path) -> Result<()> {
        let to = self.place(place)?;
        fs::copy(from, &to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
        Ok(())
    }

    /// All that is in a directory.
    pub(super) fn put_all(&self, place: &str, from: &Path) -> Result<()> {
        for file in files(from)? {
            let name = file.strip_prefix(from)?.display();
            self.put(&format!("{place}/{name}"), &file)?;
        }
        Ok(())
    }

    pub(super) fn write(&self, place: &str, text: &str) -> Result<()> {
        let to = self.place(place)?;
        fs::write(&to, text).with_context(|| to.display().to_string())
    }

    fn place(&self, place: &str) -> Result<PathBuf> {
        let to = self.0.join(place);
        let folder = to.parent().with_context(|| format!("{place:?} names no file"))?;
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        Ok(to)
    }

    pub(super) fn compress(&self, place: &str) -> Result<()> {
        run::check(Command::new("gzip").args(["-9n", "--recursive"]).arg(self.0.join(place)))
    }

    /// Permissions as everyone's, whatever the umask was.
    pub(super) fn settle(&self) -> Result<()> {
        run::check(Command::new("chmod").args(["--recursive", "u=rwX,go=rX"]).arg(&self.0))
    }

    pub(super) fn sums(&self) -> Result<String> {
        let files = files(&self.0)?;
        let names = files.iter().map(|file| file.strip_prefix(&self.0)).collect::<Result<Vec<_>, _>>()?;
        run::output(Command::new("md5sum").args(names).current_dir(&self.0))
    }

    pub(super) fn kibibytes(&self) -> Result<u64> {
        files(&self.0)?.iter().map(|file| Ok(fs::metadata(file)?.len().div_ceil(1024))).sum()
    }
}

/// The files below a directory, in their names' order.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
