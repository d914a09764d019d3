//! The storage types: f32, f16 and bf16, each converted to and from vectors of f32.
#![allow(
    clippy::needless_range_loop,
    reason = "loops over indices unroll early enough to leave squares in registers"
)]

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::isa::{Isa, MAX_LANES, widen_f16};
use crate::panel::{Columns, ColumnsMut, Panel};
use crate::view::View;

/// A number that Q, K, V and the output may be stored as: [`f32`], [`f16`](half::f16) or [`bf16`](half::bf16),
/// each operand its own. Arithmetic is f32 (but see [`Attention::bf16_dot`](crate::Attention::bf16_dot)): widening is exact, narrowing rounds to nearest, ties to even.
///
/// Sealed: no other type can implement it.
///
/// ```
/// use gqa::{Shape, bf16, f16, grouped_query_attention};
/// let shape = Shape { batch: 1, q_heads: 2, kv_heads: 1, q_len: 1, kv_len: 3, head_dim: 4, value_dim: 4 };
/// let (q, k, v) = ([1.0f32; 8], [f16::ONE; 12], [bf16::from_f32(0.5); 12]);
/// let mut out = [f16::ZERO; 8];
/// let mut scratch = vec![0.0; shape.scratch_len()];
/// grouped_query_attention(&q, &k, &v, &mut out, shape, &mut scratch)?;
/// assert_eq!(out, [f16::from_f32(0.5); 8]);
/// # Ok::<(), gqa::Error>(())
/// ```
pub trait Element: Storage {
    /// Rounded to nearest, ties to even: what a cache in this type keeps of a number.
    ///
    /// ```
    /// use gqa::{Element, f16};
    /// fn append<T: Element>(cache: &mut [T], row: &[f32]) {
    ///     for (to, &x) in cache.iter_mut().zip(row) {
    ///         *to = T::from_f32(x);
    ///     }
    /// }
    /// let mut cache = [f16::ZERO; 3];
    /// append(&mut cache, &[0.5, 1.0 + 2f32.powi(-12), 1e6]);
    /// assert_eq!(cache.map(Element::to_f32), [0.5, 1.0, f32::INFINITY]);
    /// ```
    #[must_use]
    fn from_f32(x: f32) -> Self {
        Self::narrow(x)
    }

    /// The same number; every one is exact.
    #[must_use]
    fn to_f32(self) -> f32 {
        self.as_f32()
    }
}
impl Element for f32 {}
impl Element for f16 {}
impl Element for bf16 {}

/// What a tile multiplies vectors by.
pub trait Factor: Copy {
    /// As f32, or the bits of a pair that the instruction for pairs takes in its place.
    fn as_f32(self) -> f32;
}

/// The first in the low half.
impl Factor for [bf16; 2] {
    #[inline(always)]
    fn as_f32(self) -> f32 {
        f32::from_bits(u32::from(self[0].to_bits()) | u32::from(self[1].to_bits()) << 16)
    }
}

/// What is done with keys and values: where they have one type by a function that isn't generic, and so is compiled
/// in this crate and not in each that calls it.
pub trait ByTypes<'a> {
    fn f32(self, k: &'a View<'a, f32>, v: &'a View<'a, f32>);
    fn f16(self, k: &'a View<'a, f16>, v: &'a View<'a, f16>);
    fn bf16(self, k: &'a View<'a, bf16>, v: &'a View<'a, bf16>);
    fn mixed<K: Storage, V: Storage>(self, k: &'a View<'a, K>, v: &'a View<'a, V>);
}

/// What is done with something of one type, in the same way by functions that aren't generic.
pub trait ByType {
    /// What it is done with.
    type Of<T: Storage>;

    fn f32(self, of: Self::Of<f32>);
    fn f16(self, of: Self::Of<f16>);
    fn bf16(self, of: Self::Of<bf16>);
}

