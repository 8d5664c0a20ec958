//! Options from three places: the command line beats `HTTPMON_*` environment variables, which beat a TOML file.
//!
//! In the file and the environment an option has the name that it has on the command line (`process-name`,
//! `HTTPMON_PROCESS_NAME`), and its value is read by the same rules: what is neither on the command line nor in the
//! environment is added to the command line from the file. Beyond that, a file's `[[service]]` tables name the processes
//! that a selection matches.

use std::{ffi::OsString, fs, path::Path};

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches as _, Parser as _, parser::ValueSource};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    cli::{self, Cli, NamedService, RunArgs, SelectArgs},
    exit::Failure,
};

/// What an environment variable's name begins with.
const PREFIX: &str = "HTTPMON_";
/// Options that a file can't hold.
const NOT_IN_FILES: [&str; 4] = ["config", "check-config", "help", "version"];
/// How alike a suggestion is to what was written, from 0 to 1.
const ALIKE: f64 = 0.75;

/// Why options can't be had.
#[derive(Debug)]
pub enum Error {
    /// clap says it, or what was asked for: help, the version.
    Clap(clap::Error),
    /// The environment or the file is wrong.
    Wrong(String),
}

impl From<clap::Error> for Error {
    fn from(error: clap::Error) -> Self {
        Self::Clap(error)
    }
}

/// What was asked for, all places considered.
pub fn resolve(typed: &[OsString], environment: impl Fn(&str) -> Option<OsString>) -> Result<Cli, Error> {
    let matches = cli::command().try_get_matches_from(typed)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    if !matches!(cli.command, None | Some(cli::Task::Run(_))) {
        return Ok(cli);
    }
    let given = matches.subcommand_matches("run").unwrap_or(&matches);
    let mut all = typed.to_vec();
    let from_environment = from_environment(given, &environment)?;
    all.extend(from_environment.iter().flat_map(|(_, arguments)| arguments.clone()));
    let file = Cli::try_parse_from(&all).map(|cli| run_of(cli).and_then(|run| run.config))?;
    let mut services = Vec::new();
    if let Some(file) = file {
        let known =
            |name: &str| is_typed(given, name) || from_environment.iter().any(|(option, _)| option == name);
        let read = read(&file)?;
        all.extend(
            read.options.into_iter().filter(|(name, _)| !known(name)).flat_map(|(_, arguments)| arguments),
        );
        services = read.services;
    }
    cli = Cli::try_parse_from(&all)?;
    let run = match &mut cli.command {
        Some(cli::Task::Run(run)) => run,
        _ => &mut cli.run,
    };
    run.select.services = services;
    Ok(cli)
}

/// The same, of the running agent.
pub fn resolve_run(
    typed: &[OsString],
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<RunArgs, Failure> {
    let cli = resolve(typed, environment).map_err(|error| match error {
        Error::Clap(error) => Failure::Usage(error.to_string()),
        Error::Wrong(message) => Failure::Usage(message),
    })?;
    run_of(cli).ok_or_else(|| Failure::Usage("these options don't run the agent".to_owned()))
}

fn run_of(cli: Cli) -> Option<RunArgs> {
    match cli.command {
        None => Some(cli.run),
        Some(cli::Task::Run(run)) => Some(*run),
        Some(_) => None,
    }
}

/// An option and its arguments.
type Given = (String, Vec<OsString>);

/// The options of `run` that have a value, or are flags.
fn options() -> Vec<Arg> {
    let command = cli::command();
    let Some(run) = command.find_subcommand("run") else { return Vec::new() };
    run.get_arguments().filter(|option| option.get_long().is_some()).cloned().collect()
}

fn is_typed(given: &ArgMatches, name: &str) -> bool {
    let id = name.replace('-', "_");
    let id = options()
        .iter()
        .find(|option| option.get_long() == Some(name))
        .map_or(id, |option| option.get_id().to_string());
    given.try_contains_id(&id).unwrap_or(false) && given.value_source(&id) == Some(ValueSource::CommandLine)
}

fn is_list(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::Append)
}

