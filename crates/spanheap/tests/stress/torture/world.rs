//! A [`World`]: a heap, what lies in it, and the [`Ledger`] that says from outside what must be there.
//!
//! ```text
//! root: Board -> slice of cells -> Chest: three cells, a bag, a map, a lock in a lock
//!                                    \-> Coin -> next coin .. (a stack)
//!                 |                  |       \-> Gem (has a destructor), or a body of numbers
//!                 |                  \-> also two growable containers, a lock for readers, a niche
//!                 |-> hall: a long growable vector          |-> ghosts: coins, alive or not
//!                 |-> registers: weak maps, coin -> Tag -> other coins, and the coin itself
//!                 \-> notes: weak pointers to coins
//! ```
//! **A coin is in one place at a time**: in a chest, under another coin, in the hand of a closure, or under
//! a root. Whoever takes it out alone may pass it on, melt it, or put others under it. So coins
//! cannot be lost by the program, and a coin that is missing, or there twice, was lost by the collector.
//! Chests are never lost either: each player has a spare one and only exchanges it for others.
//!
//! **A train** is a long chain of cars, with room for a coin in each. Its head goes from station to station, and for a while
//! into a hand, and others exchange what lies far behind. So when the collector comes upon a train late, it
//! has a long way to go, and something may be taken from the end of it that it has not seen.
//!
//! **The ledger** has an entry for each number of a coin: the generation that lives. A coin that is melted
//! ends its generation, and one that is minted begins the next, so a pointer to a slot that was freed and
//! used again is found out at once, whatever lies there now. The destructor of a gem looks as well: it may
//! not run while its coin lives. Nor may the cleanup of a coin, and nobody may be revived who lives.
//!
//! **A niche** is filled once, by whoever comes first. Who wants the coin out of it takes the whole niche, and
//! seals it if it was empty.
//!
//! **A tag** belongs to a coin, by a weak map, and nobody finds it but who has the coin. Other coins lie
//! under it, which may have tags themselves; so the collector needs to find key after key.
//!
//! **A camp** is what lies in a shared arena ([`camp`]).

mod audit;
mod camp;

pub use camp::{POUCHES, Pouch, PouchLink, RELICS, TENTS};

use crate::Random;
use camp::{Camp, Tents};
use spanheap::{
    FinalizerQueue, Gc, GcCell, GcHashMap, GcMutex, GcOnce, GcRwLock, GcVec, Heap, Mutator,
    OutOfMemory, Root, Rootable, Trace, Weak, WeakMap,
};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Chests on a board.
pub const PLACES: usize = 48;
/// Places for trains; half of them are empty, or in somebody's hand.
pub const STATIONS: usize = 4;
/// Coins of a world.
pub const COINS: u32 = 600;
/// Weak maps of a world.
pub const REGISTERS: usize = 4;
/// Places for weak pointers to coins.
pub const NOTES: usize = 24;
/// Places for coins that may be dead.
pub const GHOSTS: usize = 8;

/// What has a destructor, and belongs to one coin.
#[derive(Trace)]
pub struct Gem {
    #[trace(leaf)]
    ledger: Arc<Ledger>,
    id: u64,
}

impl Drop for Gem {
    fn drop(&mut self) {
        self.ledger.dropped_gems.fetch_add(1, Ordering::Relaxed);
        self.ledger.assert_dead(self.id);
    }
}

/// What players pass around.
#[derive(Trace)]
pub struct Coin<'gc> {
    /// The number below, the generation above.
    pub id: u64,
    /// The id, with the object's own address mixed in. Written before anybody else can see the object.
    canary: AtomicU64,
    pub next: GcCell<'gc, Option<Gc<'gc, Coin<'gc>>>>,
    gem: Option<Gc<'gc, Gem>>,
    body: Option<Gc<'gc, [u64]>>,
    /// Whether there were weak pointers to it: then it has a handle. Set by its owner.
    pub watched: AtomicBool,
    /// Whether it has a tag. Set by its owner.
    pub tagged: AtomicBool,
}

