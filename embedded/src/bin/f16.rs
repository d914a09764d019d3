//! Decoding with K and V in f16.
#![no_std]
#![no_main]

use gqa_embedded::{Budget, Ring, SCRATCH_LEN, run};

#[cortex_m_rt::entry]
fn main() -> ! {
    static mut RING: Ring<gqa::f16> = Ring::new();
    static mut SCRATCH: [f32; SCRATCH_LEN] = [0.0; SCRATCH_LEN];
    // What it comes to, rounded up: it may only fall.
    let budget = Budget { error: 1e-3, instructions_per_100: 425, stack: 312, scratch: 2560 };
    match cortex_m::Peripherals::take() {
        Some(peripherals) => run(RING, SCRATCH, peripherals.SYST, &budget),
        None => loop {
            cortex_m::asm::nop();
        },
    }
}
