//! Ephemerons and weak maps: values that live as long as their keys.
//!
//! All heaps are verified by checkmark mode and poison what they free.
//!
//! # Safety
//! One hand-written `Trace`, whose only fault is that it panics when it is told to.

use spanheap::{
    Collected, Ephemeron, FinalizerQueue, Gc, GcCell, GcMutex, Heap, Mutator, Root, Rootable,
    Trace, Tracer, WeakMap,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A heap that collects when it is told to.
fn heap() -> Heap {
    Heap::builder().gc_percent_off().checkmark(true).poison(true).build().unwrap()
}

fn collect(heap: &Heap) {
    assert_eq!(heap.collect(), Collected::Complete);
    assert!(!heap.stats().retained_everything);
}

/// Something that leads somewhere.
#[derive(Trace)]
struct Node<'gc> {
    id: u64,
    next: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
}

type NodeRoot = Root<Rootable![Node<'_>]>;

fn node<'gc>(mc: &Mutator<'gc>, id: u64) -> Gc<'gc, Node<'gc>> {
    mc.alloc(Node { id, next: GcCell::new(None) })
}

type PairsRoot = Root<Rootable![Pairs<'_>]>;
type Pair<'gc> = Ephemeron<'gc, Node<'gc>, Node<'gc>>;

#[derive(Trace)]
struct Pairs<'gc> {
    list: GcMutex<'gc, Vec<Pair<'gc>>>,
}

#[test]
fn an_ephemeron_holds_its_value_while_its_key_lives() {
    let heap = heap();
    let (pairs, key): (PairsRoot, NodeRoot) = heap.enter(|mc| {
        let (key, value) = (node(mc, 1), node(mc, 2));
        value.next.set(mc, Some(key)); // and this must not keep the key
        let orphan = mc.ephemeron(node(mc, 3), node(mc, 4));
        let list = GcMutex::new(vec![mc.ephemeron(key, value), orphan]);
        (mc.root(mc.alloc(Pairs { list })), mc.root(key))
    });
    for _ in 0..3 {
        collect(&heap);
        heap.enter(|mc| {
            let pairs = pairs.get(mc);
            let list = pairs.list.lock(mc);
            let (key, value) = list[0].entry(mc).expect("its key lives");
            assert_eq!((key.id, value.id), (1, 2));
            assert_eq!(list[0].value_for(key).map(|value| value.id), Some(2));
            assert!(list[1].entry(mc).is_none() && list[1].value_for(key).is_none());
        });
    }
    drop(key);
    collect(&heap);
    assert!(heap.enter(|mc| pairs.get(mc).list.lock(mc)[0].entry(mc).is_none()));
    assert_eq!(heap.stats().live_objects, 3, "the list and two empty ephemerons");
}

/// Chains through ephemerons: the value of each is the key of the next; in all orders.
#[test]
fn chains_of_ephemerons_live_and_die_with_their_first_key() {
    const LEN: usize = 2000;
    for order in 0..3 {
        let heap = heap();
        let (pairs, first): (PairsRoot, NodeRoot) = heap.enter(|mc| {
            let nodes: Vec<_> = (0..=LEN as u64).map(|id| node(mc, id)).collect();
            let mut list: Vec<_> =
                (0..LEN).map(|at| mc.ephemeron(nodes[at], nodes[at + 1])).collect();
            match order {
                0 => list.reverse(),
                1 => list.sort_by_key(|pair| pair.entry(mc).unwrap().0.id * 7919 % LEN as u64),
                _ => {}
            }
            (mc.root(mc.alloc(Pairs { list: GcMutex::new(list) })), mc.root(nodes[0]))
        });
        collect(&heap);
        heap.enter(|mc| {
            let pairs = pairs.get(mc);
            for pair in pairs.list.lock(mc).iter() {
                let (key, value) = pair.entry(mc).expect("it is reached from the first");
                assert_eq!(key.id + 1, value.id);
            }
        });
        drop(first);
        collect(&heap);
        heap.enter(|mc| {
            assert!(pairs.get(mc).list.lock(mc).iter().all(|pair| pair.entry(mc).is_none()));
        });
        assert_eq!(heap.stats().live_objects, 1 + LEN as u64);
    }
}

