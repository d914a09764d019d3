//! The value pass of the many-rows kernel, `Oᵀ = f Oᵀ + Vᵀ P`: columns × rows, rows in lanes.
//!
//! ```text
//! for COLS columns of V at a time:             COLS × VECS accumulators
//!     acc[c][v] = factor[v] · O[c][v]
//!     for key in block:
//!         acc[c][v] += splat(V[key][c]) · P[key][v]
//! ```
//!
//! The rescaling rides on loading the accumulators. Where a hidden key's value is not finite, 0 times it would be
//! NaN: then the weights of hidden keys carry a mark (-1) and the sum is selected instead.

use crate::element::{Element, load_part};
use crate::isa::Isa;
use crate::panel::Panel;
use crate::score::block::Hiding;

/// `output[c][row] = factor[row] · output[c][row] + Σ_key values[key][c] · weights[key][row]`: `weights` is
/// `[keys][VECS]` vectors, `output` `[value_dim][VECS]`, `factor` `VECS`. Compiled once for each level.
#[inline(never)]
pub(super) fn accumulate<S: Isa, const COLS: usize, const VECS: usize>(
    s: S,
    values: Panel<'_>,
    weights: &[f32],
    factor: &[f32],
    output: &mut [f32],
    hiding: Hiding,
) {
    s.vectorize(
        #[inline(always)]
        || {
            let weights = s.vectors(weights).as_chunks::<VECS>().0;
            let Some(factor) = s.vectors(factor).first_chunk::<VECS>() else { return };
            let output = s.vectors_mut(output).as_chunks_mut::<VECS>().0;
            let pass = Pass { s, values, weights, factor, marked: hiding == Hiding::Marked };
            let (tiles, rest) = output.as_chunks_mut::<COLS>();
            let mut column = 0;
            for tile in tiles {
                pass.tile(column, tile);
                column += COLS;
            }
            let (tiles, rest) = rest.as_chunks_mut::<4>();
            for tile in tiles {
                pass.tile(column, tile);
                column += 4;
            }
            for tile in rest.as_chunks_mut::<1>().0 {
                pass.tile(column, tile);
                column += 1;
            }
        },
    );
}

struct Pass<'a, S: Isa, const VECS: usize> {
    s: S,
    values: Panel<'a>,
    weights: &'a [[S::F; VECS]],
    factor: &'a [S::F; VECS],
    marked: bool,
}

impl<S: Isa, const VECS: usize> Pass<'_, S, VECS> {
    #[inline(always)]
    fn tile<const COLS: usize>(&self, column: usize, output: &mut [[S::F; VECS]; COLS]) {
        let s = self.s;
        let Some(strips) = self.values.strips::<COLS>(column) else { return };
        let mut sums = *output;
        for sums in &mut sums {
            for (sum, &factor) in sums.iter_mut().zip(self.factor) {
                *sum = s.mul(*sum, factor);
            }
        }
        if self.marked {
            for (values, weights) in strips.zip(self.weights) {
                for (sums, &value) in sums.iter_mut().zip(values) {
                    let value = s.splat(value);
                    for (sum, &weight) in sums.iter_mut().zip(weights) {
                        let hidden = s.less(weight, s.zero());
                        *sum = s.select(hidden, *sum, s.mul_add(value, weight, *sum));
                    }
                }
            }
        } else {
            for (values, weights) in strips.zip(self.weights) {
                for (sums, &value) in sums.iter_mut().zip(values) {
                    let value = s.splat(value);
                    for (sum, &weight) in sums.iter_mut().zip(weights) {
                        *sum = s.mul_add(value, weight, *sum);
                    }
                }
            }
        }
        *output = sums;
    }
}

/// Whether no number of the panel is infinite or NaN.
#[inline(never)]
pub(super) fn is_finite<S: Isa, V: Element>(s: S, panel: Panel<'_, V>) -> bool {
    let mut finite = true;
    s.vectorize(
        #[inline(always)]
        || {
            // 0 times a finite number is 0, times any other NaN.
            let mut sum = s.zero();
            for row in panel.iter() {
                let whole = row.chunks_exact(S::LANES);
                let tail = whole.remainder();
                for from in whole {
                    sum = s.mul_add(V::load(s, from), s.zero(), sum);
                }
                if !tail.is_empty() {
                    sum = s.mul_add(load_part(s, tail), s.zero(), sum);
                }
            }
            finite = s.sum_lanes(sum) == 0.0;
        },
    );
    finite
}
