//! An [`Error`] as words that the page reads; `js/error.js` gives it the crate's message.

use core::ptr;

use gqa::Error;

/// All fields are 32 bits wide. `operand` counts in the order of [`gqa::Operand`].
#[repr(C)]
pub(crate) struct Failure {
    kind: u32,
    operand: u32,
    index: usize,
    needed: usize,
    had: usize,
    /// The number that was outside its domain.
    number: f32,
    /// The domain, as UTF-8.
    domain: *const u8,
    domain_len: usize,
}

impl Failure {
    pub(crate) const NONE: Self = Self {
        kind: 0,
        operand: 0,
        index: 0,
        needed: 0,
        had: 0,
        number: 0.0,
        domain: ptr::null(),
        domain_len: 0,
    };
}

#[cfg(not(feature = "modifiers"))]
impl Failure {
    /// What was asked for is in other modules.
    pub(crate) fn missing(operand: gqa::Operand) -> Self {
        Self { kind: 9, operand: operand as u32, ..Self::NONE }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let of = |kind, operand: gqa::Operand| Self { kind, operand: operand as u32, ..Self::NONE };
        match error {
            Error::Zero { operand } => of(1, operand),
            Error::HeadsNotDivisible { q_heads, kv_heads } => {
                Self { needed: q_heads, had: kv_heads, ..of(2, gqa::Operand::KvHeads) }
            }
            Error::Overflow { operand } => of(3, operand),
            Error::TooShort { operand, needed, had } => Self { needed, had, ..of(4, operand) },
            Error::WrongCount { operand, needed, had } => Self { needed, had, ..of(5, operand) },
            Error::TooLong { operand, index, needed, had } => Self { index, needed, had, ..of(6, operand) },
            Error::Overlap { operand, needed, had } => Self { needed, had, ..of(7, operand) },
            Error::Domain { operand, index, needed, had } => Self {
                index,
                number: had,
                domain: needed.as_ptr(),
                domain_len: needed.len(),
                ..of(8, operand)
            },
            _ => Self::NONE,
        }
    }
}
