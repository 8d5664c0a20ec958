//! Servers in something like a container: namespaces (mounts, processes, network, host name, IPC) and a root of their own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Guard, eventually, run};

/// Takes a Python program into namespaces of its own, and there into a root of its own, which has the host's programs.
const ENTER: &str = r#"
set -e
root=$1
shift
for folder in usr bin lib lib64; do
    if [ -L /$folder ]; then cp -d /$folder "$root"; elif [ -d /$folder ]; then mkdir "$root/$folder"; mount --rbind /$folder "$root/$folder"; fi
done
mkdir "$root/proc"
mount -t proc proc "$root/proc"
/usr/bin/python3 -c 'import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", 1))'
exec env LD_LIBRARY_PATH=/srv chroot "$root" /usr/bin/python3 "$@"
"#;

/// A container with a server.
pub struct Container {
    process: Guard,
    pid: u32,
    root: tempfile::TempDir,
}

impl Container {
    /// Starts a Python program on a port of the container's own. Its files are copied into the container's `/srv`, where libraries
    /// come before the host's.
    pub fn start(files: &[&Path], arguments: &[&str], port: &str) -> Self {
        let mut container = Self::prepare(files, arguments);
        let port: u16 = port.parse().expect("a port");
        container.pid = eventually("the server listens", || {
            let pid = container.process.child()?;
            let listens = format!("0100007F:{port:04X} 00000000:0000 0A");
            let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).ok()?;
            table.contains(&listens).then_some(pid)
        });
        container
    }

    fn prepare(files: &[&Path], arguments: &[&str]) -> Self {
        let root = tempfile::tempdir().expect("a directory can be made");
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).expect("permissions can be set");
        fs::create_dir(root.path().join("srv")).expect("a directory can be made");
        for file in files {
            let name = file.file_name().expect("a file has a name");
            fs::copy(file, root.path().join("srv").join(name)).expect("a file can be copied");
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child"]);
        command.args(["--propagation", "private", "sh", "-c", ENTER, "sh"]).arg(root.path()).args(arguments);
        Self { process: Guard::start(&mut command), pid: 0, root }
    }

    /// The server's number, outside.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its `/srv`, outside.
    pub fn folder(&self) -> PathBuf {
        self.root.path().join("srv")
    }

    /// Asks from within its network; all is answered with success.
    pub fn ask(&self, curl: &Path, url: &str) {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.pid.to_string()]).arg(curl);
        command.args(["--silent", "--show-error", "--fail", "--insecure", "--output", "/dev/null", url]);
        let asked = run(&mut command);
        assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    }
}