type MapRoot = Root<Rootable![Map<'_>]>;
type Map<'gc> = WeakMap<'gc, Node<'gc>, Node<'gc>>;

#[test]
fn fault_46_a_weak_map_whose_values_lead_to_its_keys_is_collected() {
    let heap = heap();
    let (map, keys): (MapRoot, Vec<NodeRoot>) = heap.enter(|mc| {
        let map: Gc<'_, Map<'_>> = mc.alloc(WeakMap::new());
        let keys: Vec<_> = (0..1000).map(|id| node(mc, id)).collect();
        for (at, key) in keys.iter().enumerate() {
            let value = node(mc, 1_000_000 + at as u64);
            // To its own key, and by a field of the key to the next one.
            value.next.set(mc, Some(*key));
            assert!(map.insert(mc, *key, value).is_none());
        }
        let kept = keys.iter().step_by(100).map(|key| mc.root(*key)).collect();
        (mc.root(map), kept)
    });
    collect(&heap);
    heap.enter(|mc| {
        let map = map.get(mc);
        assert_eq!(map.len(mc), 10);
        for key in &keys {
            let key = key.get(mc);
            assert_eq!(map.get(mc, key).unwrap().id, 1_000_000 + key.id);
        }
        let mut ids: Vec<_> = map.entries(mc).iter().map(|(key, _)| key.id).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..1000).step_by(100).collect::<Vec<_>>());
        let first = keys[0].get(mc);
        assert_eq!(map.insert(mc, first, first).unwrap().id, 1_000_000);
        assert_eq!(map.remove(mc, first).unwrap().id, 0);
        assert!(map.get(mc, first).is_none() && map.remove(mc, first).is_none());
    });
    drop(keys);
    collect(&heap);
    heap.enter(|mc| assert!(map.get(mc).is_empty(mc)));
    drop(map);
    collect(&heap);
    assert_eq!(heap.stats().live_objects, 0);
}

#[test]
fn the_places_of_dead_keys_are_used_again() {
    let heap = heap();
    let map: MapRoot = heap.enter(|mc| mc.root(mc.alloc(WeakMap::new())));
    for round in 0..20 {
        heap.enter(|mc| {
            let map = map.get(mc);
            for id in 0..500 {
                let key = node(mc, id);
                assert!(map.get(mc, key).is_none(), "a new object has no entry");
                assert!(map.insert(mc, key, node(mc, round)).is_none());
                assert_eq!(map.get(mc, key).unwrap().id, round);
            }
        });
        collect(&heap);
    }
    heap.enter(|mc| assert_eq!(map.get(mc).len(mc), 0));
}

/// A key that is revived has lost its entries, and weak pointers see the death before the finalizer does.
#[test]
fn what_only_a_revived_object_leads_to_is_revived_and_its_ephemerons_work() {
    let heap = heap();
    type Triple<'gc> = (Gc<'gc, Node<'gc>>, Pair<'gc>, Pair<'gc>);
    let queue: FinalizerQueue<Rootable![Triple<'_>]> = heap.enter(|mc| {
        let queue = mc.finalizer_queue();
        let (key, value) = (node(mc, 1), node(mc, 2));
        let lives = mc.ephemeron(key, value);
        let dies = mc.ephemeron(node(mc, 3), node(mc, 4));
        queue.register(mc, mc.alloc((key, lives, dies)));
        queue
    });
    collect(&heap);
    collect(&heap);
    heap.enter(|mc| {
        let (key, lives, dies) = *queue.pop(mc).unwrap();
        assert_eq!(lives.value_for(key).unwrap().id, 2);
        assert!(dies.entry(mc).is_none());
    });
    assert_eq!(heap.stats().live_objects, 5);
}

/// Panics when it is traced and told to, and reports what it has otherwise.
struct Moody<'gc> {
    panics: Arc<AtomicBool>,
    node: Gc<'gc, Node<'gc>>,
    pair: Pair<'gc>,
}

// SAFETY: all pointers are reported, or the tracing does not return.
unsafe impl Trace for Moody<'_> {
    fn trace(&self, tracer: &mut Tracer<'_>) {
        if self.panics.load(Ordering::Relaxed) {
            // Unlike `panic!`, this prints nothing.
            std::panic::resume_unwind(Box::new(()));
        }
        self.node.trace(tracer);
        self.pair.trace(tracer);
    }
}

/// It has died for its weak pointers, and is revived all the same, with nothing missing; the cycle has retained
/// everything.
#[test]
fn an_object_whose_revival_panics_is_whole_and_stays_dead_for_weak_pointers() {
    let heap = heap();
    let panics = Arc::new(AtomicBool::new(true));
    let (queue, weak) = heap.enter(|mc| {
        let queue: FinalizerQueue<Rootable![Moody<'_>]> = mc.finalizer_queue();
        let (key, value) = (node(mc, 1), node(mc, 2));
        let (panics, pair) = (panics.clone(), mc.ephemeron(key, value));
        let moody = mc.alloc(Moody { panics, node: key, pair });
        queue.register(mc, moody);
        (queue, mc.root_weak::<Rootable![Moody<'_>]>(mc.downgrade(moody)))
    });
    for _ in 0..2 {
        assert_eq!(heap.collect(), Collected::Complete);
        assert!(heap.stats().retained_everything);
        assert!(heap.enter(|mc| weak.upgrade(mc).is_none()));
        assert_eq!(queue.len(), 1);
    }
    panics.store(false, Ordering::Relaxed);
    collect(&heap);
    heap.enter(|mc| {
        let moody = queue.pop(mc).expect("it waits");
        assert_eq!(moody.node.id, 1);
        assert_eq!(moody.pair.value_for(moody.node).expect("its key lives").id, 2);
        assert!(weak.upgrade(mc).is_none());
    });
}
