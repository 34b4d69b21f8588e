//! A batch's layout on the device.

use std::cell::RefCell;

use candle::{CudaDevice, Device, Result, Tensor};
use candle_core as candle;

use crate::ops::layout::BatchLayout;

/// Layouts that a thread keeps on the devices: a step has one for each form of attention.
const KEPT: usize = 8;

/// Where rows sit in their sequences and where their keys lie, as `Layout` of `kernels/common/layout.cuh` reads it.
#[derive(Debug, Clone)]
pub(crate) struct DeviceLayout {
    /// `[spans, 4]` u32: first row, start position, first entry in `pages`, first row of the contexts laid end to end.
    pub(super) spans: Tensor,
    /// The block tables one after the other, `[pages]` u32.
    pub(super) pages: Tensor,
    pub(super) count: i32,
}

thread_local! {
    static UPLOADED: RefCell<Vec<(BatchLayout, CudaDevice, DeviceLayout)>> = const { RefCell::new(Vec::new()) };
}

impl DeviceLayout {
    /// Uploads a layout, unless this thread did so a few calls ago: all layers of a step share it.
    ///
    /// # Errors
    /// If it has more than 2^32 of something, or the device fails.
    pub(crate) fn of(layout: &BatchLayout, device: &CudaDevice) -> Result<Self> {
        UPLOADED.with_borrow_mut(|uploaded| {
            let known = |(other, on, _): &(BatchLayout, CudaDevice, Self)| on.id() == device.id() && other == layout;
            if let Some(at) = uploaded.iter().position(known) {
                let entry = uploaded.remove(at);
                uploaded.push(entry);
            } else {
                let entry = (layout.clone(), device.clone(), Self::upload(layout, device)?);
                if uploaded.len() == KEPT {
                    uploaded.remove(0);
                }
                uploaded.push(entry);
            }
            match uploaded.last() {
                Some((.., uploaded)) => Ok(uploaded.clone()),
                None => candle::bail!("no layout"),
            }
        })
    }

    /// A layout that lies on the device already: `spans: [count, 4]` u32, at an offset of whole spans, and `pages` u32.
    pub(crate) fn at(spans: Tensor, pages: Tensor) -> Result<Self> {
        let count = spans.dim(0)? as i32;
        Ok(Self { spans, pages, count })
    }

    /// Makes [`Self::of`] find this layout for `layout` on this thread until what it returns is dropped.
    pub(crate) fn bind(&self, layout: &BatchLayout, device: &CudaDevice) -> Bound {
        let entry = (layout.clone(), device.clone(), self.clone());
        UPLOADED.with_borrow_mut(|uploaded| {
            uploaded.retain(|(other, ..)| other != layout);
            uploaded.push(entry);
        });
        Bound(layout.clone())
    }

    fn upload(layout: &BatchLayout, device: &CudaDevice) -> Result<Self> {
        let narrow = |value: usize| match u32::try_from(value) {
            Ok(value) => Ok(value),
            Err(_) => candle::bail!("layout: {value} does not fit 32 bits"),
        };
        let (mut spans, mut pages, mut base) = (Vec::new(), Vec::new(), 0);
        for span in &layout.spans {
            if !span.tokens.is_empty() {
                spans.push([narrow(span.tokens.start)?, narrow(span.start)?, narrow(pages.len())?, narrow(base)?]);
                pages.extend_from_slice(&span.block_table);
            }
            base += span.context();
        }
        let count = spans.len();
        // Without rows there are no spans, and attention over expanded keys does without block tables; an
        // allocation of no bytes fails.
        spans.resize(count.max(1), [0; 4]);
        pages.resize(pages.len().max(1), 0);
        let device = Device::Cuda(device.clone());
        let (spans_len, pages_len) = (spans.len(), pages.len());
        Ok(Self {
            spans: Tensor::from_vec(spans.into_flattened(), (spans_len, 4), &device)?,
            pages: Tensor::from_vec(pages, pages_len, &device)?,
            count: count as i32,
        })
    }
}

/// See [`DeviceLayout::bind`].
#[derive(Debug)]
pub(crate) struct Bound(BatchLayout);

impl Drop for Bound {
    fn drop(&mut self) {
        UPLOADED.with_borrow_mut(|uploaded| uploaded.retain(|(layout, ..)| *layout != self.0));
    }
}
