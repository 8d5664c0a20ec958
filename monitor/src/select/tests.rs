//! The rules of selection, on trees like `/proc`.

use std::{
    fs,
    os::{fd::AsRawFd as _, unix::fs::symlink},
};

use proptest::prelude::*;

use super::*;

/// A tree like `/proc`.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn process(&self, pid: u32, ppid: u32, comm: &str, exe: &str, argv: &[&str]) -> &Self {
        let folder = self.0.path().join(pid.to_string());
        fs::create_dir_all(folder.join("fd")).unwrap();
        let zeros = "0 ".repeat(48);
        fs::write(folder.join("stat"), format!("{pid} ({comm}) S {ppid} {zeros}\n")).unwrap();
        fs::write(folder.join("cmdline"), argv.iter().flat_map(|word| [word, "\0"]).collect::<String>())
            .unwrap();
        symlink(exe, folder.join("exe")).unwrap();
        self
    }

    /// Has it started at this time.
    fn started(&self, pid: u32, ticks: u64) -> &Self {
        let path = self.0.path().join(pid.to_string()).join("stat");
        let stat = fs::read_to_string(&path).unwrap();
        // The 22nd field (proc_pid_stat(5)).
        let mut fields: Vec<_> = stat.split(' ').map(str::to_owned).collect();
        fields[21] = ticks.to_string();
        fs::write(path, fields.join(" ")).unwrap();
        self
    }

    fn cgroup(&self, process: &str, text: &str) -> &Self {
        fs::create_dir_all(self.0.path().join(process)).unwrap();
        fs::write(self.0.path().join(process).join("cgroup"), text).unwrap();
        self
    }

    fn proc(&self) -> ProcFs {
        ProcFs::at(self.0.path())
    }
}

fn by_name(glob: &str) -> Selectors {
    Selectors::new(&Criteria { process_names: vec![glob.into()], ..Criteria::default() }).unwrap()
}

fn taken(selectors: &Selectors, tree: &Tree) -> Vec<(u32, String)> {
    selectors
        .select(&tree.proc())
        .unwrap()
        .into_iter()
        .map(|process| (process.pid, process.service))
        .collect()
}

#[test]
fn every_name_of_a_process_matches() {
    let cases: [(&str, &str, &[&str], &str); 16] = [
        ("nginx", "/usr/sbin/nginx", &["nginx: worker process"], "nginx"),
        ("renamed", "/usr/bin/real", &["/usr/bin/real"], "renamed"),
        ("x", "/usr/bin/real (deleted)", &["y"], "real"),
        ("gunicorn", "/usr/bin/python3.11", &["gunicorn: worker [app]"], "gunicorn"),
        ("python3", "/usr/bin/python3.11", &["/usr/bin/python3", "/v/bin/gunicorn", "app:app"], "gunicorn"),
        ("python3", "/usr/bin/python3.11", &["python3", "-m", "http.server", "8000"], "http"),
        ("python3", "/usr/bin/python3.11", &["python3", "-m", "http.server", "8000"], "http.server"),
        ("python3", "/usr/bin/python3.11", &["python3", "-u", "-W", "ignore", "/srv/app.py"], "app"),
        ("python3", "/usr/bin/python3.11", &["python3", "-u", "-W", "ignore", "/srv/app.py"], "app.py"),
        ("python3", "/usr/bin/python3.11", &["python3", "-c", "import x"], "python3*"),
        ("node", "/usr/bin/node", &["node", "--require", "./x.js", "server.js"], "server"),
        ("java", "/usr/bin/java", &["java", "-Xmx1g", "-jar", "/opt/shop.jar"], "shop"),
        ("java", "/usr/bin/java", &["java", "-cp", "/x", "org.example.Main"], "Main"),
        ("ruby", "/usr/bin/ruby3.1", &["ruby", "/usr/bin/puma", "-p", "1"], "puma"),
        ("perl", "/usr/bin/perl", &["perl", "app.pl"], "app"),
        ("php-fpm8.2", "/usr/sbin/php-fpm8.2", &["php-fpm: pool www"], "php-fpm"),
    ];
    for (comm, exe, argv, glob) in cases {
        let tree = Tree::new();
        tree.process(7, 1, comm, exe, argv);
        assert_eq!(taken(&by_name(glob), &tree).len(), 1, "{glob} for {argv:?}");
    }
}

