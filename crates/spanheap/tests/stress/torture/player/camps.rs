//! Steps with shared arenas: pouches are made, filled, looked into from afar, and go with their tents.
//!
//! What a closure has opened stays whole until it ends, whoever strikes the tent meanwhile; so it is kept, and looked
//! at again.

use super::Game;
use crate::torture::world::{self, Pouch, PouchLink};
use spanheap::{ArenaGc, SharedArena, SharedArenaError};
use std::sync::Arc;

impl<'gc> Game<'_, 'gc> {
    /// Does something with arenas.
    pub(super) fn camp(&mut self) {
        let place = self.random().below(world::TENTS);
        match self.random().below(32) {
            0..8 => self.make_pouches(place),
            8..24 => self.use_pouch(place),
            24..28 => self.follow_relic(),
            28..31 => self.link_pouches(place),
            _ => match self.random().below(16) {
                0 | 1 => self.strike(place),
                2 | 3 => self.bale(),
                _ => {}
            },
        }
    }

    /// Makes a *bale*: an arena of its own with a pouch in it, and so much beside that whoever lets it go sees to its
    /// memory himself, if he may. Others find the pouch, and have it open when the bale goes: in this closure, in one
    /// of another heap, or between two.
    fn bale(&mut self) {
        let bale = self.world.heap.shared_arena();
        let board = self.world.board.get(self.mc);
        match self.fill_bale(&bale) {
            Ok(pouch) => {
                self.opened.extend(self.world.open(self.mc, pouch));
                board.relics[self.random().below(world::RELICS)].set(self.mc, Some(pouch));
            }
            Err(_) => self.player.is_full = true,
        }
        match self.random().below(4) {
            0 => bale.free(),
            1 => self.player.let_go(),
            _ => self.player.bales.push(bale),
        }
    }

    fn fill_bale(
        &mut self,
        bale: &SharedArena,
    ) -> Result<ArenaGc<'gc, Pouch<'gc>>, SharedArenaError> {
        let (id, other) = self.new_pouch();
        let writer = bale.try_writer(self.mc)?;
        let pouch = writer.try_alloc(Pouch::new(id, other))?;
        pouch.get(self.mc).into_iter().for_each(Pouch::finish);
        // One to three mebibytes: in one piece with the pouch, in a chunk beside, or in several pieces.
        let (pieces, words) = match self.random().below(3) {
            0 => (1, 135_000),
            1 => (1, 390_000),
            _ => (5, 30_000),
        };
        for _ in 0..pieces {
            writer.try_alloc_zeroed::<u64>(words)?;
        }
        Ok(pouch)
    }

    /// Makes a pouch, or some at once. They are empty: the tent may be struck before others can see them.
    fn make_pouches(&mut self, place: usize) {
        let tent = self.world.tents.at(place);
        let many = self.random().one_in(4);
        let made = if many { self.write_pouches(&tent) } else { self.try_pouch(&tent) };
        let pouches = match made {
            Ok(pouches) => pouches,
            // It was struck meanwhile.
            Err(SharedArenaError::Freed) => return,
            Err(_) => return self.player.is_full = true,
        };
        let board = self.world.board.get(self.mc);
        let mut camp = board.as_ref().camps[place].lock(self.mc);
        if Arc::ptr_eq(&self.world.tents.at(place), &tent) {
            camp.extend(pouches);
            camp.truncate(world::POUCHES);
        }
    }

    fn new_pouch(&mut self) -> (u64, PouchLink<'gc>) {
        let board = self.world.board.get(self.mc);
        let other = board.relics[self.random().below(world::RELICS)].get();
        (self.random().number(), other)
    }

    fn try_pouch(
        &mut self,
        tent: &SharedArena,
    ) -> Result<Vec<ArenaGc<'gc, Pouch<'gc>>>, SharedArenaError> {
        let (id, other) = self.new_pouch();
        let pouch = tent.try_alloc(self.mc, Pouch::new(id, other))?;
        pouch.get(self.mc).into_iter().for_each(Pouch::finish);
        Ok(vec![pouch])
    }

    /// Makes some with a writer, and other things between them, small and large.
    fn write_pouches(
        &mut self,
        tent: &SharedArena,
    ) -> Result<Vec<ArenaGc<'gc, Pouch<'gc>>>, SharedArenaError> {
        let writer = tent.try_writer(self.mc)?;
        let mut pouches = Vec::new();
        for _ in 0..self.random().below(6) {
            let (id, other) = self.new_pouch();
            let pouch = writer.try_alloc(Pouch::new(id, other))?;
            pouch.get(self.mc).into_iter().for_each(Pouch::finish);
            pouches.push(pouch);
            let words = match self.random().below(256) {
                0 => 300_000,
                1..8 => 4_000,
                _ => self.random().below(40),
            };
            writer.try_alloc_zeroed::<u64>(words)?;
        }
        Ok(pouches)
    }

    /// Exchanges what is in a pouch.
    fn use_pouch(&mut self, place: usize) {
        let Some(pouch) = self.some_pouch(place) else { return };
        let Some(opened) = self.world.open(self.mc, pouch) else { return };
        self.opened.push(opened);
        let Some(mut inside) = opened.inside.try_lock(self.mc) else { return };
        // Somebody may have struck the tent since.
        if inside.sealed {
            return;
        }
        let coin = self.hand.pop();
        let old = match self.random().below(3) {
            2 => std::mem::replace(&mut inside.coin, coin),
            at => opened.cells[at].swap(self.mc, coin),
        };
        self.hand.extend(old);
    }

    /// A pouch of a camp; as long as the camp is locked it cannot go.
    fn some_pouch(&mut self, place: usize) -> PouchLink<'gc> {
        let board = self.world.board.get(self.mc);
        let camp = board.as_ref().camps[place].try_lock(self.mc)?;
        if camp.is_empty() {
            return None;
        }
        let pouch = camp[self.player.random.below(camp.len())];
        assert!(
            self.world.open(self.mc, pouch).is_some(),
            "a pouch of a tent that stands has gone"
        );
        Some(pouch)
    }

    /// Follows pouches from one that may be gone.
    fn follow_relic(&mut self) {
        let board = self.world.board.get(self.mc);
        let mut next = board.relics[self.random().below(world::RELICS)].get();
        for _ in 0..6 {
            let Some(pouch) = next.and_then(|pouch| self.world.open(self.mc, pouch)) else {
                return;
            };
            self.opened.push(pouch);
            let at = self.random().below(2);
            self.glimpses.extend(pouch.cells[at].get());
            next = pouch.other.get();
        }
    }

    /// Lets one pouch lead to another, and somebody else to what it led to before.
    fn link_pouches(&mut self, place: usize) {
        let (mc, board) = (self.mc, self.world.board.get(self.mc));
        let relic = &board.as_ref().relics[self.random().below(world::RELICS)];
        let Some(pouch) = self.some_pouch(place) else { return };
        let old = match self.world.open(mc, pouch) {
            Some(opened) if self.random().one_in(2) => opened.other.swap(mc, relic.get()),
            _ => Some(pouch),
        };
        relic.set(mc, old);
    }

    /// Takes everything out of a tent and lets it go.
    fn strike(&mut self, place: usize) {
        let (mc, board) = (self.mc, self.world.board.get(self.mc));
        let mut camp = board.as_ref().camps[place].lock(mc);
        for pouch in camp.drain(..) {
            let opened = pouch.get(mc).expect("the arena of a tent that stands is freed");
            self.hand.extend(opened.seal(mc));
            self.opened.push(opened);
            board.relics[self.player.random.below(world::RELICS)].set(mc, Some(pouch));
        }
        let tent = self.world.tents.replace(place, self.world.heap.shared_arena());
        drop(camp);
        match self.random().below(3) {
            0 => tent.free(),
            // Whoever is about to put something in has it still, and drops it as the last one.
            1 => drop(tent),
            _ => match Arc::try_unwrap(tent) {
                Ok(tent) => tent.abandon(),
                Err(tent) => tent.free(),
            },
        }
    }
}
