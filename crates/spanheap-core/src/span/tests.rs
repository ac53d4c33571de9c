//! Span records: what a record says over its life; and records for the tests of lists and sets.
//!
//! # Safety
//! The records are zeroed memory of the test, and outlive the lists that they are in.
#![allow(unsafe_code)]

use super::*;

/// Records for `n` spans. Span i has i + 1 pages, and its class is i.
pub(super) struct Records(Vec<UnsafeCell<MaybeUninit<Span>>>);

// SAFETY: a record is reached through the rights that `make` gives and the pointers of `at`, which are to
// be used like those of a heap.
unsafe impl Sync for Records {}

impl Records {
    pub(super) fn new(n: usize) -> Records {
        Records((0..n).map(|_| UnsafeCell::new(MaybeUninit::zeroed())).collect())
    }

    /// A pointer to record `index`, whatever it describes.
    pub(super) fn at(&self, index: usize) -> NonNull<Span> {
        NonNull::new(self.0[index].get().cast()).expect("not null")
    }

    /// A span, which the caller of this must not own yet.
    pub(super) fn make(&self, index: usize, generation: Generation) -> OwnedSpan {
        let info = Info {
            base: Addr::new(0) + PageCount::new(index + 1),
            pages: PageCount::new(index + 1),
            slot: 16,
            slots: 512,
            element: 0,
            size_class: Some(SizeClass::SMALLEST),
            class: index as u32,
            layout: Layout::NoScan,
            counting: Counting::One,
            drop: None,
            type_name: || "test",
            ty: None,
        };
        // SAFETY: the record is ours, and describes nothing.
        unsafe { Span::init(self.at(index), info, generation, info.range().end()) }
    }
}

#[test]
fn a_record_keeps_its_generation_until_it_describes_another_span() {
    let records = Records::new(1);
    let mut span = records.make(0, Generation::new(6));
    assert!(span.span().is_in_use());
    span.set_generation(Generation::new(7));
    let raw = span.into_raw();
    // SAFETY: `into_raw` gave it up just now.
    let span = unsafe { OwnedSpan::from_raw(raw) };
    assert_eq!(span.span().generation(), Generation::new(7));
    let raw = span.retire();
    // SAFETY: the record still lies in the test's memory.
    let record = unsafe { raw.as_ref() };
    assert!(!record.is_in_use());
    assert_eq!(record.generation(), Generation::new(7));
    let span = records.make(0, Generation::new(9));
    assert!(span.span().is_in_use());
    assert_eq!(span.span().generation(), Generation::new(9));
}

#[test]
fn generations_are_ordered_across_the_end_of_their_numbers() {
    for number in [0, 1, 77, u32::MAX - 1, u32::MAX] {
        let g = Generation::new(number);
        assert!(g.next().is_after(g) && !g.is_after(g.next()) && !g.is_after(g));
        assert_ne!(g.table(), g.next().table());
        let far = Generation::new(number.wrapping_add((1 << 31) - 1));
        assert!(far.is_after(g) && !g.is_after(far));
    }
}

#[test]
fn a_counted_slice_says_its_length_in_the_last_word_of_its_slot() {
    let records = Records::new(1);
    let span = records.make(0, Generation::FIRST);
    let mut slot = [7usize, 8, 9, 5];
    let object = Addr::of(slot.as_mut_ptr());
    let info = Info { slot: 32, counting: Counting::Trailer, ..*span.info() };
    // SAFETY: the slot is an array of the test, four words long.
    assert_eq!(unsafe { info.count(object) }, 5);
    let info = Info { counting: Counting::One, ..info };
    // SAFETY: as above.
    assert_eq!(unsafe { info.count(object) }, 1);
    assert_eq!(info.limit(), info.base + Bytes::new(32 * 512));
}
