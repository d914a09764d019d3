//! How rows are cut into work items, and which kernel computes them.

use super::memory::MATRIX_ROWS;
use super::{FEW_TOGETHER, SINGLE_TILE, Tile, div_rem, div_up};
use crate::isa::{Level, STRIP};
use crate::shape::Shape;

/// How the rows that share a KV head are cut into work items: first whole groups, `groups` of them to an item; then, of what is
/// left, vectors with a smaller tile; then few rows. A vector with empty lanes costs as much as a full one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cuts {
    item_rows: usize,
    /// Rows of items of `item_rows`; the last may have fewer.
    pub(super) wide: usize,
    /// Rows of the item after these, if not 0.
    narrow: usize,
    /// Rows of the last item, if not 0, of the few-rows kernel.
    few: usize,
}

impl Cuts {
    /// Items of so many groups at most.
    pub(crate) const fn of(rows: usize, groups: usize, level: Level, products: Products) -> Self {
        let tile = Tile::of(level);
        let item_rows = tile.group_rows() * groups;
        if SINGLE_TILE {
            return Self { item_rows, wide: rows, narrow: 0, few: 0 };
        }
        let (_, rest) = div_rem(rows, tile.group_rows());
        let few = if let Kernel::Few = Kernel::of(rest, rows, level, products) {
            rest
        } else {
            let (_, past) = div_rem(rest, tile.lanes);
            // A vector of such products takes 33 to 40 µs, where 4 few rows take 26 and 5 take 37.
            let most = match products {
                Products::Pairs | Products::Tiles if FEW_TOGETHER < tile.tail_rows() => FEW_TOGETHER,
                _ => tile.tail_rows(),
            };
            if past <= most { past } else { 0 }
        };
        let rest = rest - few;
        let narrow = if tile.vecs_for(rest) < tile.vecs { rest } else { 0 };
        Self { item_rows, wide: rows - few - narrow, narrow, few }
    }

    /// The number of items.
    pub(crate) const fn count(&self) -> usize {
        div_up(self.wide, self.item_rows) + (self.narrow > 0) as usize + (self.few > 0) as usize
    }

    /// The first row of an item, and the number of its rows.
    pub(crate) fn item(&self, index: usize) -> (usize, usize) {
        let Self { item_rows, wide, narrow, few } = *self;
        let first = index * item_rows;
        if SINGLE_TILE || first < wide {
            (first, item_rows.min(wide - first))
        } else if narrow > 0 && first - wide < item_rows {
            (wide, narrow)
        } else {
            (wide + narrow, few)
        }
    }
}

/// How keys and values are multiplied, as far as kernels are chosen by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Products {
    /// In f32.
    Single,
    /// Pairs of bf16, of many rows.
    Pairs,
    /// Pairs of bf16 by a matrix unit, also of few rows.
    Tiles,
}

impl Products {
    pub(crate) const ALL: [Self; 3] = [Self::Single, Self::Pairs, Self::Tiles];

    /// Of pairs, with a matrix unit or without: few rows take values in whole strips.
    pub(crate) const fn of_pairs(shape: &Shape, matrix: bool) -> Self {
        let strips = shape.value_dim >= STRIP && shape.value_dim.is_multiple_of(MATRIX_ROWS);
        if matrix && strips { Self::Tiles } else { Self::Pairs }
    }

    /// Few rows at most. 16 in f32 take 79 µs for 1,024 keys, where a vector with pairs takes 62; by the unit 13 to 16 take 0.55 of such a
    /// vector's time there.
    const fn most_few(self) -> usize {
        match self {
            Self::Single => usize::MAX,
            Self::Pairs => 12,
            Self::Tiles => MATRIX_ROWS,
        }
    }
}

/// Which of the two kernels computes the rows that share a KV head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// Rows lie in lanes.
    Many,
    /// The head dimension lies in lanes, or in the rows of a matrix unit's tiles.
    Few,
}

impl Kernel {
    /// For a work item of so many rows, of all that share a KV head. Without vectors 1 to 3 rows past others stay with their
    /// kernel: compilers find vectors in it, so 4 of its rows take half the time of 3 few.
    pub(crate) const fn of(rows: usize, all: usize, level: Level, products: Products) -> Self {
        let tile = Tile::of(level);
        let rows = if tile.lanes == 1 { all } else { rows };
        let most = products.most_few();
        let few = rows <= tile.rest_rows && rows <= most || all <= tile.few_rows && all <= most;
        if !SINGLE_TILE && few { Self::Few } else { Self::Many }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::LEVELS;
    use crate::tiling::KvStorage;
    use crate::tiling::memory::{self, sum};

    /// Items take every row once, in order, by the kernel that they were cut for, and the call's scratch is enough for each.
    #[test]
    fn cuts() {
        for (level, products) in
            LEVELS.iter().flat_map(|&level| Products::ALL.map(|products| (level, products)))
        {
            let tile = Tile::of(level);
            let all_groups = tile.least_groups()..=tile.groups;
            for (rows, groups) in (0..300)
                .step_by(if cfg!(miri) { 17 } else { 1 })
                .flat_map(|rows| all_groups.clone().map(move |groups| (rows, groups)))
            {
                let cuts = Cuts::of(rows, groups, level, products);
                let mut next = 0;
                for (first, count) in (0..cuts.count()).map(|index| cuts.item(index)) {
                    assert!(first == next && count > 0, "{level} {rows}: {cuts:?}");
                    next += count;
                    let few = cuts.few > 0 && next == rows;
                    assert_eq!(
                        Kernel::of(count, rows, level, products) == Kernel::Few,
                        few,
                        "{level} {rows}: {cuts:?}"
                    );
                    for dim in [1, 7, 64, 256, 576] {
                        let shape = |q_len| Shape {
                            batch: 1,
                            q_heads: 1,
                            kv_heads: 1,
                            q_len,
                            kv_len: 1,
                            head_dim: dim,
                            value_dim: dim,
                        };
                        let needed = if few {
                            sum(&memory::few(&shape(rows), level, count).lens())
                        } else {
                            let blocks = KvStorage::Narrow
                                .blocks(products != Products::Single && tile.lanes == MATRIX_ROWS);
                            sum(&memory::many(&shape(count), level, blocks, tile.vecs_for(count)).lens())
                        };
                        let shape = shape(rows);
                        assert!(needed + level.lanes() - 1 <= shape.scratch_len_at(level, KvStorage::Narrow));
                    }
                }
                assert_eq!(next, rows, "{level}: {cuts:?}");
                assert!(SINGLE_TILE || cuts.count() <= rows / (tile.group_rows() * groups) + 3);
            }
        }
    }
}
