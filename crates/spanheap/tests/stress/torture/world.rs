//! A [`World`]: a heap, what lies in it, and the [`Ledger`] that says from outside what must be there.
//!
//! ```text
//! root: Board -> slice of cells -> Chest: three cells, a bag, a map, a lock in a lock
//!                                    \-> Coin -> next coin .. (a stack)
//!                                          \-> Gem (has a destructor), or a body of numbers
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
//! not run while its coin lives.

use crate::Random;
use spanheap::{Collected, Gc, GcCell, GcMutex, Heap, Mutator, OutOfMemory, Root, Rootable, Trace};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Chests on a board.
pub const PLACES: usize = 48;
/// Places for trains; half of them are empty, or in somebody's hand.
pub const STATIONS: usize = 4;
/// Coins of a world.
pub const COINS: u32 = 600;

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
        if self.ledger.lives(self.id) && !self.ledger.closing.load(Ordering::Relaxed) {
            self.ledger.dropped_alive.store(self.id, Ordering::Relaxed);
        }
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
}

pub type CoinCell<'gc> = GcCell<'gc, Option<Gc<'gc, Coin<'gc>>>>;
pub type Coins<'gc> = Vec<Gc<'gc, Coin<'gc>>>;
pub type CoinRoot = Root<Rootable![Coin<'_>]>;
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
}

/// The chests that every player can see.
#[derive(Trace)]
pub struct Board<'gc> {
    pub places: Gc<'gc, [GcCell<'gc, Gc<'gc, Chest<'gc>>>]>,
    pub stations: [GcCell<'gc, Option<Gc<'gc, Car<'gc>>>>; STATIONS],
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
    /// The heap is being dropped, and everything in it with it.
    closing: AtomicBool,
}

impl Ledger {
    fn lives(&self, id: u64) -> bool {
        self.living[id as u32 as usize].load(Ordering::Relaxed) == (id >> 32) as u32
    }
}

/// Number and canary of an object at this address.
fn canary_of<T>(id: u64, object: Gc<'_, T>) -> u64 {
    crate::canary(id) ^ object.as_ptr() as usize as u64
}

/// Makes sure that an object, whoever owns it, is one and has not moved or gone.
pub fn touch_coin<'gc>(coin: Gc<'gc, Coin<'gc>>) {
    let expected = canary_of(coin.id, coin);
    let found = coin.canary.load(Ordering::Relaxed);
    assert!(found == expected, "the coin {:#x} at {coin:p} was freed or overwritten", coin.id);
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
    /// Objects that only keep the collector busy.
    ballast: BallastRoot,
    /// The length of each train.
    pub cars: u64,
    /// Whether each cycle is verified.
    pub is_verified: bool,
}

impl World {
    /// A board with chests in `heap`; all coins have yet to be minted.
    pub fn new(heap: Heap, is_verified: bool, ballast: u64, cars: u64) -> World {
        let ledger = Arc::new(Ledger {
            living: (0..COINS).map(|_| AtomicU32::new(0)).collect(),
            minted_gems: AtomicU64::new(0),
            dropped_gems: AtomicU64::new(0),
            dropped_alive: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        });
        let board = heap.enter(|mc| {
            let places: Vec<_> = (0..PLACES as u64).map(|id| GcCell::new(chest(mc, id))).collect();
            let stations = [const { None }; STATIONS].map(GcCell::new);
            let board = mc.alloc(Board { places: mc.alloc_slice(places), stations });
            board.stations.iter().step_by(2).for_each(|station| station.set(mc, train(mc, cars)));
            mc.root(board)
        });
        let ballast = heap.enter(|mc| {
            let all: Vec<_> = (0..ballast).map(|n| mc.alloc([n; 3])).collect();
            mc.root(mc.alloc_slice(all))
        });
        let unminted = Mutex::new((0..COINS).collect());
        let locker = Mutex::new(Vec::new());
        World { heap, ledger, board, locker, unminted, ballast, cars, is_verified }
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
        let coin = mc.try_alloc(Coin { id, canary, next: GcCell::new(next), gem, body })?;
        coin.canary.store(canary_of(id, coin), Ordering::Relaxed);
        self.ledger.living[number as usize].store((id >> 32) as u32, Ordering::Relaxed);
        Ok(coin)
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
        if let Some(gem) = coin.gem {
            assert_eq!(gem.id, id, "the gem of another coin");
        }
        if let Some(body) = coin.body {
            let ends = [body.first(), body.last()];
            assert!(ends.iter().flatten().all(|&&word| word == id), "the body of {id:#x}");
        }
    }

    /// Makes a spare chest for a player.
    pub fn spare(&self, number: u64) -> ChestRoot {
        self.heap.enter(|mc| mc.root(chest(mc, PLACES as u64 + number)))
    }

