//! What the tests need of the storage types f32, f16 and bf16, and how all combinations of them are visited.

use std::fmt::Debug;

use gqa::{Element, bf16, f16};

/// A storage type.
pub trait Number: Element + Debug + Default + PartialEq {
    /// Its name.
    const NAME: &'static str;
    /// Half a unit in the last place of 1.
    const ROUNDOFF: f64;
    /// The error of rounding where it is not relative, or where results may be flushed to 0.
    const LEAST: f64;
    /// A NaN.
    const NAN: Self;

    /// The nearest number, or one beside it.
    fn of(x: f64) -> Self;

    /// Exact.
    fn wide(self) -> f64;

    /// The bits, zero-extended.
    fn bits(self) -> u32;
}

impl Number for f32 {
    const NAME: &'static str = "f32";
    const ROUNDOFF: f64 = 1.0 / (1u64 << 24) as f64;
    const LEAST: f64 = f32::MIN_POSITIVE as f64;
    const NAN: Self = f32::NAN;

    fn of(x: f64) -> Self {
        x as f32
    }

    fn wide(self) -> f64 {
        self.into()
    }

    fn bits(self) -> u32 {
        self.to_bits()
    }
}

macro_rules! half {
    ($T:ident, $roundoff:expr, $least:expr) => {
        impl Number for $T {
            const NAME: &'static str = stringify!($T);
            const ROUNDOFF: f64 = $roundoff;
            const LEAST: f64 = $least;
            const NAN: Self = $T::NAN;

            fn of(x: f64) -> Self {
                Self::from_f64(x)
            }

            fn wide(self) -> f64 {
                self.to_f64()
            }

            fn bits(self) -> u32 {
                self.to_bits().into()
            }
        }
    };
}

half!(f16, 1.0 / (1u64 << 11) as f64, 1.0 / (1u64 << 25) as f64);
half!(bf16, 1.0 / (1u64 << 8) as f64, f32::MIN_POSITIVE as f64);

/// Work that is generic over the storage types of Q, K, V and the output.
pub trait Visit {
    /// Does it.
    fn visit<Q: Number, K: Number, V: Number, O: Number>(self);
}

macro_rules! with_storage {
    ($index:expr, $T:ident => $body:expr) => {
        match $index % 3 {
            0 => {
                type $T = f32;
                $body
            }
            1 => {
                type $T = f16;
                $body
            }
            _ => {
                type $T = bf16;
                $body
            }
        }
    };
}

/// Visits one of the 81 combinations of storage types: the digits of `index` to the base 3.
///
/// Costs the compilation of all of them: for one test file only.
pub fn visit_any(index: usize, work: impl Visit) {
    with_storage!(index, Q => with_storage!(index / 3, K => with_storage!(index / 9, V =>
        with_storage!(index / 27, O => work.visit::<Q, K, V, O>()))));
}

/// Visits one of nine combinations in which each type of one operand meets each type of every other:
/// an orthogonal array, for less to compile.
pub fn visit_pairs(index: usize, work: impl Visit) {
    match index % 9 {
        0 => work.visit::<f32, f32, f32, f32>(),
        1 => work.visit::<f32, f16, f16, f16>(),
        2 => work.visit::<f32, bf16, bf16, bf16>(),
        3 => work.visit::<f16, f32, f16, bf16>(),
        4 => work.visit::<f16, f16, bf16, f32>(),
        5 => work.visit::<f16, bf16, f32, f16>(),
        6 => work.visit::<bf16, f32, bf16, f16>(),
        7 => work.visit::<bf16, f16, f32, bf16>(),
        _ => work.visit::<bf16, bf16, f16, f32>(),
    }
}

/// Visits one of three combinations in which each operand has each type once.
pub fn visit_some(index: usize, work: impl Visit) {
    match index % 3 {
        0 => work.visit::<f32, f32, f32, f32>(),
        1 => work.visit::<f16, bf16, f16, bf16>(),
        _ => work.visit::<bf16, f16, bf16, f16>(),
    }
}
