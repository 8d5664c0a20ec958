//! What is released, installed on a clean Debian, and gone again without a trace.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Once,
    time::Duration,
};

use end_to_end::{
    Guard, Metrics, Prometheus, Server, Tools,
    client::{Load, MIX, Target},
    dashboard::{expressions, names},
    eventually, free_port, needs, run, run_and_hear,
};
use nix::sys::signal::Signal;

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const UNIT: &str = "usr/lib/systemd/system/httpmon.service";
const DASHBOARD: &str = "usr/share/httpmon/grafana/httpmon.json";
const CONFIGURATION: &str = "etc/httpmon/httpmon.toml";
/// What dpkg keeps for itself.
const BOOKS: [&str; 2] = ["/var/lib/dpkg/", "/var/log/dpkg.log"];

/// A directory with a Debian in it.
struct Chroot {
    folder: tempfile::TempDir,
}

impl Chroot {
    /// A copy of the one that is kept for later runs, which is made first where there is none.
    fn new(tools: &Tools) -> Result<Self, String> {
        let (suite, mirror) = origin()?;
        let kept = Path::new(TOP).join("target/chroot").join(&suite);
        if !kept.exists() {
            let part = kept.with_extension("part");
            let _ = fs::remove_dir_all(&part);
            fs::create_dir_all(&part).expect("a directory can be made");
            let mut debootstrap = Command::new(tools.program("debootstrap")?);
            debootstrap.args(["--variant=minbase", &suite]).arg(&part).arg(&mirror);
            let output = debootstrap.stdin(Stdio::null()).output().expect("debootstrap starts");
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                let last = said.lines().last().unwrap_or_default();
                return Err(format!("debootstrap made no {suite} from {mirror}: {last}"));
            }
            fs::rename(part, &kept).expect("a directory can be renamed");
        }
        let folder =
            tempfile::tempdir_in(kept.parent().expect("it has one")).expect("a directory can be made");
        succeeds(Command::new("cp").args(["--archive", "--reflink=auto", "-T"]).arg(kept).arg(folder.path()));
        Ok(Self { folder })
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    fn read(&self, inside: &str) -> String {
        let path = self.path(inside);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// A command within, with the host's /proc and /sys to read. They are mounted for its process alone, so that they
    /// go with it, however it ends.
    fn command(&self, words: &[&str]) -> Command {
        const MOUNT: &str = "mount --bind /proc \"$0/proc\" && mount -o remount,bind,ro \"$0/proc\" \
            && mount --rbind /sys \"$0/sys\" && mount -o remount,bind,ro \"$0/sys\" && exec chroot \"$0\" \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation=private", "sh", "-c", MOUNT]);
        command.arg(self.folder.path()).args(words);
        // What is the tests' own business is none of the packages'.
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    fn succeeds(&self, words: &[&str]) -> String {
        succeeds(&mut self.command(words))
    }

    /// Every name there is, but for dpkg's books.
    fn names(&self) -> BTreeSet<String> {
        let found = succeeds(Command::new("find").arg(self.folder.path()).args(["-printf", "/%P\\n"]));
        let names = found.lines().filter(|name| !BOOKS.iter().any(|book| name.starts_with(book)));
        names.map(str::to_owned).collect()
    }

    fn install(&self, package: &Path) {
        fs::copy(package, self.path("httpmon.deb")).expect("a file can be copied");
        self.succeeds(&["dpkg", "--install", "/httpmon.deb"]);
        fs::remove_file(self.path("httpmon.deb")).expect("a file can be removed");
    }

    /// What dpkg says of the package.
    fn state(&self, field: &str) -> String {
        self.succeeds(&["dpkg-query", "--show", &format!("--showformat=${{{field}}}"), "httpmon"])
    }
}

/// The host's own release, and where it gets its packages from.
fn origin() -> Result<(String, String), String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let of = |name: &str| release.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    if of("ID=").as_deref() != Some("debian") {
        return Err("this host is no Debian, and names no mirror of one".to_owned());
    }
    let suite = of("VERSION_CODENAME=").ok_or("/etc/os-release names no release")?;
    let targets =
        run(Command::new("apt-get").args(["indextargets", "--format", "$(CODENAME) $(RELEASE) $(SITE)"]));
    let targets = String::from_utf8_lossy(&targets.stdout).into_owned();
    let mirror = targets.lines().find_map(|line| {
        let [_, release, site] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
        (release == suite).then(|| site.to_owned())
    });
    Ok((suite, mirror.ok_or("apt has no source of this release")?))
}

fn succeeds(command: &mut Command) -> String {
    let (status, said) = run_and_hear(command);
    assert!(status.success(), "{command:?}: {status}: {said}");
    said
}

