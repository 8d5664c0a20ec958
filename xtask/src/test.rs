//! `cargo xtask test`: every test there is, with what it needs, and one line that sums up.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    needs,
    run::{self, Command},
};

#[derive(Debug, Default)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Runs everything.
pub(crate) fn test() -> Result<()> {
    needs::install();
    run::build()?;
    let _tracing = needs::Tracing::mount();
    let list = run::root().join("target/skipped-tests.txt");
    let _ = fs::remove_file(&list);

    let mut counts = Counts::default();
    let mut complete = true;
    // Real servers, clients and the agent share two cores: one test at a time.
    for arguments in [
        ["--workspace", "--exclude=end-to-end", "--"].as_slice(),
        ["--package=end-to-end", "--", "--test-threads=1"].as_slice(),
    ] {
        let mut command = Command::new("cargo");
        command.args(["test", "--no-fail-fast"]).args(arguments).env("HTTPMON_SKIPPED", &list);
        complete &= run_tests(&mut command, &mut counts)?;
    }

    let skipped = fs::read_to_string(&list).unwrap_or_default();
    let skips = skipped.lines().count() as u64;
    for line in skipped.lines() {
        println!("skipped {line}");
    }
    // A test that was skipped has returned early, and the harness took that for passed.
    println!(
        "{} passed, {} failed, {} skipped",
        counts.passed - skips,
        counts.failed,
        skips + counts.ignored
    );
    ensure!(complete && counts.failed == 0, "there are failures, see above");
    let ci = env::var_os("CI").is_some_and(|value| value == "true");
    ensure!(!ci || skips + counts.ignored == 0, "with CI=true nothing may be skipped");
    Ok(())
}

/// Passes the output on, and counts; whether cargo was content.
fn run_tests(command: &mut Command, counts: &mut Counts) -> Result<bool> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("can't run {command:?}"))?;
    let output = child.stdout.take().context("the output was piped")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        if let Some(result) = line.strip_prefix("test result: ") {
            counts.passed += number_before(result, " passed");
            counts.failed += number_before(result, " failed");
            counts.ignored += number_before(result, " ignored");
        }
    }
    Ok(child.wait()?.success())
}

fn number_before(text: &str, word: &str) -> u64 {
    let digits = text.split(word).next().and_then(|before| before.rsplit(' ').next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_the_harness() {
        let line = "FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.95s";
        assert_eq!(number_before(line, " passed"), 12);
        assert_eq!(number_before(line, " failed"), 3);
        assert_eq!(number_before(line, " ignored"), 1);
    }
}
