//! Whatever sizes, strides, lengths and numbers a caller claims: an error and an untouched output, or a call that
//! runs; never a panic, and nothing read or written outside of the slices.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use gqa::{
    Alignment, Attention, BiasData, Element, Error, Level, MaskStrides, Shape, Stage, Strides, View, ViewMut,
    alibi_slope, bf16, f16, grouped_query_attention,
};
use libfuzzer_sys::fuzz_target;

/// Whether this part of a call is hostile. Seldom, or every call would fail at its first part.
fn hostile(u: &mut Unstructured<'_>) -> Result<bool> {
    u.ratio(1, 24)
}

/// A size: small, or near the powers of two at which products overflow.
#[derive(Clone, Copy, Debug)]
struct Size(usize);

impl Size {
    fn hostile(u: &mut Unstructured<'_>) -> Result<usize> {
        Ok(match u.int_in_range(0..=4)? {
            0 => u.arbitrary()?,
            1 => {
                let power = 1usize << u.int_in_range(0..=usize::BITS - 1)?;
                power.wrapping_add_signed(u.int_in_range(-2..=2)?)
            }
            2 => usize::MAX - u.int_in_range(0..=3)?,
            3 => isize::MAX as usize - u.int_in_range(0..=3)?,
            _ => u.int_in_range(0..=600)?,
        })
    }
}

impl<'a> Arbitrary<'a> for Size {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self(match hostile(u)? {
            true => Self::hostile(u)?,
            false if u.ratio(1, 4)? => u.int_in_range(0..=100)?,
            false => u.int_in_range(0..=9)?,
        }))
    }
}

/// A stride: any, since few calls are made with strides that are neither 0 nor contiguous.
#[derive(Clone, Copy, Debug)]
struct Stride(usize);

impl<'a> Arbitrary<'a> for Stride {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self(match u.int_in_range(0..=3)? {
            0 => Size::hostile(u)?,
            1 => u.int_in_range(0..=1000)?,
            2 => u.int_in_range(0..=40)?,
            _ => 0,
        }))
    }
}

/// A number that is valid anywhere, or any.
#[derive(Clone, Copy, Debug)]
struct Float(f32);

impl<'a> Arbitrary<'a> for Float {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        const SPECIAL: [f32; 12] = [
            0.0,
            -0.0,
            1.0,
            0.125,
            f32::MAX,
            f32::MIN,
            f32::MIN_POSITIVE,
            1e-45,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            1e-39,
        ];
        Ok(Self(match hostile(u)? {
            true if u.arbitrary()? => *u.choose(&SPECIAL)?,
            true => u.arbitrary()?,
            false => f32::from(u.int_in_range(1..=100u8)?) / 16.0,
        }))
    }
}

/// Strides as claimed, or those of a contiguous layout.
#[derive(Clone, Copy, Debug)]
enum Rows {
    Bhsd,
    Bshd,
    Any([Stride; 3]),
}

impl<'a> Arbitrary<'a> for Rows {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u.int_in_range(0..=9)? {
            0 => Self::Any(u.arbitrary()?),
            1..=3 => Self::Bshd,
            _ => Self::Bhsd,
        })
    }
}

impl Rows {
    fn strides(self, heads: usize, rows: usize, dim: usize) -> Strides {
        match self {
            Self::Bhsd => Strides::bhsd(heads, rows, dim),
            Self::Bshd => Strides::bshd(heads, rows, dim),
            Self::Any([Stride(batch), Stride(head), Stride(row)]) => Strides { batch, head, row },
        }
    }
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Axes {
    Full,
    Rows,
    Keys,
    Any([Stride; 4]),
}

impl Axes {
    fn strides(self, shape: &Shape) -> MaskStrides {
        match self {
            Self::Full => MaskStrides::full(shape.q_heads, shape.q_len, shape.kv_len),
            Self::Rows => MaskStrides::rows(shape.kv_len),
            Self::Keys => MaskStrides::keys(shape.kv_len),
            Self::Any([Stride(batch), Stride(head), Stride(row), Stride(key)]) => {
                MaskStrides { batch, head, row, key }
            }
        }
    }
}

/// A slice with one number for each head or sequence, or with some other count of them.
#[derive(Clone, Debug)]
struct Several<T> {
    numbers: Vec<T>,
    count: Option<u8>,
}

impl<'a, T: Arbitrary<'a>> Arbitrary<'a> for Several<T> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let numbers = (0..4).map(|_| u.arbitrary()).collect::<Result<_>>()?;
        Ok(Self { numbers, count: if hostile(u)? { Some(u.arbitrary()?) } else { None } })
    }
}

