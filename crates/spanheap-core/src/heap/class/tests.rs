//! Classes by themselves: finding and making them. Their sets of spans have tests of their own.
//!
//! # Safety
//! Persistent memory is released when the last class has been looked at.
#![allow(unsafe_code)]

use super::*;
use crate::addr::{Addr, Bytes};
use crate::span::Tracer;

unsafe fn trace_a(_: *const u8, _: usize, _: &mut Tracer<'_>) {}
unsafe fn trace_b(object: *const u8, _: usize, tracer: &mut Tracer<'_>) {
    // SAFETY: never called; the body only makes this function differ from `trace_a`.
    unsafe { tracer.edge(Addr::of(object)) };
}
unsafe fn drop_a(_: *mut u8, _: usize) {}
unsafe fn drop_b(object: *mut u8, _: usize) {
    // SAFETY: never called; the body only makes this function differ from `drop_a`.
    unsafe { object.write(1) };
}

fn key(size: usize, layout: Layout, counting: Counting, drop: Option<DropFn>) -> ClassKey {
    ClassKey { size_class: SizeClass::for_size(Bytes::new(size)), layout, counting, drop, ty: None }
}

/// Keys that differ from each other in one component or several.
fn keys() -> Vec<ClassKey> {
    let layouts = [
        Layout::NoScan,
        Layout::Words { mask: 1, period: 0 },
        Layout::Words { mask: 1, period: 2 },
        Layout::Words { mask: 2, period: 0 },
        Layout::Traced(trace_a),
        Layout::Traced(trace_b),
    ];
    let mut keys = Vec::new();
    for size in [16, 24, 4096, 40_000] {
        for layout in layouts {
            for counting in [Counting::One, Counting::Trailer] {
                for drop in [None, Some(drop_a as DropFn), Some(drop_b as DropFn)] {
                    keys.push(key(size, layout, counting, drop));
                }
            }
        }
    }
    keys
}

#[test]
fn every_key_has_one_class_and_every_class_one_number() {
    let (os, memory) = (Os::native(), Persistent::new());
    let table = ClassTable::new(2);
    let keys = keys();
    let mut made = Vec::new();
    for round in 0..3 {
        for (index, key) in keys.iter().enumerate() {
            let class = table.find_or_make(key, || "test", &os, &memory).expect("memory");
            assert_eq!(class.index() as usize, index);
            assert!(class.key().is(key));
            match round {
                0 => made.push(class),
                _ => assert!(ptr::eq(class, made[index])),
            }
        }
    }
    let numbers: Vec<_> = table.iter().map(Class::index).collect();
    assert_eq!(numbers, (0..keys.len() as u32).rev().collect::<Vec<_>>());
    // SAFETY: no class is used after this.
    unsafe { memory.release(&os) };
}

#[test]
fn threads_that_ask_for_the_same_key_get_the_same_class() {
    let (os, memory) = (Os::native(), Persistent::new());
    let table = ClassTable::new(2);
    let keys = keys();
    let ask = || {
        let classes = keys.iter().map(|key| table.find_or_make(key, || "test", &os, &memory));
        classes.map(|class| class.expect("memory").index()).collect::<Vec<_>>()
    };
    let (a, b) = std::thread::scope(|scope| {
        let other = scope.spawn(ask);
        (ask(), other.join().unwrap())
    });
    assert_eq!(a, b);
    assert_eq!(table.iter().count(), keys.len());
    // SAFETY: as above.
    unsafe { memory.release(&os) };
}

#[test]
fn a_class_that_was_refused_can_be_made_later() {
    let sim = crate::os::SimOs::builder().fail_call(1).build();
    let (os, memory) = (Os::simulated(sim.clone()), Persistent::new());
    let table = ClassTable::new(2);
    let key = key(16, Layout::NoScan, Counting::One, None);
    assert!(table.find_or_make(&key, || "test", &os, &memory).is_err());
    assert_eq!(table.iter().count(), 0);
    let class = table.find_or_make(&key, || "test", &os, &memory).expect("only one refusal");
    assert_eq!(class.index(), 0);
    // SAFETY: as above.
    unsafe { memory.release(&os) };
    sim.assert_all_released();
}
