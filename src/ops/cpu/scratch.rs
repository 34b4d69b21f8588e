//! Reusable f32 buffers, kept per thread so that small calls do not pay for fresh memory.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

thread_local! {
    static POOL: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Buffers of more elements go back to the allocator instead of the pool.
const KEPT_ELEMENTS: usize = 1 << 21;
/// Buffers that a thread keeps.
const KEPT_BUFFERS: usize = 16;

/// Bytes of a cache line, and of the widest register.
const LINE: usize = 64;

/// A buffer of a given length with arbitrary (old) contents, which begins with a cache line: registers that lie across
/// two lines take twice as long to load.
pub(crate) struct Scratch {
    buffer: Vec<f32>,
    start: usize,
    len: usize,
}

impl Scratch {
    /// A buffer of `len` elements.
    pub(crate) fn new(len: usize) -> Self {
        let mut buffer = POOL.with(|pool| pool.borrow_mut().pop()).unwrap_or_default();
        buffer.resize(len + LINE / size_of::<f32>(), 0.);
        let start = buffer.as_ptr().align_offset(LINE).min(buffer.len() - len);
        Self { buffer, start, len }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.capacity() <= KEPT_ELEMENTS {
            // While the thread ends its pool may be gone; then the buffer is simply freed.
            let _ = POOL.try_with(|pool| {
                let mut pool = pool.borrow_mut();
                if pool.len() < KEPT_BUFFERS {
                    pool.push(buffer);
                }
            });
        }
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[self.start..][..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[self.start..][..self.len]
    }
}
