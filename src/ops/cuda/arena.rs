//! Memory of recorded launches: a pool of their own, in which tensors come and go in the order of the program while nothing
//! runs yet, so that the addresses in a recording stay theirs when it is replayed.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};

use candle::cuda_backend::cudarc::driver::result::{mem_pool, stream};
use candle::cuda_backend::cudarc::driver::sys::{
    CUdeviceptr, CUmemAllocationType, CUmemLocationType, CUmemPool_attribute, CUmemPoolProps, CUmemoryPool,
    cuMemAllocFromPoolAsync,
};
use candle::cuda_backend::cudarc::driver::{CudaContext, CudaSlice, CudaStream};
use candle::{CudaDevice, Result};
use candle_core as candle;

/// A pool and the stream in whose order its memory is given and taken back; no kernel runs in that stream. Recordings that may
/// run at the same time must not share one.
#[derive(Debug, Clone)]
struct Parts {
    pool: Pool,
    stream: Arc<CudaStream>,
}

/// The memory of one owner's recordings, which the next owner gets when this is dropped.
#[derive(Debug)]
pub(crate) struct Arena(Parts);

impl Drop for Arena {
    fn drop(&mut self) {
        if let Ok(mut unused) = UNUSED.lock() {
            unused.push(self.0.clone());
        }
    }
}

/// A pool's handle.
#[derive(Debug, Clone, Copy)]
struct Pool(CUmemoryPool);

// SAFETY: the driver's pools may be used from any thread.
unsafe impl Send for Pool {}
// SAFETY: the same.
unsafe impl Sync for Pool {}

/// What no owner has. Pools and streams are never destroyed: tensors may outlive any owner.
static UNUSED: Mutex<Vec<Parts>> = Mutex::new(Vec::new());

thread_local! {
    /// Where this thread's tensors are made, if not where candle makes them.
    static CURRENT: RefCell<Option<Parts>> = const { RefCell::new(None) };
}

/// Tensors of this thread come from the arena until this is dropped.
#[derive(Debug)]
pub(super) struct Inside;

impl Drop for Inside {
    fn drop(&mut self) {
        CURRENT.with(|current| current.replace(None));
    }
}

impl Arena {
    /// An arena of a device for one owner.
    pub(crate) fn new(device: &CudaDevice) -> Result<Self> {
        let main = device.cuda_stream();
        let context = main.context();
        let mut unused = UNUSED.lock().map_err(|_| candle::Error::msg("the list of arenas is poisoned"))?;
        let of_device = |parts: &Parts| parts.stream.context().ordinal() == context.ordinal();
        match unused.iter().position(of_device) {
            Some(at) => Ok(Self(unused.swap_remove(at))),
            None => Parts::new(context).map(Self),
        }
    }

    /// Makes this thread's tensors come from here.
    pub(super) fn enter(&self) -> Inside {
        CURRENT.with(|current| current.replace(Some(self.0.clone())));
        Inside
    }

    /// Waits until the memory given so far may be used.
    pub(super) fn settle(&self) -> Result<()> {
        self.0.stream.synchronize().map_err(candle::Error::wrap)
    }
}

impl Parts {
    fn new(context: &Arc<CudaContext>) -> Result<Self> {
        context.bind_to_thread().map_err(candle::Error::wrap)?;
        // SAFETY: zero is a value of every field; those that matter are set.
        let mut properties: CUmemPoolProps = unsafe { std::mem::zeroed() };
        properties.allocType = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
        properties.location.type_ = CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
        // The device's number follows the kind of place; the bindings of some versions wrap it in a union.
        // SAFETY: a location is two numbers of 32 bits.
        unsafe { (&raw mut properties.location).cast::<i32>().add(1).write(context.ordinal() as i32) };
        // SAFETY: the properties live until the call returns.
        let pool = unsafe { mem_pool::create(&properties) }.map_err(candle::Error::wrap)?;
        // Memory is never given back to the system: recordings go on using it.
        let mut keep = u64::MAX;
        let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the attribute is a u64, which is read before the call returns.
        unsafe { mem_pool::set_attribute(pool, attribute, (&raw mut keep).cast()) }.map_err(candle::Error::wrap)?;
        let side = stream::create(stream::StreamKind::NonBlocking).map_err(candle::Error::wrap)?;
        // SAFETY: the stream is never destroyed, and what is enqueued in it is waited for before memory is used.
        let stream = unsafe { context.wrap_borrowed_stream(side) };
        Ok(Self { pool: Pool(pool), stream })
    }

    fn alloc<T>(&self, count: usize) -> Result<CudaSlice<T>> {
        let (mut address, bytes) = (CUdeviceptr::default(), count * size_of::<T>());
        // SAFETY: pool and stream are never destroyed.
        let given = unsafe { cuMemAllocFromPoolAsync(&mut address, bytes, self.pool.0, self.stream.cu_stream()) };
        given.result().map_err(candle::Error::wrap)?;
        // SAFETY: the memory is `count` elements large, and freed in the order of the arena's stream.
        Ok(unsafe { self.stream.upgrade_device_ptr(address, count) })
    }
}

/// Memory for `count` elements from this thread's arena; `None` outside of one.
pub(super) fn alloc<T>(count: usize) -> Option<Result<CudaSlice<T>>> {
    CURRENT.with_borrow(|current| current.as_ref().map(|parts| parts.alloc(count)))
}
