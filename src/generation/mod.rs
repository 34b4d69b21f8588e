//! Ids in, ids out.
