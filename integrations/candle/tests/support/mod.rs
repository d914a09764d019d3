//! Tensors of random numbers, and how far two tensors are apart.

use candle_core::{DType, Device, Tensor};

/// Standard normal numbers, the same ones for a seed whatever the order of tests.
pub fn normal(dims: [usize; 4], seed: u64, dtype: DType) -> Tensor {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((state >> 33) as f64 + 0.5) / (1u64 << 31) as f64
    };
    let count = dims.iter().product();
    let numbers: Vec<f32> = (0..count)
        .map(|_| ((-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32)
        .collect();
    Tensor::from_vec(numbers, &dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// The greatest difference.
pub fn distance(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let flat = |tensor: &Tensor| {
        tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let difference = |(a, b): (f32, f32)| if a == b { 0.0 } else { (a - b).abs() };
    // NaN must not pass for nearness.
    flat(a)
        .into_iter()
        .zip(flat(b))
        .map(difference)
        .fold(0.0, |most, x| if x > most || x.is_nan() { x } else { most })
}