#[test]
fn other_names_do_not_match() {
    let tree = Tree::new();
    tree.process(7, 1, "python3", "/usr/bin/python3", &["python3", "-c", "gunicorn"]);
    tree.process(8, 1, "less", "/usr/bin/less", &["less", "gunicorn"]);
    tree.process(9, 1, "Gunicorn", "/usr/bin/Gunicorn", &["Gunicorn"]);
    assert_eq!(taken(&by_name("gunicorn"), &tree), []);
}

#[test]
fn master_and_workers_have_one_service_name() {
    let tree = Tree::new();
    tree.process(7, 1, "gunicorn: maste", "/usr/bin/python3", &["gunicorn: master [app]"]);
    tree.process(8, 7, "gunicorn: worke", "/usr/bin/python3", &["gunicorn: worker [app]"]);
    for glob in ["gunicorn", "gunicorn*"] {
        assert_eq!(taken(&by_name(glob), &tree), [(7, "gunicorn".into()), (8, "gunicorn".into())]);
    }
}

#[test]
fn children_of_taken_processes_are_taken_and_excluded_ones_are_not() {
    let tree = Tree::new();
    tree.process(9, 7, "helper", "/usr/bin/helper", &["helper"]);
    tree.process(7, 1, "app", "/usr/bin/app", &["app"]);
    tree.process(6, 9, "deep", "/usr/bin/deep", &["deep"]);
    tree.process(5, 7, "shell", "/usr/bin/shell", &["shell"]);
    let criteria = Criteria {
        process_names: vec!["app".into()],
        excluded_names: vec!["shel*".into()],
        ..Criteria::default()
    };
    let selected = Selectors::new(&criteria).unwrap().select(&tree.proc()).unwrap();
    let reasons: Vec<_> = selected.iter().map(|process| (process.pid, process.reason.to_string())).collect();
    assert_eq!(
        reasons,
        [
            (6, "child of 9".to_owned()),
            (7, "process-name app: argv[0] is \"app\"".to_owned()),
            (9, "child of 7".to_owned())
        ]
    );
}

#[test]
fn a_unit_of_its_own_names_the_service() {
    for (cgroup, service) in [
        ("0::/system.slice/web.service\n", "web"),
        ("1:name=systemd:/system.slice/web@1.service\n0::/\n", "web@1"),
        ("0::/system.slice/my\\x2dweb.service\n", "my-web"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/shop.service\n", "shop"),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", "gunicorn"),
        ("0::/user.slice/user-1000.slice/user@1000.service\n", "gunicorn"),
        ("0::/system.slice/own.service\n", "gunicorn"),
        ("0::/\n", "gunicorn"),
    ] {
        let tree = Tree::new();
        tree.process(7, 1, "gunicorn", "/usr/bin/python3", &["gunicorn: master [app]"]);
        tree.cgroup("7", cgroup).cgroup("self", "0::/system.slice/own.service\n");
        assert_eq!(taken(&by_name("gunicorn"), &tree), [(7, service.into())], "{cgroup}");
    }
}