fn from_environment(
    given: &ArgMatches,
    environment: &impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<Given>, Error> {
    let mut found = Vec::new();
    for option in options() {
        let Some(long) = option.get_long() else { continue };
        let name = format!("{PREFIX}{}", long.replace('-', "_").to_uppercase());
        let Some(value) = environment(&name).filter(|value| !value.is_empty()) else { continue };
        if is_typed(given, long) {
            continue;
        }
        let value =
            value.into_string().map_err(|_| Error::Wrong(format!("{name}: its value is not UTF-8")))?;
        let arguments = if is_flag(&option) {
            match &*value {
                "1" | "true" => vec![OsString::from(format!("--{long}"))],
                "0" | "false" => Vec::new(),
                _ => return Err(Error::Wrong(format!("{name}={value}: it is a flag: 1 or 0"))),
            }
        } else if is_list(&option) {
            split(&value).map(|one| argument(long, one)).collect()
        } else {
            vec![argument(long, &value)]
        };
        accepted(&arguments).map_err(|why| Error::Wrong(format!("{name}={value}: {why}")))?;
        found.push((long.to_owned(), arguments));
    }
    Ok(found)
}

/// The parts between commas and blanks that are in no braces or brackets.
fn split(value: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    value
        .split(move |char| {
            match char {
                '{' | '[' => depth += 1,
                '}' | ']' => depth -= 1,
                _ => {}
            }
            depth <= 0 && (char == ',' || char.is_whitespace())
        })
        .filter(|part| !part.is_empty())
}

fn is_flag(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::SetTrue)
}

fn argument(long: &str, value: &str) -> OsString {
    format!("--{long}={value}").into()
}

/// Whether the command line would take these arguments, or what it would say.
fn accepted(arguments: &[OsString]) -> Result<(), String> {
    let command: Command = cli::command();
    let line = ["httpmon".into(), "run".into()].into_iter().chain(arguments.iter().cloned());
    command.try_get_matches_from(line).map(|_| ()).map_err(|error| {
        let text = error.render().to_string();
        let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let said =
            lines.iter().take_while(|line| !line.starts_with("For more") && !line.starts_with("Usage"));
        said.map(|line| line.trim_start_matches("error: ")).collect::<Vec<_>>().join("; ")
    })
}

struct File {
    options: Vec<Given>,
    services: Vec<NamedService>,
}

fn read(path: &Path) -> Result<File, Error> {
    let name = path.display();
    let text = fs::read_to_string(path).map_err(|error| {
        Error::Wrong(format!("--config {name}: {error}; name a TOML file that httpmon can read"))
    })?;
    let wrong = |at: usize, what: String| {
        let line = text[..at.min(text.len())].matches('\n').count() + 1;
        Error::Wrong(format!("{name}:{line}: {what}"))
    };
    let table = DeTable::parse(&text).map_err(|error| {
        wrong(error.span().map_or(0, |span| span.start), format!("not TOML: {}", error.message()))
    })?;
    let options = options();
    let mut file = File { options: Vec::new(), services: Vec::new() };
    for (key, value) in table.get_ref() {
        let at = key.span().start;
        let long = key.get_ref().replace('_', "-");
        if long == "service" {
            for service in services(value).map_err(|(at, what)| wrong(at, what))? {
                file.services.push(service);
            }
            continue;
        }
        let option = options
            .iter()
            .find(|option| option.get_long() == Some(&long) && !NOT_IN_FILES.contains(&&*long))
            .ok_or_else(|| {
                let names = options.iter().filter_map(Arg::get_long).chain(["service"]);
                let names: Vec<_> = names.filter(|name| !NOT_IN_FILES.contains(name)).collect();
                wrong(at, unknown("option", key.get_ref(), &names))
            })?;
        let arguments = arguments(option, &long, value).map_err(|what| wrong(value.span().start, what))?;
        accepted(&arguments).map_err(|why| wrong(value.span().start, why))?;
        file.options.push((long, arguments));
    }
    Ok(file)
}