impl<T: Copy> Several<T> {
    fn slice<U>(&self, needed: usize, of: impl Fn(T) -> U) -> Vec<U> {
        let count = self.count.map_or(needed.min(MOST), usize::from);
        self.numbers.iter().cycle().take(count).map(|&x| of(x)).collect()
    }
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Stands {
    TopLeft,
    BottomRight,
    Near(i8),
    Offset(i64),
    First(u8),
    Last(u8),
}

impl Stands {
    fn alignment(self) -> Alignment {
        match self {
            Self::TopLeft => Alignment::TopLeft,
            Self::BottomRight => Alignment::BottomRight,
            Self::Near(offset) => Alignment::Offset(offset.into()),
            Self::Offset(offset) => Alignment::Offset(offset),
            Self::First(beyond) => Alignment::Offset(i64::MIN + i64::from(beyond)),
            Self::Last(before) => Alignment::Offset(i64::MAX - i64::from(before)),
        }
    }
}

/// The modifiers of a call.
#[derive(Clone, Debug, Arbitrary)]
struct Modifiers {
    scale: Option<Float>,
    softcap: Option<Float>,
    alibi: Option<Several<Float>>,
    sinks: Option<Several<Float>>,
    bias: Option<(u8, Axes)>,
    mask: Option<Axes>,
    stands: Stands,
    left: Option<Stride>,
    right: Option<Stride>,
    query_lengths: Option<Several<Size>>,
    key_lengths: Option<Several<Size>>,
    prefix_lengths: Option<Several<Size>>,
}

/// How long a slice is.
#[derive(Clone, Copy, Debug)]
enum Length {
    /// So many elements less than the strides ask for.
    Short(u8),
    Any(u16),
}

impl<'a> Arbitrary<'a> for Length {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match hostile(u)? {
            true if u.arbitrary()? => Self::Short(u.int_in_range(1..=3)?),
            true => Self::Any(u.int_in_range(0..=2000)?),
            false => Self::Short(0),
        })
    }
}

#[derive(Clone, Debug, Arbitrary)]
struct Case {
    batch: Size,
    q_heads: Size,
    /// Whether that is the number of a group's heads.
    multiple: u8,
    kv_heads: Size,
    q_len: Size,
    kv_len: Size,
    head_dim: Size,
    value_dim: Size,
    storage: u8,
    level: u8,
    rows: [Rows; 6],
    lengths: [Length; 8],
    numbers: [Float; 8],
    modifiers: Modifiers,
    lse: bool,
    stage: Option<u8>,
    item: Option<Size>,
    scratch: u8,
    head: Size,
}

/// Elements that a slice has at most.
const MOST: usize = 1 << 14;

/// Multiply-adds and visits that a call is run with.
const WORK: u128 = 100_000;

/// The elements from the first to the last.
fn extent(sizes: [usize; 3], strides: Strides, dim: usize) -> u128 {
    let steps = [(sizes[0], strides.batch), (sizes[1], strides.head), (sizes[2], strides.row)];
    if dim == 0 || sizes.contains(&0) {
        return 0;
    }
    steps.iter().fold(dim as u128, |last, &(size, stride)| {
        last.saturating_add((size as u128 - 1).saturating_mul(stride as u128))
    })
}

fn filled<T: Clone>(length: Length, needed: u128, fill: &[T]) -> Vec<T> {
    let count = match length {
        Length::Short(less) => needed.saturating_sub(u128::from(less)).min(MOST as u128) as usize,
        Length::Any(count) => count.into(),
    };
    fill.iter().cycle().take(count).cloned().collect()
}

trait Number: Element + PartialEq {
    fn of(x: f32) -> Self;
    fn bits(self) -> u32;
}

impl Number for f32 {
    fn of(x: f32) -> Self {
        x
    }

    fn bits(self) -> u32 {
        self.to_bits()
    }
}

macro_rules! half {
    ($($T:ident)*) => {$(
        impl Number for $T {
            fn of(x: f32) -> Self {
                $T::from_f32(x)
            }

            fn bits(self) -> u32 {
                self.to_bits().into()
            }
        }
    )*};
}

half!(f16 bf16);

impl Case {
    fn shape(&self) -> Shape {
        Shape {
            batch: self.batch.0,
            q_heads: if self.multiple % 8 == 0 {
                self.q_heads.0
            } else {
                self.q_heads.0.wrapping_mul(self.kv_heads.0)
            },
            kv_heads: self.kv_heads.0,
            q_len: self.q_len.0,
            kv_len: self.kv_len.0,
            head_dim: self.head_dim.0,
            value_dim: self.value_dim.0,
        }
    }

