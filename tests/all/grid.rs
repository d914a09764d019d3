//! Plain and causal attention over a grid of odd sizes, in every layout, at every level: each number within the
//! written bound of the reference.

use gqa::{Level, Shape, Strides, View, bf16, f16};

use crate::support::{
    self, Case, Expected, Layout, Modifiers, Number, Operands, Rng, grid, levels, random_operands, times,
    visit_pairs,
};

#[test]
fn every_size() {
    let (mut rng, mut worst) = (Rng(1), 0.0);
    for (index, shape) in grid(times(20), &mut rng).into_iter().enumerate() {
        visit_pairs(index, Case { shape, rng: &mut rng, worst: &mut worst });
    }
    println!("greatest error in parts of the bound: {worst:.3}");
    // The bound holds for any numbers; random ones, whose roundings differ in size, stay far below it.
    assert!(worst <= 0.4, "{worst} of the bound");
}

/// A latent cache: V is the first `value_dim` columns of K's rows, in the same memory.
fn latent<T: Number>(level: Level, shape: Shape) {
    let mut rng = Rng(3);
    let modifiers = Modifiers::causal();
    let [q, k, _] = random_operands(&shape, &mut rng);
    let operands =
        Operands::<T, T, T>::new(&shape, [Layout::Bshd, Layout::Gaps, Layout::Bhsd], &[q, k, Vec::new()]);
    let [q, k, _] = operands.numbers();
    let v = k.chunks_exact(shape.head_dim).flat_map(|row| row[..shape.value_dim].to_vec()).collect();
    let mut call = operands.call(&shape, &modifiers, level);
    call.v = call.k;
    let expected = Expected::new(&shape, &modifiers, &[q, k, v]);
    expected.check(&call.run::<T>(), None, &(shape, T::NAME, level));
}

#[test]
fn values_in_the_rows_of_keys() {
    for level in levels() {
        for (q_heads, q_len) in [(1, 1), (16, 1), (5, 7)] {
            let shape =
                Shape { batch: 2, q_heads, kv_heads: 1, q_len, kv_len: 67, head_dim: 576, value_dim: 512 };
            latent::<f32>(level, shape);
            latent::<f16>(level, shape);
            latent::<bf16>(level, shape);
        }
    }
}

/// Q, K and V of each token beside each other in one slice: `[batch, token, q_heads + 2 kv_heads, dim]`.
fn packed<T: Number>(level: Level) {
    let shape = support::shape(2, [6, 2], [19, 19], 20);
    let (row, mut rng) = (10 * 20, Rng(4));
    let data: Vec<T> = rng.normals(2 * 19 * row).into_iter().map(T::of).collect();
    let strides = Strides { batch: 19 * row, head: 20, row };
    let numbers = [(0, 6), (6, 2), (8, 2)].map(|(first, heads)| {
        let mut buffer = support::Buffer::filled(Layout::Bhsd, [2, heads, 19], 20, T::NAN);
        (buffer.data, buffer.offset, buffer.strides) = (data.clone(), 20 * first, strides);
        buffer.numbers()
    });
    let modifiers = Modifiers::causal();
    let views = [0, 6, 8].map(|first| View::new(&data[20 * first..], strides));
    let operands = Operands::<T, T, T>::random(&shape, &mut rng);
    let mut call = operands.call(&shape, &modifiers, level);
    [call.q, call.k, call.v] = views;
    Expected::new(&shape, &modifiers, &numbers).check(&call.run::<T>(), None, &(T::NAME, level));
}

#[test]
fn packed_tokens() {
    for level in levels() {
        packed::<f32>(level);
        packed::<f16>(level);
        packed::<bf16>(level);
    }
}

/// One KV head, and one query row, repeated by stride 0.
#[test]
fn repeated_operands() {
    let (shape, modifiers) = (support::shape(2, [4, 2], [5, 40], 9), Modifiers::default());
    let [q, k, v] = random_operands(&support::shape(2, [1, 1], [1, 40], 9), &mut Rng(5));
    let repeat = |numbers: &[f64], count: usize, length: usize| -> Vec<f64> {
        numbers.chunks(length).flat_map(|part| part.repeat(count)).collect()
    };
    let numbers = [repeat(&q, 4 * 5, 9), repeat(&k, 2, 40 * 9), repeat(&v, 2, 40 * 9)];
    let operands = Operands::<f32, f32, f32>::new(&shape, [Layout::Bhsd; 3], &numbers);
    let once: [Vec<f32>; 3] = [q, k, v].map(|numbers| numbers.into_iter().map(f32::of).collect());
    for level in levels() {
        let mut call = operands.call(&shape, &modifiers, level);
        let whole = call.run::<f32>().bits();
        call.q = View::new(&once[0], Strides { batch: 9, head: 0, row: 0 });
        [call.k, call.v] = [1, 2].map(|i| View::new(&once[i], Strides { batch: 40 * 9, head: 0, row: 9 }));
        assert_eq!(call.run::<f32>().bits(), whole, "{level}");
    }
}
