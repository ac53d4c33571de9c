//! Steps with containers of this crate's own: growable ones, whose storage is an object that the collector scans
//! without the lock; the lock for readers; the field that is set once.
//!
//! What is taken out of one goes into another, and whole containers change places between two chests. In the hall,
//! so long that the collector scans it in pieces, coins move from the end to the front and back.

use super::{Coin, Game, change};
use crate::torture::world::{CoinTable, CoinVec, Niche};
use spanheap::{Gc, GcOnce};

impl<'gc> Game<'_, 'gc> {
    /// Does something with a random container.
    pub(super) fn vessel(&mut self) {
        match self.random().below(12) {
            0..4 => self.change_row(),
            4..6 => self.change_table(),
            6 | 7 => self.change_wall(),
            8 => self.use_niche(),
            9 => self.exchange_contents(),
            _ => self.walk_hall(),
        }
    }

    fn change_row(&mut self) {
        let place = self.place();
        let Some(mut row) = place.as_ref().row.try_lock(self.mc) else { return };
        match self.random().below(16) {
            0..4 => {
                if let Some(coin) = self.hand.pop() {
                    let pushed = row.try_push(self.mc, coin);
                    self.keep_if_full(pushed.is_err(), coin);
                }
            }
            4 => {
                if let Some(coin) = self.hand.pop() {
                    let inserted = row.try_insert(self.mc, 0, coin);
                    self.keep_if_full(inserted.is_err(), coin);
                }
            }
            5 => {
                let count = self.hand.len().min(4);
                let some = self.hand.split_off(self.hand.len() - count);
                if row.try_extend_from_slice(self.mc, &some).is_err() {
                    self.player.is_full = true;
                    self.hand.extend(some);
                }
            }
            6 | 7 => self.hand.extend(row.pop(self.mc)),
            _ => self.rearrange(&mut row),
        }
    }

    /// What changes the places of elements, in a row that may be empty.
    fn rearrange(&mut self, row: &mut CoinVec<'gc>) {
        let (mc, len) = (self.mc, row.len());
        if len == 0 {
            return;
        }
        let (at, other) = (self.random().below(len), self.random().below(len));
        match self.random().below(9) {
            0 => self.hand.push(row.remove(mc, 0)),
            1 => self.hand.push(row.swap_remove(mc, at)),
            2 => {
                if let Some(coin) = self.hand.pop() {
                    let old = row.set(mc, at, coin);
                    self.hand.push(old);
                }
            }
            3 => row.swap(mc, at, other),
            4 => row.edit(mc, <[_]>::reverse),
            5 => row.sort_by_key(mc, |coin| coin.id),
            6 => {
                self.hand.extend(row.iter());
                row.clear(mc);
            }
            7 => {
                let hand = &mut self.hand;
                row.retain(mc, |coin| {
                    let stays = coin.id % 2 == 0;
                    hand.extend((!stays).then_some(*coin));
                    stays
                });
            }
            _ => {
                self.hand.extend(&row[at..]);
                row.truncate(mc, at);
                row.shrink_to_fit(mc);
            }
        }
    }

    fn change_table(&mut self) {
        let (mc, place) = (self.mc, self.place());
        let table = &place.as_ref().table;
        let how = self.random().below(10);
        if how < 3 {
            let Some(table) = table.try_read(mc) else { return };
            self.glimpses.extend(table.values().next());
            return;
        }
        let mut table = table.write(mc);
        match how {
            3..6 => self.insert(&mut table),
            6..8 => {
                let key = table.keys().next().copied();
                self.hand.extend(key.and_then(|key| table.remove(mc, &key)));
            }
            8 => {
                self.hand.extend(table.values());
                table.clear(mc);
            }
            _ => {
                let hand = &mut self.hand;
                table.retain(mc, |id, coin| {
                    let stays = id % 2 == 0;
                    hand.extend((!stays).then_some(*coin));
                    stays
                });
                table.shrink_to_fit(mc);
            }
        }
    }

    fn insert(&mut self, table: &mut CoinTable<'gc>) {
        let Some(coin) = self.hand.pop() else { return };
        match table.try_insert(self.mc, coin.id, coin) {
            Ok(old) => assert!(old.is_none(), "two of one coin"),
            Err(_) => self.keep_if_full(true, coin),
        }
    }

    /// A coin for which there was no room stays in the hand.
    fn keep_if_full(&mut self, is_full: bool, coin: Gc<'gc, Coin<'gc>>) {
        if is_full {
            self.player.is_full = true;
            self.hand.push(coin);
        }
    }

    fn change_wall(&mut self) {
        let (mc, place) = (self.mc, self.place());
        let how = self.random().below(14);
        if how < 9 {
            change(&mut place.as_ref().wall.write(mc), &mut self.hand, how);
        } else {
            let wall = place.as_ref().wall.read(mc);
            self.glimpses.extend(wall.last());
        }
    }

    /// Puts a coin into a niche, or takes a niche away with what is in it.
    fn use_niche(&mut self) {
        let (mc, place) = (self.mc, self.place());
        if self.random().one_in(2) {
            let Some(coin) = self.hand.pop() else { return };
            let niche = place.niche.get();
            if let Err(coin) = niche.coin.set(mc, Some(coin)) {
                // Somebody was faster, with a coin or with the seal.
                self.hand.extend(coin);
            }
        } else {
            let Ok(new) = mc.try_alloc(Niche { coin: GcOnce::new() }) else { return };
            let old = place.niche.swap(mc, new);
            // Others may still have it, and can put nothing in any more.
            let found = *old.coin.get_or_init(mc, || None);
            self.hand.extend(found);
        }
    }

    /// Lets two chests exchange what is in them, storage and all.
    fn exchange_contents(&mut self) {
        let (mc, one, other) = (self.mc, self.place(), self.place());
        let (one, other) = (one.as_ref(), other.as_ref());
        // One of the two is the other if the second lock is not to be had.
        match self.random().below(3) {
            0 => {
                let Some(mut a) = one.row.try_lock(mc) else { return };
                let Some(mut b) = other.row.try_lock(mc) else { return };
                std::mem::swap(&mut *a, &mut *b);
            }
            1 => {
                let Some(mut a) = one.table.try_write(mc) else { return };
                let Some(mut b) = other.table.try_write(mc) else { return };
                std::mem::swap(&mut *a, &mut *b);
            }
            _ => {
                let Some(mut a) = one.wall.try_write(mc) else { return };
                let Some(mut b) = other.bag.try_lock(mc) else { return };
                std::mem::swap(&mut *a, &mut *b);
            }
        }
    }

    /// Exchanges coins in the hall, at both ends of it and anywhere.
    fn walk_hall(&mut self) {
        let (mc, board) = (self.mc, self.world.board.get(self.mc));
        let mut places = board.hall.as_ref().places.lock(mc);
        let len = places.len();
        if len == 0 {
            return;
        }
        for _ in 0..1 + self.random().below(4) {
            let end = if self.random().one_in(3) { len } else { 32.min(len) };
            let (front, back) = (self.random().below(end), len - 1 - self.random().below(end));
            match self.random().below(8) {
                0 => places.swap(mc, front, back),
                1 => self.glimpses.extend(places[front]),
                2..5 => {
                    // From where the collector comes late to where it has been.
                    let coin = places.set(mc, back, None);
                    let old = places.set(mc, front, coin.or_else(|| self.hand.pop()));
                    self.hand.extend(old);
                }
                _ => {
                    let coin = self.hand.pop();
                    let old = places.set(mc, back, coin);
                    self.hand.extend(old);
                }
            }
        }
    }
}
