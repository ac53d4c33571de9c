//! What happens when the system refuses: every call that asks it for something fails once, and then all of
//! them fail from some call on.
//!
//! The heaps here live on a simulated operating system, which also checks every transition of a region's
//! state, and at the end that everything was given back. Faults rows 1 to 3 call by call; `faults_os.rs` has tests
//! of rows 1 to 12 one by one, and `size_edges.rs` rows 57 to 64.

use spanheap::os::Os;
use spanheap::os::sim::SimOs;
use spanheap::{
    BuildError, Collected, Gc, GcCell, GcMutex, Heap, LimitError, OutOfMemory, Root, Rootable,
    Trace,
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
    let heap = Heap::builder().hard_limit(16 << 20).build().unwrap();
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
        let builders = [Heap::builder().memory_limit(limit), Heap::builder().hard_limit(limit)];
        for builder in builders {
            let error = builder.build().unwrap_err();
            assert!(matches!(error, BuildError::Limit(LimitError::TooSmall { .. })), "{error}");
            assert!(error.to_string().contains("leaves no room"), "{error}");
        }
    }
}
