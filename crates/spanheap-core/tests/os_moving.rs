//! Memory that is moved to other addresses on the running kernel: what was there is there, what was left faults, it
//! costs a bounded number of mappings; and whatever the kernel refuses, both places are as they were. A part of rows
//! 5 and 6 of the fault matrix.
//!
//! Each test has a process of its own, because it counts mappings, uses them up, or enters a sandbox.
//!
//! # Safety
//! Uses memory that the tests have made Ready and own alone, and asks the kernel about the rest.

mod kernel;

use kernel::mappings::{Burnt, count_in, list};
use kernel::sandbox::refuse;
use kernel::{Probe, child, sandbox};
use spanheap_core::addr::{Addr, AddrRange, Bytes};
use spanheap_core::os::{Category, Feature, Guarding, MOVE_UNIT, NativeBuilder, Os};

/// Units of memory, the first few of which are Ready and have their words, and the others Prepared.
struct Units<'a> {
    os: &'a Os,
    all: AddrRange,
}

impl<'a> Units<'a> {
    fn new(os: &'a Os, count: usize, ready: usize) -> Units<'a> {
        let bytes = Bytes::new(count * MOVE_UNIT.get());
        let all = AddrRange::at(os.reserve_aligned(None, bytes, MOVE_UNIT).unwrap(), bytes);
        // SAFETY: O1, O2: reserved above.
        unsafe { os.map(all, Category::Heap) }.unwrap();
        let units = Units { os, all };
        for unit in 0..ready {
            units.make_ready(unit);
            units.write(unit, unit);
        }
        units
    }

    fn unit(&self, unit: usize) -> AddrRange {
        AddrRange::at(self.all.base() + Bytes::new(unit * MOVE_UNIT.get()), MOVE_UNIT)
    }

    fn make_ready(&self, unit: usize) {
        // SAFETY: O1: the test's own.
        unsafe { self.os.used(self.unit(unit), MOVE_UNIT) }.unwrap();
    }

    fn pages(&self, unit: usize) -> impl Iterator<Item = Addr> {
        let (base, page) = (self.unit(unit).base(), self.os.page_size().get());
        (0..MOVE_UNIT.get() / page).map(move |i| base + Bytes::new(i * page))
    }

    /// A word in each page of a unit.
    fn write(&self, unit: usize, stamp: usize) {
        for (number, page) in self.pages(unit).enumerate() {
            // SAFETY: the tests name units that are Ready.
            unsafe { page.as_ptr::<usize>().write(stamp << 32 | (number + 1)) };
        }
    }

    /// Whether all pages have their words; if not, all of them are zeros.
    fn has(&self, unit: usize, stamp: usize) -> bool {
        let (mut words, mut zeros) = (0, 0);
        for (number, page) in self.pages(unit).enumerate() {
            // SAFETY: as above.
            let word = unsafe { page.as_ptr::<usize>().read() };
            words += usize::from(word == stamp << 32 | (number + 1));
            zeros += usize::from(word == 0);
        }
        let all = self.pages(unit).count();
        assert!(words == all || zeros == all, "{words} words and {zeros} zeros of {all}");
        words == all
    }

    fn relocate(&self, from: usize, to: usize) -> Option<Guarding> {
        let (from, to) = (self.unit(from), self.unit(to).base());
        // SAFETY: O1, O2: the test's own, and it looks at `from` through a probe only.
        unsafe { self.os.move_memory(from, to, Category::Heap) }
    }

    fn unguard(&self, unit: usize) {
        // SAFETY: O1, O2: the test's own.
        unsafe { self.os.unguard(self.unit(unit), Category::Heap) }.unwrap();
    }

    fn guard(&self, unit: usize) -> Guarding {
        // SAFETY: O1, O2: as above.
        unsafe { self.os.guard(self.unit(unit), Category::Heap, MOVE_UNIT) }
    }

    fn faults(&self, probe: &Probe, unit: usize) {
        let ends =
            self.pages(unit).flat_map(|page| [page, page + self.os.page_size() - Bytes::new(1)]);
        ends.for_each(|at| assert_eq!(probe.read(at), None, "{at}"));
    }

    fn release(self, guarded: usize, ready: usize) {
        let mapped = self.all.bytes() - Bytes::new(guarded * MOVE_UNIT.get());
        let ready = Bytes::new(ready * MOVE_UNIT.get());
        // SAFETY: O1, O2: the test gives it up.
        unsafe { self.os.release(self.all, Category::Heap, mapped, ready) };
        let accounts = self.os.accounting();
        let left = (accounts.reserved(), accounts.mapped_total(), accounts.ready());
        assert_eq!(left, (Bytes::ZERO, Bytes::ZERO, Bytes::ZERO));
        assert_eq!(accounts.leaked(), Bytes::ZERO);
        assert_eq!(self.os.features().splits, 0);
    }
}

#[test]
fn memory_goes_round_and_what_it_leaves_faults() {
    child::run("memory_goes_round_and_what_it_leaves_faults", || {
        for markers in [true, false] {
            let os = Os::native_with(&NativeBuilder::default().guard_markers(markers));
            let (units, probe) = (Units::new(&os, 8, 1), Probe::new());
            let before = list().len();
            let mut random = 0x0f0e_u64;
            let (mut at, mut most) = (0, 0);
            for round in 0..300 {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                let to = (at + 1 + (random >> 40) as usize % 7) % 8;
                assert_eq!(units.relocate(at, to), Some(Guarding::Faults));
                assert!(units.has(to, round), "round {round}: {at} to {to}");
                units.faults(&probe, at);
                let accounts = os.accounting();
                assert_eq!(accounts.ready(), MOVE_UNIT);
                assert_eq!(accounts.mapped(Category::Heap), Bytes::new(7 * MOVE_UNIT.get()));
                most = most.max(list().len());
                // Nobody's, and then empty.
                units.unguard(at);
                units.make_ready(at);
                assert!(!units.has(at, round), "it reads as zeros");
                units.write(to, round + 1);
                // SAFETY: O1, O2: the test's own.
                unsafe { os.unused(units.unit(at), MOVE_UNIT) };
                at = to;
            }
            println!("{} mappings at most, {before} before", most);
            assert!(most <= before + 5, "one unit that is guarded, and one that is foreign");
            assert_eq!(os.features().moves, Feature::Works);
            units.release(0, 1);
        }
    });
}

/// What has come from elsewhere is memory like any other: it is guarded, shut, faulted and returned, and moves on.
#[test]
fn what_has_been_moved_is_like_any_other_memory() {
    child::run("what_has_been_moved_is_like_any_other_memory", || {
        for markers in [true, false] {
            let os = Os::native_with(&NativeBuilder::default().guard_markers(markers));
            let (units, probe) = (Units::new(&os, 10, 3), Probe::new());
            for unit in 0..3 {
                assert_eq!(units.relocate(unit, unit + 5), Some(Guarding::Faults));
            }
            assert_eq!(units.guard(5), Guarding::Faults);
            units.faults(&probe, 5);
            units.unguard(5);
            units.make_ready(5);
            assert!(!units.has(5, 0));
            let two = units.unit(6);
            // SAFETY: O1, O2: the test's own, as all that follows.
            assert!(unsafe { os.shut(two) });
            units.faults(&probe, 6);
            // SAFETY: as above.
            unsafe { os.open(two) }.unwrap();
            assert!(units.has(6, 1));
            // SAFETY: as above.
            unsafe { os.unused(two, MOVE_UNIT) };
            // What has no memory can get some, wherever it was before.
            assert_eq!(units.relocate(7, 6), Some(Guarding::Faults));
            assert!(units.has(6, 2));
            // SAFETY: as above.
            unsafe { os.fault(units.unit(6), Category::Heap, MOVE_UNIT) }.unwrap();
            units.faults(&probe, 6);
            // SAFETY: as above.
            unsafe { os.map(units.unit(6), Category::Heap) }.unwrap();
            units.make_ready(6);
            assert!(!units.has(6, 2));
            (0..3).chain([7]).for_each(|unit| units.unguard(unit));
            let merged = count_in(units.all);
            assert!(merged <= 3, "{merged} mappings: one unit is foreign still");
            units.release(0, 2);
        }
    });
}

#[test]
fn no_more_is_moved_than_half_of_the_share_of_mappings() {
    child::run("no_more_is_moved_than_half_of_the_share_of_mappings", || {
        let os = Os::native_with(&NativeBuilder::default().split_limit(32));
        let (units, probe) = (Units::new(&os, 64, 16), Probe::new());
        // With gaps between them, so that nothing merges.
        let places: Vec<usize> = (0..16).map(|i| 17 + 2 * i).collect();
        let moved: Vec<usize> =
            (0..16).step_by(2).filter(|&i| units.relocate(i, places[i]).is_some()).collect();
        println!("{moved:?} of 16 were moved");
        assert!((3..=4).contains(&moved.len()), "{moved:?}: each is a range and a unit");
        assert!(os.features().splits <= os.features().split_limit / 2);
        for (unit, &place) in places.iter().enumerate() {
            if moved.contains(&unit) {
                units.faults(&probe, unit);
                assert!(units.has(place, unit));
            } else {
                assert!(units.has(unit, unit), "it is where it was");
            }
        }
        // One that goes on costs nothing more, and one that has come back makes room.
        let last = *moved.last().unwrap();
        units.unguard(last);
        assert_eq!(units.relocate(places[last], last), Some(Guarding::Faults));
        assert!(units.has(last, last));
        units.release(moved.len(), 16);
    });
}

/// Row 6: moves are refused from the beginning, or later. Then nothing has changed.
#[test]
fn fault_06_moves_to_other_addresses_are_refused() {
    for (name, errno) in [
        ("invalid", libc::EINVAL),
        ("forbidden", libc::EPERM),
        ("missing", libc::ENOSYS),
        ("memory", libc::ENOMEM),
        ("fault", libc::EFAULT),
    ] {
        child::run_variant("fault_06_moves_to_other_addresses_are_refused", name, || {
            let os = Os::native();
            let (units, probe) = (Units::new(&os, 6, 2), Probe::new());
            assert_eq!(units.relocate(0, 3), Some(Guarding::Faults));
            if !sandbox::enter(&[refuse(libc::SYS_mremap, errno)]) {
                return;
            }
            assert!(os.can_move());
            for to in [4, 5] {
                assert_eq!(units.relocate(1, to), None);
                assert!(units.has(1, 1) && units.has(3, 0));
                assert_eq!(probe.read(units.unit(to).base()), Some(0));
            }
            let is_lasting = !matches!(errno, libc::ENOMEM | libc::EFAULT);
            let expected = if is_lasting { Feature::Refused(errno) } else { Feature::Works };
            assert_eq!((os.features().moves, os.can_move()), (expected, !is_lasting));
            assert_eq!(os.features().splits, 4, "one range and one unit");
            units.faults(&probe, 0);
            units.release(1, 2);
        });
    }
}

/// Row 6: an address space that the process limits is not put at risk.
#[test]
fn fault_06_nothing_is_moved_under_a_limit_on_addresses() {
    for (name, resource) in [("addresses", libc::RLIMIT_AS), ("data", libc::RLIMIT_DATA)] {
        child::run_variant("fault_06_nothing_is_moved_under_a_limit_on_addresses", name, || {
            let os = Os::native();
            let units = Units::new(&os, 4, 1);
            let limit = libc::rlimit { rlim_cur: 1 << 40, rlim_max: 1 << 40 };
            // SAFETY: the kernel reads the record.
            assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0);
            assert_eq!(units.relocate(0, 2), None);
            assert!(units.has(0, 0));
            units.release(0, 1);
        });
    }
}

