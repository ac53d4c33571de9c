//! What is known about a chunk of a user arena, for whoever faults in it.
//!
//! A record is in one of three states: nobody's; a live chunk's, of which only the table of objects counts; a freed
//! chunk's, with the arena's number and name, and how, where and when it was freed.
//!
//! Records are read by a signal handler on any thread at any moment, so the reader takes no lock, waits for nobody, and
//! every word is atomic. They have a *version*, which is odd while the record is written:
//!
//! ```text
//! write: version = odd;  fence(release);   words (relaxed);   version = next even (release)
//! read:  v = version (acquire), even?      words (relaxed);   fence(acquire);   version == v, or read again
//! ```
//!
//! # Why what is read is of one life
//! 1. The words that the reader sees are no older than its `v`: it has acquired the store of `v`, behind which its
//!    words were written.
//! 2. If it sees a word of a later writing, then that word was stored behind a release fence, behind the store of the
//!    odd version. The reader's acquire fence comes after it, so fence synchronises with fence, and its second look at
//!    the version cannot be at anything older than the odd one. It reads again.
//! 3. The table of objects is appended to while the version stays. An entry is complete for whoever sees its address
//!    (`objects.rs`), and a block for whoever sees the link to it, which is stored with release.
//! 4. Blocks change hands behind [`Record::end`] only: odd version, release fence, and then a list. Who takes one from
//!    there, under a lock or with acquire, and renews it behind a fence of his own
//!    ([`Block::renew`](super::objects::Block)), does so after the odd version was stored. By 2, whoever reads anything
//!    of the new life finds the version changed. The walk over a table looks at the version at each block, so it does
//!    not wander from life to life either.
//!
//! A reader on the very thread that is writing, in a signal handler that interrupted it, finds an odd version again and
//! again, and gives up after [`TRIES`]. That thread was writing a record, and not in a chunk; so nothing is missed.
//!
//! # Writers
//! A record belongs to a chunk, and what is done with that, under the lock of its arena or by the collector's thread,
//! has one writer at a time. Should there be two, the text of a report may be wrong, and nothing else: the bytes of a
//! name are checked before they are text, a site is one pointer.
//!
//! # Safety
//! What is read is believed only after the second look.
#![allow(unsafe_code)]

use super::link::{Link, Linked};
use super::objects::{Block, Object, Unproven};
use crate::addr::{Addr, AddrRange};
use crate::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};
use core::panic::Location;

/// Bytes of an arena's name that are kept.
pub(super) const NAME_BYTES: usize = 40;
const NAME_WORDS: usize = NAME_BYTES / 8;

/// How often a reader tries to read a record that is being written.
const TRIES: usize = 100;

/// How an arena came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freed {
    /// Somebody has freed it, here.
    At(&'static Location<'static>),
    /// Its handle was dropped.
    Dropped,
    /// It was given up, and nothing led to it any more.
    Unreachable,
}

impl Freed {
    /// As a byte; 0 is none of them.
    fn code(self) -> u8 {
        match self {
            Freed::At(_) => 1,
            Freed::Dropped => 2,
            Freed::Unreachable => 3,
        }
    }
}

/// The name of an arena, as much of it as is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    bytes: [u8; NAME_BYTES],
    len: usize,
}

impl Name {
    /// The beginning of a text, cut at the end of a character.
    pub(super) fn of(text: &str) -> Name {
        let mut len = text.len().min(NAME_BYTES);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        let mut bytes = [0; NAME_BYTES];
        bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
        Name { bytes, len }
    }

    /// The text, or nothing if it is none.
    pub(super) fn text(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len.min(NAME_BYTES)]).unwrap_or("")
    }
}

/// What is known about a chunk that was freed, and about one address in it.
#[derive(Clone, Copy)]
pub(super) struct Grave {
    /// The number of the arena.
    pub(super) arena: u64,
    pub(super) name: Name,
    pub(super) freed: Freed,
    /// When, by the monotonic clock.
    pub(super) nanos: u64,
    /// The system's number of the thread that freed it.
    pub(super) thread: i32,
    /// Whether objects were noted in the chunk.
    pub(super) has_objects: bool,
    pub(super) object: Option<Object>,
}

