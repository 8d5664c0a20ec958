//! How the program ends: what stopped it, as an exit code and a message.

use std::process::ExitCode;

/// Why the program ends other than well.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It failed while running.
    #[error("{0}")]
    Run(String),
    /// What was typed or configured is wrong.
    #[error("{0}")]
    Usage(String),
    /// This host or user can't run it.
    #[error("{0}")]
    Host(String),
}

impl Failure {
    /// The exit code: 1, 2 or 3.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Run(_) => 1,
            Self::Usage(_) => 2,
            Self::Host(_) => 3,
        }
    }
}

impl From<&Failure> for ExitCode {
    fn from(failure: &Failure) -> Self {
        failure.code().into()
    }
}
