//! The choice of an op's backend, from its arguments and from what its fast paths take.

use std::cell::Cell;
use std::fmt::Write;

use candle::{DType, Device, Tensor};
use candle_core as candle;

use super::cpu::simd;

/// An implementation of the ops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// Compositions of candle tensor functions: differentiable, any device.
    Reference,
    /// Rayon and SIMD, for tensors on CPU.
    Cpu,
    /// The kernels of this crate, for tensors on a CUDA device.
    #[cfg(feature = "cuda")]
    Cuda,
}

/// An op, and what its fast paths take. A further device is a further field here and an arm in [`Op::fast_path`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op {
    pub(crate) name: &'static str,
    pub(crate) cpu: FastPath,
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "the build has no CUDA"))]
    pub(crate) cuda: FastPath,
}

/// What a fast path takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FastPath {
    /// Dtypes of the arguments.
    pub(crate) dtypes: &'static [DType],
    /// Whether it takes arguments that are tracked for gradients: it has a `bwd`, or its result has no gradient.
    pub(crate) tracked: bool,
}

/// What every CPU path reads.
const CPU_DTYPES: &[DType] =
    &[DType::F32, DType::BF16, DType::F16, DType::F64, DType::F8E4M3, DType::U8, DType::U32, DType::I32, DType::I64];

/// What every CUDA path reads.
const CUDA_DTYPES: &[DType] = &[DType::F32, DType::BF16, DType::U32, DType::I32, DType::I64];

impl FastPath {
    /// A CPU path for arguments that need no gradient.
    pub(crate) const CPU: Self = Self { dtypes: CPU_DTYPES, tracked: false };
    /// A CPU path for f32 arguments that need no gradient.
    pub(crate) const CPU_F32: Self = Self { dtypes: &[DType::F32], tracked: false };
    /// A CPU path for arguments that may be tracked.
    pub(crate) const CPU_TRACKED: Self = Self { tracked: true, ..Self::CPU };
    /// A CUDA path for arguments that need no gradient.
    pub(crate) const CUDA: Self = Self { dtypes: CUDA_DTYPES, tracked: false };
    /// A CUDA path for arguments that may be tracked.
    pub(crate) const CUDA_TRACKED: Self = Self { tracked: true, ..Self::CUDA };
    /// A CUDA path that also reads FP8.
    pub(crate) const CUDA_FP8: Self =
        Self { dtypes: &[DType::F32, DType::BF16, DType::U32, DType::I32, DType::I64, DType::F8E4M3], tracked: false };
    /// A CUDA path that also reads the rows of an FP8 cache.
    pub(crate) const CUDA_KEYS: Self =
        Self { dtypes: &[DType::F32, DType::BF16, DType::U32, DType::I32, DType::I64, DType::U8], tracked: false };
    /// A CUDA path that also reads the rows of an FP8 cache, for arguments that may be tracked.
    pub(crate) const CUDA_KEYS_TRACKED: Self = Self { tracked: true, ..Self::CUDA_KEYS };
    /// A CUDA path that also reads FP8 and the rows of an FP8 cache.
    pub(crate) const CUDA_FP8_KEYS: Self = Self {
        dtypes: &[DType::F32, DType::BF16, DType::U32, DType::I32, DType::I64, DType::F8E4M3, DType::U8],
        tracked: false,
    };
    /// A CUDA path that also reads FP8 and the rows of an FP8 cache, for arguments that may be tracked.
    pub(crate) const CUDA_FP8_KEYS_TRACKED: Self = Self { tracked: true, ..Self::CUDA_FP8_KEYS };
}

impl Op {
    /// Returns the backend of a call with these tensor arguments, all that there are.
    ///
    /// It is the fast path of the device that they lie on, if it takes their dtypes and, where one is tracked,
    /// tracked tensors; else the reference.
    pub(crate) fn backend<'a>(&self, arguments: impl IntoIterator<Item = &'a Tensor>) -> Backend {
        let mut chosen = None;
        for tensor in arguments {
            match self.fast_path(tensor.device()) {
                Some((backend, path))
                    if chosen.is_none_or(|chosen| chosen == backend)
                        && path.dtypes.contains(&tensor.dtype())
                        && (path.tracked || !tensor.track_op()) =>
                {
                    chosen = Some(backend);
                }
                _ => return Backend::Reference,
            }
        }
        chosen.unwrap_or(Backend::Reference)
    }

    /// The fast path for tensors on a device, unless [`with_backend`] forbids it.
    fn fast_path(&self, device: &Device) -> Option<(Backend, FastPath)> {
        if FORCED.with(Cell::get) == Some(Backend::Reference) {
            return None;
        }
        match device {
            Device::Cpu => Some((Backend::Cpu, self.cpu)),
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => Some((Backend::Cuda, self.cuda)),
            _ => None,
        }
    }
}

