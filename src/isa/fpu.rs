//! What a floating-point unit may do in one instruction, where Rust has no name for it without `std`.
//!
//! The units of Cortex-M cores (FPv4-SP and later) take roots and convert half precision. Of the bare targets with
//! `eabihf` they are the ones without 64-bit atomics: nothing else tells a stable compiler.
//!
//! A product and a sum are `vmla.f32` there, which rounds both, unless the compiler is told of a core where that is slow
//! (`-C target-cpu=cortex-m4`: the same 3 cycles as one after the other, in two instructions). `vfma.f32` is out of
//! reach: its operands would have to be in registers that stable Rust has no class of on this target.

#[cfg(all(target_arch = "arm", target_os = "none", target_abi = "eabihf", not(target_has_atomic = "64")))]
mod unit {
    #![allow(unsafe_code, reason = "instructions that have no intrinsic")]

    use core::arch::asm;

    /// The square root.
    #[inline(always)]
    pub(crate) fn sqrt(x: f32) -> f32 {
        let mut bits = x.to_bits();
        // SAFETY: as in `widen_f16`.
        unsafe {
            asm!("vmov s0, {bits}", "vsqrt.f32 s0, s0", "vmov {bits}, s0", bits = inout(reg) bits, out("s0") _,
                options(pure, nomem, nostack, preserves_flags));
        }
        f32::from_bits(bits)
    }

    /// A half-precision number, widened.
    #[inline(always)]
    pub(crate) fn widen_f16(bits: u16) -> f32 {
        let mut bits = u32::from(bits);
        // SAFETY: instructions on registers alone, which every unit has that this is compiled for.
        unsafe {
            // Stable Rust has no class of floating-point registers on this target, only their names.
            asm!("vmov s0, {bits}", "vcvtb.f32.f16 s0, s0", "vmov {bits}, s0", bits = inout(reg) bits,
                out("s0") _, options(pure, nomem, nostack, preserves_flags));
        }
        f32::from_bits(bits)
    }
}

#[cfg(not(all(
    target_arch = "arm",
    target_os = "none",
    target_abi = "eabihf",
    not(target_has_atomic = "64")
)))]
mod unit {
    /// The square root.
    #[inline(always)]
    pub(crate) fn sqrt(x: f32) -> f32 {
        libm::sqrtf(x)
    }

    /// A half-precision number, widened.
    #[inline(always)]
    pub(crate) fn widen_f16(bits: u16) -> f32 {
        let bits = u32::from(bits);
        // The exponent is rebiased from 15 to 127 by a multiplication, which also normalises subnormals.
        let scaled = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
        let infinity = if scaled > 65504.0 { 0x7f80_0000 } else { 0 };
        f32::from_bits(scaled.to_bits() | infinity | (bits & 0x8000) << 16)
    }
}

pub(crate) use unit::{sqrt, widen_f16};
