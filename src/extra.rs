//! [`Extra`]: what a call may ask for beside plain attention, and a small build leaves out.

#[cfg(not(feature = "modifiers"))]
use core::marker::PhantomData;

/// An `Option` in builds with the feature `modifiers`; always none without it, in no space: the compiler drops what would
/// have used it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extra<T>(
    #[cfg(feature = "modifiers")] Option<T>,
    #[cfg(not(feature = "modifiers"))] PhantomData<T>,
);

#[cfg(feature = "modifiers")]
impl<T> Extra<T> {
    pub(crate) const NONE: Self = Self(None);

    pub(crate) fn some(value: T) -> Self {
        Self(Some(value))
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()
    }

    #[inline(always)]
    pub(crate) fn map<'a, U>(&'a self, f: impl FnOnce(&'a T) -> U) -> Extra<U> {
        Extra(self.get().map(f))
    }
}

#[cfg(not(feature = "modifiers"))]
impl<T> Extra<T> {
    pub(crate) const NONE: Self = Self(PhantomData);

    #[inline(always)]
    pub(crate) fn get(&self) -> Option<&T> {
        None
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        None
    }

    #[inline(always)]
    pub(crate) fn map<'a, U>(&'a self, _: impl FnOnce(&'a T) -> U) -> Extra<U> {
        Extra::NONE
    }
}

impl<T> Extra<T> {
    #[inline(always)]
    pub(crate) fn is_some(&self) -> bool {
        self.get().is_some()
    }

    #[inline(always)]
    pub(crate) fn is_none(&self) -> bool {
        self.get().is_none()
    }
}
