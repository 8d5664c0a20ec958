//! The first file system of a virtual machine: busybox, the modules that reach the host's files, and a script.

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};

use super::kernels::Kernel;
use crate::run::{self, Command};

const MODULES: [&str; 4] = ["virtio_pci", "fuse", "virtiofs", "overlay"];

/// Makes it in a folder of its own, as the file `to`.
pub(super) fn make(kernel: &Kernel, folder: &Path, to: &Path) -> Result<()> {
    for part in ["bin", "dev", "proc", "sys", "host", "layer", "root", "modules"] {
        fs::create_dir_all(folder.join(part))?;
    }
    let busybox = Path::new("/bin/busybox");
    fs::copy(busybox, folder.join("bin/busybox")).context("busybox-static is not installed")?;
    let mut order = String::new();
    for file in kernel.modules(&MODULES)? {
        let name = file.file_name().context("a module has a name")?.to_string_lossy().into_owned();
        let plain = name.trim_end_matches(".xz").trim_end_matches(".zst");
        let bytes = match file.extension().and_then(|extension| extension.to_str()) {
            Some("xz") => unpacked("xz", &file)?,
            Some("zst") => unpacked("zstd", &file)?,
            _ => fs::read(&file)?,
        };
        fs::write(folder.join("modules").join(plain), bytes)?;
        order += plain;
        order.push('\n');
    }
    fs::write(folder.join("modules/order"), order)?;
    let init = folder.join("init");
    fs::write(&init, include_str!("init"))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;

    let names = run::output(Command::new("find").arg(".").current_dir(folder))?;
    let mut cpio = Command::new("cpio")
        .args(["--create", "--format=newc", "--quiet"])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(fs::File::create(to)?)
        .spawn()
        .context("cpio is not installed")?;
    cpio.stdin.take().context("it was piped")?.write_all(names.as_bytes())?;
    ensure!(cpio.wait()?.success(), "cpio failed");
    Ok(())
}

fn unpacked(program: &str, file: &Path) -> Result<Vec<u8>> {
    let output = Command::new(program).args(["--decompress", "--stdout"]).arg(file).output();
    let output = output.with_context(|| format!("{program} is not installed"))?;
    ensure!(output.status.success(), "{program} can't unpack {}", file.display());
    Ok(output.stdout)
}
