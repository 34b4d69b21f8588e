//! The same tables with their rows in another order: no verdict may depend on it.

use crate::environment::tables::{Database, Table, TableError, Value};
use crate::synthesis::seed::Stream;

/// A database with the same rows in a random order.
///
/// # Errors
/// None where the database itself could be made.
pub fn shuffled(database: &Database, stream: &mut Stream) -> Result<Database, TableError> {
    let tables = database.tables().iter().map(|table| {
        let mut rows: Vec<Vec<Value>> = table.rows().iter().map(|row| row.to_vec()).collect();
        stream.shuffle(&mut rows);
        Table::new(table.name(), table.columns().to_vec(), rows)
    });
    Database::new(tables.collect::<Result<_, _>>()?)
}
