//! `x · weightᵀ` with the matrix unit (AMX-BF16) of x86-64, at the precision of f32.
//!
//! The unit multiplies bf16 and adds in f32. An f32 is the sum of three bf16 exactly (its significand cut into
//! three times 8 bits), so three products with a bf16 weight, each exact in f32, stand for one product in f32. Parts
//! that are zero in all rows of a panel, as where `x` comes from bf16 tensors, are left out.
//!
//! An output is the sum over blocks of 128 elements of `k`, in order, of `scale · block`; within a block the unit
//! adds in f32, part by part of each 32 elements. So the bits of a row depend neither on the other rows nor on how the
//! product is divided, but they are not those of [`gemm`](super::gemm), which computes fewer than [`MIN_ROWS`] rows.
//!
//! The unit takes subnormals for zero, in operands (parts of `x` included) and sums: an element of `x` or of the
//! weight is off by up to 2^-126, and so is each sum. A NaN or infinity in `x` gives NaN or infinity as in f32; an
//! infinite weight may give NaN where f32 gives infinity, for parts of `x` may be zero.

mod pack;

use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::OnceLock;

use pack::{Code, pack_weight, panel_lines, tail_mask, transpose};
pub(super) use pack::{Packed, takes};

use super::gemm::{Codes, Weight};
/// Elements of `k` that are added in the unit, and share a scale; 3 parts of a panel of `x` stay in the L1 cache.
use crate::ops::fp8::BLOCK;

/// Rows of `x` that pay for the packing.
const MIN_ROWS: usize = 32;
/// Rows of the weight, and elements of `k`, that fill a tile.
const TILE_ROWS: usize = 16;
const TILE_K: usize = 32;
/// Rows of the weight, and of `x`, in a panel: two tiles.
const PANEL: usize = 2 * TILE_ROWS;
/// Lines of the sums of two panels: four tiles.
const SUMS: usize = 4 * TILE_ROWS;
/// Elements of `k` of the weight that are packed at a time.
const CHUNK: usize = 4 * BLOCK;
/// Columns of the output, and rows of `x`, of a task at most: what it works on stays in the L2 cache.
pub(super) const TASK_COLUMNS: usize = 256;
pub(super) const TASK_ROWS: usize = 512;

/// A row of a tile.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([f32; 16]);
const ZERO: Line = Line([0.0; 16]);

/// Whether processor and system let this process use the unit; asks the system once.
fn usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| {
        const TILE: u32 = 1 << 24;
        const BF16: u32 = 1 << 22;
        const OSXSAVE: u32 = 1 << 27;
        /// Tile configuration and tile data.
        const STATE: u64 = 0b11 << 17;
        let leaf = |leaf, subleaf| (__cpuid(0).eax >= leaf).then(|| __cpuid_count(leaf, subleaf));
        let has = leaf(7, 0).is_some_and(|leaf| leaf.edx & (TILE | BF16) == TILE | BF16)
            && leaf(1, 0).is_some_and(|leaf| leaf.ecx & OSXSAVE != 0)
            // Palette 1: 8 tiles; rows of 64 bytes, 16 of them.
            && leaf(0x1d, 1).is_some_and(|leaf| {
                leaf.ebx >> 16 >= 8 && leaf.ebx & 0xffff >= 64 && leaf.ecx & 0xffff >= 16
            });
        // SAFETY: OSXSAVE was seen, so the instruction exists.
        has && unsafe { enabled_state() } & STATE == STATE && permitted()
    })
}

/// # Safety
/// The processor must have XGETBV.
#[target_feature(enable = "xsave")]
unsafe fn enabled_state() -> u64 {
    // SAFETY: the caller's; register 0 always exists.
    unsafe { _xgetbv(0) }
}