    fn level(&self) -> Level {
        let levels: Vec<_> = Level::available().collect();
        levels[usize::from(self.level) % levels.len()]
    }

    fn stage(&self) -> Option<Stage> {
        let stages = [Stage::Raw, Stage::Softcapped, Stage::Biased, Stage::Softmax];
        self.stage.map(|index| stages[usize::from(index) % stages.len()])
    }

    /// Whether running it ends soon.
    fn is_small(&self) -> bool {
        let shape = self.shape();
        let rows = [shape.batch, shape.q_heads, shape.q_len]
            .iter()
            .fold(1, |n: u128, &size| n.saturating_mul(size as u128));
        let per_row =
            (shape.kv_len as u128 + 1).saturating_mul(shape.head_dim as u128 + shape.value_dim as u128);
        // KV heads without query rows are visited too.
        let heads = (shape.batch as u128).saturating_mul(shape.kv_heads as u128);
        rows.saturating_mul(per_row).saturating_add(heads) <= WORK && shape.scratch_len() <= 16 * MOST
    }

    /// The whole way of a call; what it wrote must be nothing if it fails.
    fn run<Q: Number, K: Number, V: Number, O: Number>(&self) {
        let shape = self.shape();
        let Shape { batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim } = shape;
        let numbers = |offset: usize| [self.numbers[offset % 8].0, self.numbers[(offset + 3) % 8].0, 0.5];
        let strides = |index: usize, heads, rows, dim| self.rows[index].strides(heads, rows, dim);
        let queries = strides(0, q_heads, q_len, head_dim);
        let keys = strides(1, kv_heads, kv_len, head_dim);
        let values = strides(2, kv_heads, kv_len, value_dim);
        let q = filled(
            self.lengths[0],
            extent([batch, q_heads, q_len], queries, head_dim),
            &numbers(0).map(Q::of),
        );
        let k = filled(
            self.lengths[1],
            extent([batch, kv_heads, kv_len], keys, head_dim),
            &numbers(1).map(K::of),
        );
        let v = filled(
            self.lengths[2],
            extent([batch, kv_heads, kv_len], values, value_dim),
            &numbers(2).map(V::of),
        );

        let places = [batch, q_heads, q_len];
        let of = |index: usize, dim| {
            let strides = strides(index, q_heads, q_len, dim);
            (strides, extent(places, strides, dim))
        };
        let [outs, lses, scores] = [of(3, value_dim), of(4, 1), of(5, kv_len)];
        let untouched = 0.75f32;
        let mut out = filled(self.lengths[3], outs.1, &[O::of(untouched)]);
        let mut lse = filled(self.lengths[4], lses.1, &[untouched]);
        let mut matrix = filled(self.lengths[5], scores.1, &[untouched]);
        let (out_len, lse_len, matrix_len) = (out.len(), lse.len(), matrix.len());
        let operands = (View::new(&q, queries), View::new(&k, keys), View::new(&v, values));
        let outputs = (
            ViewMut::new(&mut out, outs.0),
            ViewMut::new(&mut lse, lses.0),
            ViewMut::new(&mut matrix, scores.0),
        );
        let result = self.attend(operands, outputs);
        assert_eq!((out.len(), lse.len(), matrix.len()), (out_len, lse_len, matrix_len));
        if let Err(error) = result {
            let _ = error.to_string();
            assert!(out.iter().all(|x| x.bits() == O::of(untouched).bits()), "{error} and yet it wrote");
            assert!(
                lse.iter().chain(&matrix).all(|x| x.to_bits() == untouched.to_bits()),
                "{error} and yet it wrote"
            );
        }
        if self.is_small() {
            let mut scratch = vec![f32::NAN; shape.scratch_len()];
            if let Err(error) = grouped_query_attention(&q, &k, &v, &mut out, shape, &mut scratch) {
                let _ = format!("{error} {error:?}");
            }
        }
    }

