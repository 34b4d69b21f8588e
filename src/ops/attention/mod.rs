//! What the attention ops share on CPU: argument checks, rows of a cache as f32.

pub(crate) mod args;