#[test]
fn units_pids_and_ports_select() {
    let tree = Tree::new();
    tree.process(7, 1, "app", "/usr/bin/app", &["app"]).cgroup("7", "0::/system.slice/web.service\n");
    tree.process(8, 1, "other", "/usr/bin/other", &["other"]);
    let folder = tree.0.path().join("8");
    symlink("socket:[99]", folder.join("fd/3")).unwrap();
    fs::create_dir(folder.join("net")).unwrap();
    let table = "head\n 0: 0100007F:1F40 00000000:0000 0A 0:0 0:0 0 0 0 99 1\n 1: 0100007F:1F41 0:0 01 0:0 0:0 0 0 0 98 1\n";
    fs::write(folder.join("net/tcp"), table).unwrap();
    let with = |criteria: Criteria| taken(&Selectors::new(&criteria).unwrap(), &tree);
    for unit in ["web", "web.service", "w*"] {
        assert_eq!(
            with(Criteria { systemd_units: vec![unit.into()], ..Criteria::default() }),
            [(7, "web".into())]
        );
    }
    assert_eq!(with(Criteria { pids: vec![8], ..Criteria::default() }), [(8, "other".into())]);
    assert_eq!(with(Criteria { ports: vec![8000], ..Criteria::default() }), [(8, "other".into())]);
    assert_eq!(with(Criteria { ports: vec![8001], ..Criteria::default() }), []);
    assert_eq!(tree.proc().listeners_of(&[8, 9]), [(8, 3, 99)]);
    let proc = tree.proc();
    assert!(
        proc.has_socket_at(8, Some(3), 99)
            && !proc.has_socket_at(8, Some(3), 98)
            && !proc.has_socket_at(8, None, 99)
    );
    assert_eq!(proc.sockets_of([7, 8].into_iter()), [99].into());
    let ends = proc.tcp_connections(8);
    assert!(ends.is_none(), "there is no tcp6");
    fs::write(
        folder.join("net/tcp6"),
        "head\n 0: 0000000000000000FFFF00000100007F:1F42 00000000000000000000000001000000:0050 01\n",
    )
    .unwrap();
    let ends = proc.tcp_connections(8).unwrap();
    assert!(ends.contains(&("127.0.0.1:8002".parse().unwrap(), "[::1]:80".parse().unwrap())), "{ends:?}");
    assert!(proc.exists(8) && !proc.exists(9));
}

#[test]
fn a_new_program_is_judged_by_what_it_holds_itself() {
    let tree = Tree::new();
    for pid in [7, 8] {
        tree.process(pid, 1, "app", "/usr/bin/app", &["app"]);
        fs::create_dir(tree.0.path().join(pid.to_string()).join("net")).unwrap();
        let table = "head\n 0: 0100007F:1F40 00000000:0000 0A 0:0 0:0 0 0 0 99 1\n";
        fs::write(tree.0.path().join(pid.to_string()).join("net/tcp"), table).unwrap();
    }
    symlink("socket:[99]", tree.0.path().join("8/fd/3")).unwrap();
    let judged = |criteria: Criteria, pid| match Selectors::new(&criteria).unwrap().judge(&tree.proc(), pid) {
        Verdict::Taken(selected) => Some(selected.reason),
        Verdict::Excluded | Verdict::Unmatched => None,
    };
    let ports = Criteria { ports: vec![8000], ..Criteria::default() };
    assert_eq!(judged(ports.clone(), 7), None, "it holds no socket");
    assert_eq!(judged(ports.clone(), 8), Some(Reason::Port(8000)));
    let named = Criteria { services: vec![("web".to_owned(), ports)], ..Criteria::default() };
    assert_eq!((judged(named.clone(), 7), judged(named, 8)), (None, Some(Reason::Port(8000))));
    let pids = Criteria { pids: vec![7], ..Criteria::default() };
    assert_eq!((judged(pids.clone(), 7), judged(pids, 8)), (Some(Reason::Pid), None));
}

#[test]
fn listening_sockets_are_found_among_connections() {
    let proc = ProcFs::default();
    let own = std::process::id();
    let first = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = first.local_addr().unwrap();
    let connections: Vec<_> =
        (0..100).map(|_| (std::net::TcpStream::connect(at).unwrap(), first.accept().unwrap())).collect();
    let second = std::net::TcpListener::bind("[::1]:0").unwrap();
    for port in [at.port(), second.local_addr().unwrap().port()] {
        assert_eq!(proc.listens(own, &[port]), Some(port));
    }
    let client = connections[0].0.local_addr().unwrap().port();
    assert_eq!(proc.listens(own, &[client]), None, "a connection doesn't listen");
    let fds: Vec<_> = proc.listeners_of(&[own]).into_iter().map(|(_, fd, _)| fd).collect();
    assert!(fds.contains(&first.as_raw_fd()) && fds.contains(&second.as_raw_fd()), "{fds:?}");
}

