//! What cannot be shared by threads cannot be reached by several through a container or a pointer, and what
//! cannot be sent cannot be taken to another thread out of one.
use spanheap::{Ephemeron, Gc, GcCell, GcHashMap, GcMutex, GcMutexGuard, GcOnce, GcRwLock, GcVec};
use spanheap::{GcRwLockReadGuard, GcRwLockWriteGuard, Weak, WeakMap};
use std::cell::Cell;
use std::sync::MutexGuard;

/// Can be sent and not shared.
type Unsync = Cell<u8>;
/// Can be shared and not sent.
type Unsend = MutexGuard<'static, u8>;

fn shared<T: Sync>() {}
fn sent<T: Send>() {}

fn main() {
    sent::<Gc<'static, Unsync>>();
    sent::<Weak<'static, Unsync>>();
    sent::<GcCell<'static, Gc<'static, Unsync>>>();
    sent::<Ephemeron<'static, Unsync, u8>>();
    sent::<Ephemeron<'static, u8, Unsync>>();
    sent::<WeakMap<'static, u8, Unsync>>();
    sent::<GcVec<'static, Unsync>>();
    sent::<GcHashMap<'static, Unsync, u8>>();
    sent::<GcHashMap<'static, u8, Unsync>>();
    sent::<GcVec<'static, Unsend>>();
    sent::<GcOnce<'static, Unsend>>();
    sent::<GcRwLock<'static, Unsend>>();
    shared::<GcVec<'static, Unsync>>();
    shared::<GcHashMap<'static, u8, u8, Unsync>>();
    shared::<GcOnce<'static, Unsync>>();
    shared::<GcOnce<'static, Unsend>>();
    shared::<GcRwLock<'static, Unsync>>();
    shared::<GcRwLock<'static, Unsend>>();
    shared::<GcMutex<'static, Unsend>>();
    shared::<GcMutexGuard<'static, 'static, Unsync>>();
    shared::<GcRwLockReadGuard<'static, 'static, Unsync>>();
    shared::<GcRwLockWriteGuard<'static, 'static, Unsync>>();
    sent::<GcMutexGuard<'static, 'static, Unsend>>();
    sent::<GcRwLockWriteGuard<'static, 'static, Unsend>>();
}