pub type CoinCell<'gc> = GcCell<'gc, Option<Gc<'gc, Coin<'gc>>>>;
pub type Coins<'gc> = Vec<Gc<'gc, Coin<'gc>>>;
pub type CoinRoot = Root<Rootable![Coin<'_>]>;
pub type CoinVec<'gc> = GcVec<'gc, Gc<'gc, Coin<'gc>>>;
pub type CoinTable<'gc> = GcHashMap<'gc, u64, Gc<'gc, Coin<'gc>>>;
type BallastRoot = Root<Rootable![[Gc<'_, [u64; 3]>]]>;
pub type ChestRoot = Root<Rootable![Chest<'_>]>;

/// Every kind of container that coins can lie in.
#[derive(Trace)]
pub struct Chest<'gc> {
    id: u64,
    canary: AtomicU64,
    pub cells: [CoinCell<'gc>; 3],
    pub bag: GcMutex<'gc, Coins<'gc>>,
    pub map: GcMutex<'gc, HashMap<u64, Gc<'gc, Coin<'gc>>>>,
    pub shelf: GcMutex<'gc, Box<GcMutex<'gc, Coins<'gc>>>>,
    pub wall: GcRwLock<'gc, Coins<'gc>>,
    pub row: GcMutex<'gc, CoinVec<'gc>>,
    pub table: GcRwLock<'gc, CoinTable<'gc>>,
    pub niche: GcCell<'gc, Gc<'gc, Niche<'gc>>>,
}

/// Room for one coin, once; `None` seals it.
#[derive(Trace)]
pub struct Niche<'gc> {
    pub coin: GcOnce<'gc, Option<Gc<'gc, Coin<'gc>>>>,
}

/// A weak pointer to a coin, with its id.
#[derive(Trace)]
pub struct Note<'gc> {
    pub id: u64,
    pub weak: Weak<'gc, Coin<'gc>>,
}

/// What only the owner of a coin finds.
#[derive(Trace)]
pub struct Tag<'gc> {
    /// The coin that it belongs to: a way back to the key.
    pub key: Gc<'gc, Coin<'gc>>,
    canary: AtomicU64,
    pub cargo: CoinCell<'gc>,
}

/// A long row of places behind one lock.
#[derive(Trace)]
pub struct Hall<'gc> {
    pub places: GcMutex<'gc, GcVec<'gc, Option<Gc<'gc, Coin<'gc>>>>>,
}

/// The chests that every player can see.
#[derive(Trace)]
pub struct Board<'gc> {
    pub places: Gc<'gc, [GcCell<'gc, Gc<'gc, Chest<'gc>>>]>,
    pub stations: [GcCell<'gc, Option<Gc<'gc, Car<'gc>>>>; STATIONS],
    pub hall: Gc<'gc, Hall<'gc>>,
    pub registers: [Gc<'gc, WeakMap<'gc, Coin<'gc>, Tag<'gc>>>; REGISTERS],
    pub notes: [GcCell<'gc, Option<Gc<'gc, Note<'gc>>>>; NOTES],
    pub ghosts: [CoinCell<'gc>; GHOSTS],
    pub camps: [Camp<'gc>; TENTS],
    pub relics: [GcCell<'gc, PouchLink<'gc>>; RELICS],
}

/// A part of a train.
#[derive(Trace)]
pub struct Car<'gc> {
    /// How many cars follow.
    pub behind: u64,
    canary: AtomicU64,
    pub next: Option<Gc<'gc, Car<'gc>>>,
    pub cargo: CoinCell<'gc>,
}

/// What must be true, kept outside of the heap.
pub struct Ledger {
    /// For each number of a coin the generation that lives; 0 if none does.
    living: Vec<AtomicU32>,
    minted_gems: AtomicU64,
    dropped_gems: AtomicU64,
    /// The id of a coin that lived when the destructor of its gem ran; 0 if that never happened.
    dropped_alive: AtomicU64,
    cleanups: AtomicU64,
    cleaned: AtomicU64,
    registered: AtomicU64,
    revived: AtomicU64,
    /// The heap is being dropped, and everything in it with it.
    closing: AtomicBool,
}

/// Whether coins of this number are revived once when they have died.
fn has_finalizer(number: u32) -> bool {
    matches!(number % 16, 5 | 7)
}

impl Ledger {
    /// Notes a coin that is treated as dead and lives.
    fn assert_dead(&self, id: u64) {
        if self.lives(id) && !self.closing.load(Ordering::Relaxed) {
            self.dropped_alive.store(id, Ordering::Relaxed);
        }
    }

    pub fn lives(&self, id: u64) -> bool {
        self.living[id as u32 as usize].load(Ordering::Relaxed) == (id >> 32) as u32
    }
}

/// Number and canary of an object at this address.
fn canary_of<T>(id: u64, object: Gc<'_, T>) -> u64 {
    crate::canary(id) ^ object.as_ptr() as usize as u64
}

/// Makes sure that a coin, whoever owns it and whether it lives or not, is one and has not moved or gone, and that
/// what belongs to it is there, too.
pub fn touch_coin<'gc>(coin: Gc<'gc, Coin<'gc>>) {
    let expected = canary_of(coin.id, coin);
    let found = coin.canary.load(Ordering::Relaxed);
    let id = coin.id;
    assert!(found == expected, "the coin {id:#x} at {coin:p} was freed or overwritten");
    if let Some(gem) = coin.gem {
        assert_eq!(gem.id, id, "the gem of another coin");
    }
    if let Some(body) = coin.body {
        let ends = [body.first(), body.last()];
        assert!(ends.iter().flatten().all(|&&word| word == id), "the body of {id:#x}");
    }
}

/// The same for a tag, of the coin that it must belong to.
pub fn touch_tag<'gc>(tag: Gc<'gc, Tag<'gc>>, key: Gc<'gc, Coin<'gc>>) {
    let found = tag.canary.load(Ordering::Relaxed);
    let id = key.id;
    assert!(found == canary_of(id, tag), "the tag of {id:#x} was freed, or is another's");
    assert!(Gc::ptr_eq(tag.key, key), "the tag of {id:#x} leads to another coin");
}

