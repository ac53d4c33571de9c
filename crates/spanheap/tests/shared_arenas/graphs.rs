//! Values and objects that point to each other: what is retained, and what is not.

use crate::{Mortal, Node, NodeRoot, Tally, collect, heap, settle};
use spanheap::{
    ArenaGc, Gc, GcCell, GcHashMap, GcMutex, GcOnce, GcRwLock, GcVec, Heap, Root, Rootable,
    SharedArena, Trace, Weak,
};
use std::collections::HashMap;
use std::sync::Mutex;

/// A list of `len` nodes that lie in the heap and in the arena by turns, with an object at its end that dies with it.
fn alternating(heap: &Heap, arena: &SharedArena, len: u64, tally: &Tally) -> NodeRoot {
    #[derive(Trace)]
    struct End<'gc> {
        node: Node<'gc>,
        mortal: Gc<'gc, Mortal>,
    }
    heap.enter(|mc| {
        let mut object = Some(mc.alloc(Node::new(len)));
        let mut value = None;
        for id in (0..len).rev() {
            let end = mc.alloc(End { node: Node::new(id), mortal: tally.object(mc) });
            assert_eq!(end.node.check(), id);
            value = Some(arena.alloc(mc, Node::leading(id, object, value)));
            object = Some(mc.alloc(Node::leading(id, None, value)));
        }
        mc.root(object.unwrap())
    })
}

fn length(heap: &Heap, list: &NodeRoot) -> u64 {
    heap.enter(|mc| {
        let mut object = list.get(mc);
        let mut len = 0;
        loop {
            let Some(value) = object.value.get() else { return len };
            assert_eq!(object.check(), len);
            let Some(value) = value.get(mc) else { return len };
            assert_eq!(value.check(), len);
            object = value.object.get().unwrap();
            len += 1;
        }
    })
}

#[test]
fn a_list_through_heap_and_arena_is_retained_as_long_as_it_is_reached() {
    let (heap, tally) = (heap(), Tally::default());
    let arena = heap.shared_arena();
    let list = alternating(&heap, &arena, 1000, &tally);
    for _ in 0..3 {
        collect(&heap);
        assert_eq!(length(&heap, &list), 1000);
    }
    assert_eq!(heap.stats().live_objects, 1001, "objects, and not the values");
    arena.free();
    assert_eq!(length(&heap, &list), 0);
    collect(&heap);
    assert_eq!(heap.stats().live_objects, 1, "what only freed values led to is dead");
    collect(&heap);
    assert_eq!(length(&heap, &list), 0);
    drop(list);
    settle(&heap);
}

#[test]
fn circles_of_objects_and_values_are_collected() {
    let (heap, tally) = (heap(), Tally::default());
    let arena = heap.shared_arena();
    #[derive(Trace)]
    struct Ring<'gc> {
        mortal: Gc<'gc, Mortal>,
        value: ArenaGc<'gc, GcCell<'gc, Option<Gc<'gc, Ring<'gc>>>>>,
    }
    let rings = |count: u64| {
        heap.enter(|mc| {
            let mut kept = None;
            for _ in 0..count {
                let back = arena.alloc(mc, GcCell::new(None));
                let ring = mc.alloc(Ring { mortal: tally.object(mc), value: back });
                back.get(mc).unwrap().set(mc, Some(ring));
                assert_eq!(ring.mortal.0.get(), tally.get());
                kept = Some(ring);
            }
            mc.root::<Rootable![Ring<'_>]>(kept.unwrap())
        })
    };
    let first = rings(100);
    collect(&heap);
    tally.wait_for(99);
    let second = rings(50);
    collect(&heap);
    tally.wait_for(99 + 49);
    drop((first, second));
    collect(&heap);
    tally.wait_for(150);
    assert!(!arena.is_freed() && arena.used() > 0, "the values stay, and lead nowhere that is");
    assert_eq!(heap.stats().live_objects, 0);
}

/// A value with every kind of field that changes.
#[derive(Trace)]
struct Full<'gc> {
    cell: GcCell<'gc, Option<Gc<'gc, String>>>,
    value: GcCell<'gc, Option<ArenaGc<'gc, u64>>>,
    once: GcOnce<'gc, Gc<'gc, String>>,
    list: GcMutex<'gc, GcVec<'gc, Gc<'gc, String>>>,
    map: GcRwLock<'gc, GcHashMap<'gc, u64, (Gc<'gc, String>, ArenaGc<'gc, str>)>>,
    weak: GcCell<'gc, Option<Weak<'gc, String>>>,
    outside: Mutex<u64>,
}

