//! The matrix unit of x86-64 (AMX-TILE and AMX-BF16; Intel SDM, volume 2: LDTILECFG, TDPBF16PS), which multiplies tiles of
//! pairs of bf16: up to 16 rows of 64 bytes, eight of them. On Linux, which lends its registers to processes that ask
//! (Documentation/arch/x86/xstate.rst).
#![allow(unsafe_code, reason = "instructions that have no stable intrinsics")]
#![allow(unused_unsafe, reason = "whether CPUID needs it depends on the Rust version")]

mod few;

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::cell::Cell;
use core::sync::atomic::{AtomicU8, Ordering};

pub(crate) use few::STRIP;

use super::x86::saved_by_system;
use crate::panel::Panel;

/// Proof that this machine has the unit, and that this process may use it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix(());

/// Rows of a tile.
const ROWS: usize = 16;
/// Numbers of f32, or pairs of bf16, in a row of a tile.
const LANES: usize = 16;

/// `sums = a · b` for one row of tiles, a tile of `b` and of sums for each triple of their registers and the byte at which their rows begin.
macro_rules! products {
    ($operands:expr, $($sums:literal $b:literal $at:literal),+) => {{
        let Operands { a, a_row, b, sums, row, steps, fresh } = $operands;
        asm!(
            "test {fresh:e}, {fresh:e}",
            "jz 3f",
            $(concat!("tilezero tmm", $sums),)+
            "jmp 2f",
            "3:",
            $(concat!("tileloadd tmm", $sums, ", [{sums} + {row} + ", $at, "]"),)+
            "2:",
            "tileloadd tmm3, [{a} + {a_row}]",
            $(
                concat!("tileloadd tmm", $b, ", [{b} + {row} + ", $at, "]"),
                concat!("tdpbf16ps tmm", $sums, ", tmm3, tmm", $b),
            )+
            "add {a}, 64",
            "add {b}, {b_step}",
            "dec {steps}",
            "jnz 2b",
            $(concat!("tilestored [{sums} + {row} + ", $at, "], tmm", $sums),)+
            a = inout(reg) a => _,
            a_row = in(reg) a_row,
            b = inout(reg) b => _,
            b_step = in(reg) row * ROWS,
            sums = in(reg) sums,
            row = in(reg) row,
            steps = inout(reg) steps => _,
            fresh = in(reg) u32::from(fresh),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
            options(nostack),
        );
    }};
}

/// What [`products!`] takes: where things lie, and the bytes of their rows.
struct Operands<T> {
    a: *const T,
    a_row: usize,
    b: *const f32,
    sums: *mut f32,
    /// Of `b` and `sums`.
    row: usize,
    /// Tiles of a row of `a`, at least 1.
    steps: usize,
    fresh: bool,
}

/// What the tiles are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SetUp {
    /// Nothing.
    Released,
    /// For [`Unit::multiply`]: sums and `a`, tiles 0 to 3, of so many rows; tiles of `b` after them.
    Many { rows: u8 },
    /// For the products of few rows: 0 and 1, scores and queries, have so many numbers in a row; 2 is whole, of keys or of values; 3, weights,
    /// and those after it, sums, have so many rows.
    Few { rows: u8, columns: u8 },
}

/// What LDTILECFG reads: bytes of a row, and rows, of each tile.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl Config {
    /// None for what is released.
    fn of(set_up: SetUp) -> Option<Self> {
        const WHOLE: [u8; 2] = [ROWS as u8, LANES as u8];
        let tile = |tile: usize| match (set_up, tile) {
            (SetUp::Many { rows }, 0..4) => [rows, WHOLE[1]],
            (SetUp::Many { .. }, 4..7) => WHOLE,
            (SetUp::Few { columns, .. }, 0..2) => [WHOLE[0], columns],
            (SetUp::Few { .. }, 2) => WHOLE,
            (SetUp::Few { rows, .. }, 3..8) => [rows, WHOLE[1]],
            _ => [0, 0],
        };
        let bytes = |[_, columns]: [u8; 2]| u16::from(columns) * size_of::<f32>() as u16;
        (set_up != SetUp::Released).then(|| Self {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            bytes: core::array::from_fn(|index| bytes(tile(index))),
            rows: core::array::from_fn(|index| tile(index)[0]),
        })
    }
}

