//! The instruction sets: one trait that the kernels are generic over, and [`Level`], an instruction set as a value.
//!
//! Only this room imports `pulp` and `core::arch`. A kernel is written once against [`Isa`]; [`Level::dispatch`]
//! runs it compiled for one instruction set. Every function from there down to the last intrinsic is
//! `#[inline(always)]`, or enters the instruction set again, since a call that is left over is compiled without it.

#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
mod aarch64;
#[cfg(any(
    target_feature = "sse2",
    all(target_arch = "aarch64", target_feature = "neon"),
    all(target_arch = "wasm32", target_feature = "simd128")
))]
mod by_pulp;
mod fpu;
mod level;
#[cfg_attr(
    not(all(
        target_os = "linux",
        target_arch = "x86_64",
        target_pointer_width = "64",
        target_feature = "sse2"
    )),
    path = "no_matrix.rs"
)]
mod matrix;
mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;
#[cfg(target_feature = "sse2")]
mod x86;

pub(crate) use fpu::{sqrt, widen_f16};
pub use level::Level;
pub(crate) use level::{LEVELS, Op, PairsLevel, PairsOp};
pub(crate) use matrix::{STRIP, Unit};

use half::{bf16, f16};

/// The greatest [`Isa::LANES`] of this target: the length of a buffer on the stack that any vector fits.
pub(crate) const MAX_LANES: usize = {
    let (mut lanes, mut i) = (1, 0);
    while i < LEVELS.len() {
        lanes = if LEVELS[i].lanes() > lanes { LEVELS[i].lanes() } else { lanes };
        i += 1;
    }
    lanes
};

/// Work that is generic over the register tile of an instruction set; see [`Isa::with_tile`].
pub trait TileOp {
    /// Runs with `KEYS` × `VECS` accumulators.
    fn run<const KEYS: usize, const VECS: usize>(self);
}

/// Vectors of f32 and what the kernels do with them.
pub trait Isa: Copy {
    /// `LANES` numbers.
    type F: Copy;
    /// `LANES` truth values.
    type M: Copy;
    /// Numbers in a vector.
    const LANES: usize = size_of::<Self::F>() / size_of::<f32>();
    /// The level that this is.
    const LEVEL: Level;
    /// Whether [`prefetch`](Self::prefetch) and [`prefetch_near`](Self::prefetch_near) do anything.
    const PREFETCHES: bool = false;
    /// What [`Isa::scale`] makes 1 of where `n` is 0.
    const UNIT: f32 = 2.0;
    /// Whether it has pairs of 16 bits, the first in the low half of a lane; machines may have products of them beside it: [`Pairs`].
    const PAIRS: bool = false;
    /// Whether it is one of [`Pairs`].
    const PRODUCTS_OF_PAIRS: bool = false;

    /// Runs `f`, which must be `#[inline(always)]`, compiled for this instruction set.
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R;

    /// Runs `op` with the accumulators that the registers hold, for `vecs` vectors of rows:
    /// the tiles that [`crate::tiling`] lists and gives the reasons for.
    fn with_tile(self, vecs: usize, op: impl TileOp);

    /// The whole vectors of a slice.
    fn vectors(self, slice: &[f32]) -> &[Self::F];

    /// The whole vectors of a slice.
    fn vectors_mut(self, slice: &mut [f32]) -> &mut [Self::F];

    fn splat(self, x: f32) -> Self::F;

    #[inline(always)]
    fn zero(self) -> Self::F {
        self.splat(0.0)
    }

    fn add(self, a: Self::F, b: Self::F) -> Self::F;

    fn sub(self, a: Self::F, b: Self::F) -> Self::F;

    fn mul(self, a: Self::F, b: Self::F) -> Self::F;

    fn div(self, a: Self::F, b: Self::F) -> Self::F;

    /// `a·b + c`, rounded once where the instruction set has it.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;

