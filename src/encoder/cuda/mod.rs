//! The parts of `layers` on an NVIDIA GPU: products by cuBLAS, all between them by the kernels of `kernels.cu`, which take
//! texts of any lengths side by side, without padding.
//!
//! The kernels are compiled for the GPU at hand when a model is loaded (about a second), so that building the program
//! needs no more of NVIDIA's compiler than candle does. Work is only queued, and a result is waited for when it is read:
//! by the thread that queued it, since each has a queue of its own and nothing orders them.

// To call a kernel is to promise that it stays within what it is given.
#![allow(unsafe_code)]

use std::ops::Deref;

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaView, DeviceRepr, LaunchConfig, PushKernelArg, sys,
};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use candle_core::cuda_backend::{CudaDType, CudaStorageSlice, WrapErr};
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp1, DType, Device, InplaceOp1, Layout, Result, Shape,
    Storage, Tensor, bail,
};

const SOURCE: &str = include_str!("kernels.cu");

/// Queries that a warp takes of a head: the kernels' `QUERIES`.
const TILE: u32 = 16;
/// Threads that work in step.
const WARP: u32 = 32;
/// Warps of a block, where one has a row or a head of its own.
const WARPS: u32 = 4;
/// Numbers of a head: eight to each of a warp's lanes.
pub(super) const WIDEST_HEAD: usize = 256;

/// A device that has the kernels for states of a type, and keeps what memory it was given: it would give it back
/// whenever it is waited for, and ask for it again in the next batch.
pub(super) struct Kernels(CudaDevice);

impl Kernels {
    pub(super) fn compile(device: &Device, dtype: DType) -> Result<Self> {
        let Device::Cuda(device) = device else { bail!("expected a CUDA device") };
        let (major, minor) = device.cuda_stream().context().compute_capability().w()?;
        if dtype == DType::BF16 && major < 8 {
            bail!("bf16 needs a GPU of compute capability 8.0 or more, f16 does not; found {major}.{minor}");
        }
        let options = vec![
            format!("--gpu-architecture=compute_{major}{minor}"),
            format!("--define-macro={}", module(dtype)),
        ];
        let ptx = compile_ptx_with_opts(SOURCE, CompileOptions { options, ..CompileOptions::default() });
        let ptx = ptx.map_err(candle_core::Error::wrap)?.to_src();
        device.get_or_load_custom_func("pool", module(dtype), &ptx)?;
        let kernels = Self(device.clone());
        kernels.keep_memory()?;
        Ok(kernels)
    }

    /// The device's store of memory, where it has one.
    fn store(&self) -> Result<Option<sys::CUmemoryPool>> {
        let stream = self.0.cuda_stream();
        if !stream.context().has_async_alloc() {
            return Ok(None);
        }
        let mut store = std::ptr::null_mut();
        // SAFETY: writes what it is given a pointer to.
        unsafe { sys::cuDeviceGetDefaultMemPool(&mut store, stream.context().cu_device()) }.result().w()?;
        Ok(Some(store))
    }

    fn keep_memory(&self) -> Result<()> {
        let Some(store) = self.store()? else { return Ok(()) };
        let mut threshold = u64::MAX;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: reads a number of 64 bits, which the attribute is.
        unsafe { sys::cuMemPoolSetAttribute(store, attribute, std::ptr::from_mut(&mut threshold).cast()) }
            .result()
            .w()
    }
}

impl Drop for Kernels {
    /// Gives back what nobody holds any more.
    fn drop(&mut self) {
        if let (Ok(()), Ok(Some(store))) = (self.0.synchronize(), self.store()) {
            // SAFETY: a store of this device; what is in use stays.
            let _ = unsafe { sys::cuMemPoolTrimTo(store, 0) };
        }
    }
}

/// What the kernels call a type, and the device the kernels for it.
fn module(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "BF16",
        DType::F16 => "F16",
        _ => "F32",
    }
}

/// Where a batch's texts lie in its states, on the device.
pub(super) struct Places {
    /// Each text's first row, and the end of the last.
    begins: Tensor,
    /// A text's next [`TILE`] rows: the first of them, the text's first, and how many the text has.
    tiles: Tensor,
}

impl Places {
    pub(super) fn new(lengths: &[usize], device: &Device) -> Result<Self> {
        let (mut begins, mut tiles, mut begin) = (vec![0], Vec::new(), 0);
        for length in lengths.iter().map(|length| *length as u32) {
            for first in (begin..begin + length).step_by(TILE as usize) {
                tiles.extend([first, begin, length]);
            }
            begin += length;
            begins.push(begin);
        }
        Ok(Self { begins: Tensor::new(begins, device)?, tiles: Tensor::new(tiles, device)? })
    }
}

