//! Products of rows with the weights of their experts on Hopper's tensor cores: `kernels/sm90_grouped.cu` for many rows,
//! `kernels/sm90_few_rows.cu` for few. A linear layer is one expert.

use candle::{CudaDevice, DType, Result, Tensor};
use candle_core as candle;

use super::{BLOCK, Launch, blocks, device_of, empty, modules, multiprocessors_of_hopper};
use crate::ops::fp8::act_quant;
use crate::ops::linear::{LinearMode, StackedWeight};

/// Bytes of a row in a panel, and the elements of a group or block that shares a scale.
const PANEL: usize = 128;
const GROUP: usize = 128;
/// Threads and shared memory of a block of `sm90_grouped.cu`.
const GROUPED_BLOCK: usize = 384;
const WIDENED_BLOCK: usize = 512;
const GROUPED_SHARED: usize = 214_016;
/// Columns and warps of a block of `sm90_few_rows.cu`, and the bytes of shared memory that a warp needs.
const GATED_COLUMNS: usize = 128;
const GATED_WARPS: usize = 8;
const STRIP: usize = 32;
const WARP_SHARED: usize = 12_288;
const WARP: usize = 32;
/// The most warps that share a strip, and the fewest steps of 128 bytes that one takes.
const STRIP_WARPS: usize = 16;
const STRIP_STEPS: usize = 4;
/// Bytes that addresses and rows are multiples of.
const ALIGNMENT: usize = 16;

/// What is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Codes and codes: activations are rounded by groups of 128.
    Codes {
        /// Whether the activations' scales are powers of two.
        ue8m0: bool,
    },
    /// bf16 and codes.
    Widened,
    /// bf16 and bf16.
    Bf16,
}

impl Form {
    /// The form in which bf16 activations meet a weight on this device; `None` if no kernel of Hopper takes them.
    ///
    /// # Errors
    /// If the device cannot be asked.
    pub(crate) fn of(x: &Tensor, weight: &StackedWeight, mode: LinearMode) -> Result<Option<Self>> {
        let StackedWeight { weight, weight_scale_inv: scale } = weight;
        let form = match (weight.dtype(), scale, mode) {
            (DType::F8E4M3, Some(_), LinearMode::Fp8 { ue8m0 }) => Self::Codes { ue8m0 },
            (DType::F8E4M3, Some(_), _) => Self::Widened,
            (DType::BF16, None, _) => Self::Bf16,
            _ => return Ok(None),
        };
        let (_, n, k) = weight.dims3()?;
        let aligned = |tensor: &Tensor| {
            let offset = tensor.layout().start_offset() * tensor.dtype().size_in_bytes();
            tensor.is_contiguous() && offset.is_multiple_of(ALIGNMENT)
        };
        let fits = x.dtype() == DType::BF16
            && [n, k].iter().all(|&size| size > 0 && i32::try_from(size).is_ok())
            && k.is_multiple_of(GROUP)
            && n.is_multiple_of(STRIP)
            && aligned(weight)
            && aligned(x)
            && scale.as_ref().is_none_or(|scale| scale.dtype() == DType::F32 && scale.is_contiguous());
        if !fits || multiprocessors_of_hopper(device_of(x)?)?.is_none() {
            return Ok(None);
        }
        Ok(Some(form))
    }

    /// The dtype of activations as they are multiplied.
    fn activations(self) -> DType {
        if matches!(self, Self::Codes { .. }) { DType::F8E4M3 } else { DType::BF16 }
    }

    fn weights(self) -> DType {
        if self == Self::Bf16 { DType::BF16 } else { DType::F8E4M3 }
    }

    /// Threads of a block of `sm90_grouped.cu`.
    fn block(self) -> usize {
        if self == Self::Widened { WIDENED_BLOCK } else { GROUPED_BLOCK }
    }

    fn ue8m0(self) -> usize {
        usize::from(self == Self::Codes { ue8m0: true })
    }
}

/// Rows as they are multiplied, in tiles of rows of one expert.
pub(crate) struct Grouped {
    form: Form,
    tiles: Tiles,
    values: Tensor,
    /// Of codes, their scales.
    scales: Option<Tensor>,
    /// Elements of a row.
    width: usize,
}

