//! Shapes, layouts and descriptions of types, of many sizes.
//!
//! # Safety
//! The trace and drop functions do nothing, and nobody calls them.
#![allow(unsafe_code)]

use super::*;

#[test]
fn fields_add_up_to_a_mask() {
    let shape =
        Shape::NoScan.with(0, Shape::NoScan).with(8, Shape::Words(1)).with(16, Shape::Words(0b101));
    assert_eq!(shape, Shape::Words(0b10110));
    assert_eq!(shape.with(40, Shape::Opaque), Shape::Opaque);
}

#[test]
fn a_pointer_behind_the_64th_word_is_opaque() {
    assert_eq!(Shape::NoScan.with(63 * 8, Shape::Words(1)), Shape::Words(1 << 63));
    assert_eq!(Shape::NoScan.with(64 * 8, Shape::Words(1)), Shape::Opaque);
    assert_eq!(Shape::NoScan.with(63 * 8, Shape::Words(2)), Shape::Opaque);
    assert_eq!(Shape::NoScan.with(12, Shape::Words(1)), Shape::Opaque);
    assert_eq!(Shape::NoScan.with(8 << 32, Shape::Words(1)), Shape::Opaque);
}

#[test]
fn arrays_repeat_the_shape_of_their_elements() {
    assert_eq!(Shape::Words(1).array(8, 4), Shape::Words(0b1111));
    assert_eq!(Shape::Words(0b10).array(16, 3), Shape::Words(0b101010));
    assert_eq!(Shape::Words(1).array(8, 65), Shape::Opaque);
    assert_eq!(Shape::NoScan.array(8, 10_000_000), Shape::NoScan);
}

#[test]
fn a_variant_with_a_pointer_makes_an_enum_opaque() {
    assert_eq!(Shape::NoScan.maybe(Shape::NoScan), Shape::NoScan);
    assert_eq!(Shape::NoScan.maybe(Shape::Words(1)), Shape::Opaque);
}

unsafe fn trace_nothing(_: *const u8, _: usize, _: &mut crate::span::Tracer<'_>) {}

unsafe fn drop_nothing(_: *mut u8, _: usize) {}

fn describe(size: usize, align: usize, shape: Shape, drops: bool) -> TypeInfo {
    let drop = drops.then_some(drop_nothing as DropFn);
    TypeInfo::new(|| "test", size, align, shape, trace_nothing, drop)
}

#[test]
fn each_small_shape_has_a_place_of_its_own_in_the_flat_table() {
    let mut places = std::collections::BTreeMap::new();
    for words in [2usize, 3, 4, 6, 8] {
        for mask in 0..1u64 << words {
            let info = describe(words * WORD_BYTES, 8, Shape::Words(mask), false);
            let flat = usize::from(info.flat);
            assert!(flat != 0 && flat < FLAT_SHAPES, "{words} words, mask {mask:#b}");
            assert_eq!(places.insert(flat, (words, mask)), None, "{words}, {mask:#b}");
        }
        let noscan = describe(words * WORD_BYTES, 8, Shape::NoScan, false);
        assert_eq!(places.get(&usize::from(noscan.flat)), Some(&(words, 0)));
    }
    assert_eq!(places.len(), 4 + 8 + 16 + 64 + 256);
}

#[test]
fn types_that_share_a_place_share_slot_size_and_pointers() {
    let mut places = std::collections::BTreeMap::new();
    for size in 0..=80 {
        for align in [1usize, 2, 4, 8, 16, 32, 64, 128].into_iter().filter(|a| size % a == 0) {
            for mask in 0..1u64 << (size / WORD_BYTES).min(8) {
                let shape = if mask == 0 { Shape::NoScan } else { Shape::Words(mask) };
                if mask != 0 && align < 8 {
                    continue;
                }
                let info = describe(size, align, shape, false);
                let class = info.size_class.expect("small");
                assert!(class.size().get() >= size && class.size().get() % align == 0);
                if info.flat != 0 {
                    let shared = (class, mask);
                    assert_eq!(*places.entry(info.flat).or_insert(shared), shared);
                    assert!(class.size().get() <= 64);
                } else {
                    assert!(class.size().get() > 64, "{size} bytes aligned to {align}");
                }
            }
        }
    }
}

#[test]
fn what_has_to_be_dropped_or_traced_has_no_place_in_the_flat_table() {
    for size in (8..200).step_by(8) {
        assert_eq!(describe(size, 8, Shape::Opaque, false).flat, 0);
        assert_eq!(describe(size, 8, Shape::Words(1), true).flat, 0);
        assert_eq!(describe(size, 8, Shape::NoScan, true).flat, 0);
    }
    let large = describe(40_000, 8, Shape::Words(1), false);
    assert_eq!((large.flat, large.size_class), (0, None));
    let wide = describe(64, 16384, Shape::NoScan, false);
    assert_eq!((wide.flat, wide.size_class), (0, None));
}

#[test]
fn a_slice_repeats_the_mask_or_counts_its_values() {
    for words in 1..=64usize {
        let shape = Shape::Words(1 << (words - 1));
        let mask = 1 << (words - 1);
        let info = describe(words * WORD_BYTES, 8, shape, false);
        assert_eq!(info.layout(), Layout::Words { mask, period: 0 });
        assert_eq!(info.slice_layout(), Layout::Words { mask, period: words as u32 });
        assert_eq!(info.slice_counting(), Counting::One);
        let drops = describe(words * WORD_BYTES, 8, shape, true);
        assert_eq!(drops.slice_layout(), info.slice_layout());
        assert_eq!(drops.slice_counting(), Counting::Trailer);
    }
    let plain = describe(13, 1, Shape::NoScan, false);
    assert_eq!((plain.layout(), plain.slice_layout()), (Layout::NoScan, Layout::NoScan));
    assert_eq!(plain.slice_counting(), Counting::One);
    let dropping = describe(13, 1, Shape::NoScan, true);
    assert_eq!(
        (dropping.slice_layout(), dropping.slice_counting()),
        (Layout::NoScan, Counting::Trailer)
    );
    for drops in [false, true] {
        let opaque = describe(24, 8, Shape::Opaque, drops);
        assert_eq!(opaque.layout(), Layout::Traced(trace_nothing));
        assert_eq!(opaque.slice_layout(), Layout::Traced(trace_nothing));
        assert_eq!(opaque.slice_counting(), Counting::Trailer);
    }
}

#[test]
fn equal_layouts_have_equal_hashes_and_others_differ() {
    let layouts = [
        Layout::NoScan,
        Layout::Words { mask: 1, period: 0 },
        Layout::Words { mask: 1, period: 1 },
        Layout::Words { mask: 2, period: 0 },
        Layout::Words { mask: 1 << 32, period: 0 },
        Layout::Traced(trace_nothing),
    ];
    for (i, a) in layouts.iter().enumerate() {
        for (j, b) in layouts.iter().enumerate() {
            assert_eq!(a == b, i == j, "{a:?} and {b:?}");
            assert!(a != b || a.hash() == b.hash());
        }
    }
}
