//! What can go wrong around the files of a run.

use std::path::PathBuf;

use super::category::Category;
use super::run::MakeError;
use crate::environment::tables::TableError;
use crate::show::{one_line, one_line_path};

/// `std::result::Result` with [`SynthesisError`].
pub type Result<T> = std::result::Result<T, SynthesisError>;

/// Why a run or an export failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SynthesisError {
    /// A file or folder could not be read or written.
    #[error("{}: {error}", one_line_path(.path))]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        error: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {}", one_line_path(.path), one_line(.problem))]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// An argument is outside its range.
    #[error("{what} is {got}, expected {expected}")]
    Value {
        /// The argument.
        what: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// An environment could not be made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// A record's tables were refused.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A task was given to an environment of another category.
    #[error("task {task} is of the category {got}, expected {expected}")]
    Category {
        /// The task.
        task: String,
        /// Its category.
        got: Category,
        /// That of the environment.
        expected: Category,
    },
    /// A task can't be printed as Python.
    #[error("task {task} can't be printed: {}", one_line(.problem))]
    Print {
        /// The task.
        task: String,
        /// Why.
        problem: String,
    },
}

impl SynthesisError {
    /// For `map_err`: an error of a file.
    pub(super) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |error| Self::File { path, error }
    }
}
