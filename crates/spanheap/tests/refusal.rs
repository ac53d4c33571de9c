//! What happens when the system refuses: every call that asks it for something fails once, and then all of
//! them fail from some call on.
//!
//! The heaps here live on a simulated operating system, which also checks every transition of a region's
//! state, and at the end that everything was given back. Faults rows 1 to 3 and 58 to 62.

use spanheap::os::Os;
use spanheap::os::sim::SimOs;
use spanheap::{
    BuildError, Collected, Gc, GcCell, GcMutex, Heap, OutOfMemory, Root, Rootable, Trace,
};
use spanheap_core::addr::Bytes;
use std::sync::Arc;

#[derive(Trace)]
struct Node<'gc> {
    key: u64,
    next: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
}

#[derive(Trace)]
struct Wide<'gc> {
    text: String,
    list: GcMutex<'gc, Vec<Gc<'gc, Node<'gc>>>>,
    padding: [u64; 100],
}

type NodeRoot = Root<Rootable![Node<'_>]>;

/// A program that uses every part of a heap; each refusal ends it.
fn program(heap: &Heap) -> Result<NodeRoot, OutOfMemory> {
    let root: NodeRoot = heap.enter(|mc| {
        let node = mc.try_alloc(Node { key: 1, next: GcCell::new(None) })?;
        Ok::<_, OutOfMemory>(mc.root(node))
    })?;
    for round in 0..3 {
        heap.enter(|mc| {
            let first = root.get(mc);
            for key in 0..2000 {
                let next = GcCell::new(first.next.get());
                first.next.set(mc, Some(mc.try_alloc(Node { key, next })?));
            }
            let wide = mc.try_alloc(Wide {
                text: format!("round {round}"),
                list: GcMutex::new(vec![first]),
                padding: [7; 100],
            })?;
            wide.list.lock(mc).push(first);
            assert_eq!((wide.text.len(), wide.padding[99]), (7, 7));
            let big = mc.try_alloc_slice((0..400_000u32).map(u64::from))?;
            assert_eq!(big.iter().sum::<u64>(), 400_000 * 399_999 / 2);
            mc.try_alloc_slice((0..50).map(|n| n.to_string()))?;
            mc.try_alloc_slice((0..300).map(|_| GcCell::new(Some(first))))?;
            mc.try_alloc_str(&"long ".repeat(10_000))?;
            Ok::<_, OutOfMemory>(())
        })?;
        // A cycle in which calls are refused is completed all the same.
        assert_eq!(heap.collect(), Collected::Complete);
    }
    Ok(root)
}

fn check_survivors(heap: &Heap, root: &NodeRoot) {
    heap.enter(|mc| {
        let (mut node, mut count) = (Some(root.get(mc)), 0);
        while let Some(this) = node {
            count += 1;
            node = this.next.get();
        }
        assert_eq!(count, 1 + 3 * 2000);
    });
}

/// Runs the program on `sim`; true if nothing was refused.
fn run(sim: &Arc<SimOs>) -> bool {
    let builder = Heap::builder().os(Os::simulated(sim.clone())).poison(true).checkmark(true);
    let ok = match builder.build() {
        Err(BuildError::System(_)) => false,
        Err(error) => panic!("{error}"),
        Ok(heap) => {
            let result = program(&heap);
            match &result {
                Ok(root) => check_survivors(&heap, root),
                Err(error) => {
                    assert!(error.to_string().contains("the system gives no more"), "{error}");
                    // The refusal is over: the same heap does the whole job now.
                    sim.set_fail_call(None);
                    sim.set_fail_from(None);
                    let root = program(&heap).expect("nothing is refused any more");
                    check_survivors(&heap, &root);
                }
            }
            result.is_ok()
        }
    };
    sim.assert_all_released();
    ok
}

#[test]
fn every_call_of_the_system_may_fail_once() {
    for page in [4096, 65536] {
        let mut refused = 0;
        for n in 1.. {
            let sim = SimOs::builder().page_size(Bytes::new(page)).fail_call(n).build();
            refused += u32::from(!run(&sim));
            if sim.calls() < n {
                println!(
                    "pages of {page} bytes: {n} calls, {refused} of them fatal to the program"
                );
                break;
            }
            assert!(n < 2000, "the program makes no end of calls");
        }
        assert!(refused > 10);
    }
}

#[test]
fn all_calls_may_fail_from_any_on() {
    for n in (1..400).step_by(7) {
        let sim = SimOs::builder().fail_from(n).build();
        run(&sim);
    }
}

#[test]
fn a_limit_refuses_and_the_program_goes_on() {
    let heap = Heap::builder().memory_limit(16 << 20).build().unwrap();
    type Numbers = Root<Rootable![[u64]]>;
    let mut kept: Vec<Numbers> = Vec::new();
    let error = loop {
        let made = heap.enter(|mc| {
            Ok::<_, OutOfMemory>(mc.root(mc.try_alloc_slice((0..10_000u32).map(u64::from))?))
        });
        match made {
            Ok(root) => kept.push(root),
            Err(error) => break error,
        }
        assert!(kept.len() < 1000);
    };
    assert!(kept.len() > 50, "only {} slices of 80 KB fit in 16 MiB", kept.len());
    assert!(error.to_string().contains("of limit 16 MiB"), "{error}");
    assert!(heap.stats().ready_bytes <= 16 << 20);
    kept.clear();
    assert_eq!(heap.collect(), Collected::Complete);
    for _ in 0..50 {
        let made = heap.enter(|mc| {
            let slice = mc.try_alloc_slice((0..10_000u32).map(u64::from))?;
            Ok::<_, OutOfMemory>(mc.root(slice))
        });
        kept.push(made.expect("what was let go can be used again"));
    }
}

/// Fault row 2: a closure cannot wait for a cycle, so a refusal asks for one and returns.
#[test]
fn a_refusal_asks_for_a_cycle_that_nobody_else_wants() {
    let sim = SimOs::builder().build();
    let os = Os::simulated(sim.clone());
    let heap = Heap::builder().os(os).gc_percent_off().build().unwrap();
    let fill = |mc: &spanheap::Mutator<'_>| loop {
        if let Err(error) = mc.try_alloc_slice((0..10_000u32).map(u64::from)) {
            assert!(error.to_string().contains("the system gives no more"), "{error}");
            break;
        }
    };
    heap.enter(|mc| {
        mc.alloc_slice((0..10_000u32).map(u64::from));
        sim.set_fail_from(Some(1));
        fill(mc);
        assert_eq!(heap.stats().cycles, 0, "it would wait for this closure");
    });
    // Nobody calls `collect`, and there is no trigger.
    while heap.stats().cycles == 0 {
        std::thread::yield_now();
    }
    // What was garbage serves again, while the system still refuses.
    heap.enter(|mc| {
        mc.try_alloc_slice((0..10_000u32).map(u64::from)).expect("the pages of before");
    });
    sim.set_fail_from(None);
    drop(heap);
    sim.assert_all_released();
}

