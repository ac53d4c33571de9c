//! A [`Player`]: the random steps of one thread, from closure to closure.
//!
//! A closure has a *hand* of coins that it alone owns, and *glimpses*: coins that it has only looked at, which others
//! take away, pass on and melt meanwhile. Both must stay what they are until the closure ends. Whatever is in the
//! hand when it ends is put down somewhere; if a panic ends it, the coins in it are melted, so that the collector is
//! free to take them and must.

mod camps;
mod departed;
mod vessels;

use super::world::{self, Car, Chest, ChestRoot, Coin, CoinCell, CoinRoot, Coins, Pouch, World};
use super::{Death, Random};
use crate::shadow::Program;
use spanheap::{Gc, GcMutex, Mutator, OutOfMemory, SharedArena};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How deep closures nest.
const DEPTH: usize = 3;
/// A hand does not grow beyond this: it puts something down.
const HAND: usize = 12;

/// What outlives the threads that play for it.
pub struct Player {
    pub random: Random,
    /// Steps done so far.
    pub steps: u64,
    /// One for each world.
    pub spares: Vec<ChestRoot>,
    /// A graph of the player's own in each world, with its shadow.
    pub gardens: Vec<Program>,
    /// Roots that are dropped at some later step, outside of closures or inside.
    stale: Vec<CoinRoot>,
    /// Bales that are let go between two closures, or in one of whatever heap.
    bales: Vec<SharedArena>,
    is_full: bool,
    /// Closures that all players have ended.
    closures: Arc<AtomicU64>,
}

impl Player {
    pub fn new(worlds: &[World], seed: u64, number: u64, closures: Arc<AtomicU64>) -> Player {
        Player {
            random: Random::new(seed ^ number << 48),
            steps: 0,
            spares: worlds.iter().map(|world| world.spare(number)).collect(),
            gardens: worlds.iter().map(|_| Program::new(seed, number + 1)).collect(),
            stale: Vec::new(),
            bales: Vec::new(),
            is_full: false,
            closures,
        }
    }

    /// Drops the roots that are left over, and lets all bales go.
    pub fn forget(&mut self) {
        self.stale.clear();
        self.let_go();
    }

    /// Lets all bales go.
    fn let_go(&mut self) {
        for bale in self.bales.drain(..) {
            match self.random.one_in(2) {
                true => bale.free(),
                false => drop(bale),
            }
        }
    }

    /// Plays until so many steps are done, or until it is time to die, in one of the ways in which a thread
    /// can end.
    pub fn live(&mut self, worlds: &[World], until: u64) {
        let span = self.random.below(30_000) as u64;
        let end = until.min(self.steps + span);
        while self.steps < end {
            let at = self.random.below(worlds.len());
            self.closure(worlds, at, 0, false);
            self.closures.fetch_add(1, Ordering::Relaxed);
            self.let_go();
            if std::mem::take(&mut self.is_full) {
                let _ = worlds[at].heap.collect();
            }
            if self.random.one_in(16) {
                self.forget();
            }
        }
        match self.random.below(3) {
            0 => {}
            1 => std::panic::resume_unwind(Box::new(Death)),
            _ => {
                let at = self.random.below(worlds.len());
                self.closure(worlds, at, 0, true);
            }
        }
    }

    /// One closure of random length, with others in it. If it `dies`, it ends in a panic.
    fn closure(&mut self, worlds: &[World], at: usize, depth: usize, dies: bool) {
        let world = &worlds[at];
        let length = match self.random.below(64) {
            0 => 3000,
            1..8 => 400,
            _ => 1 + self.random.below(60),
        };
        world.heap.enter(|mc| {
            let spare = (depth == 0).then(|| self.spares[at].get(mc));
            let player = &mut *self;
            let mut game = Game::new(mc, player, world, at, spare);
            for _ in 0..length {
                game.step();
                if depth + 1 < DEPTH && game.random().one_in(200) {
                    // A heap that is being verified lets nobody in before all have left. So where they are
                    // verified, nobody waits in the second heap for the first.
                    let from = if worlds[at].traits.verified { at } else { 0 };
                    let other = from + game.random().below(worlds.len() - from);
                    // The innermost may be the one that dies, and takes the others with it.
                    let dies = dies && game.random().one_in(3);
                    game.player.closure(worlds, other, depth + 1, dies);
                }
            }
            game.look();
            if dies {
                let place = game.place();
                let _held = place.bag.lock(mc);
                std::panic::resume_unwind(Box::new(Death));
            }
        });
    }
}