/// A chunk's record. It is there for ever.
pub(super) struct Record {
    version: AtomicU64,
    /// The chunk; an empty range when the record is nobody's.
    base: AtomicUsize,
    end: AtomicUsize,
    /// A [`Freed`], or 0: it lives.
    freed: AtomicU8,
    name_len: AtomicU8,
    thread: AtomicI32,
    arena: AtomicU64,
    name: [AtomicU64; NAME_WORDS],
    site: Link<Location<'static>>,
    nanos: AtomicU64,
    /// The table of objects: its first block, and its last one or one before that.
    first: Link<Block>,
    last: Link<Block>,
    /// The next record of its kind, when nobody uses it.
    next: Link<Record>,
}

impl Linked for Record {
    fn next(&self) -> &Link<Record> {
        &self.next
    }
}

impl Record {
    /// A record of nobody's.
    pub(super) const fn new() -> Record {
        Record {
            version: AtomicU64::new(0),
            base: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            freed: AtomicU8::new(0),
            name_len: AtomicU8::new(0),
            thread: AtomicI32::new(0),
            arena: AtomicU64::new(0),
            name: [const { AtomicU64::new(0) }; NAME_WORDS],
            site: Link::none(),
            nanos: AtomicU64::new(0),
            first: Link::none(),
            last: Link::none(),
            next: Link::none(),
        }
    }

