//! The root table: the objects that the program holds outside of closures.
//!
//! A root is a shared record of one address. The program's handle and the table each own it; when the
//! program's last handle is gone, the table is the only owner left, and *that* is the liveness flag:
//! dropping or cloning a handle takes no lock, needs no closure, and works on any thread, even after the
//! heap is gone.
//!
//! # What the collector relies on
//! - R1. Records whose handles are gone leave the table only in [`RootTable::trim`], which the collector
//!   calls before it publishes a cycle. So a root that dies during a cycle is retained to its end,
//!   and dropping one needs no barrier.
//! - R2. The scan reports every record in the table, dead or not.
//! - R3. A record is entered by a mutator inside a closure that holds the object. If that is after
//!   the scan, the object is marked or will be, like everything that a closure holds.
//!
//! # Chunks
//! A shard is a list of chunks of [`CHUNK`] records, all of them full but the last. So entering a record never
//! moves others, however many there are; and trimming and scanning hold a shard's lock for a chunk at a time.
//! Records move only when the table is trimmed, from the end into holes; until that is
//! through, one chunk more may have room. While a cycle marks nothing moves, and
//! what is entered then goes to the end: so chunks can be scanned by several workers, in any order, each
//! of them once.
//!
//! # Locking
//! [`Rank::RootShard`], sixteen shards, chosen by the mutator.

use crate::addr::Addr;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Lock, Rank};
use std::sync::Arc;

const SHARDS: usize = 16;

/// How many records a chunk holds: what is looked at under a lock at a time.
const CHUNK: usize = 256;

/// The cursor of a shard that has been scanned; what is added to it meanwhile does not bring it back.
const DONE: usize = usize::MAX / 2;

/// One entry of the root table.
#[derive(Debug)]
pub struct RootRecord {
    object: Addr,
    heap: u64,
}

impl RootRecord {
    /// The object.
    #[inline]
    pub fn object(&self) -> Addr {
        self.object
    }

    /// The number of the heap that the object lives in.
    #[inline]
    pub fn heap(&self) -> u64 {
        self.heap
    }
}

type Record = Arc<RootRecord>;

/// Records in chunks; all but the last are full.
struct Shard {
    chunks: Vec<Vec<Record>>,
}

impl Shard {
    fn push(&mut self, record: Record) {
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(record),
            _ => {
                // A small table is small: chunks grow to their size, and no further.
                self.chunks.push(vec![record]);
            }
        }
    }

    fn pop(&mut self) -> Option<Record> {
        let last = self.chunks.last_mut()?;
        let record = last.pop();
        if last.is_empty() {
            self.chunks.pop();
        }
        record
    }

    fn len(&self) -> usize {
        let full = self.chunks.len().saturating_sub(1) * CHUNK;
        full + self.chunks.last().map_or(0, Vec::len)
    }

    /// Takes records that nobody holds any more out of chunk `index`, and fills it up from the end. False when the
    /// chunk has to be looked at again: as many records as a chunk has were looked at for it, and it is not
    /// full yet.
    fn trim_chunk(&mut self, index: usize, dead: &mut Vec<Record>) -> bool {
        // Once the table is the only owner, nobody can become another one.
        let is_dead = |record: &Record| Arc::strong_count(record) == 1;
        dead.extend(self.chunks[index].extract(is_dead));
        let mut looks = CHUNK;
        while self.chunks.len() > index + 1 && self.chunks[index].len() < CHUNK {
            if looks == 0 {
                return false;
            }
            looks -= 1;
            match self.pop() {
                Some(record) if is_dead(&record) => dead.push(record),
                Some(record) => self.chunks[index].push(record),
                None => break,
            }
        }
        if self.chunks.get(index).is_some_and(Vec::is_empty) {
            self.chunks.remove(index);
        }
        true
    }
}

/// Taking elements out of a vector in any order.
trait Extract<T> {
    /// Takes out what `wanted` says; the order of the others changes.
    fn extract(&mut self, wanted: impl Fn(&T) -> bool) -> Vec<T>;
}

