//! Objects without pointers, which are marked where they are found.
//!
//! # Safety
//! As in the file above.
#![allow(unsafe_code)]

use super::*;

static LEAF: TypeInfo = ty(128, Shape::NoScan, None);
static SMALL: TypeInfo = ty(16, Shape::NoScan, None);

/// An array of pointers to so many objects of `leaf`, and the objects.
fn array_of(world: &mut World, leaf: &'static TypeInfo, count: usize) -> (Addr, Vec<Addr>) {
    let leaves: Vec<_> = (0..count).map(|_| world.make(leaf, 0).0).collect();
    let (array, bytes) = world.make(&LINK, count);
    for word in 0..bytes / WORD_BYTES {
        let target = leaves.get(word).map_or(0, |leaf| leaf.get());
        // SAFETY: the word lies in the array.
        unsafe { word_of(array, word).write(target) };
    }
    (array, leaves)
}

#[test]
fn pages_of_large_leaves_are_not_visited_and_those_of_small_ones_are() {
    const COUNT: usize = 8000;
    // What it takes without visits, and with one at least for each page.
    for (leaf, least) in [(&LEAF, 0), (&SMALL, COUNT * SMALL.size / 8192)] {
        let mut world = World::new();
        let (array, leaves) = array_of(&mut world, leaf, COUNT);
        world.cache.give_back_all(&world.central, world.tint());
        let crew = crew_of(&world, 2048);
        let mut marker = marker_of(&world, &crew, 2048);
        marker.mark(array);
        assert!(marker.drain());
        let work = marker.tally().work as usize;
        let counted = end(&world, &crew, marker.tally());
        let (marks, bytes) = world.marks();
        assert_eq!(marks, leaves.into_iter().chain([array]).collect());
        assert_eq!((counted.objects, counted.bytes.get()), (marks.len() as u64, bytes));
        assert!(marks.is_subset(&world.set_in(|_| Table::Scanned).0));
        // The array is read by pieces, of which each is a visit; a leaf counts for a pointer.
        let pieces = (COUNT * WORD_BYTES).div_ceil(16 << 10);
        let effort = if least == 0 { COUNT * 8 } else { 0 };
        let read = (COUNT * WORD_BYTES).next_multiple_of(8192) + effort;
        let visits = (work - read) / 64;
        assert!((least..least + pieces + 8 + least / 8).contains(&visits), "{visits} visits");
        world.release();
    }
}

/// What overwrites a pointer hands the object over, and others may find it by another edge before that, and after.
#[test]
fn a_leaf_is_counted_once_by_whatever_way_it_is_found() {
    const COUNT: usize = 200;
    for order in 0..4 {
        let mut world = World::new();
        let (array, leaves) = array_of(&mut world, &LEAF, COUNT);
        world.cache.give_back_all(&world.central, world.tint());
        let crew = crew_of(&world, 2048);
        let mut marker = marker_of(&world, &crew, 2048);
        let (first, rest) = leaves.split_at(COUNT / 2);
        // Some are marked by whoever hands them over, the others come from the arming phases.
        let (heap, cycle) = (world.central.number(), world.cycle());
        first.iter().for_each(|&leaf| assert!(mark_directly(heap, cycle, leaf)));
        match order {
            0 => {}
            1 => {
                marker.mark(array);
                assert!(marker.drain());
            }
            2 => rest.iter().for_each(|&leaf| marker.mark(leaf)),
            _ => {
                // One at a time, where nothing else waits.
                for &leaf in rest {
                    marker.mark(leaf);
                    assert!(marker.drain() && marker.take_found());
                }
            }
        }
        marker.take_grey(&leaves);
        marker.take_grey(rest);
        marker.mark(array);
        assert!(marker.drain());
        let counted = end(&world, &crew, marker.tally());
        let (marks, bytes) = world.marks();
        assert_eq!(marks.len(), COUNT + 1);
        assert_eq!((counted.objects, counted.bytes.get()), (marks.len() as u64, bytes), "{order}");
        world.release();
    }
}

/// The same pages hold leaves first, and then objects with pointers, which have to be followed.
#[test]
fn pages_that_have_had_leaves_are_visited_when_they_have_pointers() {
    let mut world = World::new();
    let pages: BTreeSet<_> = (0..400).map(|_| world.make(&LEAF, 0).0.align_down(8192)).collect();
    world.cache.give_back_all(&world.central, world.tint());
    world.end_cycle();
    // A list through all of them, and a leaf at its end.
    let (mut next, _) = world.make(&SMALL, 0);
    let mut objects = BTreeSet::from([next]);
    let mut again = BTreeSet::new();
    for _ in 0..4000 {
        let (at, _) = world.make(&WIDE, 0);
        for (word, target) in [(1, next.get()), (2, 0), (63, 0)] {
            // SAFETY: the words of its pointers.
            unsafe { word_of(at, word).write(target) };
        }
        again.insert(at.align_down(8192));
        objects.insert(at);
        next = at;
    }
    let common = pages.intersection(&again).count();
    assert!(common > pages.len() / 2, "{common} of {} pages are used again", pages.len());
    world.cache.give_back_all(&world.central, world.tint());
    let crew = crew_of(&world, 2048);
    let mut marker = marker_of(&world, &crew, 2048);
    marker.mark(next);
    assert!(marker.drain());
    let counted = end(&world, &crew, marker.tally());
    assert_eq!(world.marks().0, objects);
    assert_eq!(counted.objects, objects.len() as u64);
    world.release();
}
