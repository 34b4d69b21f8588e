//! Launches that are recorded once and replayed: CUDA graphs.

use candle::cuda_backend::cudarc::driver::CudaGraph;
use candle::cuda_backend::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use candle::{CudaDevice, Result};
use candle_core as candle;

use super::arena::Arena;

/// What a body launched, ready to be launched again with the same addresses.
pub(crate) struct Graph(CudaGraph);

// SAFETY: a graph may be used from any thread, one at a time: it is launched through `&mut`.
unsafe impl Send for Graph {}
// SAFETY: nothing can be done through a shared reference.
unsafe impl Sync for Graph {}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Graph")
    }
}

impl Graph {
    /// Records what `body` launches on `device`, without running it, with tensors from `arena`. Returns what `body` returned, too: its tensors have
    /// their numbers after each [`Self::launch`].
    ///
    /// `body` must have run before, so that its kernels are loaded, must neither read from nor wait for the device, and
    /// must not drop tensors that were made outside.
    ///
    /// # Errors
    /// If `body` fails or does what cannot be recorded.
    pub(crate) fn record<R>(device: &CudaDevice, arena: &Arena, body: impl FnOnce() -> Result<R>) -> Result<(Self, R)> {
        let stream = device.cuda_stream();
        // Candle then refuses uploads that a recording cannot hold.
        let uploads = device.enable_cuda_graph_htod_cache();
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        stream.begin_capture(mode).map_err(candle::Error::wrap)?;
        let inside = arena.enter();
        let result = body();
        drop(inside);
        // Recording must end, whatever came of it.
        let graph = stream.end_capture(CUgraphInstantiate_flags(0));
        drop(uploads);
        let result = result?;
        arena.settle()?;
        match graph.map_err(candle::Error::wrap)? {
            Some(graph) => Ok((Self(graph), result)),
            None => candle::bail!("nothing was recorded"),
        }
    }

    /// Launches all that was recorded, in the calling thread's stream of the device.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn launch(&mut self) -> Result<()> {
        self.0.launch().map_err(candle::Error::wrap)
    }
}