/// The same for a car.
pub fn touch_car<'gc>(car: Gc<'gc, Car<'gc>>) {
    let found = car.canary.load(Ordering::Relaxed);
    assert!(found == canary_of(car.behind, car), "a car at {car:p} was freed or overwritten");
}

/// The same for a chest.
pub fn touch_chest<'gc>(chest: Gc<'gc, Chest<'gc>>) {
    let expected = canary_of(chest.id, chest);
    let found = chest.canary.load(Ordering::Relaxed);
    assert!(found == expected, "the chest {:#x} at {chest:p} was freed or overwritten", chest.id);
}

/// A heap and what is known of it.
pub struct World {
    pub heap: Heap,
    pub ledger: Arc<Ledger>,
    pub board: Root<Rootable![Board<'_>]>,
    /// Coins that only roots retain, for any player to take.
    pub locker: Mutex<Vec<CoinRoot>>,
    /// Numbers of coins that were melted and not minted again, for want of memory or by the death of
    /// a thread.
    pub unminted: Mutex<Vec<u32>>,
    /// Shared arenas.
    pub tents: Tents,
    /// Objects that only keep the collector busy.
    ballast: BallastRoot,
    /// Where melted coins go that are to be revived.
    pub queue: FinalizerQueue<Rootable![Coin<'_>]>,
    /// The length of each train.
    pub cars: u64,
    /// What the heap is like.
    pub traits: Traits,
}

/// What a player has to know of a heap, and what a world is to be like.
#[derive(Clone, Copy)]
pub struct Traits {
    /// Whether each cycle is verified.
    pub verified: bool,
    /// Whether memory may be refused.
    pub limited: bool,
    pub ballast: u64,
    pub cars: u64,
    /// Places of the hall.
    pub places: usize,
}

impl World {
    /// A board with chests in `heap`; all coins have yet to be minted.
    pub fn new(heap: Heap, traits: Traits) -> World {
        let Traits { ballast, cars, .. } = traits;
        let ledger = Arc::new(Ledger {
            living: (0..COINS).map(|_| AtomicU32::new(0)).collect(),
            minted_gems: AtomicU64::new(0),
            dropped_gems: AtomicU64::new(0),
            dropped_alive: AtomicU64::new(0),
            cleanups: AtomicU64::new(0),
            cleaned: AtomicU64::new(0),
            registered: AtomicU64::new(0),
            revived: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        });
        let board = heap.enter(|mc| {
            let places: Vec<_> = (0..PLACES as u64).map(|id| GcCell::new(chest(mc, id))).collect();
            let stations = [const { None }; STATIONS].map(GcCell::new);
            let mut hall = GcVec::new();
            hall.resize(mc, traits.places, None);
            let board = mc.alloc(Board {
                places: mc.alloc_slice(places),
                stations,
                hall: mc.alloc(Hall { places: GcMutex::new(hall) }),
                registers: std::array::from_fn(|_| mc.alloc(WeakMap::new())),
                notes: [const { None }; NOTES].map(GcCell::new),
                ghosts: [const { None }; GHOSTS].map(GcCell::new),
                camps: [const { Vec::new() }; TENTS].map(GcMutex::new),
                relics: [const { None }; RELICS].map(GcCell::new),
            });
            board.stations.iter().step_by(2).for_each(|station| station.set(mc, train(mc, cars)));
            mc.root(board)
        });
        let ballast = heap.enter(|mc| {
            let all: Vec<_> = (0..ballast).map(|n| mc.alloc([n; 3])).collect();
            mc.root(mc.alloc_slice(all))
        });
        let unminted = Mutex::new((0..COINS).collect());
        let locker = Mutex::new(Vec::new());
        let queue = heap.enter(|mc| mc.finalizer_queue());
        let tents = Tents::new(&heap);
        World { heap, ledger, board, locker, unminted, tents, ballast, queue, cars, traits }
    }

    /// Makes the next coin of a number that has none.
    pub fn mint<'gc>(
        &self,
        mc: &Mutator<'gc>,
        number: u32,
        next: Option<Gc<'gc, Coin<'gc>>>,
        random: &mut Random,
    ) -> Result<Gc<'gc, Coin<'gc>>, OutOfMemory> {
        let id = u64::from(random.number() as u32 | 1) << 32 | u64::from(number);
        let body = match number % 64 {
            // At least so long that it shares its slot with nobody, which would upset the count.
            1 | 5 | 9 => 3 + random.below(40),
            2 => 1000,
            // Longer than any slot, so that it has pages of its own.
            3 if random.one_in(4) => 6000,
            _ => 0,
        };
        let body = match body {
            0 => None,
            len => Some(mc.try_alloc_slice((0..len as u32).map(|_| id))?),
        };
        let ledger = self.ledger.clone();
        let gem = match number % 4 {
            0 => {
                let gem = mc.try_alloc(Gem { ledger, id });
                // The destructor of a value that could not be moved into the heap has run.
                self.ledger.minted_gems.fetch_add(1, Ordering::Relaxed);
                Some(gem?)
            }
            _ => None,
        };
        let canary = AtomicU64::new(0);
        let [watched, tagged] = [const { AtomicBool::new(false) }; 2];
        let next = GcCell::new(next);
        let coin = mc.try_alloc(Coin { id, canary, next, gem, body, watched, tagged })?;
        coin.canary.store(canary_of(id, coin), Ordering::Relaxed);
        self.prepare_end(mc, coin)?;
        self.ledger.living[number as usize].store((id >> 32) as u32, Ordering::Relaxed);
        Ok(coin)
    }

    /// Hangs on a coin what is to happen when it has died.
    fn prepare_end<'gc>(
        &self,
        mc: &Mutator<'gc>,
        coin: Gc<'gc, Coin<'gc>>,
    ) -> Result<(), OutOfMemory> {
        let (id, number) = (coin.id, coin.id as u32);
        if number % 8 == 5 {
            let ledger = self.ledger.clone();
            mc.try_cleanup(coin, move || {
                ledger.cleaned.fetch_add(1, Ordering::Relaxed);
                ledger.assert_dead(id);
            })?;
            self.ledger.cleanups.fetch_add(1, Ordering::Relaxed);
        }
        if has_finalizer(number) {
            assert!(self.queue.try_register(mc, coin)?, "a new coin is registered already");
            self.ledger.registered.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes a coin out of the queue of the revived, if there is one.
    pub fn pop_revived<'gc>(&self, mc: &Mutator<'gc>) -> Option<Gc<'gc, Coin<'gc>>> {
        let coin = self.queue.pop(mc)?;
        touch_coin(coin);
        assert!(has_finalizer(coin.id as u32), "a coin is revived that was not to be");
        assert!(!self.ledger.lives(coin.id), "the coin {:#x} is revived alive", coin.id);
        self.ledger.revived.fetch_add(1, Ordering::Relaxed);
        Some(coin)
    }

    /// The weak map in which a coin has its tag.
    pub fn register<'gc>(
        &self,
        mc: &Mutator<'gc>,
        coin: Gc<'gc, Coin<'gc>>,
    ) -> Gc<'gc, WeakMap<'gc, Coin<'gc>, Tag<'gc>>> {
        self.board.get(mc).registers[coin.id as u32 as usize % REGISTERS]
    }