/// What the kernels need of an [`Element`].
pub trait Storage: Factor + Send + Sync + 'static {
    /// The number 0.
    const ZERO: Self;
    /// Whether a panel must be widened before it can be read as f32.
    const WIDENS: bool;

    /// Whether instruction sets may have products of pairs of it.
    const PRODUCTS_OF_PAIRS: bool = false;

    /// Does `op` for this type.
    fn by_type<B: ByType>(of: B::Of<Self>, op: B);

    /// Does `op` for keys of this type, and values of another or the same.
    fn of_keys<'a, V: Storage>(k: &'a View<'a, Self>, v: &'a View<'a, V>, op: impl ByTypes<'a>);

    /// Does `op` for values of this type and keys of f32.
    #[inline(always)]
    fn beside_f32<'a>(k: &'a View<'a, f32>, v: &'a View<'a, Self>, op: impl ByTypes<'a>) {
        op.mixed(k, v);
    }

    /// Does `op` for values of this type and keys of f16.
    #[inline(always)]
    fn beside_f16<'a>(k: &'a View<'a, f16>, v: &'a View<'a, Self>, op: impl ByTypes<'a>) {
        op.mixed(k, v);
    }

    /// Does `op` for values of this type and keys of bf16.
    #[inline(always)]
    fn beside_bf16<'a>(k: &'a View<'a, bf16>, v: &'a View<'a, Self>, op: impl ByTypes<'a>) {
        op.mixed(k, v);
    }

    /// Rounds to nearest, ties to even.
    fn narrow(x: f32) -> Self;

    /// The first vector of `from`; zeros where it is shorter than one.
    fn load<S: Isa>(s: S, from: &[Self]) -> S::F;

    /// Pairs of neighbours, as they are stored, of the first elements of `from`; zeros where it is shorter than two vectors, or where
    /// there are no [products](Self::PRODUCTS_OF_PAIRS) of them.
    #[inline(always)]
    fn load_pairs<S: Isa>(s: S, _: &[Self]) -> S::F {
        s.zero()
    }

    /// Narrows two vectors to pairs of the same lanes; zeros for f32, and where an instruction set has no pairs.
    #[inline(always)]
    fn pair<S: Isa>(s: S, _low: S::F, _high: S::F) -> S::F {
        s.zero()
    }

    /// Writes pairs into the first elements of `to`, which has room for two vectors; nothing for f32, and where an instruction set has no pairs.
    #[inline(always)]
    fn store_pairs<S: Isa>(_: S, _pairs: S::F, _to: &mut [Self]) {}

    /// Narrows a vector into the first elements of `to`, which has room for it.
    fn store<S: Isa>(s: S, x: S::F, to: &mut [Self]);

    /// `panel` as f32: itself, or a copy in `wide`, which has `rows · cols` elements then.
    fn widen<'a, S: Isa>(s: S, panel: Panel<'a, Self>, wide: &'a mut [f32]) -> Option<Panel<'a>>;
}

/// The first elements of `from`, zeros where it is shorter than a vector.
#[inline(always)]
pub(crate) fn load_part<S: Isa, T: Storage>(s: S, from: &[T]) -> S::F {
    if from.len() >= S::LANES {
        return T::load(s, from);
    }
    let mut buffer = [T::ZERO; MAX_LANES];
    for (to, &x) in buffer.iter_mut().zip(from) {
        *to = x;
    }
    T::load(s, &buffer)
}

/// Writes as many lanes as `to` has room for.
#[inline(always)]
pub(crate) fn store_part<S: Isa, T: Storage>(s: S, x: S::F, to: &mut [T]) {
    if to.len() >= S::LANES {
        return T::store(s, x, to);
    }
    let mut buffer = [0.0; MAX_LANES];
    if let Some(lanes) = s.vectors_mut(&mut buffer).first_mut() {
        *lanes = x;
    }
    for (to, &x) in to.iter_mut().zip(buffer.iter().take(S::LANES)) {
        *to = T::narrow(x);
    }
}

/// Columns `first..` of the first `LANES` rows, a vector each; zeros past their end.
#[inline(always)]
pub(crate) fn load_square<S: Isa, T: Storage>(
    s: S,
    columns: &Columns<'_, MAX_LANES, T>,
    first: usize,
) -> [S::F; MAX_LANES] {
    let mut square = [s.zero(); MAX_LANES];
    if columns.left(first) >= S::LANES {
        for lane in 0..S::LANES {
            square[lane] = T::load(s, columns.get(lane, first, S::LANES));
        }
        return square;
    }
    // Apart, so that whole squares stay in registers.
    let mut narrow = square;
    for (lane, to) in narrow.iter_mut().enumerate().take(S::LANES) {
        *to = load_part(s, columns.get(lane, first, columns.left(first)));
    }
    narrow
}

