//! What one thread of this machine can do at most: multiply-adds at each level, and reading memory.
#![allow(unsafe_code, reason = "calls functions that are compiled for one instruction set")]

use std::hint::black_box;
use std::time::Duration;

use gqa::Level;

use super::clock;
use super::memory;

/// Multiply-adds in `$chains` independent chains, enough to hide the latency: the number of operations in `n` rounds.
/// `$each` operations are done in a lane.
macro_rules! fma_loop {
    ($(#[$attribute:meta])* $name:ident, $chains:literal, $each:literal, $operand:expr, $splat:expr, $fma:expr) => {
        $(#[$attribute])*
        fn $name(n: usize) -> f64 {
            let x = $operand(black_box(0.5));
            let mut sums = [$splat(black_box(1.0)); $chains];
            for _ in 0..n {
                for sum in &mut sums {
                    *sum = $fma(x, *sum);
                }
            }
            black_box(sums);
            n as f64 * ($each * $chains * size_of_val(&x) / size_of::<f32>()) as f64
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod isa {
    use super::black_box;
    use std::arch::x86_64::*;

    fma_loop!(
        #[target_feature(enable = "avx512f")]
        avx512,
        24,
        2,
        _mm512_set1_ps,
        _mm512_set1_ps,
        |x, sum| _mm512_fmadd_ps(x, x, sum)
    );
    fma_loop!(
        #[target_feature(enable = "avx2,fma")]
        avx2,
        12,
        2,
        _mm256_set1_ps,
        _mm256_set1_ps,
        |x, sum| _mm256_fmadd_ps(x, x, sum)
    );
    fma_loop!(
        #[target_feature(enable = "avx512f,avx512bf16")]
        avx512_bf16,
        24,
        4,
        |x| _mm512_cvtne2ps_pbh(_mm512_set1_ps(x), _mm512_set1_ps(x)),
        _mm512_set1_ps,
        |x, sum| _mm512_dpbf16_ps(sum, x, x)
    );

    #[target_feature(enable = "avx512f")]
    fn sum_avx512(data: &[f32]) -> f32 {
        super::sum(data)
    }

    #[target_feature(enable = "avx2")]
    fn sum_avx2(data: &[f32]) -> f32 {
        super::sum(data)
    }

    pub(super) fn fma(level: gqa::Level, n: usize) -> f64 {
        match level.name() {
            // SAFETY: the machine has each of its levels.
            "avx512" => unsafe { avx512(n) },
            // SAFETY: as above.
            "avx2" => unsafe { avx2(n) },
            _ => super::portable(n),
        }
    }

    pub(super) fn fma_bf16(n: usize) -> Option<f64> {
        let has = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
        // SAFETY: the machine has the instructions.
        has.then(|| unsafe { avx512_bf16(n) })
    }

    pub(super) fn sum(level: gqa::Level, data: &[f32]) -> f32 {
        match level.name() {
            // SAFETY: the machine has each of its levels.
            "avx512" => unsafe { sum_avx512(data) },
            // SAFETY: as above.
            "avx2" => unsafe { sum_avx2(data) },
            _ => super::sum(data),
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod isa {
    #[cfg(target_arch = "aarch64")]
    mod neon {
        use std::arch::aarch64::*;
        use std::hint::black_box;
        fma_loop!(
            #[target_feature(enable = "neon")]
            fma,
            24,
            2,
            |x| vdupq_n_f32(x),
            |x| vdupq_n_f32(x),
            |x, sum| vfmaq_f32(sum, x, x)
        );
        pub(super) fn run(n: usize) -> f64 {
            // SAFETY: called for the level of this name only.
            unsafe { fma(n) }
        }
    }

    pub(super) fn fma(level: gqa::Level, n: usize) -> f64 {
        match level.name() {
            #[cfg(target_arch = "aarch64")]
            "neon" => neon::run(n),
            _ => super::portable(n),
        }
    }

    pub(super) fn fma_bf16(_: usize) -> Option<f64> {
        None
    }

    pub(super) fn sum(_: gqa::Level, data: &[f32]) -> f32 {
        super::sum(data)
    }
}

// What the compiler makes of a multiplication and an addition for every machine of this target.
fma_loop!(portable, 12, 2, |x| [x; 4], |x| [x; 4], |x: [f32; 4], sum: [f32; 4]| {
    core::array::from_fn(|lane| x[lane] * x[lane] + sum[lane])
});

/// A sum of 128 running sums, which the compiler keeps in registers of whatever width it may use.
#[inline(always)]
fn sum(data: &[f32]) -> f32 {
    let mut sums = [0.0; 128];
    for chunk in data.as_chunks::<128>().0 {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x;
        }
    }
    sums.iter().sum()
}

/// The median rate of `work`, which says how much it did, in units of 10⁹ a second.
fn rate(mut work: impl FnMut() -> f64) -> f64 {
    let (start, mut rates) = (clock::thread_time(), Vec::new());
    while rates.len() < 5 || clock::thread_time() - start < Duration::from_millis(150) {
        let mut amount = 0.0;
        let time = clock::time(|| amount = work());
        rates.push(amount / time.as_secs_f64().max(1e-9) / 1e9);
    }
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Half a millisecond of multiply-adds in f32 at this level: the number of operations (two each).
pub(crate) fn fma_burst(level: Level) -> f64 {
    isa::fma(level, 100_000)
}

/// Multiply-adds in f32 at this level, as 10⁹ operations a second.
pub(crate) fn fma_gflops(level: Level) -> f64 {
    rate(|| fma_burst(level))
}

/// Multiply-adds of pairs of bf16 into f32, if the machine has them.
#[allow(dead_code, reason = "not every example compares with it")]
pub(crate) fn fma_bf16_gflops() -> Option<f64> {
    isa::fma_bf16(1)?;
    Some(rate(|| isa::fma_bf16(100_000).unwrap_or(0.0)))
}

/// Memory that is read from start to end.
pub(crate) struct Reading {
    level: Level,
    data: Vec<f32>,
    /// The first element of a cache line: a vector that crosses lines is two reads.
    first: usize,
}

impl Reading {
    /// Elements of a cache line.
    const LINE: usize = 16;

    pub(crate) fn new(level: Level, bytes: usize) -> Self {
        let len = bytes / size_of::<f32>() + Self::LINE;
        let mut data = memory::huge_pages(len);
        data.resize(len, 1.0f32);
        let first = data.as_ptr().align_offset(Self::LINE * size_of::<f32>()).min(Self::LINE);
        Self { level, data, first }
    }

    /// Reads all of it with vectors of the level, small sets often enough for the clock: the number of bytes.
    pub(crate) fn burst(&self) -> f64 {
        let data = &self.data[self.first..][..self.data.len() - Self::LINE];
        let passes = (1 << 22) / size_of_val(data).max(1) + 1;
        for _ in 0..passes {
            black_box(isa::sum(self.level, black_box(data)));
        }
        (passes * size_of_val(data)) as f64
    }
}

/// Reading `bytes` from start to end with vectors of this level, again and again, in 10⁹ bytes a second.
pub(crate) fn read_gbs(level: Level, bytes: usize) -> f64 {
    let reading = Reading::new(level, bytes);
    rate(|| reading.burst())
}
