//! Kernels as the build embeds them, loaded once for each device.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use candle::cuda_backend::cudarc::driver::sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
use candle::cuda_backend::cudarc::driver::{CudaContext, CudaFunction, CudaModule};
use candle::cuda_backend::cudarc::nvrtc::Ptx;
use candle::{CudaDevice, Device, Result};
use candle_core as candle;

/// The compute capability that the cubins are for.
const CUBIN_CAPABILITY: (i32, i32) = (9, 0);

/// A file of `kernels/`, compiled.
pub(crate) struct Module {
    pub(crate) name: &'static str,
    /// Machine code for Hopper.
    cubin: &'static [u8],
    /// PTX for any GPU from Ampere on, unless the file's kernels use what only Hopper has.
    ptx: Option<&'static str>,
}

/// Every file of `kernels/`, one static each.
pub(crate) mod modules {
    use super::Module;

    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}

/// What was loaded on one device. Nothing is ever unloaded: the functions keep the device's context.
#[derive(Default)]
struct Loaded {
    modules: HashMap<&'static str, Arc<CudaModule>>,
    functions: HashMap<String, CudaFunction>,
}

/// By the device's ordinal, which names its primary context.
static LOADED: RwLock<Option<HashMap<usize, Loaded>>> = RwLock::new(None);

/// Returns a kernel of a module, which is loaded if it was not yet.
pub(super) fn function(context: &Arc<CudaContext>, module: &'static Module, kernel: &str) -> Result<CudaFunction> {
    let device = context.ordinal();
    let poisoned = |_| candle::Error::msg("the table of loaded kernels is poisoned");
    if let Some(loaded) = LOADED.read().map_err(poisoned)?.as_ref().and_then(|loaded| loaded.get(&device))
        && let Some(function) = loaded.functions.get(kernel)
    {
        return Ok(function.clone());
    }
    let mut loaded = LOADED.write().map_err(|_| candle::Error::msg("the table of loaded kernels is poisoned"))?;
    let loaded = loaded.get_or_insert_default().entry(device).or_default();
    let code = match loaded.modules.get(module.name) {
        Some(code) => code.clone(),
        None => {
            let code = load(context, module)?;
            loaded.modules.insert(module.name, code.clone());
            code
        }
    };
    let function = code.load_function(kernel).map_err(candle::Error::wrap)?;
    loaded.functions.insert(kernel.to_string(), function.clone());
    Ok(function)
}

fn load(context: &Arc<CudaContext>, module: &Module) -> Result<Arc<CudaModule>> {
    let capability = context.compute_capability().map_err(candle::Error::wrap)?;
    let code = match module.ptx {
        _ if capability == CUBIN_CAPABILITY => Ptx::from_binary(module.cubin.to_vec()),
        Some(ptx) => Ptx::from_src(ptx),
        None => candle::bail!("a GPU of compute capability {capability:?} does not run it: it is for Hopper (9.0)"),
    };
    context.load_module(code).map_err(candle::Error::wrap)
}

/// Returns the number of multiprocessors of a device that the Hopper kernels run on; `None` for any other.
pub(crate) fn multiprocessors_of_hopper(device: &CudaDevice) -> Result<Option<usize>> {
    let stream = device.cuda_stream();
    let context = stream.context();
    if context.compute_capability().map_err(candle::Error::wrap)? != CUBIN_CAPABILITY {
        return Ok(None);
    }
    let count = context.attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).map_err(candle::Error::wrap)?;
    Ok(usize::try_from(count).ok())
}

/// Returns the bytes of a device's memory that are free.
pub(crate) fn free_bytes(device: &CudaDevice) -> Result<usize> {
    let (free, _) = device.cuda_stream().context().mem_get_info().map_err(candle::Error::wrap)?;
    Ok(free)
}

/// Returns `cuda (NVIDIA H200, sm_90a cubins)`: a device's name and the form in which the kernels run on it.
pub(crate) fn describe(device: &Device) -> String {
    let Device::Cuda(device) = device else { return "cuda".to_string() };
    let stream = device.cuda_stream();
    let context = stream.context();
    match (context.name(), context.compute_capability()) {
        (Ok(name), Ok(CUBIN_CAPABILITY)) => format!("cuda ({name}, sm_90a cubins)"),
        (Ok(name), Ok(_)) => format!("cuda ({name}, sm_80 PTX)"),
        _ => "cuda".to_string(),
    }
}