impl<T> Extract<T> for Vec<T> {
    fn extract(&mut self, wanted: impl Fn(&T) -> bool) -> Vec<T> {
        let (mut at, mut taken) = (0, Vec::new());
        while at < self.len() {
            if wanted(&self[at]) {
                taken.push(self.swap_remove(at));
            } else {
                at += 1;
            }
        }
        taken
    }
}

/// The root table of a heap.
pub(crate) struct RootTable {
    shards: [Lock<Shard>; SHARDS],
    /// Which chunk of each shard is scanned next.
    cursors: [AtomicUsize; SHARDS],
}

impl RootTable {
    /// An empty table.
    pub const fn new() -> RootTable {
        const EMPTY: Shard = Shard { chunks: Vec::new() };
        RootTable {
            shards: [const { Lock::new(Rank::RootShard, EMPTY) }; SHARDS],
            cursors: [const { AtomicUsize::new(DONE) }; SHARDS],
        }
    }

    /// Enters an object (R3). `shard` spreads mutators over the shards.
    pub fn enter(&self, shard: usize, heap: u64, object: Addr) -> Arc<RootRecord> {
        let record = Arc::new(RootRecord { object, heap });
        self.shards[shard % SHARDS].lock().push(record.clone());
        record
    }

    /// Removes the records that nobody holds any more (R1).
    pub fn trim(&self) {
        let mut dead = Vec::new();
        for shard in &self.shards {
            let mut index = 0;
            loop {
                let mut shard = shard.lock();
                if index >= shard.chunks.len() {
                    break;
                }
                if shard.trim_chunk(index, &mut dead) {
                    index += 1;
                }
                drop(shard);
                // The records themselves go without the lock.
                dead.clear();
            }
        }
    }

    /// Begins a scan by several workers.
    pub fn begin_scan(&self) {
        self.cursors.iter().for_each(|cursor| cursor.store(0, Ordering::Relaxed));
    }

    /// Reports the objects of a chunk that nobody else of this scan reports. False when there is none left.
    pub fn scan_some(&self, report: impl FnMut(Addr)) -> bool {
        let mut objects = [Addr::NULL; CHUNK];
        for (shard, cursor) in self.shards.iter().zip(&self.cursors) {
            if cursor.load(Ordering::Relaxed) >= DONE {
                continue;
            }
            let index = cursor.fetch_add(1, Ordering::Relaxed);
            if let Some(count) = copy_chunk(shard, index, &mut objects) {
                objects[..count].iter().copied().for_each(report);
                return true;
            }
            cursor.store(DONE, Ordering::Relaxed);
        }
        false
    }

    /// Reports the object of every record (R2).
    pub fn scan(&self, mut report: impl FnMut(Addr)) {
        let mut objects = [Addr::NULL; CHUNK];
        for shard in &self.shards {
            let mut index = 0;
            while let Some(count) = copy_chunk(shard, index, &mut objects) {
                objects[..count].iter().copied().for_each(&mut report);
                index += 1;
            }
        }
    }

