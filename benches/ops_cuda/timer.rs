//! Times of calls, by events of the device.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::Device;
use candle_core::cuda_backend::cudarc::driver::sys::{CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream};

/// Something to time; what it computes is dropped.
pub type Call<'a> = Box<dyn Fn() -> candle_core::Result<()> + 'a>;

/// Bytes of a write that leaves nothing else in the L2 cache.
const FLUSH_BYTES: usize = 384 << 20;
/// Milliseconds of timed calls for one case, and the fewest and the most calls.
const BUDGET_MS: f64 = 250.0;
const CALLS: (usize, usize) = (5, 40);
/// Calls of a graph, and its replays.
const GRAPH_CALLS: usize = 20;
const REPLAYS: usize = 7;

pub struct Timer {
    stream: Arc<CudaStream>,
    flush: CudaSlice<u8>,
    /// Milliseconds of a flush.
    flush_ms: f64,
}

impl Timer {
    pub fn new(device: &Device) -> Result<Self> {
        let stream = device.as_cuda_device()?.cuda_stream();
        let flush = stream.alloc_zeros(FLUSH_BYTES)?;
        let mut timer = Self { stream, flush, flush_ms: 0.0 };
        timer.flush(1)?;
        let (start, end) = (timer.event()?, timer.event()?);
        start.record(&timer.stream)?;
        timer.flush(4)?;
        end.record(&timer.stream)?;
        timer.flush_ms = f64::from(start.elapsed_ms(&end)?) / 4.0;
        Ok(timer)
    }

    fn event(&self) -> Result<candle_core::cuda_backend::cudarc::driver::CudaEvent> {
        Ok(self.stream.context().new_event(Some(CUevent_flags::CU_EVENT_DEFAULT))?)
    }

    fn flush(&mut self, times: usize) -> Result<()> {
        for _ in 0..times {
            self.stream.memset_zeros(&mut self.flush)?;
        }
        Ok(())
    }

    /// The median of the milliseconds that a call takes with nothing in the L2 cache, `calls` taken in turn.
    pub fn cold(&mut self, calls: &[Call]) -> Result<f64> {
        let mut launch_ms = 0.0;
        for call in calls.iter().cycle().take(calls.len().max(2)) {
            self.stream.synchronize()?;
            let start = Instant::now();
            call()?;
            launch_ms = start.elapsed().as_secs_f64() * 1e3;
        }
        // The device must be busy for as long as the host takes to launch, or the gaps would count.
        let flushes = (launch_ms * 1.5 / self.flush_ms).ceil().clamp(1.0, 200.0) as usize;
        let estimate = self.once(&calls[0], flushes)?;
        let count = (BUDGET_MS / (estimate + self.flush_ms * flushes as f64)) as usize;
        let mut times = Vec::new();
        for call in calls.iter().cycle().take(count.clamp(CALLS.0, CALLS.1).max(calls.len())) {
            times.push(self.once(call, flushes)?);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    fn once(&mut self, call: &Call, flushes: usize) -> Result<f64> {
        let (start, end) = (self.event()?, self.event()?);
        self.flush(flushes)?;
        start.record(&self.stream)?;
        call()?;
        end.record(&self.stream)?;
        end.synchronize()?;
        Ok(f64::from(start.elapsed_ms(&end)?))
    }

    /// The median of the milliseconds of one call in a replayed graph of twenty, `calls` taken in turn.
    pub fn graph(&self, calls: &[Call]) -> Result<f64> {
        for call in calls {
            call()?;
        }
        self.stream.synchronize()?;
        self.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
        let captured = calls.iter().cycle().take(GRAPH_CALLS).try_for_each(|call| call());
        // Even a capture that failed has to be ended.
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = self.stream.end_capture(flags);
        captured?;
        let graph = graph?.context("nothing was captured")?;
        graph.launch()?;
        let mut times = Vec::new();
        for _ in 0..REPLAYS {
            let (start, end) = (self.event()?, self.event()?);
            start.record(&self.stream)?;
            graph.launch()?;
            end.record(&self.stream)?;
            end.synchronize()?;
            times.push(f64::from(start.elapsed_ms(&end)?) / GRAPH_CALLS as f64);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[REPLAYS / 2])
    }
}
