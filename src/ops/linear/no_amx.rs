//! Stands for `amx` where there is no such unit, or no way to ask the system for it.

use std::ops::Range;

use super::gemm::Weight;
use crate::ops::cpu::simd::Isa;

pub(super) const TASK_COLUMNS: usize = 256;
pub(super) const TASK_ROWS: usize = 512;

pub(super) fn takes(_: Isa, _: &[f32], _: Weight, _: usize) -> bool {
    false
}

pub(super) enum Packed {}

impl Packed {
    pub(super) fn new(_: Isa, _: &[f32], _: Weight, _: usize) -> Option<Self> {
        None
    }
}

pub(super) fn gemm(x: &Packed, _: usize, _: Weight, _: Range<usize>, _: &mut [&mut [f32]]) {
    match *x {}
}
