//! The names that a process goes by.
//!
//! In: comm, executable and command line. Out: candidates in the order in which they name a service best.

/// A name, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) what: &'static str,
    pub(super) name: String,
}

/// Interpreters whose script names the service. Versions may follow: `python3.11`.
const INTERPRETERS: [&str; 13] =
    ["python", "pypy", "ruby", "node", "nodejs", "bun", "deno", "perl", "php", "java", "bash", "dash", "sh"];

/// Python's options that take a value of their own.
const PYTHON_VALUED: [&str; 3] = ["-W", "-X", "--check-hash-based-pycs"];
/// Java's.
const JAVA_VALUED: [&str; 6] = ["-cp", "-classpath", "--class-path", "-p", "--module-path", "--add-modules"];
/// Node's and others', where the value is apart.
const NODE_VALUED: [&str; 6] = ["-r", "--require", "--import", "--loader", "-I", "-C"];

/// Everything that a process may be called.
pub(super) fn candidates(comm: &str, exe: Option<&str>, argv: &[String]) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = Vec::new();
    let mut add = |what: &'static str, name: &str| {
        if !name.is_empty() && !all.iter().any(|known| known.name == name) {
            all.push(Candidate { what, name: name.to_owned() });
        }
    };
    let exe = exe.map(|path| base(path.strip_suffix(" (deleted)").unwrap_or(path)));
    let title = argv.first().map(|first| base(first.split([':', ' ']).next().unwrap_or_default()));
    let title = title.map(|title| title.strip_prefix('-').unwrap_or(title));
    let interpreted = exe.is_some_and(is_interpreter) || title.is_some_and(is_interpreter);
    if interpreted
        && let Some(script) = script(exe.or(title).unwrap_or_default(), argv.get(1..).unwrap_or_default())
    {
        for name in script_names(&script) {
            add(script.what(), &name);
        }
    }
    if let Some(title) = title {
        add("argv[0]", title);
    }
    if let Some(exe) = exe {
        add("the executable", exe);
    }
    add("comm", comm);
    all
}

enum Script {
    File(String),
    Module(String),
    Class(String),
}

impl Script {
    fn what(&self) -> &'static str {
        match self {
            Self::File(_) => "the script",
            Self::Module(_) => "the module",
            Self::Class(_) => "the class",
        }
    }
}

fn is_interpreter(name: &str) -> bool {
    INTERPRETERS.iter().any(|interpreter| {
        name.strip_prefix(interpreter).is_some_and(|rest| {
            rest.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-' | 't' | 'd'))
        })
    })
}

/// What an interpreter runs, from the words after its name.
fn script(interpreter: &str, words: &[String]) -> Option<Script> {
    let python = interpreter.starts_with("py");
    let java = interpreter.starts_with("java");
    let valued: &[&str] = if python {
        &PYTHON_VALUED
    } else if java {
        &JAVA_VALUED
    } else {
        &NODE_VALUED
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let word = word.as_str();
        if python && (word == "-c" || word == "-") {
            return None;
        }
        if python && word == "-m" {
            return words.next().cloned().map(Script::Module);
        }
        if java && word == "-jar" {
            return words.next().cloned().map(Script::File);
        }
        if !python && !java && matches!(word, "-e" | "-c" | "--eval" | "-p") {
            return None;
        }
        if valued.contains(&word) {
            words.next();
        } else if !word.starts_with('-') && !word.is_empty() {
            // `deno run app.ts`, `bun run app.ts`
            if matches!(interpreter, "deno" | "bun") && word == "run" {
                continue;
            }
            return Some(if java { Script::Class(word.to_owned()) } else { Script::File(word.to_owned()) });
        }
    }
    None
}

/// A script's base name, with and without its extension; a module's first part and its whole; a class's last part.
fn script_names(script: &Script) -> Vec<String> {
    match script {
        Script::File(path) => {
            let name = base(path);
            let stem = [".py", ".pyc", ".js", ".mjs", ".cjs", ".ts", ".rb", ".pl", ".php", ".jar", ".sh"]
                .iter()
                .find_map(|extension| name.strip_suffix(extension));
            stem.into_iter().chain([name]).map(str::to_owned).collect()
        }
        Script::Module(module) => {
            let first = module.split('.').next().unwrap_or_default();
            vec![first.to_owned(), module.clone()]
        }
        Script::Class(class) => {
            vec![class.rsplit(['.', '/']).next().unwrap_or_default().to_owned(), class.clone()]
        }
    }
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
