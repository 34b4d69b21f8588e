//! Worlds of tables, and the tasks that are made in them.

mod families;
mod files;
mod programs;
mod solvers;
mod tables;
mod tasks;