/// Does something with a storage's values, of whichever type they are.
macro_rules! with_values {
    ($storage:expr, |$values:ident| $then:expr) => {
        match $storage {
            CudaStorageSlice::F32($values) => $then,
            CudaStorageSlice::BF16($values) => $then,
            CudaStorageSlice::F16($values) => $then,
            _ => bail!("expected states of f32, bf16 or f16"),
        }
    };
}

/// Adds a bias to each row, in place, and takes GELU of it where wanted.
pub(super) fn add_bias(states: &Tensor, bias: &Tensor, then_gelu: bool) -> Result<()> {
    states.inplace_op1(&InPlace(|states: &mut CudaStorage, layout: &Layout| {
        let (n_rows, width) = whole(layout)?;
        let kernel = states.device.get_or_load_custom_func("add_bias", module(states.dtype()), "")?;
        let bias = bias.storage_and_layout();
        let bias = on_device::<f32>(&bias, width)?;
        let (n_cols, then_gelu) = (width as u32, u32::from(then_gelu));
        with_values!(&mut states.slice, |states| {
            let mut call = kernel.builder();
            call.arg(states).arg(&bias).arg(&n_cols).arg(&then_gelu);
            // SAFETY: the kernel's arguments; a block a row, and the bias has a number for each column.
            unsafe { call.launch(grid(n_rows, 1, (4 * WARP, 1))) }.w()?;
        });
        Ok(())
    }))
}

/// Each row of `states + before + residual`, normalised, times `gain`, plus `bias`.
pub(super) fn add_norm(
    states: &Tensor,
    residual: &Tensor,
    rows: [&Tensor; 3],
    epsilon: f32,
) -> Result<Tensor> {
    let residual = residual.storage_and_layout();
    let shape = whole(residual.1)?;
    states.apply_op1_no_bwd(&Kernel(|states: &CudaStorage, layout: &Layout| {
        let (n_rows, width) = whole(layout)?;
        if shape != (n_rows, width) {
            bail!("expected a residual of {n_rows} x {width}; found {shape:?}");
        }
        let kernel = states.device.get_or_load_custom_func("add_norm", module(states.dtype()), "")?;
        let rows = rows.map(Tensor::storage_and_layout);
        let [before, gain, bias] = [0, 1, 2].map(|at| on_device::<f32>(&rows[at], width));
        let (before, gain, bias) = (before?, gain?, bias?);
        let (rows, cols) = (n_rows as u32, width as u32);
        with_values!(&states.slice, |values| {
            let residual = on_device_like(&residual, values)?;
            let mut to = room_like(values, &states.device, n_rows * width)?;
            let mut call = kernel.builder();
            call.arg(values).arg(&residual).arg(&before).arg(&gain).arg(&bias).arg(&mut to);
            call.arg(&rows).arg(&cols).arg(&epsilon);
            // SAFETY: the kernel's arguments; a warp a row, rows beyond the last left out, and all are as wide.
            unsafe { call.launch(grid(n_rows.div_ceil(WARPS as usize), 1, (WARP, WARPS))) }.w()?;
            Ok((CudaStorage::wrap_cuda_slice(to, states.device.clone()), (n_rows, width).into()))
        })
    }))
}

/// `softmax((Q + bias) K' / sqrt d) V`, head by head and text by text; `qkv` are the three side by side.
pub(super) fn attend(qkv: &Tensor, bias: &Tensor, places: &Places, n_heads: usize) -> Result<Tensor> {
    let (bias, tiles) = (bias.storage_and_layout(), places.tiles.storage_and_layout());
    let n_tiles = places.tiles.elem_count() / 3;
    qkv.apply_op1_no_bwd(&Kernel(|qkv: &CudaStorage, layout: &Layout| {
        let (n_rows, width) = whole(layout)?;
        let (hidden, head) = (width / 3, width / 3 / n_heads);
        if head > WIDEST_HEAD {
            bail!("expected heads of at most {WIDEST_HEAD} numbers; found {head}");
        }
        let kernel = qkv.device.get_or_load_custom_func("attend", module(qkv.dtype()), "")?;
        let (bias, tiles) = (on_device::<f32>(&bias, hidden)?, on_device::<u32>(&tiles, 3 * n_tiles)?);
        let scale = std::f32::consts::LOG2_E / (head as f32).sqrt();
        let (heads, head) = (n_heads as u32, head as u32);
        with_values!(&qkv.slice, |values| {
            let mut to = room_like(values, &qkv.device, n_rows * hidden)?;
            let mut call = kernel.builder();
            call.arg(values).arg(&bias).arg(&tiles).arg(&mut to).arg(&heads).arg(&head).arg(&scale);
            // SAFETY: the kernel's arguments; a warp a tile and head, and tiles lie within the rows, which they
            // all cover.
            unsafe { call.launch(grid(n_tiles, heads.div_ceil(WARPS), (WARP, WARPS))) }.w()?;
            Ok((CudaStorage::wrap_cuda_slice(to, qkv.device.clone()), (n_rows, hidden).into()))
        })
    }))
}

