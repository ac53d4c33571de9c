//! What values of an arena may be, and where its pointers may be.
use spanheap::{
    ArenaGc, Gc, GcCell, GcHashMap, GcMutex, GcOnce, GcRwLock, GcVec, Heap, SharedArena, Trace, Weak,
};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

#[derive(Trace)]
struct Value<'gc> {
    object: Gc<'gc, u64>,
    other: Option<ArenaGc<'gc, Value<'gc>>>,
    text: ArenaGc<'gc, str>,
    cell: GcCell<'gc, Option<ArenaGc<'gc, Value<'gc>>>>,
    once: GcOnce<'gc, ArenaGc<'gc, [u8]>>,
    list: GcMutex<'gc, GcVec<'gc, ArenaGc<'gc, u64>>>,
    map: GcRwLock<'gc, GcHashMap<'gc, u32, ArenaGc<'gc, u64>>>,
    weak: Weak<'gc, u64>,
    count: AtomicU64,
    outside: Mutex<u64>,
}

#[derive(Trace)]
struct Object<'gc> {
    arena: SharedArena,
    values: Vec<ArenaGc<'gc, Value<'gc>>>,
}

fn main() {
    let heap = Heap::new();
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        let object = mc.alloc(1);
        let value = arena.alloc(
            mc,
            Value {
                object,
                other: None,
                text: arena.alloc_str(mc, "text"),
                cell: GcCell::new(None),
                once: GcOnce::new(),
                list: GcMutex::new(GcVec::new()),
                map: GcRwLock::new(GcHashMap::new()),
                weak: mc.downgrade(object),
                count: AtomicU64::new(0),
                outside: Mutex::new(0),
            },
        );
        mc.alloc(Object { arena: heap.shared_arena(), values: vec![value] });
    });
}