/// Row 6: the program has given advice about a part of a unit, which is several mappings since. Some kernels move it,
/// others do not, after they have unmapped the place.
#[test]
fn fault_06_a_unit_of_several_mappings_is_moved_or_stays() {
    child::run("fault_06_a_unit_of_several_mappings_is_moved_or_stays", || {
        let os = Os::native();
        let (units, probe) = (Units::new(&os, 6, 1), Probe::new());
        let part = units.unit(0).base() + os.page_size();
        // SAFETY: the advice changes nothing but dumps of the process.
        let status =
            unsafe { libc::madvise(part.as_ptr(), os.page_size().get(), libc::MADV_DONTDUMP) };
        assert_eq!(status, 0);
        assert!(count_in(units.unit(0)) >= 3);
        let moved = units.relocate(0, 3);
        println!("{moved:?}");
        match moved {
            Some(guarding) => {
                assert_eq!(guarding, Guarding::Faults);
                assert!(units.has(3, 0));
                units.faults(&probe, 0);
                units.release(1, 1);
            }
            None => {
                assert!(units.has(0, 0));
                assert_eq!(probe.read(units.unit(3).base()), Some(0));
                units.release(0, 1);
            }
        }
    });
}

/// Row 5: the process has no more mappings, or only so many. What is refused changes nothing; what is moved is there,
/// and its addresses fault or read as zeros.
#[test]
fn fault_05_no_more_mappings_for_moved_memory() {
    for left in 0..10 {
        let variant = left.to_string();
        child::run_variant("fault_05_no_more_mappings_for_moved_memory", &variant, || {
            let os = Os::native();
            let (units, probe) = (Units::new(&os, 6, 1), Probe::new());
            let Some(mut burnt) = Burnt::all_but(left) else { return };
            let moved = units.relocate(0, 3);
            let read = probe.read(units.unit(0).base() + Bytes::new(1 << 20));
            burnt.give(64);
            println!("{left}: {moved:?}, {read:?}");
            match moved {
                Some(guarding) => {
                    assert_eq!(read.is_none(), guarding == Guarding::Faults);
                    assert!(units.has(3, 0));
                    units.unguard(0);
                    units.make_ready(0);
                    assert!(!units.has(0, 0));
                    units.release(0, 2);
                }
                None => {
                    assert!(units.has(0, 0) && read.is_some());
                    units.make_ready(3);
                    assert!(!units.has(3, 0));
                    units.release(0, 2);
                }
            }
        });
    }
}

