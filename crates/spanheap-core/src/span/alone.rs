//! What a thread is at when it runs code of the user's that may not use a heap.
//!
//! A trace function is called in the midst of marking, on the collector's thread, and on a mutator's between
//! taking a container's lock and giving it out. A hook of the collector is called while everybody may wait for the
//! collector. If such code entered a closure, collected or waited for the heap in any other way, it could wait for
//! itself; if it allocated, it would do so where no one expects it. It is forbidden, and found out: a flag of
//! the thread says that it is on, and the doors of the heap look at it.
//!
//! A destructor, or a cleanup, may do all that. The flag says that one runs, because an arena that is freed there has
//! waited for a cycle ([`is_in_destructor`]).
//!
//! The flag is one byte, has no destructor, and so can be asked at any time in the life of a thread.

use core::cell::Cell;

/// What a thread is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Busy {
    /// Code of the program.
    No,
    /// A trace function.
    Trace,
    /// A hook, on the collector's thread.
    Hook,
    /// A destructor of a dead value, or a cleanup: it may use heaps.
    Destructor,
}

thread_local! {
    static BUSY: Cell<Busy> = const { Cell::new(Busy::No) };
}

/// Says that the thread is at something, for as long as it lives; nests.
#[must_use = "it is over when the value is dropped"]
#[derive(Debug)]
pub struct Alone {
    before: Busy,
}

impl Alone {
    /// From here on.
    #[inline]
    pub fn begin(with: Busy) -> Alone {
        Alone { before: BUSY.replace(with) }
    }
}

impl Drop for Alone {
    #[inline]
    fn drop(&mut self) {
        BUSY.set(self.before);
    }
}

/// # Panics
/// When the thread is in code that may not use a heap. `action` is what it wanted to do.
#[inline]
#[track_caller]
pub fn assert_free(action: &'static str) {
    match BUSY.get() {
        Busy::No | Busy::Destructor => {}
        busy => refuse(busy, action),
    }
}

/// Whether the thread runs code of the program's that may do anything.
#[inline]
pub fn is_free() -> bool {
    BUSY.get() == Busy::No
}

/// Whether the thread runs a destructor of a dead value of a heap, or a cleanup.
#[inline]
pub fn is_in_destructor() -> bool {
    BUSY.get() == Busy::Destructor
}

#[cold]
#[track_caller]
fn refuse(busy: Busy, action: &'static str) -> ! {
    let who = match busy {
        Busy::Hook => "a hook on the collector's thread",
        _ => "a trace function",
    };
    panic!("{who} may not {action}: it is called while the collector is at work")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn what_is_forbidden_ends_with_the_value_also_by_a_panic() {
        assert_free("do anything");
        let caught = catch_unwind(|| {
            let _trace = Alone::begin(Busy::Trace);
            {
                let _hook = Alone::begin(Busy::Hook);
                assert!(catch_unwind(|| assert_free("enter")).is_err());
            }
            assert_free("enter a heap");
        });
        assert!(!is_in_destructor());
        {
            let _destructor = Alone::begin(Busy::Destructor);
            assert_free("do anything");
            assert!(is_in_destructor());
        }
        assert!(!is_in_destructor());
        let message = *caught.unwrap_err().downcast::<String>().unwrap();
        assert!(message.starts_with("a trace function may not enter a heap"), "{message}");
        assert_free("do anything");
    }
}