    /// `if b < a { a } else { b }`, on every level: a NaN in either gives `b`.
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        self.select(self.less(b, a), a, b)
    }

    /// The magnitude of `a` with the sign of `b`.
    fn copy_sign(self, a: Self::F, b: Self::F) -> Self::F;

    fn abs(self, a: Self::F) -> Self::F;

    /// `a < b`; false where either is NaN.
    fn less(self, a: Self::F, b: Self::F) -> Self::M;

    /// `a == b`; false where either is NaN.
    fn equal(self, a: Self::F, b: Self::F) -> Self::M;

    fn select(self, mask: Self::M, if_true: Self::F, if_false: Self::F) -> Self::F;

    /// Of the first `LANES` sets of bits, those that have none of `bits`.
    fn lacks(self, sets: &[u32; MAX_LANES], bits: u32) -> Self::M;

    /// A bit for each byte that is not 0.
    #[inline(always)]
    fn not_zero(self, bytes: &[u8; 32]) -> u32 {
        const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
        let mut bits = 0;
        for (index, &eight) in bytes.as_chunks::<8>().0.iter().enumerate() {
            let eight = u64::from_le_bytes(eight);
            let high = (((eight & LOW) + LOW) | eight) & !LOW;
            // The product has the high bit of byte i at bit 56 + i, and no two at one bit.
            let set = (high >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56;
            bits |= (set as u32) << (8 * index);
        }
        bits
    }

    /// `t` less the integer `n` nearest to it, and what [`Isa::scale`] makes `2^n` of. `t` is less than 127.
    #[inline(always)]
    fn split(self, t: Self::F) -> (Self::F, Self::F) {
        // `max` keeps a NaN in its second operand.
        let t = self.max(self.splat(-126.0), t);
        // Adding 1.5 · 2²³ leaves the integer in the low bits of the fraction, biased as the exponent of `2^n / 2` is.
        let magic = self.splat(12_582_912.0 + 126.0);
        let biased = self.add(t, magic);
        (self.sub(t, self.sub(biased, magic)), biased)
    }

    /// `p / UNIT · 2^n` for the second part of [`Isa::split`], and 0 for the least of `t`: the low bits of `power` become the exponent of a
    /// factor, half as great as `2^n`, so that the least one is 0 and no result is subnormal. AVX-512 has an instruction, which leaves that to
    /// [`Isa::flush`].
    fn scale(self, p: Self::F, power: Self::F) -> Self::F;

    /// `power`, which is `2^t`, and 0 where [`Isa::scale`] has left it subnormal.
    #[inline(always)]
    fn flush(self, _: Self::F, power: Self::F) -> Self::F {
        power
    }

    /// Asks for a cache line ahead of its use, into the second-level cache. A hint: nothing depends on it, and the
    /// address may be any.
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}

    /// As [`prefetch`](Self::prefetch), into the nearest cache.
    #[inline(always)]
    fn prefetch_near(self, _: *const u8) {}

    /// Transposes the square of the first `LANES` vectors.
    fn transpose(self, square: &mut [Self::F; MAX_LANES]);

    /// Lane `i` of the result is the sum of the lanes of vector `i`, for `LANES` vectors: about three instructions a sum, in a
    /// fixed tree, the same for all. Overwrites the vectors.
    fn sum_each(self, vectors: &mut [Self::F]) -> Self::F;

    /// The sum of a vector's lanes, as a fixed tree.
    fn sum_lanes(self, a: Self::F) -> f32;

    /// The greatest lane; some number or NaN if a lane is NaN.
    fn max_lane(self, a: Self::F) -> f32;

    /// The first `LANES` half-precision numbers (as bits), widened; 0 if there are fewer.
    fn widen_f16(self, bits: &[u16]) -> Self::F;

    /// The first `LANES` bfloat16 numbers (as bits), widened; 0 if there are fewer.
    fn widen_bf16(self, bits: &[u16]) -> Self::F;

    /// Neighbours as pairs: the first `2 · LANES` numbers; 0 if there are fewer. Where [`PAIRS`](Self::PAIRS); elsewhere 0.
    #[inline(always)]
    fn load_pairs(self, _: &[u16]) -> Self::F {
        self.zero()
    }

    /// Writes pairs into the first `2 · LANES` of `bits`, where [`PAIRS`](Self::PAIRS).
    #[inline(always)]
    fn store_pairs(self, _: Self::F, _: &mut [u16]) {}

    /// Pairs of a lane of `low` and the same one of `high`, as [`narrow_f16`](Self::narrow_f16) narrows, where [`PAIRS`](Self::PAIRS).
    #[inline(always)]
    fn pair_f16(self, _low: Self::F, _high: Self::F) -> Self::F {
        self.zero()
    }

    /// Pairs of a lane of `low` and the same one of `high`, as [`narrow_bf16`](Self::narrow_bf16) narrows, where [`PAIRS`](Self::PAIRS); but
    /// where [`PRODUCTS_OF_PAIRS`](Self::PRODUCTS_OF_PAIRS) subnormals count as 0.
    #[inline(always)]
    fn pair_bf16(self, _low: Self::F, _high: Self::F) -> Self::F {
        self.zero()
    }

    /// Narrows into the first `LANES` of `bits`, to nearest with ties to even.
    #[inline(always)]
    fn narrow_f16(self, x: Self::F, bits: &mut [u16]) {
        narrow(self, x, bits, |x| f16::from_f32(x).to_bits());
    }

    /// Narrows into the first `LANES` of `bits`, to nearest with ties to even.
    #[inline(always)]
    fn narrow_bf16(self, x: Self::F, bits: &mut [u16]) {
        narrow(self, x, bits, |x| bf16::from_f32(x).to_bits());
    }
}