/// Under locked memory everything can be moved as well.
#[test]
fn locked_memory_is_moved_or_stays() {
    child::run("locked_memory_is_moved_or_stays", || {
        // SAFETY: it concerns this process, which ends soon.
        if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } != 0 {
            println!("not allowed here");
            return;
        }
        let os = Os::native();
        let (units, probe) = (Units::new(&os, 6, 2), Probe::new());
        let moved = units.relocate(0, 3);
        println!("{moved:?}");
        if moved.is_some() {
            assert!(units.has(3, 0));
            units.faults(&probe, 0);
            units.unguard(0);
            units.make_ready(0);
            assert!(!units.has(0, 0));
            units.release(0, 3);
        } else {
            assert!(units.has(0, 0));
            units.release(0, 2);
        }
    });
}

/// Whatever is moved keeps the name of the heap's memory.
#[test]
fn moved_memory_has_the_name_of_the_heap() {
    child::run("moved_memory_has_the_name_of_the_heap", || {
        let os = Os::native();
        let units = Units::new(&os, 6, 1);
        for (from, to) in [(0, 3), (3, 5), (5, 1)] {
            assert_eq!(units.relocate(from, to), Some(Guarding::Faults));
        }
        if os.features().names == Feature::Works {
            let mappings = list();
            let named = mappings.iter().filter(|m| units.all.contains(m.range.base()));
            let names: Vec<&str> = named.map(|m| m.name.as_str()).collect();
            assert!(names.iter().all(|name| *name == "[anon:spanheap: heap]"), "{names:?}");
        }
        units.release(3, 1);
    });
}