type FullRoot = Root<Rootable![ArenaGc<'_, Full<'_>>]>;

#[test]
fn all_containers_work_in_values() {
    let heap = heap();
    let arena = heap.shared_arena();
    let root: FullRoot = heap.enter(|mc| {
        let full = Full {
            cell: GcCell::new(None),
            value: GcCell::new(None),
            once: GcOnce::new(),
            list: GcMutex::new(GcVec::new()),
            map: GcRwLock::new(GcHashMap::new()),
            weak: GcCell::new(None),
            outside: Mutex::new(0),
        };
        mc.root(mc.alloc(arena.alloc(mc, full)))
    });
    for round in 0..200_u64 {
        heap.enter(|mc| {
            let full = root.get(mc).get(mc).unwrap();
            let name = |n: u64| mc.alloc(format!("object {n} of a round"));
            full.cell.set(mc, Some(name(round)));
            full.value.set(mc, Some(arena.alloc(mc, round)));
            full.list.lock(mc).push(mc, name(round));
            full.map.write(mc).insert(mc, round, (name(round), arena.alloc_str(mc, "a string")));
            full.weak.set(mc, Some(mc.downgrade(name(round))));
            if round == 100 {
                assert!(full.once.set(mc, name(round)).is_ok());
            }
            *full.outside.lock().unwrap() += 1;
        });
        if round % 20 == 0 {
            collect(&heap);
        }
        heap.enter(|mc| {
            let full = root.get(mc).get(mc).unwrap();
            let name = |n: u64| format!("object {n} of a round");
            assert_eq!(full.cell.get().as_deref(), Some(&name(round)));
            assert_eq!(full.value.get().and_then(|value| value.get(mc)), Some(&round));
            let list = full.list.lock(mc);
            assert!((0..).zip(list.iter()).all(|(n, object)| **object == name(n)));
            let map = full.map.read(mc);
            assert_eq!((list.len() as u64, map.len() as u64), (round + 1, round + 1));
            for n in 0..=round {
                assert_eq!(*map[&n].0, name(n));
                assert_eq!(map[&n].1.get(mc), Some("a string"));
            }
            let is_dead = full.weak.get().unwrap().upgrade(mc).is_none();
            assert_eq!(is_dead, round % 20 == 0, "nothing but the weak pointer led there");
            assert_eq!(full.once.get().is_some(), round >= 100);
        });
    }
    arena.free();
    collect(&heap);
    assert_eq!(heap.stats().live_objects, 1);
    drop(root);
    settle(&heap);
    assert_eq!(heap.stats().live_objects, 0);
}