    /// Changes words of the record.
    fn write(&self, words: impl FnOnce()) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1) | 1, Ordering::Relaxed);
        fence(Ordering::Release);
        words();
        self.version.store((version | 1).wrapping_add(1), Ordering::Release);
    }

    /// The record is that of a chunk, which lives.
    pub(super) fn begin(&self, chunk: AddrRange) {
        self.write(|| {
            self.freed.store(0, Ordering::Relaxed);
            self.base.store(chunk.base().get(), Ordering::Relaxed);
            self.end.store(chunk.end().get(), Ordering::Relaxed);
        });
    }

    /// The chunk's arena was freed.
    pub(super) fn bury(&self, arena: u64, name: &Name, freed: Freed, nanos: u64, thread: i32) {
        let site = match freed {
            Freed::At(site) => Some(site),
            Freed::Dropped | Freed::Unreachable => None,
        };
        self.write(|| {
            self.arena.store(arena, Ordering::Relaxed);
            for (word, bytes) in self.name.iter().zip(name.bytes.chunks_exact(8)) {
                let mut copy = [0; 8];
                copy.copy_from_slice(bytes);
                word.store(u64::from_ne_bytes(copy), Ordering::Relaxed);
            }
            self.name_len.store(name.len as u8, Ordering::Relaxed);
            self.site.set(site, Ordering::Relaxed);
            self.nanos.store(nanos, Ordering::Relaxed);
            self.thread.store(thread, Ordering::Relaxed);
            self.freed.store(freed.code(), Ordering::Relaxed);
        });
    }

    /// The record is nobody's. Returns the blocks of its table, which belong to the caller now: the first, from which
    /// the others follow.
    ///
    /// Nobody notes objects any more; else the blocks would have two owners, and an entry might be of two values.
    ///
    /// # Safety
    /// No call of [`note`](Record::note) is under way, or begins before the next [`begin`](Record::begin).
    pub(super) unsafe fn end(&self) -> Option<&'static Block> {
        let mut blocks = None;
        self.write(|| {
            self.base.store(0, Ordering::Relaxed);
            self.end.store(0, Ordering::Relaxed);
            self.freed.store(0, Ordering::Relaxed);
            blocks = self.first.take();
            self.last.set(None, Ordering::Relaxed);
        });
        blocks
    }

    /// Notes an object. `more` gives a new block, or none when there is no room for more.
    pub(super) fn note(
        &self,
        object: &Object,
        more: impl FnOnce() -> Option<&'static Block>,
    ) -> Noted {
        let mut last = self.last.get(Ordering::Acquire);
        loop {
            match last {
                Some(block) if block.note(object) => return Noted::Yes,
                // Somebody else was here first.
                Some(block) if block.following().is_some() => last = block.following(),
                _ => break,
            }
        }
        let Some(new) = more() else { return Noted::NoRoom };
        // A new block has room, which nobody else knows of.
        new.note(object);
        let mut place = match last {
            Some(block) => block.append(new),
            None => self.first.replace(None, new),
        };
        while let Err(Some(other)) = place {
            place = other.append(new);
        }
        self.last.set(Some(new), Ordering::Release);
        Noted::Yes
    }

    /// Whether the address lies in the chunk and that was freed, so that [`Record::read`] has something to say. May be
    /// called at any moment, with little of a stack.
    pub(super) fn is_grave_of(&self, addr: Addr) -> bool {
        for _ in 0..TRIES {
            let version = self.version.load(Ordering::Acquire);
            let (base, end) = (self.base.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed));
            let is_inside = addr.get() >= base && addr.get() < end;
            let is_freed = self.freed.load(Ordering::Relaxed) != 0;
            if version % 2 == 0 && self.is_still(version) {
                return is_inside && is_freed;
            }
            core::hint::spin_loop();
        }
        false
    }

    /// What is known about an address, if it lies in the chunk and that was freed. May be called at any moment.
    pub(super) fn read(&self, addr: Addr) -> Option<Grave> {
        for _ in 0..TRIES {
            let version = self.version.load(Ordering::Acquire);
            if version % 2 == 0 {
                // Most records are those of other chunks, and need no second look: one that becomes this address's
                // chunk just now is not the one in which somebody faults.
                let base = self.base.load(Ordering::Relaxed);
                if addr.get() < base || addr.get() >= self.end.load(Ordering::Relaxed) {
                    return None;
                }
                let (grave, object) = self.read_words(addr, version);
                if self.is_still(version) {
                    // SAFETY: the version is what it was before the reading, so it is one life (see the head).
                    let object = object.and_then(|object| unsafe { object.prove() });
                    return grave.map(|grave| Grave { object, ..grave });
                }
            }
            core::hint::spin_loop();
        }
        None
    }

    /// Whether the record has not been written since that version was read, nor has what was read meanwhile.
    fn is_still(&self, version: u64) -> bool {
        fence(Ordering::Acquire);
        self.version.load(Ordering::Relaxed) == version
    }

    /// Reads everything, to be believed if the version is the same afterwards.
    fn read_words(&self, addr: Addr, version: u64) -> (Option<Grave>, Option<Unproven>) {
        let freed = match (self.freed.load(Ordering::Relaxed), self.site.get(Ordering::Relaxed)) {
            (1, Some(site)) => Freed::At(site),
            (2, _) => Freed::Dropped,
            (3, _) => Freed::Unreachable,
            _ => return (None, None),
        };
        let mut name = Name { bytes: [0; NAME_BYTES], len: 0 };
        for (word, bytes) in self.name.iter().zip(name.bytes.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        name.len = usize::from(self.name_len.load(Ordering::Relaxed));
        let mut block = self.first.get(Ordering::Acquire);
        let has_objects = block.is_some();
        let mut object = None;
        while let Some(this) = block {
            object = this.find(addr);
            if object.is_some() || !self.is_still(version) {
                break;
            }
            block = this.following();
        }
        let grave = Grave {
            arena: self.arena.load(Ordering::Relaxed),
            name,
            freed,
            nanos: self.nanos.load(Ordering::Relaxed),
            thread: self.thread.load(Ordering::Relaxed),
            has_objects,
            object: None,
        };
        (Some(grave), object)
    }
}

/// What has become of an object that was to be noted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Noted {
    /// It is in the table.
    Yes,
    /// There is no memory for it.
    NoRoom,
}

#[cfg(test)]
mod tests;
