//! A dense tensor of a type that the files hold.

use gqa::{Element, bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::Reason;

/// The elements in row-major order.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    Bool(Vec<bool>),
    Int(Vec<i64>),
}

#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Data,
}

/// A storage type of the crate, to and from [`Tensor`]s.
pub(crate) trait Float: Element {
    fn slice(data: &Data) -> Option<&[Self]>;
    fn data(elements: Vec<Self>) -> Data;
}

macro_rules! float {
    ($type:ty, $variant:ident) => {
        impl Float for $type {
            fn slice(data: &Data) -> Option<&[Self]> {
                if let Data::$variant(elements) = data { Some(elements) } else { None }
            }
            fn data(elements: Vec<Self>) -> Data {
                Data::$variant(elements)
            }
        }
    };
}
float!(f32, F32);
float!(f16, F16);
float!(bf16, Bf16);

impl Tensor {
    pub(crate) fn read(view: &TensorView<'_>) -> Result<Self, Reason> {
        fn elements<T, const N: usize>(bytes: &[u8], from: fn([u8; N]) -> T) -> Vec<T> {
            bytes.as_chunks().0.iter().map(|&bytes| from(bytes)).collect()
        }
        let bytes = view.data();
        let data = match view.dtype() {
            Dtype::F32 => Data::F32(elements(bytes, f32::from_le_bytes)),
            Dtype::F16 => Data::F16(elements(bytes, f16::from_le_bytes)),
            Dtype::BF16 => Data::Bf16(elements(bytes, bf16::from_le_bytes)),
            Dtype::BOOL => Data::Bool(elements(bytes, |[byte]| byte != 0)),
            Dtype::I32 => Data::Int(elements(bytes, |bytes| i32::from_le_bytes(bytes).into())),
            Dtype::I64 => Data::Int(elements(bytes, i64::from_le_bytes)),
            other => return Err(format!("tensors of {other:?} are not known")),
        };
        Ok(Self { shape: view.shape().to_vec(), data })
    }

    /// Zeros of the same type.
    pub(crate) fn zeros_like(&self, shape: &[usize]) -> Self {
        let len = shape.iter().product();
        let data = match self.data {
            Data::F32(_) => Data::F32(vec![0.0; len]),
            Data::F16(_) => Data::F16(vec![f16::ZERO; len]),
            Data::Bf16(_) => Data::Bf16(vec![bf16::ZERO; len]),
            Data::Bool(_) => Data::Bool(vec![false; len]),
            Data::Int(_) => Data::Int(vec![0; len]),
        };
        Self { shape: shape.to_vec(), data }
    }

    pub(crate) fn dims<const RANK: usize>(&self) -> Result<[usize; RANK], Reason> {
        self.shape.as_slice().try_into().map_err(|_| format!("needed rank {RANK}, had {:?}", self.shape))
    }

    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Element `index`, exactly (but for integers above 2²⁴).
    pub(crate) fn get(&self, index: usize) -> f32 {
        match &self.data {
            Data::F32(x) => x[index],
            Data::F16(x) => x[index].to_f32(),
            Data::Bf16(x) => x[index].to_f32(),
            Data::Bool(x) => f32::from(x[index]),
            Data::Int(x) => x[index] as f32,
        }
    }

    /// Rounds to the tensor's type; only floats can be set.
    pub(crate) fn set(&mut self, index: usize, to: f32) {
        match &mut self.data {
            Data::F32(x) => x[index] = to,
            Data::F16(x) => x[index] = f16::from_f32(to),
            Data::Bf16(x) => x[index] = bf16::from_f32(to),
            Data::Bool(_) | Data::Int(_) => unreachable!("only tensors of floats are written"),
        }
    }

    pub(crate) fn floats(&self) -> Vec<f32> {
        (0..self.len()).map(|index| self.get(index)).collect()
    }

    /// `count` numbers ≥ 0 of a tensor of integers.
    pub(crate) fn counts(&self, count: usize) -> Result<Vec<usize>, Reason> {
        let Data::Int(numbers) = &self.data else { return Err("needed a tensor of integers".into()) };
        if numbers.len() != count {
            return Err(format!("needed {count} integers, had {}", numbers.len()));
        }
        numbers
            .iter()
            .map(|&n| usize::try_from(n).map_err(|_| format!("needed an integer ≥ 0, had {n}")))
            .collect()
    }
}
