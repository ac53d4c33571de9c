//! Parts of a span's pages against a byte for each byte of it.
//!
//! # Safety
//! The spans are the test's own, and their classes drop nothing.
#![allow(unsafe_code)]

use super::*;
use crate::heap::central::Config;
use crate::heap::class::ClassKey;
use crate::span::size_class::SizeClass;
use crate::span::{Counting, Layout, OwnedSpan};
use crate::tests::Random;

unsafe fn drop_nothing(_: *mut u8, _: usize) {}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Objects,
    Unswept,
    Owed,
    Free,
}

/// A span of that slot size, or of one object of so many bytes.
fn span_of(central: &Central, bytes: usize) -> OwnedSpan {
    let size_class = SizeClass::for_size(Bytes::new(bytes));
    let (layout, counting) = (Layout::NoScan, Counting::One);
    let key = ClassKey { size_class, layout, counting, drop: Some(drop_nothing), ty: None };
    let class = central.class(&key, || "test").expect("memory");
    match size_class {
        Some(_) => central.acquire_alone(class),
        None => central.acquire_large_alone(class, Bytes::new(bytes)),
    }
}

/// Gives each slot a random fate, in the tables too, and each byte of the span the fate of its
/// slot.
fn populate(span: &OwnedSpan, view: View, random: &mut Random) -> Vec<Kind> {
    let info = span.info();
    let (allocated, marked) =
        (span.span().generation().table(), span.span().generation().next().table());
    let is_unswept = span.span().generation() != view.generation && !view.retains;
    let mut bytes = vec![Kind::Free; info.pages.bytes().get()];
    for index in 0..info.slots {
        let start = info.base + Bytes::new(index * info.slot);
        let run = bits::Run { start, end: start + Bytes::new(info.slot) };
        let set = |table| bits::set_run(info, table, run);
        let kind = match random.below(5) {
            0 => Kind::Free,
            1 => {
                // With its allocation bit, or without one if the drop queue owns the span.
                set(Table::Drops);
                if random.one_in(2) {
                    set(allocated);
                }
                Kind::Owed
            }
            2 => {
                set(allocated);
                set(marked);
                Kind::Objects
            }
            _ => {
                set(allocated);
                if is_unswept { Kind::Unswept } else { Kind::Objects }
            }
        };
        bytes[index * info.slot..][..info.slot].fill(kind);
    }
    bytes
}

#[test]
fn every_part_of_a_span_is_divided_as_its_bytes_are() {
    let mut random = Random::new(0x955);
    let central = Central::new(Os::native(), Config::default()).expect("memory");
    let generation = central.generation();
    let views = [
        View { generation, retains: false },
        View { generation: generation.next(), retains: false },
        View { generation: generation.next(), retains: true },
    ];
    for bytes in [16, 24, 48, 1152, 1408, 3072, 9472, 32768, 40_000, 1 << 20] {
        for view in views {
            let span = span_of(&central, bytes);
            let (info, kinds) = (*span.info(), populate(&span, view, &mut random));
            for step in [4096, PAGE_BYTES] {
                for offset in (0..info.pages.bytes().get()).step_by(step) {
                    let part = AddrRange::at(info.base + Bytes::new(offset), Bytes::new(step));
                    let count = |kind| {
                        let bytes = kinds[offset..offset + step].iter();
                        Bytes::new(bytes.filter(|&&found| found == kind).count())
                    };
                    let expected = Parts {
                        objects: count(Kind::Objects),
                        unswept: count(Kind::Unswept),
                        owed: count(Kind::Owed),
                        free: count(Kind::Free),
                    };
                    let found = view.divide(span.span(), part);
                    assert_eq!(found, expected, "{bytes}-byte slots, {part:?}, {view:?}");
                }
            }
            central.pages().free_span(span);
        }
    }
    // SAFETY: nobody uses the heap any more.
    unsafe { central.release() };
}

#[test]
fn the_table_has_a_row_for_each_field_and_leaves_out_what_is_zero() {
    let one = Bytes::new(1 << 20);
    let rss = Rss { process: Some(one + one), free_pages: one, rest: one, ..Rss::default() };
    assert_eq!((rss.heap(), rss.sum()), (one, one + one));
    let text = rss.to_string();
    assert_eq!(text.lines().count(), 4, "{text}");
    let row = text.lines().nth(2).expect("a row");
    assert!(row.contains("free pages") && row.contains("1 MiB  50.0 %"), "{text}");
    assert!(Rss::default().to_string().contains("unknown"));
}
