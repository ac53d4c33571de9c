//! No container can be viewed as one of another type, nor as one of another closure: what goes in through one view
//! would come out through the other.
use spanheap::{Ephemeron, FinalizerQueue, Gc, GcHashMap, GcMutex, GcOnce, GcRwLock, GcVec};
use spanheap::{Rootable, Weak, WeakMap, WeakRoot};

type Narrow<'a> = fn(&'a str);
type Wide = fn(&'static str);

fn vec<'gc, 'a>(it: GcVec<'gc, Narrow<'a>>) -> GcVec<'gc, Wide> {
    it
}

fn keys<'gc, 'a>(it: GcHashMap<'gc, Narrow<'a>, u8>) -> GcHashMap<'gc, Wide, u8> {
    it
}

fn values<'gc, 'a>(it: GcHashMap<'gc, u8, Narrow<'a>>) -> GcHashMap<'gc, u8, Wide> {
    it
}

fn once<'x, 'gc, 'a>(it: &'x GcOnce<'gc, Narrow<'a>>) -> &'x GcOnce<'gc, Wide> {
    it
}

fn mutex<'x, 'gc, 'a>(it: &'x GcMutex<'gc, Narrow<'a>>) -> &'x GcMutex<'gc, Wide> {
    it
}

fn rwlock<'x, 'gc, 'a>(it: &'x GcRwLock<'gc, Narrow<'a>>) -> &'x GcRwLock<'gc, Wide> {
    it
}

fn ephemeron<'gc, 'a>(it: Ephemeron<'gc, u8, Narrow<'a>>) -> Ephemeron<'gc, u8, Wide> {
    it
}

fn weak_map<'x, 'gc, 'a>(it: &'x WeakMap<'gc, u8, Narrow<'a>>) -> &'x WeakMap<'gc, u8, Wide> {
    it
}

fn queue<'a>(it: FinalizerQueue<Rootable![Narrow<'a>]>) -> FinalizerQueue<Rootable![Wide]> {
    it
}

fn weak_root<'a>(it: WeakRoot<Rootable![Narrow<'a>]>) -> WeakRoot<Rootable![Wide]> {
    it
}

fn shorter_vec<'short, 'gc: 'short>(it: GcVec<'gc, u8>) -> GcVec<'short, u8> {
    it
}

fn shorter_map<'short, 'gc: 'short>(it: GcHashMap<'gc, u8, u8>) -> GcHashMap<'short, u8, u8> {
    it
}

fn shorter_once<'short, 'gc: 'short>(it: GcOnce<'gc, u8>) -> GcOnce<'short, u8> {
    it
}

fn shorter_lock<'short, 'gc: 'short>(it: GcRwLock<'gc, u8>) -> GcRwLock<'short, u8> {
    it
}

fn shorter_weak<'short, 'gc: 'short>(it: Weak<'gc, u8>) -> Weak<'short, u8> {
    it
}

fn shorter_ephemeron<'short, 'gc: 'short>(it: Ephemeron<'gc, u8, u8>) -> Ephemeron<'short, u8, u8> {
    it
}

fn longer_gc<'short, 'gc: 'short>(it: Gc<'short, u8>) -> Gc<'gc, u8> {
    it
}

fn main() {}