/// A closure under way.
struct Game<'a, 'gc> {
    mc: &'a Mutator<'gc>,
    player: &'a mut Player,
    world: &'a World,
    at: usize,
    /// The player's chest; only the outermost closure has it.
    spare: Option<Gc<'gc, Chest<'gc>>>,
    is_moved: bool,
    hand: Coins<'gc>,
    /// A train that is in no station meanwhile.
    train: Option<Gc<'gc, Car<'gc>>>,
    glimpses: Coins<'gc>,
    /// Pouches that were there when the closure looked.
    opened: Vec<&'gc Pouch<'gc>>,
}

impl<'a, 'gc> Game<'a, 'gc> {
    fn new(
        mc: &'a Mutator<'gc>,
        player: &'a mut Player,
        world: &'a World,
        at: usize,
        spare: Option<Gc<'gc, Chest<'gc>>>,
    ) -> Game<'a, 'gc> {
        let (hand, glimpses, opened) = (Vec::new(), Vec::new(), Vec::new());
        let (is_moved, train) = (false, None);
        Game { mc, player, world, at, spare, is_moved, hand, train, glimpses, opened }
    }
}

impl<'gc> Game<'_, 'gc> {
    fn random(&mut self) -> &mut Random {
        &mut self.player.random
    }

    /// Some chest: one on the board, or now and then the player's own.
    fn place(&mut self) -> Gc<'gc, Chest<'gc>> {
        let own = self.spare.filter(|_| self.player.random.one_in(32));
        let chest = own.unwrap_or_else(|| {
            let places = self.world.board.get(self.mc).places;
            places[self.player.random.below(world::PLACES)].get()
        });
        world::touch_chest(chest);
        chest
    }

    fn step(&mut self) {
        self.player.steps += 1;
        if self.hand.len() > HAND {
            self.put_down();
        }
        if self.glimpses.len() > 20 {
            self.glimpses.clear();
        }
        if self.opened.len() > 20 {
            self.opened.clear();
        }
        match self.random().below(86) {
            64..74 => self.vessel(),
            74..80 => self.afterlife(),
            80.. => self.camp(),
            0..12 => {
                let old = self.exchange(None);
                self.hand.extend(old);
            }
            12..26 => {
                let coin = self.hand.pop();
                let old = self.exchange(coin);
                self.hand.extend(old);
            }
            26..36 => self.contain(),
            36..40 => self.restack(),
            40..44 => self.glimpse(),
            44..48 => self.exchange_chest(),
            48..51 => self.look(),
            51 => self.move_train(),
            52..56 => self.remelt(),
            56..59 => self.root(),
            59 => self.take_root(),
            60 => self.ship(),
            61 => self.mint_missing(),
            62 => self.garden(),
            _ => self.dawdle(),
        }
    }

    /// Exchanges what is in a random cell, of a chest or under a coin.
    fn exchange(&mut self, coin: Option<Gc<'gc, Coin<'gc>>>) -> Option<Gc<'gc, Coin<'gc>>> {
        let place = self.place();
        let cell: &CoinCell<'gc> = &place.as_ref().cells[self.random().below(3)];
        cell.swap(self.mc, coin)
    }

    /// Puts something into a locked container, or takes something out, or all of it.
    fn contain(&mut self) {
        let (mc, place) = (self.mc, self.place());
        let (which, how) = (self.random().below(3), self.random().below(9));
        match which {
            0 => self.change_bag(&place.as_ref().bag, how),
            1 => {
                let shelf = place.as_ref().shelf.lock(mc);
                change(&mut shelf.lock(mc), &mut self.hand, how);
            }
            _ => {
                let mut map = place.as_ref().map.lock(mc);
                match how {
                    0..4 => {
                        if let Some(coin) = self.hand.pop() {
                            assert!(map.insert(coin.id, coin).is_none(), "two of one coin");
                        }
                    }
                    4 => self.hand.extend(map.drain().map(|(_, coin)| coin)),
                    _ => {
                        let key = map.keys().next().copied();
                        self.hand.extend(key.and_then(|key| map.remove(&key)));
                    }
                }
            }
        }
    }

    /// The same for a bag, which may also be replaced as a whole.
    fn change_bag(&mut self, bag: &GcMutex<'gc, Coins<'gc>>, how: usize) {
        let Some(mut bag) = bag.try_lock(self.mc) else { return };
        match how {
            8 => {
                let new = self.hand.split_off(self.hand.len() / 2);
                self.hand.append(&mut std::mem::replace(&mut *bag, new));
            }
            _ => change(&mut bag, &mut self.hand, how),
        }
    }

    /// Puts one stack onto another, or takes the top off one.
    fn restack(&mut self) {
        let Some(top) = self.hand.pop() else { return };
        match (top.next.get(), self.hand.pop()) {
            (None, below) => top.next.set(self.mc, below),
            (Some(_), other) => {
                // The other one goes between; nobody else can see any of it.
                let rest = top.next.swap(self.mc, other);
                self.hand.extend(rest);
            }
        }
        self.hand.push(top);
    }

    /// Looks at a coin that somebody else may take any moment.
    fn glimpse(&mut self) {
        let place = self.place();
        let mut coin = place.cells[self.random().below(3)].get();
        for _ in 0..self.random().below(4) {
            coin = coin.and_then(|coin| coin.next.get().or(Some(coin)));
        }
        self.glimpses.extend(coin);
    }

    /// Exchanges the player's chest for one on the board, with all that is in them.
    fn exchange_chest(&mut self) {
        let Some(spare) = self.spare else { return };
        let places = self.world.board.get(self.mc).places;
        let at = self.random().below(world::PLACES);
        self.spare = Some(places[at].swap(self.mc, spare));
        self.is_moved = true;
    }

    /// Takes a train out of its station, or puts one in; what was there goes on.
    fn move_train(&mut self) {
        let board = self.world.board.get(self.mc);
        let at = self.random().below(world::STATIONS);
        self.train = board.stations[at].swap(self.mc, self.train);
    }

    /// Puts the train where there is none.
    fn park(&mut self) {
        let board = self.world.board.get(self.mc);
        let mut at = 0;
        while self.train.is_some() {
            self.train = board.stations[at % world::STATIONS].swap(self.mc, self.train);
            at += 1;
        }
    }

    /// Walks along a train, its own or one that stands in a station, and exchanges what a far car has.
    fn ship(&mut self) {
        if self.world.cars == 0 || !self.random().one_in(4) {
            return;
        }
        let station = self.random().below(world::STATIONS);
        let board = self.world.board.get(self.mc);
        let head = self.train.or_else(|| board.stations[station].get());
        let Some(mut car) = head else { return };
        // Most of it happens at the end, where the collector comes last.
        let reach = if self.random().one_in(4) { self.world.cars as usize } else { 16 };
        let last = self.random().below(reach) as u64;
        while let Some(next) = car.next.filter(|_| car.behind > last) {
            world::touch_car(next);
            car = next;
        }
        for _ in 0..16 {
            let coin = self.hand.pop();
            let old = car.cargo.swap(self.mc, coin);
            self.hand.extend(old);
            match car.next {
                Some(next) if self.hand.len() <= HAND => car = next,
                _ => break,
            }
        }
    }

    /// Checks all that the closure knows.
    fn look(&mut self) {
        for &coin in &self.glimpses {
            world::touch_coin(coin);
        }
        self.opened.iter().for_each(|pouch| pouch.touch());
        for &top in &self.hand {
            let mut coin = Some(top);
            for _ in 0..8 {
                let Some(this) = coin else { break };
                self.world.check_owned(this);
                coin = this.next.get();
            }
        }
    }

    /// Melts a coin and mints a new one of its number.
    fn remelt(&mut self) {
        let Some(coin) = self.hand.pop() else { return };
        self.world.check_owned(coin);
        let rest = match self.player.random.one_in(2) {
            true => coin.next.swap(self.mc, None),
            // The dead coin keeps its pointer, and two of them lead to the rest.
            false => coin.next.get(),
        };
        if let Some(tag) = self.world.tag_of(self.mc, coin) {
            // Who has melted the coin finds the tag no more.
            let cargo = tag.cargo.swap(self.mc, None);
            self.hand.extend(cargo);
        }
        if self.random().one_in(4) {
            self.write_note(coin);
        }
        let number = self.world.melt(coin);
        self.mint(number, rest);
    }

    /// Mints a coin, with others under it. Without memory they stay in the hand, and the number waits.
    fn mint(&mut self, number: u32, rest: Option<Gc<'gc, Coin<'gc>>>) {
        match self.world.mint(self.mc, number, rest, &mut self.player.random) {
            Ok(coin) => self.hand.push(coin),
            Err(OutOfMemory { .. }) => {
                self.player.is_full = true;
                self.hand.extend(rest);
                lock(&self.world.unminted).push(number);
            }
        }
    }

    fn mint_missing(&mut self) {
        for _ in 0..4 {
            let number = lock(&self.world.unminted).pop();
            if let Some(number) = number {
                self.mint(number, None);
            }
        }
    }

    /// Leaves a coin to a root alone.
    fn root(&mut self) {
        let Some(coin) = self.hand.pop() else { return };
        let root: CoinRoot = self.mc.root(coin);
        if self.player.random.one_in(3) {
            self.player.stale.push(root.clone());
        }
        lock(&self.world.locker).push(root);
    }

    /// Takes a coin back that was left to a root.
    fn take_root(&mut self) {
        let mut locker = lock(&self.world.locker);
        if locker.is_empty() {
            return;
        }
        let at = self.player.random.below(locker.len());
        let root = locker.swap_remove(at);
        drop(locker);
        self.hand.push(root.get(self.mc));
        if self.player.random.one_in(2) {
            self.player.stale.push(root);
        }
    }

    fn garden(&mut self) {
        // Its steps are much longer than the others.
        if self.random().one_in(8) {
            let garden = &mut self.player.gardens[self.at];
            garden.act(self.mc);
            garden.prune();
        }
    }

    /// Lets the collector get on: what goes wrong goes wrong when a closure spans its steps.
    fn dawdle(&mut self) {
        match self.random().below(400) {
            0 => {
                let micros = self.random().below(300) as u64;
                std::thread::sleep(Duration::from_micros(micros));
            }
            1..8 => std::thread::yield_now(),
            _ => (0..self.random().below(200)).for_each(|_| std::hint::spin_loop()),
        }
    }

    /// Puts everything in the hand somewhere.
    fn put_down(&mut self) {
        while let Some(coin) = self.hand.pop() {
            let place = self.place();
            match self.random().below(4) {
                0 => place.bag.lock(self.mc).push(coin),
                1 => _ = place.map.lock(self.mc).insert(coin.id, coin),
                _ => {
                    let old = self.exchange(Some(coin));
                    self.hand.extend(old);
                }
            }
        }
    }

    /// Melts everything in the hand.
    fn melt_all(&mut self) {
        let mut lost = lock(&self.world.unminted);
        let mut coins = std::mem::take(&mut self.hand);
        while let Some(coin) = coins.pop() {
            // A second panic ends the process, which is better than to go round for ever.
            self.world.check_owned(coin);
            let tag = self.world.tag_of(self.mc, coin);
            coins.extend(tag.and_then(|tag| tag.cargo.get()));
            lost.push(self.world.melt(coin));
            coins.extend(coin.next.get());
        }
    }
}

impl Drop for Game<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.melt_all();
        } else {
            self.put_down();
        }
        self.park();
        if let Some(spare) = self.spare.filter(|_| self.is_moved) {
            self.player.spares[self.at] = self.mc.root(spare);
        }
    }
}

/// Puts something into a vector, or takes something out, or all of it.
fn change<'gc>(bag: &mut Coins<'gc>, hand: &mut Coins<'gc>, how: usize) {
    match how {
        0..4 => bag.extend(hand.pop()),
        4 => hand.append(bag),
        _ => hand.extend(bag.pop()),
    }
}

/// Locks; a thread that has died with the lock in its hand left nothing unfinished.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
