//! The instruction sets by number.

use core::ffi::{CStr, c_char};
use core::ptr;

use attention::Level;

use crate::error::{GQA_ERROR_LEVEL, gqa_error};

/// An instruction set. Which are there depends on the machine.
pub type gqa_level = u32;
/// The fastest that the machine has.
pub const GQA_LEVEL_BEST: gqa_level = 0;
/// Plain f32 arithmetic: on every machine.
pub const GQA_LEVEL_SCALAR: gqa_level = 1;
/// AVX2 with FMA, BMI and F16C.
pub const GQA_LEVEL_AVX2: gqa_level = 2;
/// AVX-512 F, BW, CD, DQ, VL.
pub const GQA_LEVEL_AVX512: gqa_level = 3;
/// NEON.
pub const GQA_LEVEL_NEON: gqa_level = 4;
/// WebAssembly SIMD.
pub const GQA_LEVEL_SIMD128: gqa_level = 5;
/// WebAssembly relaxed SIMD.
pub const GQA_LEVEL_RELAXED_SIMD: gqa_level = 6;

/// (number, the crate's name, the same for C).
const LEVELS: [(gqa_level, &str, &CStr); 6] = [
    (GQA_LEVEL_SCALAR, "scalar", c"scalar"),
    (GQA_LEVEL_AVX2, "avx2", c"avx2"),
    (GQA_LEVEL_AVX512, "avx512", c"avx512"),
    (GQA_LEVEL_NEON, "neon", c"neon"),
    (GQA_LEVEL_SIMD128, "simd128", c"simd128"),
    (GQA_LEVEL_RELAXED_SIMD, "relaxed-simd", c"relaxed-simd"),
];

pub(crate) fn level(number: gqa_level) -> Result<Level, gqa_error> {
    if number == GQA_LEVEL_BEST {
        return Ok(Level::detect());
    }
    let known = LEVELS.iter().find(|&&(level, ..)| level == number);
    known.and_then(|(_, name, _)| Level::named(name)).ok_or(gqa_error::new(GQA_ERROR_LEVEL, c"level"))
}

/// The fastest level of this machine: what GQA_LEVEL_BEST stands for.
#[unsafe(no_mangle)]
pub extern "C" fn gqa_level_best() -> gqa_level {
    let best = Level::detect().name();
    LEVELS.iter().find(|&&(_, name, _)| name == best).map_or(GQA_LEVEL_SCALAR, |&(number, ..)| number)
}

/// Whether this machine has the level; true for GQA_LEVEL_BEST.
#[unsafe(no_mangle)]
pub extern "C" fn gqa_level_is_available(level: gqa_level) -> bool {
    self::level(level).is_ok()
}

/// The name of a level: "scalar", "avx2", "avx512", "neon", "simd128" or "relaxed-simd"; for GQA_LEVEL_BEST that of
/// the level which it stands for. NULL for other numbers. Never freed.
#[unsafe(no_mangle)]
pub extern "C" fn gqa_level_name(level: gqa_level) -> *const c_char {
    let number = if level == GQA_LEVEL_BEST { gqa_level_best() } else { level };
    LEVELS.iter().find(|(level, ..)| *level == number).map_or(ptr::null(), |(.., name)| name.as_ptr())
}