/// The directory that the packages are in, which are made once for all tests.
fn dist() -> PathBuf {
    static MADE: Once = Once::new();
    MADE.call_once(|| {
        // It builds the program, where that isn't done yet: longer than other commands may take.
        let mut command = Command::new("cargo");
        command.args(["xtask", "dist"]).current_dir(TOP).stdin(Stdio::null());
        let output = command.output().expect("cargo starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
    Path::new(TOP).join("target/dist")
}

/// The one file there whose name ends so.
fn the_one(folder: &Path, end: &str) -> PathBuf {
    let files = fs::read_dir(folder).expect("the directory is there");
    let mut files = files.map(|entry| entry.expect("it can be read").path());
    let found = files.find(|path| path.to_string_lossy().ends_with(end));
    found.unwrap_or_else(|| panic!("there is no *{end} in {}", folder.display()))
}

/// The same package with a higher version.
fn newer(package: &Path, folder: &Path) -> PathBuf {
    let (tree, file) = (folder.join("newer"), folder.join("newer.deb"));
    succeeds(Command::new("dpkg-deb").arg("--raw-extract").args([package, &tree]));
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).expect("there is a control file");
    let line = text.lines().find(|line| line.starts_with("Version: ")).expect("it has a version");
    fs::write(&control, text.replace(line, &format!("{line}+newer"))).expect("it can be written");
    succeeds(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).args([&tree, &file]));
    file
}

/// The unit's values of a setting.
fn setting(unit: &str, name: &str) -> Vec<String> {
    let values = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    values.map(str::to_owned).collect()
}

/// The unit's program, as the unit's user and with its capabilities alone.
fn service(unit: &str) -> Vec<String> {
    let [start] = &setting(unit, "ExecStart")[..] else { panic!("one ExecStart: {unit}") };
    let [held] = &setting(unit, "AmbientCapabilities")[..] else { panic!("AmbientCapabilities: {unit}") };
    assert_eq!(setting(unit, "CapabilityBoundingSet"), [held.as_str()]);
    assert_eq!(setting(unit, "DynamicUser"), ["yes"]);
    let held =
        held.split(' ').map(|name| name.replace("CAP_", "+").to_lowercase()).collect::<Vec<_>>().join(",");
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"];
    let sets = ["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}=-all,{held}"));
    let words = start.split(' ').map(str::to_owned);
    user.map(str::to_owned).into_iter().chain(sets).chain(words).collect()
}

/// Gunicorn under a name that nothing else on the host has.
fn server(tools: &Tools, name: &str, folder: &Path) -> Server {
    let program = folder.join(name);
    fs::copy(tools.python("gunicorn"), &program).expect("a program can be copied");
    Server::other(|address| {
        let mut command = Command::new(&program);
        command.args(["--workers", "2", "--bind", &address.to_string(), "app:app"]);
        command
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/servers"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command
    })
}

fn scrape(port: u16) -> Metrics {
    let url = format!("http://127.0.0.1:{port}/metrics");
    Metrics::parse(succeeds(Command::new("curl").args(["--silent", "--show-error", "--fail", &url])))
}

/// systemd's end of the notifications.
struct Notifications(UnixDatagram);

impl Notifications {
    fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("a socket can be made");
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("it can be opened for all");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
        Self(socket)
    }

    fn wait_for(&self, word: &str) {
        let mut buffer = [0; 4096];
        loop {
            let size =
                self.0.recv(&mut buffer).unwrap_or_else(|error| panic!("{word} doesn't come: {error}"));
            if String::from_utf8_lossy(&buffer[..size]).lines().any(|line| line == word) {
                return;
            }
        }
    }
}

/// Every panel has an answer, but for those about what a healthy service has none of.
fn dashboard_has_data(prometheus: &Prometheus, dashboard: &str, metrics: &Metrics) {
    let dashboard = serde_json::from_str(dashboard).expect("the dashboard is JSON");
    let there = |name: &str| {
        let base = name.trim_end_matches("_bucket").trim_end_matches("_count").trim_end_matches("_sum");
        metrics.samples.iter().any(|sample| sample.name.starts_with(base))
    };
    let mut answered = 0;
    for (title, expression) in expressions(&dashboard) {
        if names(&expression).into_iter().all(there) {
            eventually(&format!("{title}: {expression}"), || {
                prometheus.series(&expression).is_ok_and(|series| !series.is_empty()).then_some(())
            });
            answered += 1;
        }
    }
    assert!(answered >= 30, "{answered} answers");
}

