//! The comparison with the ledger, while nobody plays: what can be reached, by every way that there is, must be what
//! lives, and the collector must have retained exactly that.
//!
//! Beside the coins, these are objects, too: gems and bodies, the storage of growable containers, niches, notes,
//! a handle for each coin that somebody has had a weak pointer to (and one for each dead coin whose note
//! is still there), an ephemeron and a tag for each tagged coin.
//!
//! They are counted by kind ([`Found`]), so that one too many can be told from the types that the heap says it
//! holds. A growable container has storage if, and only if, it has room; that holds for a hash map from which all
//! was removed, too, since an empty one has no removed buckets.

use super::{Car, Chest, ChestRoot, Coin, Hall, STATIONS, World, has_finalizer};
use super::{touch_car, touch_chest, touch_coin};
use spanheap::{Collected, Gc, GcCell, Mutator};
use std::collections::HashSet;
use std::sync::atomic::Ordering;

impl World {
    /// Compares the heap with the ledger, while nobody plays. `others` are the objects that belong
    /// to nobody's coins.
    pub fn checkpoint(&self, spares: &[ChestRoot], others: u64) {
        self.bury();
        let seen = vec![false; super::COINS as usize];
        let mut audit = Audit { world: self, found: Found::default(), trains: 0, waiting: 0, seen };
        audit.found.others = others;
        self.heap.enter(|mc| {
            let board = self.board.get(mc);
            audit.found.boards += 2 + board.registers.len() as u64;
            let spares = spares.iter().map(|spare| spare.get(mc));
            board.places.iter().map(GcCell::get).chain(spares).for_each(|c| audit.chest(mc, c));
            let locker = self.locker.lock().unwrap();
            locker.iter().for_each(|coin| audit.stack(mc, coin.get(mc)));
            audit.hall(mc, board.hall);
            board.stations.iter().filter_map(GcCell::get).for_each(|head| audit.train(mc, head));
            for pouch in board.camps.iter().flat_map(|camp| camp.lock(mc).clone()) {
                let pouch = self.open(mc, pouch).expect("a pouch of a tent that stands has gone");
                pouch.coins(mc).into_iter().for_each(|coin| audit.stack(mc, coin));
            }
            assert_eq!(audit.trains, STATIONS as u64 / 2 * u64::from(self.cars > 0));
            let tags: usize = board.registers.iter().map(|register| register.len(mc)).sum();
            let tagged = audit.found.tags;
            assert_eq!(tags as u64, tagged, "entries in the weak maps, and tagged coins");
            audit.found.ephemerons += tagged;
            audit.notes(mc);
            let ballast = self.ballast.get(mc);
            audit.found.ballast += 1 + ballast.len() as u64;
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
        let stats = self.settled(&audit.found);
        assert!(!stats.retained_everything);
        let wrong = self.ledger.dropped_alive.load(Ordering::Relaxed);
        assert_eq!(wrong, 0, "the gem of {wrong:#x} was dropped, or it was cleaned up, alive");
        let [registered, revived] = [&self.ledger.registered, &self.ledger.revived];
        let dead = registered.load(Ordering::Relaxed) - audit.waiting;
        assert_eq!(revived.load(Ordering::Relaxed), dead, "dead coins are revived once each");
    }

    /// What the heap says when it holds what was found, and no object more. A cycle may retain what has died while
    /// it ran (here a destructor or a cleanup may have let go of something, late, on the drop thread), but the
    /// ones that follow may not; and none retains less.
    fn settled(&self, found: &Found) -> spanheap::Stats {
        let reached = found.objects();
        for _ in 0..3 {
            let stats = self.heap.stats();
            let count = stats.live_objects;
            assert!(count >= reached, "{count} objects retained, {reached} reached: {found:?}");
            if count == reached {
                return stats;
            }
            assert_eq!(self.heap.collect(), Collected::Complete);
        }
        let (stats, live) = (self.heap.stats(), self.heap.explain_live());
        let count = stats.live_objects;
        assert!(
            count == reached,
            "{count} objects retained after three cycles, {reached} reached: {found:?}\n{:#?}",
            live.types
        );
        stats
    }

    /// Collects until all that is dead is gone: also what is revived, and what the weak maps remember of the dead.
    fn bury(&self) {
        self.heap.enter(|mc| {
            let board = self.board.get(mc);
            board.ghosts.iter().for_each(|ghost| ghost.set(mc, None));
            board.relics.iter().for_each(|relic| relic.set(mc, None));
        });
        loop {
            assert_eq!(self.heap.collect(), Collected::Complete);
            let revived = self.heap.enter(|mc| {
                let board = self.board.get(mc);
                board.registers.iter().for_each(|register| _ = register.len(mc));
                std::iter::from_fn(|| self.pop_revived(mc)).count()
            });
            // What it retained may be registered, too.
            if revived == 0 {
                break;
            }
        }
        assert_eq!(self.heap.collect(), Collected::Complete);
    }
}

/// Objects that can be reached, by kind.
#[derive(Default, Debug)]
struct Found {
    /// The board, its row of places, the weak maps.
    boards: u64,
    chests: u64,
    niches: u64,
    /// Storage of growable vectors.
    rows: u64,
    /// Storage of growable hash maps.
    tables: u64,
    halls: u64,
    cars: u64,
    coins: u64,
    gems: u64,
    bodies: u64,
    /// Handles of coins that live, and of dead ones whose notes are there.
    handles: u64,
    ephemerons: u64,
    tags: u64,
    notes: u64,
    ballast: u64,
    /// What belongs to nobody's coins.
    others: u64,
}

impl Found {
    /// All of them.
    fn objects(&self) -> u64 {
        let holders = self.boards + self.chests + self.niches + self.halls + self.cars;
        let coins = self.coins + self.gems + self.bodies + self.handles;
        let tagged = self.ephemerons + self.tags;
        let storage = self.rows + self.tables;
        holders + coins + tagged + storage + self.notes + self.ballast + self.others
    }
}

/// A walk over everything that can be reached.
struct Audit<'w> {
    world: &'w World,
    found: Found,
    trains: u64,
    /// Coins that are to be revived when they have died.
    waiting: u64,
    seen: Vec<bool>,
}

impl Audit<'_> {
    fn chest<'gc>(&mut self, mc: &Mutator<'gc>, chest: Gc<'gc, Chest<'gc>>) {
        touch_chest(chest);
        let (row, table) = (chest.row.lock(mc), chest.table.read(mc));
        self.found.chests += 1;
        self.found.niches += 1;
        self.found.rows += u64::from(row.capacity() > 0);
        self.found.tables += u64::from(table.capacity() > 0);
        let mut coins: Vec<_> = chest.cells.iter().filter_map(GcCell::get).collect();
        coins.extend(&*chest.bag.lock(mc));
        for (id, &coin) in chest.map.lock(mc).iter().chain(table.iter()) {
            assert_eq!(*id, coin.id, "a coin under another's key");
            coins.push(coin);
        }
        coins.extend(&*chest.shelf.lock(mc).lock(mc));
        coins.extend(&*chest.wall.read(mc));
        coins.extend(row.iter());
        coins.extend(chest.niche.get().coin.get().copied().flatten());
        coins.into_iter().for_each(|coin| self.stack(mc, coin));
    }

    fn hall<'gc>(&mut self, mc: &Mutator<'gc>, hall: Gc<'gc, Hall<'gc>>) {
        let places = hall.places.lock(mc);
        assert_eq!(places.len(), self.world.traits.places);
        self.found.halls += 1;
        self.found.rows += u64::from(places.capacity() > 0);
        places.iter().flatten().for_each(|&coin| self.stack(mc, coin));
    }

    fn train<'gc>(&mut self, mc: &Mutator<'gc>, head: Gc<'gc, Car<'gc>>) {
        assert_eq!(head.behind + 1, self.world.cars, "a train without its head");
        self.trains += 1;
        let mut link = Some(head);
        while let Some(car) = link {
            touch_car(car);
            self.found.cars += 1;
            car.cargo.get().into_iter().for_each(|coin| self.stack(mc, coin));
            link = car.next;
        }
    }

    /// A coin and all that is under it, and under their tags.
    fn stack<'gc>(&mut self, mc: &Mutator<'gc>, top: Gc<'gc, Coin<'gc>>) {
        let mut coins = vec![top];
        while let Some(this) = coins.pop() {
            self.world.check_owned(this);
            let number = this.id as u32;
            let seen = &mut self.seen[number as usize];
            assert!(!std::mem::replace(seen, true), "the coin {:#x} is in two places", this.id);
            self.found.coins += 1;
            self.found.gems += u64::from(this.gem.is_some());
            self.found.bodies += u64::from(this.body.is_some());
            self.found.handles += u64::from(this.watched.load(Ordering::Relaxed));
            self.waiting += u64::from(has_finalizer(number));
            if let Some(body) = this.body {
                assert!(body.iter().all(|&word| word == this.id), "the body of {:#x}", this.id);
            }
            if let Some(tag) = self.world.tag_of(mc, this) {
                self.found.tags += 1;
                coins.extend(tag.cargo.get());
            }
            coins.extend(this.next.get());
        }
    }

    fn notes<'gc>(&mut self, mc: &Mutator<'gc>) {
        let board = self.world.board.get(mc);
        let mut dead = HashSet::new();
        for note in board.notes.iter().filter_map(GcCell::get) {
            self.found.notes += 1;
            match note.weak.upgrade(mc) {
                Some(coin) => {
                    touch_coin(coin);
                    assert_eq!(coin.id, note.id, "a weak pointer leads to another coin");
                    let lives = self.world.ledger.lives(note.id);
                    assert!(lives, "a weak pointer leads to the dead coin {:#x}", note.id);
                }
                None => {
                    assert!(!self.world.ledger.lives(note.id), "{:#x} is not found", note.id);
                    dead.insert(note.weak);
                }
            }
        }
        self.found.handles += dead.len() as u64;
    }
}