/// Columns `first..` of the first `LANES` rows as pairs of neighbours, a vector of them each; zeros past their end.
#[inline(always)]
pub(crate) fn load_square_of_pairs<S: Isa, T: Storage>(
    s: S,
    columns: &Columns<'_, MAX_LANES, T>,
    first: usize,
) -> [S::F; MAX_LANES] {
    let mut square = [s.zero(); MAX_LANES];
    let (width, left) = (2 * S::LANES, columns.left(first));
    if left >= width {
        for lane in 0..S::LANES {
            square[lane] = T::load_pairs(s, columns.get(lane, first, width));
        }
        return square;
    }
    // Apart, as above.
    let mut narrow = square;
    for (lane, to) in narrow.iter_mut().enumerate().take(S::LANES) {
        let mut buffer = [T::ZERO; 2 * MAX_LANES];
        for (to, &x) in buffer.iter_mut().zip(columns.get(lane, first, left)) {
            *to = x;
        }
        *to = T::load_pairs(s, &buffer);
    }
    narrow
}

/// Narrows `LANES` vectors into columns `first..` of as many rows; what has no row, or lies past their end, is left out.
#[inline(always)]
pub(crate) fn store_square<S: Isa, T: Storage>(
    s: S,
    square: &[S::F; MAX_LANES],
    columns: &mut ColumnsMut<'_, MAX_LANES, T>,
    first: usize,
) {
    let whole = columns.each_row(
        S::LANES,
        first,
        S::LANES,
        #[inline(always)]
        |lane, to| T::store(s, square[lane], to),
    );
    if !whole {
        let count = columns.left(first).min(S::LANES);
        for (lane, &from) in square.iter().enumerate().take(S::LANES) {
            store_part(s, from, columns.get(lane, first, count));
        }
    }
}

/// As [`store_square`], of vectors of pairs, into twice as many columns.
#[inline(always)]
pub(crate) fn store_square_of_pairs<S: Isa, T: Storage>(
    s: S,
    square: &[S::F; MAX_LANES],
    columns: &mut ColumnsMut<'_, MAX_LANES, T>,
    first: usize,
) {
    let whole = columns.each_row(
        S::LANES,
        first,
        2 * S::LANES,
        #[inline(always)]
        |lane, to| T::store_pairs(s, square[lane], to),
    );
    if !whole {
        let count = columns.left(first).min(2 * S::LANES);
        for (lane, &from) in square.iter().enumerate().take(S::LANES) {
            let mut buffer = [T::ZERO; 2 * MAX_LANES];
            T::store_pairs(s, from, &mut buffer);
            for (to, x) in columns.get(lane, first, count).iter_mut().zip(buffer) {
                *to = x;
            }
        }
    }
}

/// Widens a row into `to`, which is as long.
#[inline(always)]
pub(crate) fn widen_row<S: Isa, T: Storage>(s: S, from: &[T], to: &mut [f32]) {
    let mut vectors = from.chunks_exact(S::LANES);
    let mut rest = to.chunks_exact_mut(S::LANES);
    for (from, to) in vectors.by_ref().zip(rest.by_ref()) {
        if let Some(to) = s.vectors_mut(to).first_mut() {
            *to = T::load(s, from);
        }
    }
    let (from, to) = (vectors.remainder(), rest.into_remainder());
    if !from.is_empty() {
        store_part(s, load_part(s, from), to);
    }
}

/// The widened copy of a panel, row after row. Compiled once for each level and type.
#[inline(never)]
fn widen_panel<'a, S: Isa, T: Storage>(s: S, panel: Panel<'_, T>, wide: &'a mut [f32]) -> Option<Panel<'a>> {
    let cols = panel.row(0).len();
    s.vectorize(
        #[inline(always)]
        || {
            for (from, to) in panel.iter().zip(wide.chunks_exact_mut(cols.max(1))) {
                widen_row(s, from, to);
            }
        },
    );
    Panel::new(wide, cols, panel.rows(), cols)
}

impl Factor for f32 {
    #[inline(always)]
    fn as_f32(self) -> f32 {
        self
    }
}

impl Storage for f32 {
    const ZERO: Self = 0.0;
    const WIDENS: bool = false;

    #[inline(always)]
    fn by_type<B: ByType>(of: B::Of<Self>, op: B) {
        op.f32(of);
    }

