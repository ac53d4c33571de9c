//! What a program hears when a limit is near, and what it may answer.

use spanheap::{Collected, Heap, LimitKind, OutOfMemory, Response, Root, Rootable};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MIB: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

type Block = Root<Rootable![[u8]]>;

fn block(heap: &Heap) -> Result<Block, OutOfMemory> {
    heap.enter(|mc| Ok(mc.root(mc.try_alloc_zeroed::<u8>(MIB)?)))
}

/// Blocks until one is refused.
fn fill(heap: &Heap) -> Vec<Block> {
    std::iter::from_fn(|| block(heap).ok()).collect()
}

fn heard<T>(calls: &Receiver<T>) -> T {
    calls.recv_timeout(PATIENCE).expect("the program is told")
}

#[test]
fn a_program_that_sheds_its_cache_goes_on() {
    let cache: Arc<Mutex<Vec<Block>>> = Arc::default();
    let (tell, calls) = channel();
    let tell = Mutex::new(tell);
    let shedding = cache.clone();
    let heap = Heap::builder().gc_percent_off().hard_limit(24 * MIB).on_pressure(move |pressure| {
        let shed = std::mem::take(&mut *shedding.lock().expect("no panic")).len();
        let _ = tell.lock().expect("no panic").send((pressure.clone(), shed));
        Response::Shed
    });
    let heap = heap.build().expect("a heap");
    let kept = fill(&heap);
    assert!(kept.len() >= 15, "{}", kept.len());
    // The first call comes after the cycle that the refusal has asked for; or after one that began for being near the
    // limit.
    let (mut pressure, mut shed) = heard(&calls);
    while pressure.refused == 0 {
        assert!(block(&heap).is_err());
        let _ = heap.collect();
        if let Ok(call) = calls.recv_timeout(Duration::from_millis(10)) {
            (pressure, shed) = call;
        }
    }
    assert_eq!((pressure.kind, pressure.limit.get(), shed), (LimitKind::Hard, 24 * MIB, 0));
    assert!(pressure.refused >= 1 && pressure.live.get() >= kept.len() * MIB, "{pressure:?}");
    assert!(pressure.needed >= pressure.live && pressure.needed <= pressure.limit, "{pressure:?}");
    assert_eq!(pressure.types.types[0].name, "[u8]");
    // It has said that it has shed something, so the cycle that follows is not told of. Now it really has.
    *cache.lock().expect("no panic") = kept;
    let mut calls_so_far = 1;
    while cache.lock().is_ok_and(|cache| !cache.is_empty()) {
        block(&heap).map(|_| ()).ok();
        let _ = heap.collect();
        calls_so_far += calls.try_iter().count();
        assert!(calls_so_far < 1000);
    }
    let _ = heap.collect();
    block(&heap).expect("the cache has made room");
    let stats = heap.stats();
    assert!(stats.pressure_calls >= 2 && stats.pressure_panics == 0, "{stats:?}");
}

#[test]
fn a_limit_that_is_raised_is_higher() {
    let (tell, calls) = channel();
    let tell = Mutex::new(tell);
    let heap = Heap::builder().hard_limit(16 * MIB).on_pressure(move |pressure| {
        let _ = tell.lock().expect("no panic").send(pressure.limit.get());
        // Less than there is changes nothing.
        Response::Raise(if pressure.limit.get() < 32 * MIB {
            2 * pressure.limit.get()
        } else {
            MIB
        })
    });
    let heap = heap.build().expect("a heap");
    let mut kept = fill(&heap);
    assert_eq!(heard(&calls), 16 * MIB);
    while heap.hard_limit() != Some(32 * MIB) {
        std::thread::yield_now();
    }
    kept.extend(fill(&heap));
    assert!(kept.len() > 20, "{}", kept.len());
    let _ = heap.collect();
    while heard(&calls) != 32 * MIB {}
    drop(heap);
    drop(kept);
}

#[test]
fn a_soft_limit_is_raised_too_and_a_panic_is_contained() {
    let (tell, calls) = channel();
    let tell = Mutex::new((tell, 0));
    let heap = Heap::builder().memory_limit(16 * MIB).on_pressure(move |pressure| {
        let count = {
            let mut told = tell.lock().expect("the panic comes after this");
            told.1 += 1;
            let _ = told.0.send((pressure.kind, pressure.refused));
            told.1
        };
        assert!(count > 1, "as the test wants it");
        Response::Raise(64 * MIB)
    });
    let heap = heap.build().expect("a heap");
    let kept: Vec<Block> = (0..16).map(|_| block(&heap).expect("the limit is soft")).collect();
    let _ = heap.collect();
    assert_eq!(heard(&calls), (LimitKind::Soft, 0));
    // One call at a time, so the next one comes when the panic is over; a notice meanwhile is forgotten.
    while heap.memory_limit() != Some(64 * MIB) {
        assert_eq!(heap.collect(), Collected::Complete);
    }
    // It may have been told once more before the change.
    let stats = heap.stats();
    assert_eq!(stats.pressure_panics, 1);
    assert!(stats.pressure_calls >= 2, "{stats:?}");
    assert_eq!(kept.len(), 16);
}

#[test]
fn the_call_may_do_with_the_heap_what_any_thread_may() {
    // Its own heap, for the call; the last handle is dropped by the call itself.
    let slot: Arc<Mutex<Option<Heap>>> = Arc::default();
    let (tell, calls) = channel();
    let tell = Mutex::new(tell);
    let mine = slot.clone();
    let heap = Heap::builder().hard_limit(16 * MIB).on_pressure(move |_| {
        let Some(heap) = mine.lock().expect("no panic").take() else { return Response::Refuse };
        assert_eq!(heap.collect(), Collected::Complete);
        let seen = heap.enter(|mc| mc.alloc(7_u8).wrapping_add(1));
        heap.set_gc_percent(Some(50));
        let _ = tell.lock().expect("no panic").send((seen, heap.gc_percent()));
        drop(heap);
        Response::Shed
    });
    let heap = heap.build().expect("a heap");
    *slot.lock().expect("no panic") = Some(heap.clone());
    let kept = fill(&heap);
    drop(heap);
    assert_eq!(heard(&calls), (8, Some(50)));
    drop(kept);
}
