//! Camps: what lies in shared arenas, and what is known of it from outside.
//!
//! A *tent* is an arena, and each place for one has a *camp* on the board, the list of pouches in it. A *pouch* is a value of
//! the arena: it has room for coins, in cells and under its lock, and may lead to another pouch, of whatever tent.
//! **Whoever strikes a tent** has the camp's lock, takes the coins out of all pouches, and seals them; then the arena
//! goes, in one of the ways in which arenas go, and a new tent has its place. So as long as a pouch is in the list
//! and the list is locked, its arena is there; and a coin that lies in a pouch without a seal is not lost.
//! Pointers to pouches of struck tents stay where they are: in other pouches, and in *relics*.
//!
//! Lock order: the camp, then the place of the tent, or a pouch.

use super::{Coin, CoinCell, Coins, World};
use spanheap::{ArenaGc, Gc, GcCell, GcMutex, Mutator, SharedArena, Trace};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Tents of a world.
pub const TENTS: usize = 4;
/// Places for pouches that may be gone.
pub const RELICS: usize = 16;
/// A camp has no more pouches than this.
pub const POUCHES: usize = 24;

pub type PouchLink<'gc> = Option<ArenaGc<'gc, Pouch<'gc>>>;
pub type Camp<'gc> = GcMutex<'gc, Vec<ArenaGc<'gc, Pouch<'gc>>>>;

/// A value of an arena, with room for coins.
#[derive(Trace)]
pub struct Pouch<'gc> {
    id: u64,
    /// The id, with the value's own address mixed in. Written before anybody else can see it.
    canary: AtomicU64,
    /// Only who has the lock puts coins in.
    pub cells: [CoinCell<'gc>; 2],
    pub inside: GcMutex<'gc, Inside<'gc>>,
    pub other: GcCell<'gc, PouchLink<'gc>>,
}

/// What is behind the lock of a pouch.
#[derive(Trace)]
pub struct Inside<'gc> {
    /// Nobody puts anything in any more.
    pub sealed: bool,
    pub coin: Option<Gc<'gc, Coin<'gc>>>,
}

impl<'gc> Pouch<'gc> {
    /// An empty one, not complete before [`Pouch::finish`].
    pub fn new(id: u64, other: PouchLink<'gc>) -> Pouch<'gc> {
        let inside = GcMutex::new(Inside { sealed: false, coin: None });
        let cells = [const { None }; 2].map(GcCell::new);
        Pouch { id, canary: AtomicU64::new(0), cells, inside, other: GcCell::new(other) }
    }

    /// Writes the canary of one that has come to its place.
    pub fn finish(&self) {
        self.canary.store(self.expected(), Ordering::Relaxed);
    }

    fn expected(&self) -> u64 {
        crate::canary(self.id) ^ std::ptr::from_ref(self) as u64
    }

    /// Makes sure that it is one and has not gone.
    pub fn touch(&self) {
        let found = self.canary.load(Ordering::Relaxed);
        let id = self.id;
        assert!(found == self.expected(), "the pouch {id:#x} at {self:p} was freed or overwritten");
    }

    /// Takes all coins out for good.
    pub fn seal(&self, mc: &Mutator<'gc>) -> Coins<'gc> {
        self.touch();
        let mut inside = self.inside.lock(mc);
        inside.sealed = true;
        let locked = inside.coin.take();
        self.cells.iter().filter_map(|cell| cell.take(mc)).chain(locked).collect()
    }

    /// The coins in it, while nobody plays.
    pub fn coins(&self, mc: &Mutator<'gc>) -> Coins<'gc> {
        self.touch();
        let inside = self.inside.lock(mc);
        assert!(!inside.sealed, "the pouch {:#x} of a tent that stands is sealed", self.id);
        self.cells.iter().filter_map(GcCell::get).chain(inside.coin).collect()
    }
}

/// The tents that stand.
pub struct Tents([Mutex<Arc<SharedArena>>; TENTS]);

impl Tents {
    pub fn new(heap: &spanheap::Heap) -> Tents {
        Tents(std::array::from_fn(|_| Mutex::new(Arc::new(heap.shared_arena()))))
    }

    /// The tent at a place. Who has it need not hurry: it may be struck meanwhile.
    pub fn at(&self, place: usize) -> Arc<SharedArena> {
        self.0[place].lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another in its place.
    pub fn replace(&self, place: usize, by: SharedArena) -> Arc<SharedArena> {
        let mut tent = self.0[place].lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *tent, Arc::new(by))
    }
}

impl World {
    /// A pouch that may be gone. What is gone does not come back.
    pub fn open<'gc>(
        &self,
        mc: &Mutator<'gc>,
        pouch: ArenaGc<'gc, Pouch<'gc>>,
    ) -> Option<&'gc Pouch<'gc>> {
        let opened = pouch.get(mc);
        match opened {
            Some(pouch) => pouch.touch(),
            None => assert!(pouch.get(mc).is_none(), "a freed pouch has come back"),
        }
        opened
    }
}
