//! Records: what they say in each state, and that readers who never wait see one life only.
//!
//! # Safety
//! A record ends when nobody notes anything in its chunk.
#![allow(unsafe_code)]

use super::*;
use crate::addr::Bytes;
use crate::span::sites::memory::Memory;
use crate::sync::atomic::AtomicBool;
use crate::tests::steps;

fn chunk(base: usize, bytes: usize) -> AddrRange {
    AddrRange::at(Addr::new(base), Bytes::new(bytes))
}

fn object(start: usize, name: &'static str) -> Object {
    let (start, bytes) = (Addr::new(start), Bytes::new(16));
    Object { start, bytes, name, is_slice: false, site: Location::caller() }
}

fn record() -> &'static Record {
    Box::leak(Box::new(Record::new()))
}

#[test]
fn a_record_speaks_of_freed_chunks_only() {
    let (memory, record) = (Memory::new(), record());
    let at = |addr| record.read(Addr::new(addr));
    assert!(at(0).is_none());
    record.begin(chunk(0x2000, 0x1000));
    let value = object(0x2010, "Node");
    assert_eq!(record.note(&value, || memory.block()), Noted::Yes);
    assert!(at(0x2010).is_none(), "the arena lives");
    let site = Location::caller();
    record.bury(7, &Name::of("request"), Freed::At(site), 5, 3);
    for addr in [0x1fff, 0x3000, 0] {
        assert!(at(addr).is_none());
    }
    for (addr, expected) in [(0x2000, None), (0x201f, Some(value)), (0x2fff, None)] {
        let grave = at(addr).unwrap();
        assert_eq!((grave.arena, grave.name.text(), grave.freed), (7, "request", Freed::At(site)));
        assert_eq!((grave.nanos, grave.thread, grave.has_objects), (5, 3, true));
        assert_eq!(grave.object, expected);
    }
    // SAFETY: nobody else knows of the record.
    let mut blocks = unsafe { record.end() };
    assert!(at(0x2010).is_none());
    assert!(blocks.take().is_some_and(|block| block.following().is_none()));
    record.begin(chunk(0x2000, 0x1000));
    record.bury(8, &Name::of(""), Freed::Dropped, 6, 3);
    let grave = at(0x2010).unwrap();
    assert!(grave.object.is_none() && !grave.has_objects && grave.freed == Freed::Dropped);
}

#[test]
fn a_table_grows_until_there_is_no_room() {
    let (memory, record) = (Memory::new(), record());
    record.begin(chunk(0x10_0000, 0x10_0000));
    let count = 1000;
    for n in 0..count {
        assert_eq!(record.note(&object(0x10_0000 + 16 * n, "x"), || memory.block()), Noted::Yes);
    }
    // The block that is open takes some more.
    let mut more = 0;
    while record.note(&object(0x1f_0000 + 16 * more, "y"), || None) == Noted::Yes {
        more += 1;
    }
    assert!(more < 127);
    record.bury(1, &Name::of("n"), Freed::Unreachable, 0, 0);
    for n in 0..count {
        let grave = record.read(Addr::new(0x10_0000 + 16 * n + n % 16)).unwrap();
        assert_eq!(grave.object.unwrap().start, Addr::new(0x10_0000 + 16 * n));
    }
    assert!(record.read(Addr::new(0x1f_0000 + 16 * more)).unwrap().object.is_none());
}

#[test]
fn a_name_is_cut_between_characters() {
    assert_eq!(Name::of("").text(), "");
    assert_eq!(Name::of(&"x".repeat(40)).text(), "x".repeat(40));
    assert_eq!(Name::of(&"x".repeat(41)).text(), "x".repeat(40));
    assert_eq!(Name::of(&format!("x{}", "é".repeat(30))).text(), format!("x{}", "é".repeat(19)));
    assert_eq!(Name { bytes: [0xff; NAME_BYTES], len: 3 }.text(), "");
}

#[test]
fn threads_that_note_at_once_lose_nothing() {
    const EACH: usize = 500;
    let (memory, record) = (Memory::new(), record());
    record.begin(chunk(1 << 20, 1 << 20));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let memory = &memory;
            scope.spawn(move || {
                for n in 0..EACH {
                    let start = (1 << 20) + 16 * (4 * n + thread);
                    let noted = record.note(&object(start, "x"), || memory.block());
                    assert_eq!(noted, Noted::Yes);
                }
            });
        }
    });
    record.bury(1, &Name::of("n"), Freed::Dropped, 0, 0);
    for n in 0..4 * EACH {
        let start = Addr::new((1 << 20) + 16 * n);
        assert_eq!(record.read(start).unwrap().object.unwrap().start, start);
    }
}

/// The names of types, by the number of a life.
const KINDS: [&str; 4] = ["a", "bb", "ccc", "dddd"];

/// Lives follow each other in few records and few blocks, all over the same addresses. In each life everything follows
/// from its number, so whatever a reader sees of two lives does not fit together.
#[test]
fn readers_see_one_life() {
    let (memory, done) = (Memory::new(), AtomicBool::new(false));
    let records = [record(), record()];
    let sites = [Location::caller(), Location::caller()];
    let seen = std::thread::scope(|scope| {
        let read = || {
            let (mut seen, mut n) = (0u64, 0usize);
            while !done.load(Ordering::Relaxed) {
                n += 1;
                let addr = Addr::new((1 << 20) + n * 40 % (16 * 200));
                let Some(grave) = records[n % 2].read(addr) else { continue };
                seen += 1;
                let life = grave.arena;
                assert_eq!(grave.name.text(), format!("life {life}"));
                assert_eq!((grave.nanos, grave.thread), (life * 3, life as i32));
                assert_eq!(grave.freed, Freed::At(sites[life as usize % 2]));
                // The values of a life begin at 16 times their number, of which there are more or less.
                let index = (addr.get() - (1 << 20)) / 16;
                assert_eq!(grave.object.is_some(), index < values_of(life), "life {life}");
                if let Some(object) = grave.object {
                    assert_eq!(object.name, KINDS[life as usize % 4]);
                    assert_eq!(object.start.get(), (1 << 20) + 16 * index);
                    assert_eq!(object.is_slice, life % 3 == 0);
                }
            }
            seen
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        for life in 1..steps(3_000, 100_000) as u64 {
            let record = records[life as usize % 2];
            record.begin(chunk(1 << 20, 1 << 20));
            for n in 0..values_of(life) {
                let plain = object((1 << 20) + 16 * n, KINDS[life as usize % 4]);
                let value = Object { is_slice: life % 3 == 0, ..plain };
                record.note(&value, || memory.block());
            }
            let site = Freed::At(sites[life as usize % 2]);
            record.bury(life, &Name::of(&format!("life {life}")), site, life * 3, life as i32);
            if life % 64 == 0 {
                std::thread::yield_now();
            }
            // SAFETY: only this thread notes.
            let blocks = unsafe { record.end() };
            // Blocks come back at once, also for the other record.
            memory.give_back(memory.record().unwrap(), blocks);
        }
        done.store(true, Ordering::Relaxed);
        readers.map(|reader| reader.join().unwrap())
    });
    println!("readers have seen {seen:?} lives");
}

fn values_of(life: u64) -> usize {
    (life * 37 % 200) as usize
}
