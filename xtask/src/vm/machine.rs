//! One virtual machine: a kernel, the host's files under a layer that forgets, and a command that root runs.

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use end_to_end::Guard;

use super::{debian, initramfs, kernels::Kernel};
use crate::{
    needs,
    run::{self, Command},
};

/// How a machine is made.
#[derive(Clone, Debug)]
pub(super) struct Machine<'a> {
    /// What it boots.
    pub(super) kernel: &'a Kernel,
    /// How many processors it has.
    pub(super) cpus: u8,
    /// Further words of the kernel's command line.
    pub(super) words: &'a [&'a str],
    /// What its time is.
    pub(super) clock: Clock,
    /// How long it may take.
    pub(super) limit: Duration,
}

/// What a machine's time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// The host's.
    Wall,
    /// A nanosecond for each instruction.
    Instructions,
}

/// What a machine left.
#[derive(Debug)]
pub(super) struct Left {
    /// The command's exit status.
    pub(super) status: i32,
    folder: tempfile::TempDir,
}

impl Left {
    /// What the command wrote to a file in the folder `/out`.
    pub(super) fn read(&self, name: &str) -> Result<String> {
        let path = self.folder.path().join("out").join(name);
        fs::read_to_string(&path).with_context(|| format!("the machine left no {name}"))
    }
}

const MEGABYTES: u32 = 1536;