impl Matrix {
    /// Asked once, since the system is asked for the registers, too: for this process, and the threads that it has and will have.
    pub(super) fn of_machine() -> Option<Self> {
        const UNKNOWN: u8 = 0;
        const ABSENT: u8 = 1;
        const PRESENT: u8 = 2;
        static FOUND: AtomicU8 = AtomicU8::new(UNKNOWN);
        let mut found = FOUND.load(Ordering::Relaxed);
        if found == UNKNOWN {
            found = if is_there() && is_lent() { PRESENT } else { ABSENT };
            FOUND.store(found, Ordering::Relaxed);
        }
        (found == PRESENT).then_some(Self(()))
    }

    /// The thread's unit, which nobody else may have in use meanwhile; beside AVX-512 alone.
    pub(super) fn unit(self) -> Unit {
        Unit { set_up: Cell::new(SetUp::Released) }
    }
}

/// The unit of this thread, in use: proof that there is one. To set it up takes some 250 cycles, and so is done when it must be; it is released
/// in the end.
pub(crate) struct Unit {
    set_up: Cell<SetUp>,
}

impl Drop for Unit {
    fn drop(&mut self) {
        if self.set_up.get() != SetUp::Released {
            // SAFETY: it has been set up, which proves the unit.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }
}

impl Unit {
    /// Afterwards the tiles are these.
    #[inline(always)]
    fn set_up(&self, set_up: SetUp) {
        if self.set_up.get() == set_up {
            return;
        }
        if let Some(config) = Config::of(set_up) {
            // SAFETY: `self` proves the unit. Nobody else has anything in its registers: compilers don't use them by
            // themselves, and nothing stays in them from one product to the next.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly)) };
            self.set_up.set(set_up);
        }
    }

    /// `c[i][j] = Σ_p a[i][p] · b[p][j]`, to which `c` as it was is added unless it is `fresh`; `a` has whole multiples of 16 columns
    /// of pairs, `b` as many rows of `16 · VECS` of them, and `c` as many rows of `16 · VECS` numbers as `a`. Of 16 pairs the
    /// products of first and of second numbers are summed in order, each rounded once to nearest; then both sums; then
    /// that is added to `c`. Subnormals count as 0. Nothing where an operand is too short.
    #[inline(never)]
    pub(crate) fn multiply<T, const VECS: usize>(
        &self,
        a: Panel<'_, T>,
        b: &[f32],
        c: &mut [f32],
        fresh: bool,
    ) {
        const { assert!(size_of::<T>() == size_of::<f32>() && VECS >= 1 && VECS <= 3) }
        let (row, steps) = (VECS * LANES, a.row(0).len() / LANES);
        if steps == 0 || b.len() < steps * LANES * row || c.len() < a.rows() * row {
            return;
        }
        for (first, c) in (0..a.rows()).step_by(ROWS).zip(c.chunks_mut(ROWS * row)) {
            let rows = (a.rows() - first).min(ROWS) as u8;
            self.set_up(SetUp::Many { rows });
            let operands = Operands {
                a: a.row(first).as_ptr(),
                a_row: row_bytes(&a),
                b: b.as_ptr(),
                sums: c.as_mut_ptr(),
                row: row * size_of::<f32>(),
                steps,
                fresh,
            };
            // SAFETY: as above, and it is set up. There are `rows` rows of `a`, `a_row` bytes apart, and `steps` tiles in each; so many
            // tiles in `b`, one after the other, and `rows` rows of sums, as has been checked; all of 4-byte numbers of which all
            // bits mean something.
            unsafe {
                match VECS {
                    1 => products!(operands, 0 4 0),
                    2 => products!(operands, 0 4 0, 1 5 64),
                    _ => products!(operands, 0 4 0, 1 5 64, 2 6 128),
                }
            }
        }
    }
}

/// Bytes from one row to the next.
#[inline(always)]
fn row_bytes<T>(panel: &Panel<'_, T>) -> usize {
    panel.row(1).as_ptr().addr().wrapping_sub(panel.row(0).as_ptr().addr())
}

/// Whether there is the unit, with tiles as they are used here, and whether the system saves its registers.
fn is_there() -> bool {
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    const EXTENDED_FEATURES: u32 = 7;
    const TILE_REGISTERS: u64 = 3 << 17;
    const TILES: u32 = 0x1d;
    // SAFETY: every x86-64 has CPUID; the other leaves are asked for where they exist.
    let (features, palette) = unsafe {
        if __cpuid(0).eax < TILES {
            return false;
        }
        (__cpuid_count(EXTENDED_FEATURES, 0).edx, __cpuid_count(TILES, 1))
    };
    features & (AMX_BF16 | AMX_TILE) == AMX_BF16 | AMX_TILE
        && saved_by_system() & TILE_REGISTERS == TILE_REGISTERS
        // Of palette 1: eight tiles of 64 bytes in a row, 16 rows.
        && (palette.ebx, palette.ecx & 0xffff) == (0x0008_0040, 16)
}

/// Asks Linux for the registers.
fn is_lent() -> bool {
    const ARCH_PRCTL: isize = 158;
    const REQUEST_PERMISSION: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: the call reads and writes no memory of the process, and keeps all registers but these.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") result,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

// An interpreter has no CPUID.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use half::bf16;
    use std::vec::Vec;

    /// Small whole numbers, whose products and sums are exact.
    pub(super) fn number(index: usize) -> f32 {
        (index * 7 % 19) as f32 - 9.0
    }

    fn check<const VECS: usize>(matrix: Matrix, rows: usize, steps: usize, gap: usize, fresh: bool) {
        let (row, pairs) = (16 * VECS, 16 * steps);
        let pair = |index| [number(index), number(3 * index + 1)].map(bf16::from_f32);
        let bits = |[low, high]: [bf16; 2]| {
            f32::from_bits(u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16)
        };
        let a: Vec<_> = (0..rows * (pairs + gap)).map(pair).collect();
        let b: Vec<_> = (0..pairs * row).map(|index| bits(pair(index + 5))).collect();
        let before: Vec<_> = (0..rows * row + 3).map(number).collect();
        let mut c = before.clone();
        let panel = Panel::new(&a, pairs + gap, rows, pairs).unwrap();
        matrix.unit().multiply::<_, VECS>(panel, &b, &mut c, fresh);
        for (i, j) in (0..rows).flat_map(|i| (0..row).map(move |j| (i, j))) {
            let product = |p: usize| {
                let (a, b) = (a[i * (pairs + gap) + p], pair(p * row + j + 5));
                a[0].to_f32() * b[0].to_f32() + a[1].to_f32() * b[1].to_f32()
            };
            let start = if fresh { 0.0 } else { before[i * row + j] };
            let want = start + (0..pairs).map(product).sum::<f32>();
            assert_eq!(c[i * row + j], want, "{rows} × {steps} × {VECS}: {i} {j}");
        }
        assert_eq!(c[rows * row..], before[rows * row..]);
    }

    #[test]
    fn tiles_are_products() {
        let Some(matrix) = Matrix::of_machine() else { return };
        for rows in [1, 15, 16, 17, 32, 40] {
            for (steps, gap, fresh) in [(1, 0, true), (1, 3, false), (2, 0, false), (4, 1, true)] {
                check::<1>(matrix, rows, steps, gap, fresh);
                check::<2>(matrix, rows, steps, gap, fresh);
                check::<3>(matrix, rows, steps, gap, fresh);
            }
        }
    }

    #[test]
    fn operands_that_are_too_short_are_left_alone() {
        let Some(matrix) = Matrix::of_machine() else { return };
        let (a, b, mut c) = ([1.0f32; 64], [1.0; 16 * 16], [7.0; 64]);
        let mut same = |rows, cols, b: &[f32], elements| {
            let panel = Panel::new(&a, 16, rows, cols).unwrap();
            matrix.unit().multiply::<_, 1>(panel, b, &mut c[..elements], true);
            assert_eq!(c, [7.0; 64]);
        };
        same(2, 15, &b, 64);
        same(2, 16, &b[1..], 64);
        same(2, 16, &b, 31);
    }
}
