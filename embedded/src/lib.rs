//! Decoding on a Cortex-M4F: a KV head of SmolLM2-135M with its three query heads, a token at a time, K and V in a
//! static ring. Says how far the outputs are off, and what it took: instructions, stack, scratch.
//!
//! Runs in QEMU, which takes one nanosecond for an instruction: SysTick counts 25 MHz, 40 instructions a tick.
//! Nothing here can panic, `core::fmt` included, so that CI can prove by the linked image that the library can't.
#![no_std]

use core::panic::PanicInfo;

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_semihosting::{debug, hio};
use gqa::{Attention, Element, Error, KvStorage, Level, Shape, Strides, View, ViewMut};

const TOKENS: usize = 38;
/// Slots of the ring: what a token sees.
const RING: usize = 32;
const DIM: usize = 64;
const GROUP: usize = 3;
const INSTRUCTIONS_PER_TICK: u32 = 40;

/// The greatest step.
const STEP: Shape =
    Shape { batch: 1, q_heads: GROUP, kv_heads: 1, q_len: 1, kv_len: RING, head_dim: DIM, value_dim: DIM };

/// What any step needs, in elements.
pub const SCRATCH_LEN: usize = STEP.scratch_len_at(Level::SCALAR, KvStorage::Narrow);

/// What a storage type needs here.
pub trait Number: Element {
    /// What an empty slot holds.
    const EMPTY: Self;
    /// What its K and V need.
    const STORAGE: KvStorage;
    /// Rounds.
    fn of(x: f32) -> Self;
}

impl Number for f32 {
    const EMPTY: Self = 0.0;
    const STORAGE: KvStorage = KvStorage::F32;
    fn of(x: f32) -> Self {
        x
    }
}

impl Number for gqa::f16 {
    const EMPTY: Self = Self::ZERO;
    const STORAGE: KvStorage = KvStorage::Narrow;
    fn of(x: f32) -> Self {
        Self::from_f32(x)
    }
}

/// K and V of the last tokens, each in its slot.
pub struct Ring<T> {
    k: [[T; DIM]; RING],
    v: [[T; DIM]; RING],
}

impl<T: Number> Ring<T> {
    /// Nothing in it.
    pub const fn new() -> Self {
        Self { k: [[T::EMPTY; DIM]; RING], v: [[T::EMPTY; DIM]; RING] }
    }
}

impl<T: Number> Default for Ring<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// `heads.bin`, see `heads.py`.
#[repr(C)]
struct Heads {
    q: [[[f32; DIM]; TOKENS]; GROUP],
    k: [[f32; DIM]; TOKENS],
    v: [[f32; DIM]; TOKENS],
    out: [[[f32; DIM]; TOKENS]; GROUP],
}

// SAFETY: the file holds the numbers of `Heads` in its order (or this would not compile), little-endian as the target.
static HEADS: Heads = unsafe { core::mem::transmute(*include_bytes!("../heads.bin")) };

/// One token: its queries against all that is in the ring. Order does not matter there.
#[inline(never)]
fn attend<T: Number>(
    token: usize,
    ring: &Ring<T>,
    out: &mut [f32],
    scratch: &mut [f32],
) -> Result<(), Error> {
    let shape = Shape { kv_len: (token + 1).min(RING), ..STEP };
    let q = HEADS.q.as_flattened().as_flattened().get(token * DIM..).unwrap_or_default();
    let row = Strides { batch: 0, head: TOKENS * DIM, row: 0 };
    let slots = Strides { batch: 0, head: 0, row: DIM };
    Attention::new(shape)?
        .bind(
            View::new(q, row),
            View::new(ring.k.as_flattened(), slots),
            View::new(ring.v.as_flattened(), slots),
            ViewMut::bhsd(out, GROUP, 1, DIM),
        )?
        .run(scratch)
}