impl Machine<'_> {
    /// Boots it, and runs a command with these variables in its environment; what that prints goes to stdout.
    pub(super) fn run(&self, command: &[&str], variables: &[(&str, &str)]) -> Result<Left> {
        let accelerator = match self.clock {
            Clock::Wall => accelerator(self.kernel),
            Clock::Instructions => "tcg",
        };
        self.run_by(accelerator, command, variables)
    }

    fn run_by(&self, accelerator: &str, command: &[&str], variables: &[(&str, &str)]) -> Result<Left> {
        let folder = tempfile::Builder::new().prefix("httpmon-vm-").tempdir()?;
        let place = |name: &str| folder.path().join(name);
        let out = place("out");
        fs::create_dir(&out)?;
        fs::write(out.join("start"), include_str!("start"))?;
        fs::write(out.join("command"), script(command, variables)?)?;
        initramfs::make(self.kernel, &place("first"), &place("initramfs"))?;
        let files = place("files.sock");
        let mut server = files_server(&files, &place("files.log"))?;
        let begun = Instant::now();
        while !files.exists() {
            let log = || fs::read_to_string(place("files.log")).unwrap_or_default();
            ensure!(server.ended().is_none(), "virtiofsd ended: {}", log());
            ensure!(begun.elapsed() < Duration::from_secs(30), "virtiofsd doesn't listen: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }

        let words = format!(
            "console=ttyS0 quiet panic=-1 oops=panic httpmon.out={} {}",
            out.display(),
            self.words.join(" ")
        );
        let qemu = Qemu::find()?;
        let mut emulator = dying(&qemu.program);
        emulator
            .args(&qemu.options)
            .args(["-machine", &format!("accel={accelerator},memory-backend=memory")])
            .args(["-cpu", if accelerator == "kvm" { "host" } else { qemu.cpu }])
            .args(["-m", &MEGABYTES.to_string(), "-smp", &self.cpus.to_string()])
            .args(["-object", &format!("memory-backend-memfd,id=memory,size={MEGABYTES}M,share=on")])
            .args(["-chardev", &format!("socket,id=files,path={}", files.display())])
            .args(["-device", "vhost-user-fs-pci,chardev=files,tag=host,queue-size=1024"])
            .args(["-display", "none", "-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-serial", &format!("file:{}", place("console").display())])
            .args(["-chardev", "stdio,id=output,signal=off", "-serial", "chardev:output"])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(place("initramfs"))
            .args(["-append", &words])
            .stdin(std::process::Stdio::null())
            .stderr(File::create(place("emulator"))?);
        if let Some(modules) = &qemu.modules {
            emulator.env("QEMU_MODULE_DIR", modules);
        }
        if self.clock == Clock::Instructions {
            emulator.args(["-icount", "shift=0,sleep=off", "-seed", "1"]);
            emulator.args(["-rtc", "base=2025-01-01,clock=vm"]);
        }
        let mut emulator = Guard::start(&mut emulator);
        let begun = Instant::now();
        while emulator.ended().is_none() {
            if begun.elapsed() > self.limit {
                bail!("the machine was stopped after {:?}\n{}", self.limit, last_words(folder.path()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let status = fs::read_to_string(out.join("status")).unwrap_or_default();
        let Ok(status) = status.trim().parse() else {
            bail!("the machine ended before its command did\n{}", last_words(folder.path()));
        };
        Ok(Left { status, folder })
    }
}

/// What the emulator, the kernel and the first programs said at the end.
fn last_words(folder: &Path) -> String {
    let mut text = String::new();
    for name in ["emulator", "console"] {
        let said = fs::read(folder.join(name)).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        for line in &lines[lines.len().saturating_sub(40)..] {
            let _ = writeln!(text, "{name}: {line}");
        }
    }
    text
}

/// The command as a shell script.
fn script(command: &[&str], variables: &[(&str, &str)]) -> Result<String> {
    let quoted = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
    let mut text = String::new();
    for (name, value) in variables {
        writeln!(text, "export {name}={}", quoted(value))?;
    }
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    writeln!(text, "exec {}", words.join(" "))?;
    Ok(text)
}

/// A command that ends when this program does, however that happens.
fn dying(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// Serves the host's files at a socket: the one in Rust, or that which came with QEMU before 8.0.
fn files_server(socket: &Path, log: &Path) -> Result<Guard> {
    let program = needs::virtiofsd().context("virtiofsd is not installed")?;
    let help = Command::new(program).arg("--help").output()?;
    let mut command = dying(program);
    if String::from_utf8_lossy(&[help.stdout, help.stderr].concat()).contains("--shared-dir") {
        command.args(["--shared-dir", "/", "--no-announce-submounts", "--cache", "always"]);
        command.args(["--sandbox", "chroot", "--socket-path"]).arg(socket);
    } else {
        command.args(["-f", "-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot", "-o", "xattr"]);
        command.arg(format!("--socket-path={}", socket.display()));
    }
    let log = File::create(log)?;
    Ok(Guard::start(command.stdout(log.try_clone()?).stderr(log)))
}

/// Which emulator, and how.
#[derive(Clone, Debug)]
struct Qemu {
    program: PathBuf,
    options: Vec<String>,
    cpu: &'static str,
    modules: Option<PathBuf>,
}

impl Qemu {
    /// The installed one, from version 10 on. Up to 7.2, which Debian 12 has, its emulation spoils flags around cmpxchg16b, and
    /// kernels fall over at random: there a newer one is unpacked beside it, or guests go without that instruction.
    fn find() -> Result<Self> {
        let program = PathBuf::from("qemu-system-x86_64");
        let said = run::output(Command::new(&program).arg("--version"))?;
        let major =
            said.split("version ").nth(1).and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        let installed = Self { program, options: Vec::new(), cpu: "max", modules: None };
        if major.is_some_and(|major| major >= 10) {
            return Ok(installed);
        }
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        if !release.contains("VERSION_CODENAME=bookworm") {
            return Ok(Self { cpu: "max,-cx16", ..installed });
        }
        let packages = || Ok(vec!["qemu-system-x86".to_owned(), "qemu-system-data".to_owned()]);
        match debian::unpacked("qemu", &["bookworm-backports"], |_| packages()) {
            Ok(tree) => Ok(Self {
                program: tree.join("usr/bin/qemu-system-x86_64"),
                options: ["-L".to_owned(), tree.join("usr/share/qemu").display().to_string()]
                    .into_iter()
                    .chain(["-L".to_owned(), "/usr/share/seabios".to_owned()])
                    .collect(),
                cpu: "max",
                modules: Some(tree.join("usr/lib/x86_64-linux-gnu/qemu")),
            }),
            Err(error) => {
                eprintln!("no newer QEMU: {error:#}");
                Ok(Self { cpu: "max,-cx16", ..installed })
            }
        }
    }
}

/// KVM where it works: a device that is there may still hang.
fn accelerator(kernel: &Kernel) -> &'static str {
    static FOUND: OnceLock<&str> = OnceLock::new();
    const SOON: Duration = Duration::from_secs(15);
    FOUND.get_or_init(|| {
        if File::options().read(true).write(true).open("/dev/kvm").is_err() {
            return "tcg";
        }
        let machine = Machine { kernel, cpus: 1, words: &[], clock: Clock::Wall, limit: SOON };
        let works = machine.run_by("kvm", &["true"], &[]).is_ok_and(|left| left.status == 0);
        if works { "kvm" } else { "tcg" }
    })
}