#[cfg_attr(
    not(target_feature = "sse2"),
    allow(dead_code, reason = "no level of these targets has products of bf16")
)]
/// What an instruction set with products of bf16 has beside the rest. A vector of pairs holds the bits of two bf16 in each
/// lane, the first in the low half.
pub(crate) trait Pairs: Isa {
    /// The instruction set without them, for what is not a product.
    type Plain: Isa<F = Self::F>;

    fn plain(self) -> Self::Plain;

    /// `c + a₀b₀ + a₁b₁` of pairs `a` and `b`: two multiply-adds that each round to nearest, with subnormals as 0.
    fn dot(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;

    /// As [`pair_bf16`](Isa::pair_bf16) of numbers that are not negative, but ties go away from 0. NaN may become any number.
    fn pair_weights(self, low: Self::F, high: Self::F) -> Self::F;

    /// `t - ⌊t⌋`, 0 for -∞.
    fn fraction(self, t: Self::F) -> Self::F;

    /// `p · 2^⌊power⌋`, 0 for -∞, where `p` is positive and finite.
    fn scale_down(self, p: Self::F, power: Self::F) -> Self::F;

    /// Neighbours as pairs: the lanes of `first`, then those of `second`, narrowed to nearest with ties to even.
    fn narrow_pairs(self, first: Self::F, second: Self::F) -> Self::F;

    /// Of twice as many rows as there are lanes, of 8 numbers (or more, or 0 of fewer), a vector for each column: pairs of neighbouring rows.
    fn transpose_eights<'a>(self, row: impl Fn(usize) -> &'a [u16]) -> [Self::F; 8];

    /// Pairs of a number of `low` and the same one of `high`, of the first `LANES`; 0 if there are fewer.
    fn zip_pairs(self, low: &[u16], high: &[u16]) -> Self::F;
}

