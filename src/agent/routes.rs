//! Routes in a trace. Each turn's prompt begins with the turns before it, so each record's routes begin with those of
//! the record before; a line holds only the rest.

use std::collections::HashMap;

use super::trace::{Fault, Record};
use crate::generation::Routes;

/// The routes of the latest record of each run.
#[derive(Debug, Default)]
pub(super) struct LatestRoutes {
    runs: HashMap<usize, Routes>,
}

impl LatestRoutes {
    /// Returns the number of rows that a record's routes share with the beginning of the run's latest routes, and the
    /// record without them; `None` if it shares none.
    pub fn without_shared(&self, run: usize, record: &Record) -> Option<(usize, Record)> {
        let (latest, routes) = (self.runs.get(&run)?, routes_of(record)?);
        let row = row(routes);
        let alike = latest.layers == routes.layers && latest.experts_per_token == routes.experts_per_token;
        if !alike || row == 0 {
            return None;
        }
        let equal = latest.expert_ids.iter().zip(&routes.expert_ids).take_while(|(a, b)| a == b).count();
        let rows = equal / row;
        let mut record = (rows > 0).then(|| record.clone())?;
        routes_mut(&mut record)?.expert_ids.drain(..rows * row);
        Some((rows, record))
    }

    /// Puts the rows back that [`Self::without_shared`] took, and makes the record the run's latest.
    pub fn restore(&mut self, run: usize, shared_rows: usize, record: &mut Record) -> Result<(), Fault> {
        let fault = |problem: String| Err(Fault::field("shared_rows", format!("is {shared_rows}, but {problem}")));
        let Some(routes) = routes_mut(record) else {
            return if shared_rows == 0 { Ok(()) } else { fault("the line has no routes".to_string()) };
        };
        if shared_rows > 0 {
            let latest = self.runs.get(&run).filter(|latest| {
                latest.layers == routes.layers && latest.experts_per_token == routes.experts_per_token
            });
            let rows = latest.map_or(0, Routes::rows);
            match latest.and_then(|latest| latest.expert_ids.get(..shared_rows.checked_mul(row(routes))?)) {
                Some(shared) if shared_rows <= rows => drop(routes.expert_ids.splice(0..0, shared.iter().copied())),
                _ => return fault(format!("the run's record before has {rows} rows of this shape")),
            }
        }
        self.runs.insert(run, routes.clone());
        Ok(())
    }

    /// Makes a record the run's latest, if it has routes.
    pub fn remember(&mut self, run: usize, record: &Record) {
        if let Some(routes) = routes_of(record) {
            self.runs.insert(run, routes.clone());
        }
    }
}

/// Experts of one row.
fn row(routes: &Routes) -> usize {
    routes.layers.len().saturating_mul(routes.experts_per_token)
}

fn routes_of(record: &Record) -> Option<&Routes> {
    match record {
        Record::Answer { record, .. } | Record::Managed { record, .. } => record.as_ref()?.routes.as_ref(),
        _ => None,
    }
}

fn routes_mut(record: &mut Record) -> Option<&mut Routes> {
    match record {
        Record::Answer { record, .. } | Record::Managed { record, .. } => record.as_mut()?.routes.as_mut(),
        _ => None,
    }
}
