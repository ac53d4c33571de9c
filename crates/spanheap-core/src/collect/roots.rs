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
//! # Locking
//! [`Rank::RootShard`], sixteen shards, chosen by the mutator.

use crate::addr::Addr;
use crate::sync::{Lock, Rank};
use std::sync::Arc;

const SHARDS: usize = 16;

/// One entry of the root table.
#[derive(Debug)]
pub struct RootRecord {
    object: Addr,
    heap: u64,
}

impl RootRecord {
    /// The object.
    pub fn object(&self) -> Addr {
        self.object
    }

    /// The number of the heap that the object lives in.
    pub fn heap(&self) -> u64 {
        self.heap
    }
}

/// The root table of a heap.
pub(crate) struct RootTable {
    shards: [Lock<Vec<Arc<RootRecord>>>; SHARDS],
}

impl RootTable {
    /// An empty table.
    pub const fn new() -> RootTable {
        RootTable { shards: [const { Lock::new(Rank::RootShard, Vec::new()) }; SHARDS] }
    }

    /// Enters an object (R3). `shard` spreads mutators over the shards.
    pub fn enter(&self, shard: usize, heap: u64, object: Addr) -> Arc<RootRecord> {
        let record = Arc::new(RootRecord { object, heap });
        self.shards[shard % SHARDS].lock().push(record.clone());
        record
    }

    /// Removes the records that nobody holds any more (R1).
    pub fn trim(&self) {
        for shard in &self.shards {
            // Once the table is the only owner, nobody can become another one.
            shard.lock().retain(|record| Arc::strong_count(record) > 1);
        }
    }

    /// Reports the object of every record (R2).
    pub fn scan(&self, mut report: impl FnMut(Addr)) {
        for shard in &self.shards {
            for record in shard.lock().iter() {
                report(record.object);
            }
        }
    }

    /// How many records there are, dead ones included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

impl Default for RootTable {
    fn default() -> RootTable {
        RootTable::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