#[test]
fn no_more_of_a_table_is_read_than_its_listening_sockets() {
    let tree = Tree::new();
    tree.process(8, 1, "app", "/usr/bin/app", &["app"]);
    let folder = tree.0.path().join("8");
    symlink("socket:[99]", folder.join("fd/3")).unwrap();
    fs::create_dir(folder.join("net")).unwrap();
    let listens = " 0: 0100007F:1F40 00000000:0000 0A 0:0 0:0 0 0 0 99 1\n";
    let connected = " 1: 0100007F:1F41 00000000:0000 06 0:0 0:0 0 0 0 0 1\n";
    fs::write(folder.join("net/tcp"), ["head\n", connected, listens].concat()).unwrap();
    assert_eq!(tree.proc().listeners_of(&[8]), []);
    fs::write(folder.join("net/tcp"), ["head\n", listens, connected].concat()).unwrap();
    assert_eq!(tree.proc().listeners_of(&[8]), [(8, 3, 99)]);
}

#[test]
fn a_bad_glob_says_which_and_what_is_accepted() {
    for glob in ["[", ""] {
        let criteria = Criteria { process_names: vec![glob.into()], ..Criteria::default() };
        let message = Selectors::new(&criteria).unwrap_err().to_string();
        assert!(message.starts_with("--process-name") && message.contains("'gunicorn*'"), "{message}");
    }
}

#[test]
fn a_missing_proc_says_where_it_was_looked_for() {
    let message = by_name("x").select(&ProcFs::at("/nowhere")).unwrap_err().to_string();
    assert!(message.contains("/nowhere"), "{message}");
}

#[test]
fn the_report_tells_why_and_what_to_do() {
    let tree = Tree::new();
    tree.process(7, 1, "app", "/usr/bin/app", &["app", "--port", "1"]);
    let selected = by_name("app").select(&tree.proc()).unwrap();
    let expected = "PID  SERVICE  WHY                                 COMMAND\n  7  app      process-name app: argv[0] is \"app\"  app --port 1\n";
    assert_eq!(report(&selected, None, 200), expected);
    assert!(report(&[], None, 80).contains("No process matches"));
    let hidden = report(&[], Some("a container's"), 80);
    assert!(hidden.ends_with("\nThe PID namespace is a container's.\n"), "{hidden}");
}

#[test]
fn a_real_process_is_found() {
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let criteria = Criteria { pids: vec![child.id()], ..Criteria::default() };
    let found = Selectors::new(&criteria).unwrap().select(&ProcFs::default());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(found.unwrap().iter().map(|process| process.pid).collect::<Vec<_>>(), [child.id()]);
}

#[test]
fn what_a_process_may_have_forked_is_younger() {
    let tree = Tree::new();
    for (pid, ppid, name, ticks) in [
        (10, 1, "app", 500),
        (20, 1, "app", 499),
        (30, 10, "child", 500),
        (40, 1, "app", 600),
        (50, 1, "x", 700),
    ] {
        tree.process(pid, ppid, name, &format!("/bin/{name}"), &[name]).started(pid, ticks);
    }
    let pids = |found: Result<Vec<Selected>, SelectError>| -> Vec<u32> {
        found.unwrap().into_iter().map(|process| process.pid).collect()
    };
    let app = by_name("app");
    assert_eq!(pids(app.select_younger(&tree.proc(), 10)), [10, 30, 40]);
    // Of one that has gone it isn't known.
    assert_eq!(pids(app.select_younger(&tree.proc(), 99)), [10, 20, 30, 40]);
}

proptest! {
    #[test]
    fn any_command_line_has_names(comm in "\\PC{0,15}", exe in "\\PC{0,30}", argv in prop::collection::vec("\\PC{0,20}", 0..6)) {
        for candidate in names::candidates(&comm, Some(&exe), &argv) {
            prop_assert!(!candidate.name.is_empty());
        }
    }
}