thread_local! {
    static FORCED: Cell<Option<Backend>> = const { Cell::new(None) };
}

/// Runs `body` with every op called from this thread on `backend`.
///
/// Arguments that the backend does not take (another device, a gradient that it has no `bwd` for) still go to the
/// reference.
pub fn with_backend<R>(backend: Backend, body: impl FnOnce() -> R) -> R {
    struct Restore(Option<Backend>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.with(|forced| forced.set(self.0));
        }
    }
    let _restore = Restore(FORCED.with(|forced| forced.replace(Some(backend))));
    body()
}

thread_local! {
    static UNORDERED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body`, in which gradients of the ops that are called from this thread may be added up in any order.
///
/// On a GPU that is faster, but the same call may give other bits each time. Without it, it gives the same ones. What
/// counts is where the op is called, not where `backward` is.
pub fn with_unordered_sums<R>(body: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            UNORDERED.with(|unordered| unordered.set(self.0));
        }
    }
    let _restore = Restore(UNORDERED.with(|unordered| unordered.replace(true)));
    body()
}

/// Whether this thread is in [`with_unordered_sums`].
#[cfg(feature = "cuda")]
pub(crate) fn unordered_sums() -> bool {
    UNORDERED.with(Cell::get)
}

/// What an op called from this thread with tensors of one device runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpBackends {
    /// The op's name.
    pub op: &'static str,
    /// The backend of a call without gradients.
    pub inference: Backend,
    /// The backend of a call with an argument that is tracked for gradients.
    pub training: Backend,
}

/// [`OpBackends`] of each of `ops` for f32 tensors on a device.
pub(super) fn backends(ops: &[Op], device: &Device) -> Vec<OpBackends> {
    let of = |op: &Op| {
        let path = op.fast_path(device).filter(|(_, path)| path.dtypes.contains(&DType::F32));
        let backend = |tracked: bool| match path {
            Some((backend, path)) if path.tracked || !tracked => backend,
            _ => Backend::Reference,
        };
        OpBackends { op: op.name, inference: backend(false), training: backend(true) }
    };
    ops.iter().map(of).collect()
}

/// One line of text about `ops`, as [`backend_report`](super::backend_report) describes it.
pub(super) fn report(ops: &[Op], device: &Device) -> String {
    let backends = backends(ops, device);
    let mut text = list(&backends, device, |op| op.inference);
    if backends.iter().any(|op| op.inference != op.training) {
        // Writing to a string does not fail.
        let _ = write!(text, "; with gradients: {}", list(&backends, device, |op| op.training));
    }
    text
}

/// `cpu (..): op, op; reference: all others` for the backends that `of` gives.
fn list(ops: &[OpBackends], device: &Device, of: impl Fn(&OpBackends) -> Backend) -> String {
    let name = |backend| match backend {
        Backend::Reference => "reference".to_string(),
        Backend::Cpu => format!("cpu ({:?}, {} threads)", simd::isa(), rayon::current_num_threads()),
        #[cfg(feature = "cuda")]
        Backend::Cuda => super::cuda::describe(device),
    };
    let on = |backend| ops.iter().filter(|op| of(op) == backend).map(|op| op.op).collect::<Vec<_>>();
    let fast = match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => Backend::Cuda,
        _ => Backend::Cpu,
    };
    let mut groups = [fast, Backend::Reference].map(|backend| (backend, on(backend))).to_vec();
    groups.retain(|(_, ops)| !ops.is_empty());
    groups.sort_by_key(|(_, ops)| ops.len());
    let Some((most, _)) = groups.pop() else { return String::new() };
    let mut text: Vec<_> =
        groups.iter().map(|(backend, ops)| format!("{}: {}", name(*backend), ops.join(", "))).collect();
    text.push(format!("{}: {}", name(most), if text.is_empty() { "all ops" } else { "all other ops" }));
    text.join("; ")
}