    #[inline(always)]
    fn of_keys<'a, V: Storage>(k: &'a View<'a, Self>, v: &'a View<'a, V>, op: impl ByTypes<'a>) {
        V::beside_f32(k, v, op);
    }

    #[inline(always)]
    fn beside_f32<'a>(k: &'a View<'a, Self>, v: &'a View<'a, Self>, op: impl ByTypes<'a>) {
        op.f32(k, v);
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn load<S: Isa>(s: S, from: &[Self]) -> S::F {
        s.vectors(from).first().copied().unwrap_or(s.zero())
    }

    #[inline(always)]
    fn store<S: Isa>(s: S, x: S::F, to: &mut [Self]) {
        if let Some(to) = s.vectors_mut(to).first_mut() {
            *to = x;
        }
    }

    #[inline(always)]
    fn widen<'a, S: Isa>(_: S, panel: Panel<'a, Self>, _: &'a mut [f32]) -> Option<Panel<'a>> {
        Some(panel)
    }
}

impl Factor for f16 {
    #[inline(always)]
    fn as_f32(self) -> f32 {
        widen_f16(self.to_bits())
    }
}

impl Storage for f16 {
    const ZERO: Self = f16::ZERO;
    const WIDENS: bool = true;

    #[inline(always)]
    fn by_type<B: ByType>(of: B::Of<Self>, op: B) {
        op.f16(of);
    }

    #[inline(always)]
    fn of_keys<'a, V: Storage>(k: &'a View<'a, Self>, v: &'a View<'a, V>, op: impl ByTypes<'a>) {
        V::beside_f16(k, v, op);
    }

    #[inline(always)]
    fn beside_f16<'a>(k: &'a View<'a, Self>, v: &'a View<'a, Self>, op: impl ByTypes<'a>) {
        op.f16(k, v);
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        f16::from_f32(x)
    }

    #[inline(always)]
    fn load<S: Isa>(s: S, from: &[Self]) -> S::F {
        s.widen_f16(from.reinterpret_cast())
    }

    #[inline(always)]
    fn pair<S: Isa>(s: S, low: S::F, high: S::F) -> S::F {
        s.pair_f16(low, high)
    }

    #[inline(always)]
    fn store_pairs<S: Isa>(s: S, pairs: S::F, to: &mut [Self]) {
        s.store_pairs(pairs, to.reinterpret_cast_mut());
    }

    #[inline(always)]
    fn store<S: Isa>(s: S, x: S::F, to: &mut [Self]) {
        s.narrow_f16(x, to.reinterpret_cast_mut());
    }

    #[inline(always)]
    fn widen<'a, S: Isa>(s: S, panel: Panel<'a, Self>, wide: &'a mut [f32]) -> Option<Panel<'a>> {
        widen_panel(s, panel, wide)
    }
}

impl Factor for bf16 {
    #[inline(always)]
    fn as_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Storage for bf16 {
    const ZERO: Self = bf16::ZERO;
    const WIDENS: bool = true;
    const PRODUCTS_OF_PAIRS: bool = true;

    #[inline(always)]
    fn by_type<B: ByType>(of: B::Of<Self>, op: B) {
        op.bf16(of);
    }

    #[inline(always)]
    fn of_keys<'a, V: Storage>(k: &'a View<'a, Self>, v: &'a View<'a, V>, op: impl ByTypes<'a>) {
        V::beside_bf16(k, v, op);
    }

    #[inline(always)]
    fn beside_bf16<'a>(k: &'a View<'a, Self>, v: &'a View<'a, Self>, op: impl ByTypes<'a>) {
        op.bf16(k, v);
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        bf16::from_f32(x)
    }

    #[inline(always)]
    fn load<S: Isa>(s: S, from: &[Self]) -> S::F {
        s.widen_bf16(from.reinterpret_cast())
    }

    #[inline(always)]
    fn load_pairs<S: Isa>(s: S, from: &[Self]) -> S::F {
        s.load_pairs(from.reinterpret_cast())
    }

    #[inline(always)]
    fn pair<S: Isa>(s: S, low: S::F, high: S::F) -> S::F {
        s.pair_bf16(low, high)
    }

    #[inline(always)]
    fn store_pairs<S: Isa>(s: S, pairs: S::F, to: &mut [Self]) {
        s.store_pairs(pairs, to.reinterpret_cast_mut());
    }

    #[inline(always)]
    fn store<S: Isa>(s: S, x: S::F, to: &mut [Self]) {
        s.narrow_bf16(x, to.reinterpret_cast_mut());
    }

    #[inline(always)]
    fn widen<'a, S: Isa>(s: S, panel: Panel<'a, Self>, wide: &'a mut [f32]) -> Option<Panel<'a>> {
        widen_panel(s, panel, wide)
    }
}