/// Runs the service as its unit does, and has it count what a server answers.
fn counts(tools: &Tools, chroot: &Chroot, target: &Target) {
    let unit = chroot.read(UNIT);
    let words = service(&unit);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let port = free_port();
    let socket = chroot.path("run/notify");
    let notified = Notifications::listen(&socket);
    let log = chroot.path("run/log");
    let mut agent = Guard::start(
        chroot
            .command(&words)
            .env("NOTIFY_SOCKET", "/run/notify")
            .env("HTTPMON_LISTEN", format!("127.0.0.1:{port}"))
            .stderr(fs::File::create(&log).expect("a log can be made")),
    );
    let said = || fs::read_to_string(&log).expect("the log is there");
    eventually("the agent attaches", || {
        assert!(agent.ended().is_none(), "the agent ended: {}", said());
        said().contains("attached").then_some(())
    });
    notified.wait_for("READY=1");

    // A counter's first sample is no increase for Prometheus: let there be some requests before the others.
    let prometheus = Prometheus::start(tools, port).expect("Prometheus is installed");
    let load = |requests| Load { target, asks: &MIX, requests, clients: 3, per_connection: 1 }.send();
    let first = load(90);
    let seen = || prometheus.value("sum(httpmon_requests_seen_total)");
    eventually("Prometheus has the first requests", || (seen() == Some(90.0)).then_some(()));
    let mut outcome = load(810);
    for (what, count) in first.answered {
        *outcome.answered.entry(what).or_default() += count;
    }
    assert_eq!(first.failed + outcome.failed, 0);
    eventually("Prometheus has all requests", || (seen() == Some(900.0)).then_some(()));
    let settled = || {
        let metrics = scrape(port);
        let seen = metrics.count("httpmon_requests_seen_total", &[]);
        (seen >= 900 && metrics.count("http_server_active_requests", &[]) == 0).then_some(metrics)
    };
    let metrics = eventually("all requests are seen and done", settled);
    metrics.assert_finished(&[], &outcome.answered);
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), 900);
    metrics.assert_books_balance();
    metrics.assert_nothing_lost();
    dashboard_has_data(&prometheus, &chroot.read(DASHBOARD), &metrics);

    agent.signal(Signal::SIGHUP);
    notified.wait_for("RELOADING=1");
    notified.wait_for("READY=1");
    agent.signal(Signal::SIGTERM);
    notified.wait_for("STOPPING=1");
    assert_eq!(agent.wait().code(), Some(0), "{}", said());
    for file in [socket, log] {
        fs::remove_file(file).expect("a file can be removed");
    }
}

#[test]
fn the_debian_package_installs_counts_upgrades_and_goes() {
    let tools = needs!(Tools::find());
    for program in ["dpkg-deb", "dpkg-shlibdeps", "curl"] {
        needs!(tools.program(program));
    }
    let chroot = needs!(Chroot::new(&tools));
    let package = the_one(&dist(), ".deb");
    let folder = tempfile::tempdir().expect("a directory can be made");
    let before = chroot.names();

    chroot.install(&package);
    assert_eq!(chroot.succeeds(&["dpkg", "--verify", "httpmon"]), "");
    let enabled = chroot.path("etc/systemd/system/multi-user.target.wants/httpmon.service");
    assert!(enabled.is_symlink(), "the unit is not enabled");
    for name in [
        "usr/share/man/man1/httpmon.1.gz",
        "usr/share/bash-completion/completions/httpmon",
        "usr/share/zsh/vendor-completions/_httpmon",
        "usr/share/fish/vendor_completions.d/httpmon.fish",
        "usr/share/doc/httpmon/copyright",
        "usr/share/doc/httpmon/THIRD-PARTY-LICENSES.gz",
        "usr/share/httpmon/grafana/httpmon.json",
        "usr/share/httpmon/prometheus/httpmon.rules.yml",
    ] {
        let size = fs::metadata(chroot.path(name)).unwrap_or_else(|error| panic!("{name}: {error}")).len();
        assert!(size > 100, "{name} has {size} bytes");
    }
    let check = ["httpmon", "run", "--config", "/etc/httpmon/httpmon.toml", "--check-config"];
    assert_eq!(chroot.succeeds(&check), "the configuration is right\n");

    let name = format!("hm-pkg-{}", std::process::id());
    let edit = format!("s/^process-name = .*/process-name = [\"{name}\"]/");
    chroot.succeeds(&["sed", "--in-place", &edit, &format!("/{CONFIGURATION}")]);
    let edited = chroot.read(CONFIGURATION);
    assert!(edited.contains(&name), "{edited}");
    let server = server(&tools, &name, folder.path());
    counts(&tools, &chroot, server.target());

    let version = chroot.state("Version");
    chroot.install(&newer(&package, folder.path()));
    assert_eq!(chroot.state("Version"), format!("{version}+newer"));
    assert_eq!(chroot.read(CONFIGURATION), edited, "the upgrade changed the configuration");
    counts(&tools, &chroot, server.target());

    chroot.succeeds(&["dpkg", "--remove", "httpmon"]);
    assert!(!chroot.path("usr/bin/httpmon").exists());
    assert_eq!(chroot.read(CONFIGURATION), edited, "the configuration went without being purged");
    chroot.succeeds(&["dpkg", "--purge", "httpmon"]);
    let after = chroot.names();
    let changed: Vec<_> = before.symmetric_difference(&after).collect();
    assert!(changed.is_empty(), "the package left a trace: {changed:?}");
    let books = succeeds(Command::new("find").arg(chroot.path("var/lib/dpkg")).args(["-name", "*httpmon*"]));
    assert_eq!(books, "");
}

