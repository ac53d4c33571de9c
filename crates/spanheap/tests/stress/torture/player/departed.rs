//! Steps with what may be dead: weak pointers, ephemerons, revived coins.
//!
//! A note is a weak pointer to a coin, and says which. Who follows it finds the coin, as it was; or finds nothing, and
//! then the coin was melted before. What was found may be melted, too, and be nowhere else; it is kept
//! as a *ghost* where others look at it, and must be whole as long as it is there.

use super::Game;
use crate::torture::world::{self, Coin, Note};
use spanheap::Gc;
use std::sync::atomic::Ordering;

impl<'gc> Game<'_, 'gc> {
    /// Does something with the dead, or with those who may be.
    pub(super) fn afterlife(&mut self) {
        match self.random().below(12) {
            0 | 1 => {
                if let Some(&coin) = self.hand.last() {
                    self.write_note(coin);
                }
            }
            2..6 => {
                // Many at once, so that some meet the moment at which it is decided who is dead.
                let count = if self.random().one_in(8) { world::NOTES } else { 1 };
                (0..count).for_each(|_| self.follow_note());
            }
            6..9 => self.use_tag(),
            9 => {
                if let Some(coin) = self.world.pop_revived(self.mc) {
                    self.haunt(Some(coin));
                }
            }
            10 => self.haunt(None),
            _ => {
                let board = self.world.board.get(self.mc);
                let ghost = board.ghosts[self.random().below(world::GHOSTS)].get();
                self.glimpses.extend(ghost);
            }
        }
    }

    /// Notes a coin that the closure owns.
    pub(super) fn write_note(&mut self, coin: Gc<'gc, Coin<'gc>>) {
        let Ok(weak) = self.mc.try_downgrade(coin) else { return };
        coin.watched.store(true, Ordering::Relaxed);
        assert!(weak.upgrade(self.mc).is_some(), "a coin in the hand is dead");
        let Ok(note) = self.mc.try_alloc(Note { id: coin.id, weak }) else { return };
        let board = self.world.board.get(self.mc);
        board.notes[self.random().below(world::NOTES)].set(self.mc, Some(note));
    }

    fn follow_note(&mut self) {
        let board = self.world.board.get(self.mc);
        let Some(note) = board.notes[self.random().below(world::NOTES)].get() else { return };
        match note.weak.upgrade(self.mc) {
            Some(coin) => {
                world::touch_coin(coin);
                assert_eq!(coin.id, note.id, "a weak pointer leads to another coin");
                assert!(note.weak.upgrade(self.mc).is_some(), "a coin died while it was held");
                self.glimpses.push(coin);
                if self.random().one_in(2) {
                    self.haunt(Some(coin));
                }
            }
            None => {
                let id = note.id;
                assert!(!self.world.ledger.lives(id), "a weak pointer to {id:#x} was cleared");
                assert!(note.weak.upgrade(self.mc).is_none(), "the coin {id:#x} came back");
            }
        }
    }

    /// Leaves a coin, of whomever, where others look at it, or nothing.
    fn haunt(&mut self, coin: Option<Gc<'gc, Coin<'gc>>>) {
        let board = self.world.board.get(self.mc);
        let old = board.ghosts[self.random().below(world::GHOSTS)].swap(self.mc, coin);
        old.into_iter().for_each(world::touch_coin);
        self.glimpses.extend(old);
    }

    /// Exchanges what lies under the tag of a coin in the hand; some coins get one.
    fn use_tag(&mut self) {
        let (Some(&key), mc) = (self.hand.first(), self.mc) else { return };
        let tag = match self.world.tag_of(mc, key) {
            Some(tag) => tag,
            // An entry of a weak map cannot be refused.
            None if self.world.traits.limited || !self.random().one_in(4) => return,
            None => self.world.tag(mc, key),
        };
        let coin = (self.hand.len() > 1).then(|| self.hand.pop()).flatten();
        let old = tag.cargo.swap(mc, coin);
        self.hand.extend(old);
    }
}