    fn attend<Q: Number, K: Number, V: Number, O: Number>(
        &self,
        (q, k, v): (View<'_, Q>, View<'_, K>, View<'_, V>),
        (out, lse, matrix): (ViewMut<'_, O>, ViewMut<'_, f32>, ViewMut<'_, f32>),
    ) -> Result<(), Error> {
        let (shape, m) = (self.shape(), &self.modifiers);
        let floats = |of: &Option<Several<Float>>| of.as_ref().map(|of| of.slice(shape.q_heads, |x| x.0));
        // Lengths that the shape allows, but for those far beyond it.
        let lengths = |of: &Option<Several<Size>>, most: usize| {
            let length = |Size(length): Size| if length > 100 { length } else { length.min(most) };
            of.as_ref().map(|of| of.slice(shape.batch, length))
        };
        let (alibi, sinks) = (floats(&m.alibi), floats(&m.sinks));
        let query_lengths = lengths(&m.query_lengths, shape.q_len);
        let (key_lengths, prefix_lengths) =
            (lengths(&m.key_lengths, shape.kv_len), lengths(&m.prefix_lengths, shape.kv_len));
        let dense = |axes: Axes| {
            let strides = axes.strides(&shape);
            let rows = Strides { batch: strides.batch, head: strides.head, row: strides.row };
            let of_keys = (shape.kv_len as u128).saturating_sub(1).saturating_mul(strides.key as u128);
            (strides, extent([shape.batch, shape.q_heads, shape.q_len], rows, 1).saturating_add(of_keys))
        };
        let bias = m.bias.map(|(storage, axes)| (storage, dense(axes)));
        let bias_numbers = filled(
            self.lengths[6],
            bias.map_or(0, |(_, (_, needed))| needed),
            &[0.5, self.numbers[6].0, f32::NEG_INFINITY],
        );
        let half: Vec<_> = bias_numbers.iter().map(|&x| f16::from_f32(x)).collect();
        let brain: Vec<_> = bias_numbers.iter().map(|&x| bf16::from_f32(x)).collect();
        let mask = m.mask.map(dense);
        let mask_values = filled(self.lengths[7], mask.map_or(0, |(_, needed)| needed), &[true, false, true]);

        let mut attention = Attention::new(shape)?.level(self.level()).align(m.stands.alignment());
        if let Some(Float(scale)) = m.scale {
            attention = attention.scale(scale);
        }
        if let Some(Float(cap)) = m.softcap {
            attention = attention.softcap(cap);
        }
        if let Some(slopes) = &alibi {
            attention = attention.alibi(slopes);
        }
        if let Some(sinks) = &sinks {
            attention = attention.sinks(sinks);
        }
        if let Some((storage, (strides, _))) = bias {
            attention = match storage % 3 {
                0 => attention.bias(BiasData::F32(&bias_numbers), strides),
                1 => attention.bias(BiasData::F16(&half), strides),
                _ => attention.bias(BiasData::Bf16(&brain), strides),
            };
        }
        if let Some((strides, _)) = mask {
            attention = attention.mask(&mask_values[..], strides);
        }
        if let Some(Stride(keys)) = m.left {
            attention = attention.left_window(keys);
        }
        if let Some(Stride(keys)) = m.right {
            attention = attention.right_window(keys);
        }
        if let Some(lengths) = &query_lengths {
            attention = attention.query_lengths(lengths);
        }
        if let Some(lengths) = &key_lengths {
            attention = attention.key_lengths(lengths);
        }
        if let Some(lengths) = &prefix_lengths {
            attention = attention.prefix_lengths(lengths);
        }

        let mut job = attention.bind(q, k, v, out)?;
        if self.lse {
            job = job.lse(lse)?;
        }
        if let Some(stage) = self.stage() {
            job = job.inspect(stage, matrix)?;
        }
        let needed = job.scratch_len();
        assert!(needed <= shape.scratch_len());
        if !self.is_small() {
            // Items are handed out all the same.
            let mut items = job.items();
            let _ = (items.len(), items.next().is_some(), items.next_back().is_some());
            if let Some(Size(at)) = self.item {
                let (first, mut second) = items.split_at(at);
                let _ = (first.len(), second.len(), second.nth(at).is_some());
            }
            return Ok(());
        }
        let mut scratch = vec![f32::NAN; needed.saturating_sub((self.scratch / 200).into())];
        match self.item {
            // The first of several items may be refused, and nothing is written by any.
            Some(Size(at)) => {
                let (first, second) = job.items().split_at(at);
                second.rev().chain(first).try_for_each(|mut item| item.run(&mut scratch))
            }
            None => job.run(&mut scratch),
        }
    }
}

fuzz_target!(|case: Case| {
    let shape = case.shape();
    let _ = (shape.group(), shape.shared_rows(), shape.visible_pairs_causal(), shape.scratch_len());
    let _ = alibi_slope(case.head.0, case.q_heads.0);
    match case.storage % 4 {
        0 => case.run::<f32, f32, f32, f32>(),
        1 => case.run::<f16, f16, f16, f16>(),
        2 => case.run::<f32, bf16, f16, f32>(),
        _ => case.run::<bf16, f32, bf16, f16>(),
    }
});
