//! [`Owed`]: the destructors that an arena owes.
//!
//! A value with a destructor lies behind a *link*, which says how to drop it and leads to the link before. So the list
//! needs no memory of its own, is in the order in which the values came to be, and is gone through from its end.
//!
//! **A panic** in a destructor is caught, the others run, those of other elements of its slice too, and the first panic
//! goes on when all is done, unless the thread is on its way out of the arena by a panic already: then one panic is
//! enough.
//!
//! # Safety
//! - D1. Each link of the list lies in a block of the arena that is not given back, and `count` values of the type that
//!   `run` was made for lie where [`value_offset`] says, initialised, which nobody drops otherwise.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::cell::Cell;
use core::ptr::NonNull;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What lies before values with a destructor.
pub(super) struct Link {
    before: Option<NonNull<Link>>,
    run: unsafe fn(NonNull<Link>),
    count: Cell<usize>,
}

/// The list of links, the newest first.
pub(super) struct Owed {
    newest: Cell<Option<NonNull<Link>>>,
}

/// How far behind its link a value lies.
#[inline]
pub(super) const fn value_offset<T>() -> usize {
    size_of::<Link>().next_multiple_of(align_of::<T>())
}

/// The layout of a link with room for `len` values behind it.
#[inline]
pub(super) fn layout_of<T>(len: usize) -> Option<Layout> {
    let values = Layout::array::<T>(len).ok()?;
    Layout::new::<Link>().extend(values).ok().map(|(layout, _)| layout.pad_to_align())
}

/// The first value behind a link.
///
/// # Safety
/// A block for `T` lies at `link`.
#[inline]
pub(super) unsafe fn values<T>(link: NonNull<Link>) -> NonNull<T> {
    // SAFETY: the caller's promise.
    unsafe { link.byte_add(value_offset::<T>()) }.cast()
}

/// Drops the values behind a link.
///
/// # Safety
/// D1, and the link is in the list no more.
unsafe fn run<T>(link: NonNull<Link>) {
    // SAFETY: D1.
    let first = unsafe { values::<T>(link) };
    // SAFETY: D1.
    let count = unsafe { link.as_ref() }.count.get();
    if count == 1 {
        // SAFETY: D1.
        unsafe { first.drop_in_place() };
    } else {
        // SAFETY: D1.
        unsafe { drop_each(first, count) };
    }
}

/// Drops values that lie one behind the other. (As a slice they would end the process if a second one panics.)
///
/// # Safety
/// There are that many values, initialised, which nobody drops otherwise.
unsafe fn drop_each<T>(first: NonNull<T>, count: usize) {
    let done = Cell::new(0);
    let panic = until_done(|| {
        while done.get() < count {
            let index = done.replace(done.get() + 1);
            // SAFETY: the caller's promise.
            let value = unsafe { first.add(index) };
            // SAFETY: as above; this one was not dropped yet.
            unsafe { value.drop_in_place() };
        }
    });
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
}

/// Calls `work` until it returns without a panic. The first panic, if there was one. Each call gets further.
fn until_done(mut work: impl FnMut()) -> Option<Box<dyn Any + Send>> {
    let mut first = None;
    while let Err(panic) = catch_unwind(AssertUnwindSafe(&mut work)) {
        match first {
            None => first = Some(panic),
            Some(_) => discard(panic),
        }
    }
    first
}

impl Owed {
    pub(super) const fn new() -> Owed {
        Owed { newest: Cell::new(None) }
    }

    /// Makes a link for values of `T`, of which there are `count`, and takes it into the list.
    ///
    /// # Safety
    /// D1.
    #[inline]
    pub(super) unsafe fn push<T>(&self, at: NonNull<Link>, count: usize) {
        let link = Link { before: self.newest.get(), run: run::<T>, count: Cell::new(count) };
        // SAFETY: D1.
        unsafe { at.write(link) };
        self.newest.set(Some(at));
    }

    /// Runs all destructors, the newest first. The first panic, if there was one.
    #[inline]
    pub(super) fn run(&mut self) -> Option<Box<dyn Any + Send>> {
        self.newest.get()?;
        self.run_all()
    }

    fn run_all(&mut self) -> Option<Box<dyn Any + Send>> {
        until_done(|| {
            while let Some(link) = self.newest.get() {
                // SAFETY: D1.
                let Link { before, run, .. } = unsafe { link.as_ref() };
                self.newest.set(*before);
                // SAFETY: D1.
                unsafe { run(link) };
            }
        })
    }
}

/// Sets the number of values behind a link that is in the list.
///
/// # Safety
/// D1, with that number.
pub(super) unsafe fn set_count(link: NonNull<Link>, count: usize) {
    // SAFETY: D1.
    unsafe { link.as_ref() }.count.set(count);
}

/// Lets go of a panic that nobody is told of any more. What it carries may panic when it is dropped.
pub(super) fn discard(panic: Box<dyn Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        core::mem::forget(another);
    }
}