    /// Compares the heap with the ledger, while nobody plays. `others` are the objects that belong
    /// to nobody's coins.
    pub fn checkpoint(&self, spares: &[ChestRoot], others: u64) {
        assert_eq!(self.heap.collect(), Collected::Complete);
        let seen = vec![false; COINS as usize];
        let mut audit = Audit { world: self, objects: 0, trains: 0, seen };
        self.heap.enter(|mc| {
            let board = self.board.get(mc);
            audit.objects += 2;
            let spares = spares.iter().map(|spare| spare.get(mc));
            board.places.iter().map(GcCell::get).chain(spares).for_each(|c| audit.chest(mc, c));
            let locker = self.locker.lock().unwrap();
            locker.iter().for_each(|coin| audit.stack(coin.get(mc)));
            board.stations.iter().filter_map(GcCell::get).for_each(|head| audit.train(head));
            assert_eq!(audit.trains, STATIONS as u64 / 2 * u64::from(self.cars > 0));
            let ballast = self.ballast.get(mc);
            audit.objects += 1 + ballast.len() as u64;
            let mut numbers = ballast.iter().enumerate();
            assert!(numbers.all(|(n, words)| **words == [n as u64; 3]), "ballast was lost");
        });
        for (number, seen) in audit.seen.iter().enumerate() {
            let lives = self.ledger.living[number].load(Ordering::Relaxed) != 0;
            assert!(
                *seen == lives,
                "the coin {number} is {}",
                if lives { "lost" } else { "undead" }
            );
        }
        let stats = self.heap.stats();
        assert_eq!(stats.live_objects, audit.objects + others, "objects retained: {stats:?}");
        assert!(!stats.retained_everything);
        let wrong = self.ledger.dropped_alive.load(Ordering::Relaxed);
        assert_eq!(wrong, 0, "the gem of {wrong:#x} was dropped while the coin lived");
    }

    /// Drops the heap. Every gem must have been dropped once.
    pub fn close(self) {
        let ledger = self.ledger.clone();
        ledger.closing.store(true, Ordering::Relaxed);
        drop(self);
        let [minted, dropped] = [&ledger.minted_gems, &ledger.dropped_gems];
        assert_eq!(minted.load(Ordering::Relaxed), dropped.load(Ordering::Relaxed));
    }
}

/// An empty chest.
fn chest<'gc>(mc: &Mutator<'gc>, id: u64) -> Gc<'gc, Chest<'gc>> {
    let chest = mc.alloc(Chest {
        id,
        canary: AtomicU64::new(0),
        cells: [const { None }; 3].map(GcCell::new),
        bag: GcMutex::new(Vec::new()),
        map: GcMutex::new(HashMap::new()),
        shelf: GcMutex::new(Box::new(GcMutex::new(Vec::new()))),
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

/// A walk over everything that can be reached.
struct Audit<'w> {
    world: &'w World,
    objects: u64,
    trains: u64,
    seen: Vec<bool>,
}

impl Audit<'_> {
    fn chest<'gc>(&mut self, mc: &Mutator<'gc>, chest: Gc<'gc, Chest<'gc>>) {
        touch_chest(chest);
        self.objects += 1;
        chest.cells.iter().filter_map(GcCell::get).for_each(|coin| self.stack(coin));
        chest.bag.lock(mc).iter().for_each(|&coin| self.stack(coin));
        for (id, &coin) in chest.map.lock(mc).iter() {
            assert_eq!(*id, coin.id, "a coin under another's key");
            self.stack(coin);
        }
        chest.shelf.lock(mc).lock(mc).iter().for_each(|&coin| self.stack(coin));
    }

    fn train<'gc>(&mut self, head: Gc<'gc, Car<'gc>>) {
        assert_eq!(head.behind + 1, self.world.cars, "a train without its head");
        self.trains += 1;
        let mut link = Some(head);
        while let Some(car) = link {
            touch_car(car);
            self.objects += 1;
            car.cargo.get().into_iter().for_each(|coin| self.stack(coin));
            link = car.next;
        }
    }

    fn stack<'gc>(&mut self, top: Gc<'gc, Coin<'gc>>) {
        let mut coin = Some(top);
        while let Some(this) = coin {
            self.world.check_owned(this);
            let seen = &mut self.seen[this.id as u32 as usize];
            assert!(!std::mem::replace(seen, true), "the coin {:#x} is in two places", this.id);
            self.objects += 1 + u64::from(this.gem.is_some()) + u64::from(this.body.is_some());
            if let Some(body) = this.body {
                assert!(body.iter().all(|&word| word == this.id), "the body of {:#x}", this.id);
            }
            coin = this.next.get();
        }
    }
}