#[test]
fn the_tarball_holds_what_was_built_and_the_sums_are_right() {
    let tools = needs!(Tools::find());
    for program in ["dpkg-deb", "dpkg-shlibdeps"] {
        needs!(tools.program(program));
    }
    let dist = dist();
    succeeds(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&dist));
    let folder = tempfile::tempdir().expect("a directory can be made");
    let tarball = the_one(&dist, ".tar.gz");
    succeeds(
        Command::new("tar").args(["--strip-components=1", "-xzf"]).arg(tarball).arg("-C").arg(folder.path()),
    );
    let read = |path: &Path| fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(read(&folder.path().join("httpmon")), read(&Path::new(TOP).join("target/release/httpmon")));
    for file in ["README.md", "LICENSE-MIT", "LICENSE-APACHE", "deploy/systemd/httpmon.service"] {
        assert_eq!(read(&folder.path().join(file)), read(&Path::new(TOP).join(file)), "{file}");
    }
    assert!(folder.path().join("man/httpmon.1").exists());

    let bill = serde_json::from_slice::<serde_json::Value>(&read(&the_one(&dist, ".cdx.json")));
    let bill = bill.expect("the bill of materials is JSON");
    let components = bill["components"].as_array().expect("it has components");
    let aya = components.iter().find(|one| one["name"] == "aya").expect("aya is in it");
    assert!(aya["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:cargo/aya@")), "{aya}");
    assert_eq!(aya["hashes"][0]["content"].as_str().map(str::len), Some(64), "{aya}");
    let notices = fs::read_to_string(folder.path().join("THIRD-PARTY-LICENSES")).expect("there are notices");
    for one in components.iter().filter(|one| !one["hashes"].is_null()) {
        let name = format!("  {} {}: ", one["name"].as_str().unwrap(), one["version"].as_str().unwrap());
        assert!(notices.contains(&name), "the notices lack {name}");
    }
}

#[test]
fn the_unit_is_confined() {
    let tools = needs!(Tools::find());
    let analyze = needs!(tools.program("systemd-analyze"));
    // In tenths of systemd's points, of which ten are the worst.
    succeeds(
        Command::new(analyze)
            .args(["security", "--offline=true", "--no-pager", "--threshold=35"])
            .arg(Path::new(TOP).join("deploy/systemd/httpmon.service")),
    );
}

#[test]
fn the_manifests_have_the_shape_that_kubernetes_wants() {
    let tools = needs!(Tools::find());
    let manifests = Path::new(TOP).join("deploy/kubernetes/httpmon.yaml");
    for version in ["1.30", "1.37"] {
        let mut validate = Command::new(tools.python("kubernetes-validate"));
        let said = succeeds(validate.args(["--strict", "--kubernetes-version", version]).arg(&manifests));
        for resource in ["namespace", "serviceaccount", "configmap", "daemonset"] {
            assert!(said.contains(&format!("passed for resource {resource}/httpmon")), "{resource}: {said}");
        }
    }
}

#[test]
fn the_manifests_configuration_is_right() {
    let tools = needs!(Tools::find());
    let folder = tempfile::tempdir().expect("a directory can be made");
    let read = "import sys, yaml; print(next(d['data']['httpmon.toml'] \
                for d in yaml.safe_load_all(open(sys.argv[1])) if d['kind'] == 'ConfigMap'))";
    let manifests = Path::new(TOP).join("deploy/kubernetes/httpmon.yaml");
    let text = succeeds(Command::new(tools.python("python3")).args(["-c", read]).arg(manifests));
    let file = folder.path().join("httpmon.toml");
    fs::write(&file, text).expect("it can be written");
    let program = end_to_end::Agent::program();
    let said = succeeds(Command::new(program).args(["run", "--check-config", "--config"]).arg(&file));
    assert_eq!(said, "the configuration is right\n");
}
