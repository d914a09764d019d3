//! Masks and biases: tensors that have been broadcast to `[batch, heads, q_len, kv_len]`, which costs strides of 0 only.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Error, Layout, Result, Storage, StorageRef, Tensor};
use gqa::{BiasData, MaskStrides};

/// A mask or a bias, read where it lies.
pub(crate) struct Dense<'t> {
    storage: StorageRef<'t>,
    layout: &'t Layout,
    pub(crate) strides: MaskStrides,
}

impl<'t> Dense<'t> {
    pub(crate) fn of(tensor: &'t Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout, strides: strides(layout) }
    }

    /// Of a mask: u8, of which 0 hides.
    pub(crate) fn bytes(&self) -> Result<&[u8]> {
        match on_cpu(&self.storage)? {
            CpuStorage::U8(elements) => Ok(named(elements, self.layout)),
            other => Err(Error::UnsupportedDTypeForOp(other.dtype(), "mask of gqa-attention").bt()),
        }
    }

    /// Of a bias: f32, f16 or bf16.
    pub(crate) fn numbers(&self) -> Result<BiasData<'_>> {
        Ok(match on_cpu(&self.storage)? {
            CpuStorage::F32(elements) => named(elements, self.layout).into(),
            CpuStorage::F16(elements) => named(elements, self.layout).into(),
            CpuStorage::BF16(elements) => named(elements, self.layout).into(),
            other => {
                return Err(Error::UnsupportedDTypeForOp(other.dtype(), "bias of gqa-attention").bt());
            }
        })
    }
}

fn on_cpu(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => Err(Error::msg("gqa-attention: the mask or the bias is not on the CPU")),
    }
}

/// From the first to the last element that a layout names.
fn named<'a, T>(elements: &'a [T], layout: &Layout) -> &'a [T] {
    let axes = layout.dims().iter().zip(layout.stride());
    if layout.dims().contains(&0) {
        return &[];
    }
    let len = 1 + axes.map(|(size, stride)| (size - 1) * stride).sum::<usize>();
    &elements[layout.start_offset()..][..len]
}

fn strides(layout: &Layout) -> MaskStrides {
    match *layout.stride() {
        [batch, head, row, key] => MaskStrides { batch, head, row, key },
        _ => unreachable!("broadcast to four dimensions"),
    }
}