/// Narrows lane by lane.
#[inline(always)]
fn narrow<S: Isa>(s: S, x: S::F, bits: &mut [u16], one: impl Fn(f32) -> u16) {
    let mut buffer = [0.0; MAX_LANES];
    if let Some(lanes) = s.vectors_mut(&mut buffer).first_mut() {
        *lanes = x;
    }
    for (to, &x) in bits.iter_mut().zip(buffer.iter().take(S::LANES)) {
        *to = one(x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn lanes<S: Isa>(s: S, x: S::F) -> Vec<f32> {
        let mut buffer = [0.0; MAX_LANES];
        s.vectors_mut(&mut buffer)[0] = x;
        buffer[..S::LANES].to_vec()
    }

    fn from<S: Isa>(s: S, lane: impl Fn(usize) -> f32) -> S::F {
        let buffer: [f32; MAX_LANES] = core::array::from_fn(lane);
        s.vectors(&buffer)[0]
    }

    /// Runs a test at every level of the machine.
    fn at_every_level(op: impl Op + Copy) {
        Level::available().for_each(|level| level.dispatch(op));
    }

    #[derive(Clone, Copy)]
    struct Shuffles;

    impl Op for Shuffles {
        fn run<S: Isa>(self, s: S) {
            let n = S::LANES;
            let mut square = [s.zero(); MAX_LANES];
            for (row, to) in square.iter_mut().enumerate().take(n) {
                *to = from(s, |lane| (row * n + lane) as f32);
            }
            let mut sums = square;
            s.transpose(&mut square);
            for (row, &x) in square.iter().enumerate().take(n) {
                let want: Vec<f32> = (0..n).map(|lane| (lane * n + row) as f32).collect();
                assert_eq!(lanes(s, x), want, "{}", S::LEVEL);
            }
            let want: Vec<f32> = (0..n).map(|row| (0..n).map(|lane| (row * n + lane) as f32).sum()).collect();
            assert_eq!(lanes(s, s.sum_each(&mut sums)), want, "{}", S::LEVEL);
        }
    }

    #[test]
    fn vectors_are_transposed_and_summed_lane_by_lane() {
        at_every_level(Shuffles);
    }

    #[derive(Clone, Copy)]
    struct Comparisons;

    impl Op for Comparisons {
        fn run<S: Isa>(self, s: S) {
            let numbers = [1.0, -1.0, 0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
            for (a, b) in numbers.iter().flat_map(|&a| numbers.map(|b| (a, b))) {
                let (x, y) = (s.splat(a), s.splat(b));
                let max = lanes(s, s.max(x, y))[0];
                let want = if b < a { a } else { b };
                assert!(max == want || max.is_nan() && want.is_nan(), "{}: max({a}, {b}) = {max}", S::LEVEL);
                let one = |mask: S::M| lanes(s, s.select(mask, s.splat(1.0), s.zero()))[0] == 1.0;
                assert_eq!(one(s.less(x, y)), a < b, "{}: {a} < {b}", S::LEVEL);
                assert_eq!(one(s.equal(x, y)), a == b, "{}: {a} = {b}", S::LEVEL);
                let signed = lanes(s, s.copy_sign(s.abs(x), y))[0];
                assert_eq!(signed.is_sign_negative(), b.is_sign_negative(), "{}: {a} {b}", S::LEVEL);
            }
        }
    }

    #[test]
    fn comparisons_are_the_same_at_every_level() {
        at_every_level(Comparisons);
    }

    #[derive(Clone, Copy)]
    struct Sets;

    impl Op for Sets {
        fn run<S: Isa>(self, s: S) {
            let sets: [u32; MAX_LANES] =
                core::array::from_fn(|lane| 0x8000_0001 << lane | 0x0001_0000 >> lane);
            for bits in (0..32).map(|bit| 1 << bit).chain([0, 3, 0xffff_0000, u32::MAX]) {
                let got = lanes(s, s.select(s.lacks(&sets, bits), s.splat(1.0), s.zero()));
                let want: Vec<f32> =
                    sets.iter().take(S::LANES).map(|set| f32::from(u8::from(set & bits == 0))).collect();
                assert_eq!(got, want, "{} {bits:#x}", S::LEVEL);
                for byte in [1, 0x7f, 0x80, 0xff] {
                    let bytes = core::array::from_fn(|i| if bits >> i & 1 == 0 { 0 } else { byte });
                    assert_eq!(s.not_zero(&bytes), bits, "{} {bits:#x} {byte:#x}", S::LEVEL);
                }
            }
        }
    }

    #[test]
    fn sets_have_the_bits_of_their_bytes_and_lack_the_others() {
        at_every_level(Sets);
    }

    #[derive(Clone, Copy)]
    struct Widening;

    impl Op for Widening {
        fn run<S: Isa>(self, s: S) {
            let step = if cfg!(miri) { 257 } else { 1 };
            for bits in (0..=u16::MAX).step_by(step) {
                let same =
                    |got: f32, want: f32| got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
                let half = lanes(s, s.widen_f16(&[bits; MAX_LANES]));
                assert!(
                    half.iter().all(|&x| same(x, f16::from_bits(bits).to_f32())),
                    "{} {bits:#x}",
                    S::LEVEL
                );
                let brain = lanes(s, s.widen_bf16(&[bits; MAX_LANES]));
                assert!(
                    brain.iter().all(|&x| same(x, bf16::from_bits(bits).to_f32())),
                    "{} {bits:#x}",
                    S::LEVEL
                );
            }
        }
    }

    #[test]
    fn every_half_is_widened_exactly() {
        at_every_level(Widening);
    }

    #[derive(Clone, Copy)]
    struct Narrowing;

    impl Op for Narrowing {
        fn run<S: Isa>(self, s: S) {
            let step = if cfg!(miri) { 257 } else { 1 };
            for bits in (0..=u16::MAX).step_by(step) {
                // What each number of 16 bits is, and what lies beside it and beside the middle to the next one.
                let (half, brain) = (f16::from_bits(bits).to_f32().to_bits(), u32::from(bits) << 16);
                for (from, middle) in [(half, 0x1000), (brain, 0x8000)] {
                    for off in [0, 1, middle - 1, middle, middle + 1] {
                        let x = f32::from_bits(from.wrapping_add(off));
                        let mut got = [0; MAX_LANES];
                        s.narrow_f16(s.splat(x), &mut got);
                        let want = f16::from_f32(x);
                        let same = |got: &u16| {
                            *got == want.to_bits() || f16::from_bits(*got).is_nan() && want.is_nan()
                        };
                        assert!(got[..S::LANES].iter().all(same), "{} f16 {x:e} {:#x}", S::LEVEL, got[0]);
                        s.narrow_bf16(s.splat(x), &mut got);
                        let want = bf16::from_f32(x);
                        let same = |got: &u16| {
                            *got == want.to_bits() || bf16::from_bits(*got).is_nan() && want.is_nan()
                        };
                        assert!(got[..S::LANES].iter().all(same), "{} bf16 {x:e} {:#x}", S::LEVEL, got[0]);
                        check_pairs(s, x, -x);
                    }
                }
            }
        }
    }

    /// Pairs of two numbers are what each is narrowed to, also once they have been stored and loaded.
    fn check_pairs<S: Isa>(s: S, low: f32, high: f32) {
        if !S::PAIRS {
            return;
        }
        type Narrow<S> = fn(S, <S as Isa>::F, &mut [u16]);
        type Pair<S> = fn(S, <S as Isa>::F, <S as Isa>::F) -> <S as Isa>::F;
        let kinds: [(Narrow<S>, Pair<S>); 2] = [(S::narrow_f16, S::pair_f16), (S::narrow_bf16, S::pair_bf16)];
        let flushes = |x: f32| S::PRODUCTS_OF_PAIRS && x.abs() < f32::MIN_POSITIVE;
        for (index, (narrow, pair)) in kinds.into_iter().enumerate() {
            let mut want = [[0; MAX_LANES]; 2];
            for (x, to) in [low, high].into_iter().zip(&mut want) {
                narrow(s, s.splat(if index == 1 && flushes(x) { 0.0 * x } else { x }), to);
            }
            let mut got = [0; 2 * MAX_LANES];
            s.store_pairs(
                s.load_pairs(&{
                    s.store_pairs(pair(s, s.splat(low), s.splat(high)), &mut got);
                    got
                }),
                &mut got,
            );
            for pair in got.as_chunks::<2>().0.iter().take(S::LANES) {
                assert_eq!(*pair, [want[0][0], want[1][0]], "{} {low:e} {high:e}", S::LEVEL);
            }
        }
    }

    struct NarrowingOfPairs;

    impl PairsOp for NarrowingOfPairs {
        fn run<S: Pairs>(self, s: S, _: Option<&Unit>) {
            for bits in (0..=u16::MAX).filter(|&bits| !bf16::from_bits(bits).is_nan()) {
                let x = bf16::from_bits(bits).to_f32();
                check_pairs(s, x, x);
                check_pairs(s, f32::from_bits(x.to_bits() | 0x8000), f32::from_bits(x.to_bits() | 0x7fff));
            }
        }
    }

    #[test]
    fn every_half_is_narrowed_to_beside_products_of_pairs() {
        Level::available().filter_map(Level::pairs).for_each(|pairs| pairs.dispatch(NarrowingOfPairs));
    }

    #[test]
    fn every_half_is_narrowed_to_and_its_neighbours_to_the_nearest() {
        at_every_level(Narrowing);
    }

    struct Eights;

    impl PairsOp for Eights {
        fn run<S: Pairs>(self, s: S, _: Option<&Unit>) {
            let rows: Vec<[u16; 9]> = (0..2 * S::LANES)
                .map(|row| core::array::from_fn(|column| (100 * row + column) as u16))
                .collect();
            let columns = s.transpose_eights(|row| if row == 5 { &rows[row][..7] } else { &rows[row] });
            for (column, vector) in columns.into_iter().enumerate() {
                for (pair, x) in lanes(s, vector).into_iter().enumerate() {
                    let number = |row: usize| if row == 5 { 0 } else { u32::from(rows[row][column]) };
                    assert_eq!(x.to_bits(), number(2 * pair) | number(2 * pair + 1) << 16, "{column} {pair}");
                }
            }
        }
    }

    #[test]
    fn eights_are_transposed() {
        Level::available().filter_map(Level::pairs).for_each(|pairs| pairs.dispatch(Eights));
    }

    struct PairedWeights;

    impl PairsOp for PairedWeights {
        fn run<S: Pairs>(self, s: S, _: Option<&Unit>) {
            for bits in 0..0x7f80u16 {
                for off in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                    let low = f32::from_bits(u32::from(bits) << 16 | off);
                    let high = f32::from_bits(u32::from(0x7f7f - bits) << 16 | (0xffff - off));
                    // To nearest, ties to greater numbers.
                    let nearest = |x: f32| (x.to_bits() + 0x8000) >> 16;
                    let pairs = lanes(s, s.pair_weights(s.splat(low), s.splat(high)));
                    let want = nearest(low) | nearest(high) << 16;
                    assert!(pairs.iter().all(|pair| pair.to_bits() == want), "{low:e} {high:e}");
                }
            }
        }
    }

    #[test]
    fn weights_are_narrowed_to_the_nearest() {
        Level::available().filter_map(Level::pairs).for_each(|pairs| pairs.dispatch(PairedWeights));
    }

    /// Where the environment variable `GQA_EXPECT_LEVELS` lists names, these are the ones that there must be.
    #[test]
    fn levels_are_those_expected() {
        if let Ok(expected) = std::env::var("GQA_EXPECT_LEVELS") {
            let found: Vec<_> = Level::available().map(Level::name).collect();
            assert_eq!(found, expected.split(',').collect::<Vec<_>>());
        }
    }

    #[test]
    fn levels_have_names_and_lanes() {
        for level in Level::available() {
            assert_eq!(Level::named(level.name()), Some(level));
            assert_eq!(std::format!("{level:>12}").trim(), level.name());
            assert!(level <= Level::detect() && [1, 4, 8, 16].contains(&level.lanes()));
        }
        assert_eq!(Level::named("none"), None);
    }
}
