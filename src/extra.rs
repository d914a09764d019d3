//! What a call may ask for beside plain attention, and a small build leaves out: an `Option` in builds with the feature,
//! always none without it, in no space. There the compiler drops what would have used it.

macro_rules! optional {
    ($name:ident, $feature:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name<T>(
            #[cfg(feature = $feature)] Option<T>,
            #[cfg(not(feature = $feature))] core::marker::PhantomData<T>,
        );

        impl<T> $name<T> {
            #[cfg(feature = $feature)]
            pub(crate) const NONE: Self = Self(None);
            #[cfg(not(feature = $feature))]
            pub(crate) const NONE: Self = Self(core::marker::PhantomData);

            #[cfg(feature = $feature)]
            pub(crate) fn some(value: T) -> Self {
                Self(Some(value))
            }

            #[inline(always)]
            pub(crate) fn get(&self) -> Option<&T> {
                #[cfg(feature = $feature)]
                return self.0.as_ref();
                #[cfg(not(feature = $feature))]
                None
            }
        }

        impl<T> Default for $name<T> {
            fn default() -> Self {
                Self::NONE
            }
        }
    };
}

optional!(Extra, "modifiers", "A modifier of the scores, or an output beside the output.");
optional!(Limit, "limits", "A limit of what rows see.");

impl<T> Extra<T> {
    #[inline(always)]
    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        #[cfg(feature = "modifiers")]
        return self.0.as_mut();
        #[cfg(not(feature = "modifiers"))]
        None
    }

    #[inline(always)]
    #[cfg_attr(not(feature = "modifiers"), expect(unused_variables, reason = "there is nothing to map"))]
    pub(crate) fn map<'a, U>(&'a self, f: impl FnOnce(&'a T) -> U) -> Extra<U> {
        #[cfg(feature = "modifiers")]
        return Extra(self.0.as_ref().map(f));
        #[cfg(not(feature = "modifiers"))]
        Extra::NONE
    }

    #[inline(always)]
    pub(crate) fn is_some(&self) -> bool {
        self.get().is_some()
    }

    #[inline(always)]
    pub(crate) fn is_none(&self) -> bool {
        self.get().is_none()
    }
}