#[test]
fn pointers_lie_in_containers_of_all_kinds() {
    #[derive(Trace)]
    enum Either<'gc> {
        Object(Gc<'gc, [u64; 2]>, u32),
        Value { value: ArenaGc<'gc, u64> },
        Text(ArenaGc<'gc, str>),
        Neither,
    }
    #[derive(Trace)]
    struct Owner<'gc> {
        vector: Vec<ArenaGc<'gc, u64>>,
        map: HashMap<String, Option<ArenaGc<'gc, str>>>,
        boxed: Box<(u8, ArenaGc<'gc, [u64]>)>,
        array: [Option<ArenaGc<'gc, u64>>; 3],
        eithers: ArenaGc<'gc, [Either<'gc>]>,
    }
    let heap = heap();
    let arena = heap.shared_arena();
    let root: Root<Rootable![Owner<'_>]> = heap.enter(|mc| {
        let to = arena.writer(mc);
        let value = to.alloc(1_u64);
        let eithers = to.alloc_slice((0..1000_u32).map(|n| match n % 4 {
            0 => Either::Object(mc.alloc([n.into(); 2]), n),
            1 => Either::Value { value: to.alloc(n.into()) },
            2 => Either::Text(to.alloc_str(&n.to_string())),
            _ => Either::Neither,
        }));
        mc.root(mc.alloc(Owner {
            vector: (0..50).map(|n| to.alloc(n)).collect(),
            map: HashMap::from([("name".to_owned(), Some(to.alloc_str("a name")))]),
            boxed: Box::new((1, to.alloc_copy(&[1, 2, 3]))),
            array: [Some(value), None, Some(value)],
            eithers,
        }))
    });
    for _ in 0..3 {
        collect(&heap);
        heap.enter(|mc| {
            let owner = root.get(mc);
            assert!((0..50).eq(owner.vector.iter().map(|value| *value.get(mc).unwrap())));
            assert_eq!(owner.map["name"].unwrap().get(mc), Some("a name"));
            assert_eq!(owner.boxed.1.get(mc), Some(&[1, 2, 3][..]));
            assert_eq!(owner.array[2].unwrap().get(mc), Some(&1));
            for (n, either) in (0..).zip(owner.eithers.get(mc).unwrap()) {
                let same = match either {
                    Either::Object(object, number) => **object == [n; 2] && u64::from(*number) == n,
                    Either::Value { value } => value.get(mc) == Some(&n),
                    Either::Text(text) => text.get(mc) == Some(n.to_string().as_str()),
                    Either::Neither => n % 4 == 3,
                };
                assert!(same, "element {n}");
            }
        });
    }
    assert_eq!(heap.stats().live_objects, 251);
}

#[test]
fn large_values_with_pointers_are_scanned_to_their_end() {
    let heap = heap();
    let arena = heap.shared_arena();
    type Large = Root<Rootable![ArenaGc<'_, [GcCell<'_, Option<Gc<'_, [usize; 2]>>>]>]>;
    const LEN: usize = 1 << 20;
    let root: Large = heap.enter(|mc| mc.root(mc.alloc(arena.alloc_zeroed(mc, LEN))));
    let places = [0, 1, 1000, LEN / 2, LEN - 2, LEN - 1];
    for round in 0..3 {
        heap.enter(|mc| {
            let cells = root.get(mc).get(mc).unwrap();
            for place in places {
                cells[place].set(mc, Some(mc.alloc([round * LEN + place; 2])));
            }
        });
        collect(&heap);
        heap.enter(|mc| {
            let cells = root.get(mc).get(mc).unwrap();
            for place in places {
                assert_eq!(*cells[place].get().unwrap(), [round * LEN + place; 2]);
            }
        });
        assert_eq!(heap.stats().live_objects, 1 + places.len() as u64);
    }
}

#[test]
fn a_list_of_a_million_values_is_marked_without_recursion() {
    let heap = Heap::builder().gc_percent_off().build().unwrap();
    let arena = heap.shared_arena();
    let list: NodeRoot = heap.enter(|mc| {
        let to = arena.writer(mc);
        let mut first = None;
        for id in 0..1_000_000 {
            first = Some(to.alloc(Node::leading(id, None, first)));
        }
        mc.root(mc.alloc(Node::leading(0, Some(mc.alloc(Node::new(7))), first)))
    });
    collect(&heap);
    let last = heap.enter(|mc| {
        let mut node = list.get(mc).value.get().unwrap().get(mc).unwrap();
        let mut id = 999_999;
        while let Some(next) = node.value.get() {
            assert_eq!(node.check(), id);
            (node, id) = (next.get(mc).unwrap(), id - 1);
        }
        node.check()
    });
    assert_eq!(last, 0);
}

#[test]
fn pointers_between_arenas_last_as_long_as_both() {
    let heap = heap();
    let (one, other) = (heap.shared_arena(), heap.shared_arena());
    let root: NodeRoot = heap.enter(|mc| {
        let far = other.alloc(mc, Node::new(3));
        let near = one.alloc(mc, Node::leading(2, None, Some(far)));
        far.get(mc).unwrap().value.set(mc, Some(near));
        mc.root(mc.alloc(Node::leading(1, None, Some(near))))
    });
    let seen = || {
        heap.enter(|mc| {
            let near = root.get(mc).value.get().unwrap().get(mc)?;
            let far = near.value.get().unwrap().get(mc).map(Node::check);
            Some((near.check(), far))
        })
    };
    collect(&heap);
    assert_eq!(seen(), Some((2, Some(3))));
    other.free();
    assert_eq!(seen(), Some((2, None)));
    for _ in 0..3 {
        collect(&heap);
        assert_eq!(seen(), Some((2, None)));
    }
    let stats = heap.stats().arenas;
    assert!(stats.quarantined_bytes > 0, "a value still points there: {stats:?}");
    one.free();
    assert_eq!(seen(), None);
    drop(root);
    settle(&heap);
}