/// The mean of each text's states, or the first, of length 1 and in f32.
pub(super) fn pool(states: &Tensor, places: &Places, first_token: bool) -> Result<Tensor> {
    let begins = places.begins.storage_and_layout();
    let n_texts = places.begins.elem_count() - 1;
    states.apply_op1_no_bwd(&Kernel(|states: &CudaStorage, layout: &Layout| {
        let (_, width) = whole(layout)?;
        let kernel = states.device.get_or_load_custom_func("pool", module(states.dtype()), "")?;
        let begins = on_device::<u32>(&begins, n_texts + 1)?;
        let (n_cols, first_token) = (width as u32, u32::from(first_token));
        // SAFETY: every number is written by the kernel.
        let mut to = unsafe { states.device.alloc::<f32>(n_texts * width) }?;
        with_values!(&states.slice, |values| {
            let mut call = kernel.builder();
            call.arg(values).arg(&begins).arg(&mut to).arg(&n_cols).arg(&first_token);
            // SAFETY: the kernel's arguments; a block a text, and texts' rows are those of the states.
            unsafe { call.launch(grid(n_texts, 1, (4 * WARP, 1))) }.w()?;
        });
        Ok((CudaStorage::wrap_cuda_slice(to, states.device.clone()), (n_texts, width).into()))
    }))
}

/// A function from a tensor to a new one.
struct Kernel<F>(F);

impl<F: Fn(&CudaStorage, &Layout) -> Result<(CudaStorage, Shape)>> CustomOp1 for Kernel<F> {
    fn name(&self) -> &'static str {
        "a kernel of lamplighter"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("expected a CUDA device")
    }

    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        self.0(storage, layout)
    }
}

/// A function that changes a tensor.
struct InPlace<F>(F);

impl<F: Fn(&mut CudaStorage, &Layout) -> Result<()>> InplaceOp1 for InPlace<F> {
    fn name(&self) -> &'static str {
        "a kernel of lamplighter"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        bail!("expected a CUDA device")
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
        self.0(storage, layout)
    }
}

/// Rows and columns of what is all of its storage.
fn whole(layout: &Layout) -> Result<(usize, usize)> {
    match layout.contiguous_offsets() {
        Some((0, _)) => layout.shape().dims2(),
        _ => bail!("expected a whole tensor"),
    }
}

/// A tensor's values on the device, `n` of them.
fn on_device<'a, T: CudaDType + DeviceRepr>(
    (storage, layout): &'a (impl Deref<Target = Storage>, &Layout),
    n: usize,
) -> Result<CudaView<'a, T>> {
    let Storage::Cuda(storage) = &**storage else { bail!("expected a tensor on the device") };
    match layout.contiguous_offsets() {
        Some((from, to)) if to - from == n => Ok(storage.as_cuda_slice::<T>()?.slice(from..to)),
        _ => bail!("expected {n} numbers in a row; found {layout:?}"),
    }
}

/// A tensor's values on the device, as many and of the same type as others.
fn on_device_like<'a, T: CudaDType + DeviceRepr>(
    tensor: &'a (impl Deref<Target = Storage>, &Layout),
    like: &CudaSlice<T>,
) -> Result<CudaView<'a, T>> {
    on_device(tensor, like.len())
}

/// Room for `n` numbers of the type of others.
fn room_like<T: DeviceRepr>(_: &CudaSlice<T>, device: &CudaDevice, n: usize) -> Result<CudaSlice<T>> {
    // SAFETY: the kernel that it is made for writes every number.
    unsafe { device.alloc::<T>(n) }
}

/// Blocks of so many threads, `x` by `y` of them.
fn grid(x: usize, y: u32, (width, height): (u32, u32)) -> LaunchConfig {
    LaunchConfig { grid_dim: (x as u32, y, 1), block_dim: (width, height, 1), shared_mem_bytes: 0 }
}

#[cfg(test)]
mod tests;