/// Runs all tokens, reports, and ends the emulation: with success if the budget is kept.
pub fn run<T: Number>(ring: &mut Ring<T>, scratch: &mut [f32], mut timer: SYST, budget: &Budget) -> ! {
    let needed = STEP.scratch_len_at(Level::SCALAR, T::STORAGE);
    let scratch = scratch.get_mut(..needed).unwrap_or_default();
    timer.set_clock_source(SystClkSource::Core);
    timer.set_reload(0x00ff_ffff);
    timer.clear_current();
    timer.enable_counter();

    let mut out = [0.0f32; GROUP * DIM];
    let (mut greatest, mut ticks, mut macs, mut stack, mut refused) = (0.0f32, 0, 0, 0, false);
    for token in 0..TOKENS {
        let slot = token % RING;
        if let (Some(k), Some(v), Some(from_k), Some(from_v)) =
            (ring.k.get_mut(slot), ring.v.get_mut(slot), HEADS.k.get(token), HEADS.v.get(token))
        {
            k.iter_mut().zip(from_k).for_each(|(to, &x)| *to = T::of(x));
            v.iter_mut().zip(from_v).for_each(|(to, &x)| *to = T::of(x));
        }
        paint();
        let start = SYST::get_current();
        refused |= attend(token, ring, &mut out, scratch).is_err();
        ticks += start.wrapping_sub(SYST::get_current()) & 0x00ff_ffff;
        stack = painted_over().max(stack);
        macs += (GROUP * (token + 1).min(RING) * 2 * DIM) as u32;
        for (head, got) in HEADS.out.iter().zip(out.as_chunks::<DIM>().0) {
            for (want, got) in head.get(token).into_iter().flatten().zip(got) {
                let error = if want < got { got - want } else { want - got };
                if error > greatest || error.is_nan() {
                    greatest = error;
                }
            }
        }
    }
    let hundredths = ticks * INSTRUCTIONS_PER_TICK / (macs / 100).max(1);
    say("tokens", TOKENS as u32);
    say("greatest error, in 1e-9", (greatest * 1e9) as u32);
    say("multiply-adds", macs);
    say("instructions", ticks * INSTRUCTIONS_PER_TICK);
    say("instructions per 100 multiply-adds", hundredths);
    say("scratch, bytes", (needed * size_of::<f32>()) as u32);
    say("stack, bytes", stack);
    let kept = !refused
        && greatest <= budget.error
        && hundredths <= budget.instructions_per_100
        && stack <= budget.stack
        && needed * size_of::<f32>() <= budget.scratch;
    debug::exit(if kept { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    loop {
        cortex_m::asm::nop();
    }
}

/// What a run may come to at most.
pub struct Budget {
    /// The greatest difference to the expected outputs.
    pub error: f32,
    /// Instructions for a hundred multiply-adds.
    pub instructions_per_100: u32,
    /// Bytes of stack below the caller of the library.
    pub stack: u32,
    /// Bytes of scratch.
    pub scratch: usize,
}

const PAINT: u32 = 0xdead_beef;
/// Words below the stack pointer that are painted.
const PAINTED: usize = 2048;

/// Fills the unused stack. In its caller's frame, which the count begins at.
#[inline(always)]
fn paint() {
    let top = cortex_m::register::msp::read() as *mut u32;
    for word in 1..=PAINTED {
        // SAFETY: the stack grows down to the static variables, which are far below, and nothing lies below its pointer.
        unsafe { top.wrapping_sub(word).write_volatile(PAINT) };
    }
}

/// The bytes that have been used since.
#[inline(always)]
fn painted_over() -> u32 {
    let top = cortex_m::register::msp::read() as *const u32;
    let mut word = PAINTED;
    // SAFETY: as in `paint`.
    while word > 0 && unsafe { top.wrapping_sub(word).read_volatile() } == PAINT {
        word -= 1;
    }
    (word * size_of::<u32>()) as u32
}

/// `what: number`, on the host.
fn say(what: &str, mut number: u32) {
    let mut text = [b'\n'; 11];
    let mut first = 10;
    for (at, digit) in text.iter_mut().enumerate().rev().skip(1) {
        (*digit, first) = (b'0' + (number % 10) as u8, at);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    if let Ok(mut host) = hio::hstdout() {
        for part in [what.as_bytes(), b": ", text.get(first..).unwrap_or_default()] {
            // A host that does not listen misses nothing but the text.
            let _ = host.write_all(part);
        }
    }
}

/// Never linked: nothing panics.
#[panic_handler]
fn stop(_: &PanicInfo<'_>) -> ! {
    loop {
        cortex_m::asm::nop();
    }
}