#[test]
fn a_limit_without_room_is_refused_at_once() {
    for limit in [0, 1, 1 << 20] {
        let error = Heap::builder().memory_limit(limit).build().unwrap_err();
        assert!(matches!(error, BuildError::LimitTooSmall { .. }), "{error}");
        assert!(error.to_string().contains("leaves no room"), "{error}");
    }
}

/// An iterator that claims to be as long as you like.
struct Claim(usize);

impl Iterator for Claim {
    type Item = u64;
    fn next(&mut self) -> Option<u64> {
        None
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0, Some(self.0))
    }
}

impl ExactSizeIterator for Claim {}

/// Fault rows 58 and 60: sizes that overflow or that nobody has change nothing.
#[test]
fn absurd_sizes_are_refused_before_anything_changes() {
    let heap = Heap::new();
    heap.enter(|mc| {
        mc.alloc(1u64);
        let before = heap.stats();
        for len in [usize::MAX, usize::MAX / 8, usize::MAX / 8 + 1, isize::MAX as usize, 1 << 60] {
            let error = mc.try_alloc_slice(Claim(len)).unwrap_err();
            assert!(error.to_string().starts_with("out of memory"), "{error}");
        }
        // 16 TiB: a number that can be computed with, and that no heap has.
        assert!(mc.try_alloc_slice(Claim(1 << 41)).is_err());
        let after = heap.stats();
        assert_eq!(after.mapped_bytes, before.mapped_bytes);
        assert_eq!(after.heap_bytes, before.heap_bytes);
    });
}

/// Fault rows 59 and 62: sizes around each class, and alignments up to 2 MiB.
#[test]
fn sizes_and_alignments_are_honoured() {
    let heap = Heap::builder().checkmark(true).poison(true).build().unwrap();
    heap.enter(|mc| {
        let edges =
            [0, 1, 7, 8, 9, 15, 16, 17, 24, 25, 512, 513, 1024, 32767, 32768, 32769, 1 << 20];
        let mut kept = Vec::new();
        for round in 0..5u8 {
            for len in edges {
                let bytes = mc.alloc_slice((0..len).map(|n| n as u8 ^ round));
                kept.push((bytes, round));
            }
        }
        for (bytes, round) in kept {
            assert!(bytes.iter().enumerate().all(|(n, &byte)| byte == n as u8 ^ round));
        }
        macro_rules! aligned {
            ($($align:literal)*) => {$({
                #[derive(Trace)]
                #[repr(align($align))]
                struct Aligned(u8);
                #[derive(Trace)]
                #[repr(align($align))]
                struct Empty;
                // A value without a size is at an address of its own kind all the same.
                assert_eq!(mc.alloc(Empty).as_ptr() as usize & ($align - 1), 0);
                let none = mc.alloc_slice((0..0).map(Aligned));
                assert_eq!(none.as_ptr().cast::<u8>() as usize & ($align - 1), 0);
                for n in 0..3 {
                    let object = mc.alloc(Aligned(n));
                    assert_eq!(object.as_ptr() as usize & ($align - 1), 0, "alignment {}", $align);
                    assert_eq!(object.0, n);
                    let slice = mc.alloc_slice((0..3).map(Aligned));
                    assert_eq!(slice.as_ptr().cast::<u8>() as usize & ($align - 1), 0);
                    assert_eq!(slice[2].0, 2);
                }
            })*};
        }
        aligned!(1 2 4 8 16 32 64 128 256 512 1024 2048 4096 8192 16384 65536 2097152);
    });
    assert_eq!(heap.collect(), Collected::Complete);
    assert_eq!(heap.stats().live_objects, 0);
}
