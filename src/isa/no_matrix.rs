//! The matrix unit of targets that have none that is used here.
#![allow(dead_code, reason = "of x86 only")]

use crate::panel::Panel;

use half::bf16;

/// Proof of a unit that there isn't.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Matrix {}

/// Columns of values that are summed together.
pub(crate) const STRIP: usize = 64;

impl Matrix {
    /// None.
    pub(super) fn of_machine() -> Option<Self> {
        None
    }

    /// Not called.
    pub(super) fn unit(self) -> Unit {
        match self {}
    }
}

/// The unit that there isn't; nothing of it is called.
pub(crate) enum Unit {}

impl Unit {
    pub(crate) fn multiply<T, const VECS: usize>(&self, _: Panel<'_, T>, _: &[f32], _: &mut [f32], _: bool) {
        match *self {}
    }

    pub(crate) fn score<T>(&self, _: (usize, usize), _: Panel<'_, T>, _: &[f32], _: &mut [f32]) {
        match *self {}
    }

    pub(crate) fn weigh(&self, _: usize, _: Panel<'_>, _: Panel<'_, bf16>, _: &mut [[f32; STRIP]], _: usize) {
        match *self {}
    }
}
