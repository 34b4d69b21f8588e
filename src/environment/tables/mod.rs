//! Worlds of tables: typed cells, tools over them, states that can be copied, hashed and compared.

mod action;
mod call;
mod table;
mod value;
mod world;

pub use action::{Action, Figure, Parameter, Role, TableTool};
pub use table::{Change, Column, Database, Row, Table, TableError, hash};
pub use value::{Date, Kind, Value};
pub use world::{TableVerifier, TableWorld};