/// Asks the system for the tiles' state, for the whole process: `arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)`.
fn permitted() -> bool {
    let result: i64;
    // SAFETY: the call reads and writes no memory of ours; the kernel clobbers rcx and r11 alone.
    unsafe {
        asm!("syscall", inlateout("rax") 158i64 => result, in("rdi") 0x1023, in("rsi") 18,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result == 0
}

/// The tiles of this thread, 16 rows of 64 bytes each, until dropped.
struct Tiles;

impl Tiles {
    /// # Safety
    /// The unit must be [`usable`].
    unsafe fn configure() -> Self {
        let mut config = Line([0.0; 16]);
        let bytes = (&raw mut config).cast::<u8>();
        // SAFETY: the configuration is 64 bytes: palette, start row, at 16 the bytes a row, at 48 the rows of each tile.
        unsafe {
            bytes.write(1);
            for tile in 0..8 {
                bytes.add(16 + 2 * tile).write(64);
                bytes.add(48 + tile).write(16);
            }
            asm!("ldtilecfg [{}]", in(reg) bytes, options(nostack, readonly, preserves_flags));
        }
        Self
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: there is a configuration, so there is the unit.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
    }
}

/// `out[m][j] = x[first_x + m] · weight[rows.start + j]`; `first_x` and `rows.start` are multiples of [`PANEL`].
pub(super) fn gemm(x: &Packed, first_x: usize, weight: Weight, rows: Range<usize>, out: &mut [&mut [f32]]) {
    let blocks = weight.k.div_ceil(BLOCK);
    let scale = weight.scale;
    assert!(first_x.is_multiple_of(PANEL) && rows.start.is_multiple_of(PANEL), "panels must not be cut");
    assert!(x.k == weight.k && first_x + out.len() <= x.rows && out.iter().all(|row| row.len() == rows.len()));
    assert!(scale.is_empty() || scale.len() >= rows.end.div_ceil(BLOCK) * blocks, "the weight must have all scales");
    let fits = |codes: usize| assert!(codes >= rows.end * weight.k, "the weight must have the rows asked for");
    // SAFETY: a `Packed` exists, so the unit and AVX-512 do; the slices were checked.
    match weight.codes {
        Codes::Bf16(codes) => {
            fits(codes.len());
            unsafe { product(x, first_x, codes.as_ptr(), scale, rows, out) }
        }
        Codes::F8e4m3(codes) => {
            fits(codes.len());
            unsafe { product(x, first_x, codes.as_ptr(), scale, rows, out) }
        }
        _ => unreachable!("Packed::new refuses other weights"),
    }
}

thread_local! {
    /// Packed weight and sums of the task that runs on this thread; kept, for fresh pages cost more than the packing.
    static SCRATCH: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// # Safety
/// The unit must be [`usable`] and the processor have AVX-512; the weight must have `rows` of `x.k` elements.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn product<W: Code>(
    x: &Packed,
    first_x: usize,
    codes: *const W,
    scale: &[f32],
    rows: Range<usize>,
    out: &mut [&mut [f32]],
) {
    let k = x.k;
    let (n_panels, m_panels) = (rows.len().div_ceil(PANEL), out.len().div_ceil(PANEL));
    let (weight_lines, sum_lines) = (n_panels * CHUNK / TILE_K * PANEL, m_panels * n_panels * SUMS);
    let mut scratch = SCRATCH.take();
    if scratch.len() < weight_lines + sum_lines {
        scratch.resize(weight_lines + sum_lines, ZERO);
    }
    let (packed, sums) = scratch.split_at_mut(weight_lines);
    let panel_of_x = |m: usize| {
        let panel = first_x / PANEL + m;
        (x.lines[panel * panel_lines(k)..].as_ptr().cast::<Line>(), x.parts[panel])
    };
    let (mut first, mut second) = (MaybeUninit::<[Line; SUMS]>::uninit(), MaybeUninit::<[Line; SUMS]>::uninit());
    let mut blocks = [&mut first, &mut second];
    let mut pending = None;
    // SAFETY: the unit is usable.
    let tiles = unsafe { Tiles::configure() };
    for chunk in (0..k).step_by(CHUNK) {
        let len = CHUNK.min(k - chunk);
        for (n, packed) in packed.chunks_exact_mut(CHUNK / TILE_K * PANEL).enumerate() {
            let row = rows.start + n * PANEL;
            // SAFETY: the weight has these rows, and `len` elements after `chunk` in each.
            unsafe { pack_weight(codes.add(row * k + chunk), k, PANEL.min(rows.end - row), len, packed) };
        }
        for m in 0..m_panels {
            let (x, parts) = panel_of_x(m);
            let wide = out.len() - m * PANEL > TILE_ROWS;
            for start in (chunk..chunk + len).step_by(BLOCK) {
                let steps = BLOCK.min(chunk + len - start).div_ceil(TILE_K);
                for n in 0..n_panels {
                    let weight = &packed[(n * CHUNK + (start - chunk)) / TILE_K * PANEL..];
                    let factor = match scale {
                        [] => 1.0,
                        scale => scale[(rows.start + n * PANEL) / BLOCK * k.div_ceil(BLOCK) + start / BLOCK],
                    };
                    let block = blocks[0].as_mut_ptr().cast();
                    // SAFETY: operands have `steps` times 32 elements of k.
                    unsafe {
                        multiply(weight.as_ptr(), x.add(start / TILE_K * parts * PANEL), steps, parts, wide, block)
                    };
                    // The unit works on this block while the one before is added.
                    let done = pending.replace(Pending { panel: m * n_panels + n, factor, first: start == 0, wide });
                    // SAFETY: the other block was written.
                    unsafe { add(done, sums, blocks[1].as_ptr().cast()) };
                    blocks.swap(0, 1);
                }
            }
        }
    }
    // SAFETY: the last block was written.
    unsafe { add(pending, sums, blocks[1].as_ptr().cast()) };
    drop(tiles);
    for (m, out) in out.chunks_mut(PANEL).enumerate() {
        for n in 0..n_panels {
            // SAFETY: the sums of this panel were written in full, or in the tiles that `out` has rows for.
            unsafe { write(&sums[(m * n_panels + n) * SUMS..], n * PANEL, out) };
        }
    }
    SCRATCH.set(scratch);
}

/// The products of a panel of the weight with one of `x` over `steps` times 32 elements of k: four tiles, rows of the
/// weight by rows of `x`; without `wide` those of the first 16 rows of `x` alone.
///
/// # Safety
/// Tiles must be configured, `weight` and `x` have the elements, and `to` room for four tiles.
unsafe fn multiply(weight: *const Line, x: *const Line, steps: usize, parts: usize, wide: bool, to: *mut Line) {
    macro_rules! tiles {
        ($zero:literal, $load:literal, $multiply:literal, $store:literal) => {
            // SAFETY: by the contract.
            unsafe {
                asm!(
                    $zero,
                    "2:",
                    "tileloadd tmm4, [{weight} + {row}]",
                    "tileloadd tmm5, [{weight} + {row} + 1024]",
                    "mov {part}, {parts}",
                    "3:",
                    $load,
                    $multiply,
                    "add {x}, 2048",
                    "dec {part}",
                    "jnz 3b",
                    "add {weight}, 2048",
                    "dec {steps}",
                    "jnz 2b",
                    $store,
                    weight = inout(reg) weight => _,
                    x = inout(reg) x => _,
                    steps = inout(reg) steps => _,
                    parts = in(reg) parts,
                    part = out(reg) _,
                    row = in(reg) 64usize,
                    to = in(reg) to,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack)
                )
            }
        };
    }
    if wide {
        tiles!(
            "tilezero tmm0
             tilezero tmm1
             tilezero tmm2
             tilezero tmm3",
            "tileloadd tmm6, [{x} + {row}]
             tileloadd tmm7, [{x} + {row} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6
             tdpbf16ps tmm1, tmm5, tmm6
             tdpbf16ps tmm2, tmm4, tmm7
             tdpbf16ps tmm3, tmm5, tmm7",
            "tilestored [{to} + {row}], tmm0
             tilestored [{to} + {row} + 1024], tmm1
             tilestored [{to} + {row} + 2048], tmm2
             tilestored [{to} + {row} + 3072], tmm3"
        );
    } else {
        tiles!(
            "tilezero tmm0
             tilezero tmm1",
            "tileloadd tmm6, [{x} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6
             tdpbf16ps tmm1, tmm5, tmm6",
            "tilestored [{to} + {row}], tmm0
             tilestored [{to} + {row} + 1024], tmm1"
        );
    }
}

/// A block that [`multiply`] wrote and that is still to be added.
struct Pending {
    panel: usize,
    factor: f32,
    first: bool,
    wide: bool,
}

/// `sums += factor · block` for the panel's sums, or `=` if they are the first.
///
/// # Safety
/// The processor must have the features, and `block` be a block that is pending.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn add(pending: Option<Pending>, sums: &mut [Line], block: *const Line) {
    let Some(Pending { panel, factor, first, wide }) = pending else { return };
    let factor = _mm512_set1_ps(factor);
    let keep = if first { 0 } else { u16::MAX };
    let lines = if wide { SUMS } else { SUMS / 2 };
    for (at, sum) in sums[panel * SUMS..][..lines].iter_mut().enumerate() {
        // SAFETY: both have the line.
        unsafe {
            let old = _mm512_maskz_load_ps(keep, sum.0.as_ptr());
            let new = _mm512_fmadd_ps(_mm512_load_ps(block.add(at).cast()), factor, old);
            _mm512_store_ps(sum.0.as_mut_ptr(), new);
        }
    }
}

/// Writes a panel's sums to up to 32 rows of `out`, from `column` on.
///
/// # Safety
/// The processor must have the features.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn write(sums: &[Line], column: usize, out: &mut [&mut [f32]]) {
    for (right, out) in out.chunks_mut(TILE_ROWS).enumerate() {
        for lower in 0..2 {
            let tile = &sums[(2 * right + lower) * TILE_ROWS..][..TILE_ROWS];
            // SAFETY: a line has 16 elements.
            let tile = transpose(std::array::from_fn(|row| unsafe { _mm512_load_ps(tile[row].0.as_ptr()) }));
            let column = column + lower * TILE_ROWS;
            for (row, values) in out.iter_mut().zip(tile) {
                let mask = tail_mask(row.len().saturating_sub(column)) as __mmask16;
                // SAFETY: the mask ends with the row; masked lanes are not written.
                unsafe { _mm512_mask_storeu_ps(row.as_mut_ptr().wrapping_add(column), mask, values) };
            }
        }
    }
}