fn arguments(option: &Arg, long: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<OsString>, String> {
    if is_flag(option) {
        return match value.get_ref() {
            DeValue::Boolean(true) => Ok(vec![format!("--{long}").into()]),
            DeValue::Boolean(false) => Ok(Vec::new()),
            _ => Err(format!("{long} is true or false")),
        };
    }
    match value.get_ref() {
        DeValue::Array(values) if is_list(option) || option.get_value_delimiter().is_some() => {
            let values = values.iter().map(|value| scalar(value.get_ref()));
            let values = values
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| format!("{long}: a list of strings or numbers"))?;
            Ok(values.iter().map(|value| argument(long, value)).collect())
        }
        DeValue::Array(_) => Err(format!("{long} has one value, not a list")),
        single => {
            let value = scalar(single).ok_or_else(|| format!("{long} is a string or a number"))?;
            Ok(vec![argument(long, &value)])
        }
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// The `[[service]]` tables.
fn services(value: &Spanned<DeValue<'_>>) -> Result<Vec<NamedService>, (usize, String)> {
    const KEYS: [&str; 5] = ["name", "process-name", "pid", "port", "systemd-unit"];
    let shape = "service is written as tables: [[service]], with a name and selectors";
    let DeValue::Array(tables) = value.get_ref() else { return Err((value.span().start, shape.to_owned())) };
    let mut services = Vec::new();
    for table in tables {
        let at = table.span().start;
        let DeValue::Table(keys) = table.get_ref() else { return Err((at, shape.to_owned())) };
        let mut service = NamedService { name: String::new(), select: SelectArgs::default() };
        for (key, value) in keys {
            let name = key.get_ref().replace('_', "-");
            if !KEYS.contains(&&*name) {
                return Err((key.span().start, unknown("key of a service", key.get_ref(), &KEYS)));
            }
            let at = value.span().start;
            let list = match value.get_ref() {
                DeValue::Array(values) => values.iter().map(|value| scalar(value.get_ref())).collect(),
                single => scalar(single).map(|value| vec![value]),
            };
            let list: Vec<String> =
                list.ok_or_else(|| (at, format!("{name} is a string, a number or a list of them")))?;
            let select = &mut service.select;
            let numbers = |what: &str| (at, format!("{name}: {} is no {what}", list.join(", ")));
            match &*name {
                "name" => service.name = list.concat(),
                "process-name" => select.process_name = list,
                "systemd-unit" => select.systemd_unit = list,
                "pid" => {
                    let pids = list.iter().map(|pid| pid.parse().ok()).collect::<Option<_>>();
                    select.pid = pids.ok_or_else(|| numbers("process number"))?;
                }
                _ => {
                    let ports = list.iter().map(|port| port.parse().ok().filter(|port| *port > 0));
                    select.port =
                        ports.collect::<Option<_>>().ok_or_else(|| numbers("port, from 1 to 65535"))?;
                }
            }
        }
        let SelectArgs { process_name, pid, port, systemd_unit, .. } = &service.select;
        if service.name.is_empty() {
            return Err((at, "the service has no name: name = \"shop\"".to_owned()));
        }
        if process_name.is_empty() && pid.is_empty() && port.is_empty() && systemd_unit.is_empty() {
            let what = format!(
                "the service {:?} selects nothing: give it a process-name, pid, port or systemd-unit",
                service.name
            );
            return Err((at, what));
        }
        services.push(service);
    }
    Ok(services)
}

fn unknown(what: &str, key: &str, names: &[&str]) -> String {
    let alike = |name: &&&str| strsim::jaro_winkler(&key.replace('_', "-"), name);
    let nearest = names.iter().max_by(|one, other| alike(one).total_cmp(&alike(other)));
    match nearest.filter(|name| alike(name) >= ALIKE) {
        Some(name) => format!("there is no {what} {key:?}: did you mean {name:?}?"),
        None => format!("there is no {what} {key:?}; there are {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn typed(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn resolved(words: &[&str], environment: &[(&str, &str)]) -> Result<RunArgs, String> {
        let of = |name: &str| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        resolve_run(&typed(words), of).map_err(|failure| failure.to_string())
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn refused(text: &str) -> String {
        let file = file(text);
        let path = file.path().to_str().unwrap();
        resolved(&["httpmon", "--config", path], &[]).unwrap_err().replace(path, "FILE")
    }

    #[test]
    fn the_command_line_beats_the_environment_and_that_the_file() {
        let file =
            file("listen = '127.0.0.1:1'\nroute = ['/file/{id}']\nmax_series = 7\nignore-path = '/file'\n");
        let path = file.path().to_str().unwrap();
        let environment = [
            ("HTTPMON_LISTEN", "127.0.0.1:2"),
            ("HTTPMON_IGNORE_PATH", "/a,/{b,c} /d"),
            ("HTTPMON_PROCESS_NAME", "web"),
            ("HTTPMON_CONFIG", path),
        ];
        let run = resolved(&["httpmon", "--listen=127.0.0.1:3", "-n", "typed"], &environment).unwrap();
        assert_eq!(run.listen.to_string(), "127.0.0.1:3");
        assert_eq!(run.select.process_name, ["typed"]);
        assert_eq!(run.metrics.ignore_path, ["/a", "/{b,c}", "/d"]);
        assert_eq!(run.metrics.route, ["/file/{id}"]);
        assert_eq!(run.metrics.max_series, 7);
        let named = resolved(&["httpmon", "run", "-n", "typed"], &environment).unwrap();
        assert_eq!(named.listen.to_string(), "127.0.0.1:2");
        assert_eq!(named.select.process_name, ["typed"]);
    }

    #[test]
    fn the_backend_is_taken_from_wherever_it_stands() {
        use cli::BackendArg::{Auto, Socket, Syscall};
        let file = file("backend = 'syscall'\n");
        let from_file = ["httpmon", "--config", file.path().to_str().unwrap()];
        let backend = |words: &[&str], environment| resolved(words, environment).unwrap().kernel.backend;
        assert_eq!(backend(&["httpmon"], &[]), Auto);
        assert_eq!(backend(&from_file, &[]), Syscall);
        assert_eq!(backend(&from_file, &[("HTTPMON_BACKEND", "socket")]), Socket);
        assert_eq!(backend(&["httpmon", "--backend=syscall"], &[("HTTPMON_BACKEND", "socket")]), Syscall);
        let refused = resolved(&["httpmon", "--backend=kprobe"], &[]).unwrap_err();
        assert!(refused.contains("kprobe") && refused.contains("auto, socket, syscall"), "{refused}");
    }

    #[test]
    fn services_are_named_in_the_file() {
        let file = file("[[service]]\nname = 'shop'\nprocess-name = 'gunicorn*'\nport = [8000, 8001]\n");
        let run = resolved(&["httpmon", "--config", file.path().to_str().unwrap()], &[]).unwrap();
        let [shop] = &run.select.services[..] else { panic!("{run:?}") };
        assert_eq!((&*shop.name, &shop.select.port[..]), ("shop", &[8000, 8001][..]));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_what_is_accepted() {
        for (text, said) in [
            (
                "proces-name = 'x'",
                "FILE:1: there is no option \"proces-name\": did you mean \"process-name\"?",
            ),
            ("\nlissen = 1", "FILE:2: there is no option \"lissen\": did you mean \"listen\"?"),
            ("qqq = 1", "FILE:1: there is no option \"qqq\"; there are process-name, pid,"),
            ("config = 'x'", "FILE:1: there is no option \"config\""),
            (
                "role = 'servant'",
                "FILE:1: invalid value 'servant' for '--role <ROLE>'; [possible values: server, client, all]",
            ),
            ("\nlisten = 'here'", "FILE:2: invalid value 'here' for '--listen <ADDR:PORT>'"),
            ("listen = ['a']", "FILE:1: listen has one value, not a list"),
            ("a = ", "FILE:1: not TOML"),
            ("service = 1", "FILE:1: service is written as tables"),
            (
                "[[service]]\nnam = 'x'",
                "FILE:2: there is no key of a service \"nam\": did you mean \"name\"?",
            ),
            ("[[service]]\nname = 'x'", "FILE:1: the service \"x\" selects nothing"),
            ("[[service]]\nname = 'x'\nport = 0", "FILE:3: port: 0 is no port"),
        ] {
            let message = refused(text);
            assert!(message.starts_with(said), "{text:?}: {message}");
        }
        let message = resolved(&["httpmon"], &[("HTTPMON_ROLE", "x")]).unwrap_err();
        assert!(message.starts_with("HTTPMON_ROLE=x: invalid value 'x' for '--role <ROLE>'"), "{message}");
        let message = resolved(&["httpmon", "--config", "/nowhere/x"], &[]).unwrap_err();
        assert!(message.contains("--config /nowhere/x"), "{message}");
    }

    #[test]
    fn the_annotated_example_has_every_option() {
        let example = include_str!("../../deploy/httpmon.toml");
        let names = options().into_iter().filter(|option| !option.is_hide_set());
        for name in names.filter_map(|option| option.get_long().map(str::to_owned)) {
            let line = |line: &str| line.trim_start_matches('#').starts_with(&format!("{name} = "));
            assert!(NOT_IN_FILES.contains(&&*name) || example.lines().any(line), "{name} is missing");
        }
        // What can be uncommented is right, too.
        let is_option = |line: &str| line.starts_with('#') && !line.starts_with("# ");
        let all = example.lines().map(|line| if is_option(line) { &line[1..] } else { line });
        let file = file(&all.collect::<Vec<_>>().join("\n"));
        let run = resolved(&["httpmon", "--config", file.path().to_str().unwrap()], &[]).unwrap();
        assert_eq!((run.select.services.len(), run.select.process_name), (1, vec!["gunicorn".to_owned()]));
    }
}