    /// The tag of a coin that the caller owns. It has one if, and only if, one was made.
    pub fn tag_of<'gc>(
        &self,
        mc: &Mutator<'gc>,
        coin: Gc<'gc, Coin<'gc>>,
    ) -> Option<Gc<'gc, Tag<'gc>>> {
        let tag = self.register(mc, coin).get(mc, coin);
        let is_tagged = coin.tagged.load(Ordering::Relaxed);
        assert!(tag.is_some() == is_tagged, "the tag of {:#x}: {is_tagged}", coin.id);
        tag.into_iter().for_each(|tag| touch_tag(tag, coin));
        tag
    }

    /// Makes a tag for a coin that the caller owns and that has none.
    pub fn tag<'gc>(&self, mc: &Mutator<'gc>, coin: Gc<'gc, Coin<'gc>>) -> Gc<'gc, Tag<'gc>> {
        let (canary, cargo) = (AtomicU64::new(0), GcCell::new(None));
        let tag = mc.alloc(Tag { key: coin, canary, cargo });
        tag.canary.store(canary_of(coin.id, tag), Ordering::Relaxed);
        assert!(self.register(mc, coin).insert(mc, coin, tag).is_none());
        coin.tagged.store(true, Ordering::Relaxed);
        tag
    }

    /// Ends the life of a coin that the caller alone has; returns its number.
    pub fn melt(&self, coin: Gc<'_, Coin<'_>>) -> u32 {
        let number = coin.id as u32;
        self.ledger.living[number as usize].store(0, Ordering::Relaxed);
        number
    }

    /// Checks a coin that nobody but the caller can take away.
    pub fn check_owned<'gc>(&self, coin: Gc<'gc, Coin<'gc>>) {
        touch_coin(coin);
        let id = coin.id;
        assert!((id as u32) < COINS && self.ledger.lives(id), "the coin {id:#x} is not alive");
    }

    /// Makes a spare chest for a player.
    pub fn spare(&self, number: u64) -> ChestRoot {
        self.heap.enter(|mc| mc.root(chest(mc, PLACES as u64 + number)))
    }

    /// Drops the heap. Every gem must have been dropped once, and every cleanup must have run once.
    pub fn close(self) {
        let ledger = self.ledger.clone();
        ledger.closing.store(true, Ordering::Relaxed);
        drop(self);
        let [minted, dropped] = [&ledger.minted_gems, &ledger.dropped_gems];
        assert_eq!(minted.load(Ordering::Relaxed), dropped.load(Ordering::Relaxed));
        let [wanted, ran] = [&ledger.cleanups, &ledger.cleaned];
        assert_eq!(wanted.load(Ordering::Relaxed), ran.load(Ordering::Relaxed), "cleanups");
    }
}