    /// How many records there are, dead ones included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

/// Copies the addresses of a chunk; how many there are. `None`: there is no such chunk.
fn copy_chunk(shard: &Lock<Shard>, index: usize, to: &mut [Addr; CHUNK]) -> Option<usize> {
    let shard = shard.lock();
    let chunk = shard.chunks.get(index)?;
    for (place, record) in to.iter_mut().zip(chunk) {
        *place = record.object;
    }
    Some(chunk.len())
}

impl Default for RootTable {
    fn default() -> RootTable {
        RootTable::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Random;
    use std::collections::BTreeSet;

    #[test]
    fn a_dead_root_is_reported_until_the_table_is_trimmed() {
        let table = RootTable::new();
        let a = table.enter(0, 1, Addr::new(16));
        let b = table.enter(5, 1, Addr::new(32));
        let other_handle = a.clone();
        drop(a);
        drop(b);
        let mut seen = Vec::new();
        table.scan(|object| seen.push(object.get()));
        assert_eq!(seen, [16, 32]);
        table.trim();
        seen.clear();
        table.scan(|object| seen.push(object.get()));
        assert_eq!(seen, [16]);
        drop(table);
        assert_eq!(other_handle.object(), Addr::new(16));
    }

    /// The objects that a scan by chunks reports, each of them once.
    fn scanned(table: &RootTable) -> BTreeSet<usize> {
        let mut seen = BTreeSet::new();
        table.begin_scan();
        while table.scan_some(|object| assert!(seen.insert(object.get()), "{object} twice")) {}
        assert!(!table.scan_some(|_| unreachable!("the scan is over")));
        seen
    }

    #[test]
    fn a_table_that_is_trimmed_now_and_then_equals_a_set() {
        let mut random = Random::new(0x4007);
        let table = RootTable::new();
        let (mut held, mut next): (Vec<Record>, _) = (Vec::new(), 1);
        for round in 0..60 {
            for _ in 0..random.below(3000) {
                held.push(table.enter(random.below(3), 1, Addr::new(next)));
                next += 1;
            }
            // Now most of them die, now a few.
            let odds = [2, 1000, 3][round % 3];
            let kept: Vec<_> = held.drain(..).filter(|_| odds > 3 || random.one_in(odds)).collect();
            let before = scanned(&table);
            assert!(kept.iter().all(|record| before.contains(&record.object.get())));
            assert_eq!(before.len(), table.len(), "the dead are reported");
            held = kept;
            table.trim();
            let expected: BTreeSet<_> = held.iter().map(|record| record.object.get()).collect();
            assert_eq!(scanned(&table), expected);
            assert_eq!(table.len(), expected.len());
        }
        held.clear();
        table.trim();
        assert_eq!((table.len(), scanned(&table).len()), (0, 0));
    }

    /// Several workers scan together while others enter roots and drop some: what was there at the beginning is
    /// reported once.
    #[test]
    fn workers_share_a_scan_while_roots_come_and_go() {
        let table = RootTable::new();
        let held: Vec<_> = (1..=20_000).map(|n| table.enter(n / 7, 1, Addr::new(n))).collect();
        table.begin_scan();
        let mut seen: Vec<usize> = std::thread::scope(|scope| {
            let scan = || {
                let mut seen = Vec::new();
                while table.scan_some(|object| seen.push(object.get())) {}
                seen
            };
            let workers = [scope.spawn(scan), scope.spawn(scan), scope.spawn(scan)];
            for n in 20_001..22_000 {
                drop(table.enter(n, 1, Addr::new(n)));
            }
            workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
        });
        seen.sort_unstable();
        let before: Vec<_> = seen.iter().copied().filter(|&object| object <= held.len()).collect();
        assert_eq!(before, (1..=held.len()).collect::<Vec<_>>());
        assert!(
            seen.windows(2).all(|pair| pair[0] != pair[1]),
            "a late one is reported once, or never"
        );
    }

    /// Fault row 69: with ten million roots nobody waits for a lock for the time of a pass over all of them,
    /// because no lock is held for longer than it takes to look at twice a chunk.
    #[test]
    fn fault_69_a_lock_is_held_for_a_chunk_however_many_roots_there_are() {
        let mut shard = Shard { chunks: Vec::new() };
        let record = || Arc::new(RootRecord { object: Addr::new(16), heap: 1 });
        let kept: Vec<_> = (0..100 * CHUNK).map(|n| (n, record())).collect();
        for (_, record) in &kept {
            shard.push(record.clone());
        }
        assert!(shard.chunks.iter().all(|chunk| chunk.capacity() <= CHUNK));
        // All die but every hundredth chunk's worth: one step moves few records, however many are dead.
        let kept: Vec<_> = kept.into_iter().filter(|(n, _)| n / CHUNK == 0).collect();
        let (mut index, mut steps, mut dead) = (0, 0, Vec::new());
        while index < shard.chunks.len() {
            let before = shard.len();
            dead.clear();
            index += usize::from(shard.trim_chunk(index, &mut dead));
            assert!(before - shard.len() <= 2 * CHUNK);
            steps += 1;
        }
        assert_eq!(shard.len(), kept.len());
        assert!(steps >= 50, "{steps}");
    }
}
