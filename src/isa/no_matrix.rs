//! The matrix unit of targets that have none that is used here.
#![allow(dead_code, reason = "of x86 only")]

use crate::panel::Panel;

/// Proof of a unit that there isn't.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Matrix {}

impl Matrix {
    /// None.
    pub(super) fn of_machine() -> Option<Self> {
        None
    }

    /// Not called.
    pub(crate) fn multiply<'a, T: 'a, const VECS: usize>(
        self,
        _: impl Iterator<Item = (Panel<'a, T>, &'a [f32], &'a mut [f32])>,
        _: bool,
    ) {
        match self {}
    }
}