/// An empty chest.
fn chest<'gc>(mc: &Mutator<'gc>, id: u64) -> Gc<'gc, Chest<'gc>> {
    let niche = mc.alloc(Niche { coin: GcOnce::new() });
    let chest = mc.alloc(Chest {
        id,
        canary: AtomicU64::new(0),
        cells: [const { None }; 3].map(GcCell::new),
        bag: GcMutex::new(Vec::new()),
        map: GcMutex::new(HashMap::new()),
        shelf: GcMutex::new(Box::new(GcMutex::new(Vec::new()))),
        wall: GcRwLock::new(Vec::new()),
        row: GcMutex::new(GcVec::new()),
        table: GcRwLock::new(GcHashMap::new()),
        niche: GcCell::new(niche),
    });
    chest.canary.store(canary_of(id, chest), Ordering::Relaxed);
    chest
}

/// A train of so many cars, all empty.
fn train<'gc>(mc: &Mutator<'gc>, cars: u64) -> Option<Gc<'gc, Car<'gc>>> {
    let mut head = None;
    for behind in 0..cars {
        let (canary, cargo) = (AtomicU64::new(0), GcCell::new(None));
        let car = mc.alloc(Car { behind, canary, next: head, cargo });
        car.canary.store(canary_of(behind, car), Ordering::Relaxed);
        head = Some(car);
    }
    head
}