/// Where rows belong.
#[derive(Clone)]
struct Tiles {
    /// Rows of a tile: [`Grouped::MANY`] or [`Grouped::FEW`].
    size: usize,
    /// The most tiles that there can be.
    most: usize,
    /// Rows of one expert; 0 if a table says which expert's they are.
    rows: usize,
    sorted: Option<Sorted>,
}

/// What `moe_tiles` writes.
#[derive(Clone)]
struct Sorted {
    table: Tensor,
    places: Tensor,
    order: Tensor,
    choices: usize,
}

impl Tiles {
    fn is_few(&self) -> bool {
        self.size == Grouped::FEW
    }

    fn table(&self) -> Option<&Tensor> {
        self.sorted.as_ref().map(|sorted| &sorted.table)
    }
}

impl Grouped {
    /// Rows of a tile of `sm90_grouped.cu`, and of `sm90_few_rows.cu`.
    const MANY: usize = 128;
    const FEW: usize = 16;

    /// Rows `x: [M, K]` bf16, contiguous, of one expert; `few` if each row of the weights is to be read straight into the
    /// tensor cores' registers.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn rows(x: &Tensor, form: Form, few: bool) -> Result<Self> {
        let rows = x.dim(0)?;
        let size = if few { Self::FEW } else { Self::MANY };
        Self::new(x, form, Tiles { size, most: rows.div_ceil(size), rows, sorted: None })
    }

    /// Rows `x: [T, K]` bf16, contiguous, for each of their chosen experts `indices: [T, k]` u32, contiguous.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn of_experts(x: &Tensor, indices: &Tensor, experts: usize, form: Form, few: bool) -> Result<Self> {
        let (device, (tokens, choices)) = (device_of(x)?, indices.dims2()?);
        let (size, pairs) = (if few { Self::FEW } else { Self::MANY }, tokens * choices);
        let most = pairs.div_ceil(size) + experts.min(pairs);
        let sorted = Sorted {
            table: empty(3 + 3 * most + most / 2, DType::I32, device)?,
            places: empty(pairs, DType::I32, device)?,
            order: empty(most * size, DType::I32, device)?,
            choices,
        };
        Launch::new(&modules::SM90_MOE_ROWS, "moe_tiles")
            .tensor("expert_indices", indices)
            .tensor("table", &sorted.table)
            .tensor("places", &sorted.places)
            .tensor("order", &sorted.order)
            .int(pairs)
            .int(experts)
            .int(size)
            .int(most)
            .run(device, [1, 1], 1024, 2 * experts * size_of::<i32>())?;
        Self::new(x, form, Tiles { size, most, rows: 0, sorted: Some(sorted) })
    }

    fn new(x: &Tensor, form: Form, tiles: Tiles) -> Result<Self> {
        let width = x.dim(1)?;
        if !tiles.is_few() {
            return Self::in_panels(x, form, tiles);
        }
        let (values, scales) = match form {
            Form::Codes { ue8m0 } => act_quant(x, GROUP, ue8m0).map(|(codes, scales)| (codes, Some(scales)))?,
            _ => (x.clone(), None),
        };
        Ok(Self { form, tiles, values, scales, width })
    }

    /// Brings rows into the order of the tiles, in panels of 128 bytes of each row of a tile.
    fn in_panels(x: &Tensor, form: Form, tiles: Tiles) -> Result<Self> {
        let (device, (tokens, width)) = (device_of(x)?, x.dims2()?);
        let out = Self::panels(form, tiles, width, device)?;
        let Self { tiles, values, scales, .. } = &out;
        let sorted = tiles.sorted.as_ref();
        let dtype = form.activations().as_str();
        let launch = Launch::new(&modules::SM90_MOE_ROWS, format!("tile_rows_bf16_{dtype}"))
            .tensor("x", x)
            .maybe("table", tiles.table())
            .maybe("places", sorted.map(|sorted| &sorted.places))
            .tensor("rows", values)
            .maybe("row_scales", scales.as_ref())
            .int(tokens)
            .int(width)
            .int(sorted.map_or(1, |sorted| sorted.choices))
            .int(out.panels_of_row())
            .int(form.ue8m0());
        launch.run(device, [tokens + tiles.most, 1], BLOCK, 0)?;
        Ok(out)
    }

    /// Panels for a kernel to fill.
    fn panels(form: Form, tiles: Tiles, width: usize, device: &CudaDevice) -> Result<Self> {
        let panels = width * form.activations().size_in_bytes() / PANEL;
        let values = empty((tiles.most, panels, Self::MANY, PANEL), DType::U8, device)?;
        let scales = match form {
            Form::Codes { .. } => Some(empty((tiles.most, panels, Self::MANY), DType::F32, device)?),
            _ => None,
        };
        Ok(Self { form, tiles, values, scales, width })
    }

    fn panels_of_row(&self) -> usize {
        self.width * self.form.activations().size_in_bytes() / PANEL
    }

    /// `silu(gate · x) · (up · x)` of weights `[E, N, K]`, N a multiple of 128, as rows to multiply.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn gated(&self, gate: &StackedWeight, up: &StackedWeight) -> Result<Self> {
        let device = device_of(&self.values)?;
        let n = gate.weight.dim(1)?;
        let Self { form, tiles, values, scales, width } = self;
        let (form, k) = (*form, *width);
        let (gate_scale, up_scale) = (gate.weight_scale_inv.as_ref(), up.weight_scale_inv.as_ref());
        if tiles.is_few() {
            let hidden = empty((tiles.most * Self::FEW, n), form.activations(), device)?;
            let hidden_scales = match form {
                Form::Codes { .. } => Some(empty((tiles.most * Self::FEW, n / GROUP), DType::F32, device)?),
                _ => None,
            };
            let sorted = tiles.sorted.as_ref();
            let dtypes = [form.activations(), form.weights()].map(|dtype| dtype.as_str()).join("_");
            Launch::new(&modules::SM90_FEW_ROWS, format!("few_rows_gated_{dtypes}"))
                .tensor("x", values)
                .maybe("x_scales", scales.as_ref())
                .tensor("gate", &gate.weight)
                .tensor("up", &up.weight)
                .maybe("gate_scale_inv", gate_scale)
                .maybe("up_scale_inv", up_scale)
                .maybe("table", tiles.table())
                .maybe("order", sorted.map(|sorted| &sorted.order))
                .tensor("hidden", &hidden)
                .maybe("hidden_scales", hidden_scales.as_ref())
                .int(sorted.map_or(1, |sorted| sorted.choices))
                .int(tiles.rows)
                .int(n)
                .int(k)
                .int(form.ue8m0())
                .run(device, [tiles.most, n / GATED_COLUMNS], GATED_WARPS * WARP, GATED_WARPS * WARP_SHARED)?;
            return Ok(Self { form, tiles: tiles.clone(), values: hidden, scales: hidden_scales, width: n });
        }
        let hidden = Self::panels(form, tiles.clone(), n, device)?;
        let launch = match form {
            Form::Widened => Launch::new(&modules::SM90_GROUPED, "grouped_gated_wide")
                .tensor("gate", &gate.weight)
                .tensor("up", &up.weight)
                .maybe("gate_scale_inv", gate_scale)
                .maybe("up_scale_inv", up_scale)
                .tensor("rows", values)
                .maybe("table", tiles.table())
                .tensor("hidden", &hidden.values)
                .int(tiles.most)
                .int(tiles.rows)
                .int(n)
                .int(k),
            _ => Launch::new(&modules::SM90_GROUPED, format!("grouped_gated_{}", form.weights().as_str()))
                .matrix("gate", &gate.weight)
                .matrix("up", &up.weight)
                .maybe("gate_scale_inv", gate_scale)
                .maybe("up_scale_inv", up_scale)
                .tensor("rows", values)
                .maybe("row_scales", scales.as_ref())
                .maybe("table", tiles.table())
                .tensor("hidden", &hidden.values)
                .maybe("hidden_scales", hidden.scales.as_ref())
                .int(tiles.most)
                .int(tiles.rows)
                .int(n)
                .int(self.panels_of_row())
                .int(form.ue8m0()),
        };
        launch.run(device, [grid(device)?, 1], form.block(), GROUPED_SHARED)?;
        Ok(hidden)
    }

    /// The products with weights `[E, N, K]`: bf16 `[M, N]`, by tiles where there are several experts; other rows of the
    /// tiles are undefined.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn product(&self, weight: &StackedWeight) -> Result<Tensor> {
        let device = device_of(&self.values)?;
        let (n, scale) = (weight.weight.dim(1)?, weight.weight_scale_inv.as_ref());
        let Self { form, tiles, values, scales, width } = self;
        let (form, k) = (*form, *width);
        let rows = if tiles.sorted.is_some() { tiles.most * tiles.size } else { tiles.rows };
        let y = empty((rows, n), DType::BF16, device)?;
        if tiles.is_few() {
            let steps = k * form.weights().size_in_bytes() / PANEL;
            let warps = steps.div_ceil(steps.div_ceil(STRIP_WARPS).max(STRIP_STEPS));
            let dtypes = [form.activations(), form.weights()].map(|dtype| dtype.as_str()).join("_");
            Launch::new(&modules::SM90_FEW_ROWS, format!("few_rows_{dtypes}"))
                .tensor("x", values)
                .maybe("x_scales", scales.as_ref())
                .tensor("weight", &weight.weight)
                .maybe("weight_scale_inv", scale)
                .maybe("table", tiles.table())
                .tensor("y", &y)
                .int(tiles.rows)
                .int(n)
                .int(k)
                .run(device, [tiles.most, blocks(n, STRIP)], warps * WARP, warps * WARP_SHARED)?;
            return Ok(y);
        }
        let launch = match form {
            Form::Widened => Launch::new(&modules::SM90_GROUPED, "grouped_wide")
                .tensor("weight", &weight.weight)
                .maybe("weight_scale_inv", scale)
                .tensor("rows", values)
                .maybe("table", tiles.table())
                .tensor("y", &y)
                .int(tiles.most)
                .int(tiles.rows)
                .int(n)
                .int(k),
            _ => Launch::new(&modules::SM90_GROUPED, format!("grouped_{}", form.weights().as_str()))
                .matrix("weight", &weight.weight)
                .maybe("weight_scale_inv", scale)
                .tensor("rows", values)
                .maybe("row_scales", scales.as_ref())
                .maybe("table", tiles.table())
                .tensor("y", &y)
                .int(tiles.most)
                .int(tiles.rows)
                .int(n)
                .int(self.panels_of_row()),
        };
        launch.run(device, [grid(device)?, 1], form.block(), GROUPED_SHARED)?;
        Ok(y)
    }

    /// The sum of each token's rows of `outputs` ([`product`](Self::product)), weighted by `weights: [T, k]` f32,
    /// contiguous: `[T, N]` bf16.
    ///
    /// # Errors
    /// If the rows are not those of experts' choices, or the device fails.
    pub(crate) fn combined(&self, outputs: &Tensor, weights: &Tensor) -> Result<Tensor> {
        let Some(Sorted { places, choices, .. }) = &self.tiles.sorted else {
            candle::bail!("there is nothing to sum up in rows of one expert")
        };
        let (device, n, tokens) = (device_of(outputs)?, outputs.dim(1)?, weights.dim(0)?);
        let y = empty((tokens, n), DType::BF16, device)?;
        let vectors = tokens * n / (ALIGNMENT / 2);
        Launch::new(&modules::SM90_MOE_ROWS, "moe_combine_rows")
            .tensor("outputs", outputs)
            .tensor("places", places)
            .tensor("expert_weights", weights)
            .tensor("y", &y)
            .int(*choices)
            .int(n)
            .long(vectors)
            .run(device, [blocks(vectors, BLOCK), 1], BLOCK, 0)?;
        Ok(y)
    }
}

/// Blocks of a launch of `sm90_grouped.cu`: one a multiprocessor, in whole clusters of two.
fn grid(device: &CudaDevice) -> Result<usize> {
    Ok(multiprocessors_of_hopper(device)?.unwrap_or(2).max(2) / 2 * 2)
}
