//! The sizes that shapes are made of, and a grid of them that covers each with random company.

use gqa::Shape;

use super::buffer::LAYOUTS;
use super::call::{Operands, random_operands};
use super::levels;
use super::modifiers::Modifiers;
use super::number::{Number, Visit};
use super::rng::Rng;

const DIMS: [[usize; 2]; 11] = [
    [1, 1],
    [3, 3],
    [33, 33],
    [64, 64],
    [80, 80],
    [96, 96],
    [112, 112],
    [128, 128],
    [256, 256],
    [576, 512],
    [33, 80],
];
const GROUPS: [usize; 7] = [1, 2, 3, 5, 7, 8, 16];
const Q_LENS: [usize; 8] = [1, 2, 3, 5, 16, 17, 33, 75];
const KV_LENS: [usize; 12] = [0, 1, 2, 15, 16, 17, 63, 64, 65, 113, 512, 1025];

/// Multiply-adds that a case may take: the sizes beside those that it is about shrink to that.
const WORK: usize = 4_000_000;

/// A random shape of the grid in which size number `axis` is the one of number `index`.
pub fn cell(axis: usize, index: usize, rng: &mut Rng) -> Shape {
    let mut of =
        [rng.below(DIMS.len()), rng.below(GROUPS.len()), rng.below(Q_LENS.len()), rng.below(KV_LENS.len())];
    of[axis] = index;
    loop {
        let [head_dim, value_dim] = DIMS[of[0]];
        let (kv_heads, batch) = (1 + rng.below(3), 1 + rng.below(3));
        let (q_heads, q_len, kv_len) = (kv_heads * GROUPS[of[1]], Q_LENS[of[2]], KV_LENS[of[3]]);
        if batch * q_heads * q_len * kv_len * (head_dim + value_dim) <= WORK {
            return Shape { batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim };
        }
        let other = rng.below(4);
        if other != axis {
            of[other] = rng.below(of[other] + 1);
        }
    }
}

/// Every value of each axis, `repeats` times, with random company.
pub fn grid(repeats: usize, rng: &mut Rng) -> Vec<Shape> {
    let lengths = [DIMS.len(), GROUPS.len(), Q_LENS.len(), KV_LENS.len()];
    let axes = lengths
        .into_iter()
        .enumerate()
        .flat_map(|(axis, length)| (0..length).map(move |index| (axis, index)));
    axes.flat_map(|(axis, index)| (0..repeats).map(move |_| (axis, index)))
        .map(|(axis, index)| cell(axis, index, rng))
        .collect()
}

/// One shape in any storage and layouts, at every level.
pub struct Case<'a> {
    pub shape: Shape,
    pub rng: &'a mut Rng,
    /// The greatest part of the bound that was used.
    pub worst: &'a mut f64,
}

impl Visit for Case<'_> {
    fn visit<Q: Number, K: Number, V: Number, O: Number>(self) {
        let Self { shape, rng, worst } = self;
        let layouts = [rng.pick(&LAYOUTS), rng.pick(&LAYOUTS), rng.pick(&LAYOUTS)];
        let modifiers = if rng.once_in(2) { Modifiers::causal() } else { Modifiers::default() };
        let operands = Operands::<Q, K, V>::new(&shape, layouts, &random_operands(&shape, rng));
        let expected = operands.expected(&shape, &modifiers);
        for level in levels() {
            let mut call = operands.call(&shape, &modifiers, level);
            call.layout = rng.pick(&LAYOUTS);
            let what =
                (shape, [Q::NAME, K::NAME, V::NAME, O::NAME], layouts, call.layout, modifiers.right, level);
            *worst = worst.max(expected.check(&call.run::<O>(), None, &what));
        }
    }
}
