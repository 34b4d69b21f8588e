//! `config.json`.

/// The model's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {}
