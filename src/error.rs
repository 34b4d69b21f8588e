//! The crate's one error type.

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// `std::result::Result` with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
