//! A block of span records: which of its leaves are in which state, and which records are in use.
//!
//! What is known of a block lies apart from it, in persistent memory, since the memory of its leaves
//! comes and goes. A leaf is a physical page:
//!
//! ```text
//! | number of the block | record | record | ...  (19 in 4 KiB) | rest |
//! ```
//!
//! | state | memory | records in use | |
//! |---|---|---|---|
//! | full | ready | all | has no bit |
//! | partial | ready | some | allocated from first |
//! | empty | ready | none | |
//! | retired | ready | none | goes back after the grace period that follows |
//! | cold | prepared | none | |
//!
//! **Invariants.** (1) A leaf is in one state at most, and what the table says is so. (2) The bits of a leaf
//! beyond its last record are clear.
//!
//! # Safety
//! The bits are reached through a pointer to memory that this value has for itself.
#![allow(unsafe_code)]

use crate::addr::{Addr, AddrRange, Bytes};
use crate::bitmap;
use crate::offheap::Persistent;
use crate::os::{Category, Os, OsError};
use crate::span::Span;
use core::alloc::Layout;
use core::ptr::NonNull;

/// The least size of a block. A new one takes four system calls, some twenty microseconds, in the midst of somebody's
/// allocation and under the page heap's lock: once for ten megabytes of small objects.
const BLOCK_BYTES: usize = 256 << 10;

/// In front of the records of a leaf is the number of its block.
const NUMBER_BYTES: usize = size_of::<usize>();

const RECORD_BYTES: usize = size_of::<Span>();

const _: () = assert!(align_of::<Span>() <= NUMBER_BYTES);

/// What a leaf is, unless all of its records are in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(super) enum LeafState {
    Partial,
    Empty,
    Retired,
    Cold,
}

pub(super) const STATES: usize = 4;

/// How the blocks of a heap are divided; a matter of the size of physical pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// The size of a leaf, a physical page.
    pub(super) leaf: Bytes,
    /// The size and the alignment of a block.
    pub(super) block: Bytes,
    /// How many leaves a block has, 64 at most.
    pub(super) leaves: usize,
    /// How many records a leaf has.
    pub(super) records: usize,
    /// How many words it takes to have a bit for each of them.
    words: usize,
}

impl Shape {
    pub(super) fn new(os: &Os) -> Shape {
        let leaf = os.page_size();
        let block = leaf.max(Bytes::new(BLOCK_BYTES));
        let records = (leaf.get() - NUMBER_BYTES) / RECORD_BYTES;
        Shape {
            leaf,
            block,
            leaves: block.get() / leaf.get(),
            records,
            words: records.div_ceil(64),
        }
    }

    /// Where the number of its block stands for the leaf that `addr` lies in.
    pub(super) fn number_at(&self, addr: Addr) -> *mut usize {
        addr.align_down(self.leaf.get()).as_ptr()
    }
}

/// What is known of a block.
pub(super) struct Block {
    base: Addr,
    number: usize,
    /// For each state, the leaves in it.
    leaves: [u64; STATES],
    /// A bit for each record, leaf by leaf.
    used: NonNull<u64>,
}

impl Block {
    /// Memory for what is known of a block, to be given to [`Block::init`].
    pub(super) fn alloc(
        os: &Os,
        memory: &Persistent,
        shape: &Shape,
    ) -> Result<NonNull<Block>, OsError> {
        let bits = Layout::array::<u64>(shape.leaves * shape.words).expect("a few words");
        let (layout, offset) = Layout::new::<Block>().extend(bits).expect("a few words");
        let at = memory.alloc(os, layout, Category::Metadata)?.cast::<Block>();
        // SAFETY: inside of what was allocated.
        let used = unsafe { at.byte_add(offset) }.cast();
        let block = Block { base: Addr::NULL, number: 0, leaves: [0; STATES], used };
        // SAFETY: the memory is new, and made for it.
        unsafe { at.write(block) };
        Ok(at)
    }

    /// Says where the block is. All of its leaves are cold.
    pub(super) fn init(&mut self, base: Addr, number: usize, shape: &Shape) {
        (self.base, self.number) = (base, number);
        self.leaves[LeafState::Cold as usize] = u64::MAX >> (u64::BITS as usize - shape.leaves);
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// The address space of the block.
    pub(super) fn range(&self, shape: &Shape) -> AddrRange {
        AddrRange::at(self.base, shape.block)
    }

    /// A run of leaves.
    pub(super) fn leaf_range(&self, shape: &Shape, leaf: usize, len: usize) -> AddrRange {
        let at = self.base + Bytes::new(leaf * shape.leaf.get());
        AddrRange::at(at, Bytes::new(len * shape.leaf.get()))
    }

    /// For each state, whether a leaf is in it.
    pub(super) fn has(&self) -> [bool; STATES] {
        self.leaves.map(|leaves| leaves != 0)
    }

    /// The leaves in that state, a bit for each.
    pub(super) fn leaves_in(&self, state: LeafState) -> u64 {
        self.leaves[state as usize]
    }

    /// Puts leaves into another state.
    pub(super) fn change(&mut self, leaves: u64, from: LeafState, to: LeafState) {
        debug_assert_eq!(self.leaves[from as usize] & leaves, leaves);
        self.leaves[from as usize] &= !leaves;
        self.leaves[to as usize] |= leaves;
    }

    /// The state of a leaf; `None`: it is full.
    pub(super) fn state(&self, leaf: usize) -> Option<LeafState> {
        use LeafState::{Cold, Empty, Partial, Retired};
        let states = [Partial, Empty, Retired, Cold];
        states.into_iter().find(|&state| self.leaves_in(state) >> leaf & 1 == 1)
    }

    /// Takes a free record of a leaf that has one, and memory.
    pub(super) fn take(&mut self, shape: &Shape, leaf: usize) -> Addr {
        let used = self.used_in(shape, leaf);
        let free = bitmap::next_zero(used, 0).expect("the leaf has a free record");
        debug_assert!(free < shape.records);
        bitmap::set_range(used, free, 1);
        self.find_state(shape, leaf);
        let offset = leaf * shape.leaf.get() + NUMBER_BYTES + free * RECORD_BYTES;
        self.base + Bytes::new(offset)
    }

    /// Takes a record back; false if it is none that is in use.
    pub(super) fn put(&mut self, shape: &Shape, record: Addr) -> bool {
        let (leaf, offset) = self.place(shape, record);
        let index = offset.wrapping_sub(NUMBER_BYTES) / RECORD_BYTES;
        let used = self.used_in(shape, leaf);
        let is_one = NUMBER_BYTES + index.wrapping_mul(RECORD_BYTES) == offset
            && index < shape.records
            && bitmap::test(used, index);
        if is_one {
            bitmap::clear_range(used, index, 1);
            self.find_state(shape, leaf);
        }
        is_one
    }

    /// The leaf that an address of the block lies in, and where in it.
    pub(super) fn place(&self, shape: &Shape, addr: Addr) -> (usize, usize) {
        let offset = addr.bytes_since(self.base).get();
        (offset / shape.leaf.get(), offset % shape.leaf.get())
    }

    /// How many records of a leaf are in use.
    pub(super) fn count(&mut self, shape: &Shape, leaf: usize) -> usize {
        bitmap::count_ones(self.used_in(shape, leaf))
    }

    /// Puts a leaf with memory into the state that its records tell.
    fn find_state(&mut self, shape: &Shape, leaf: usize) {
        let used = self.count(shape, leaf);
        self.leaves.iter_mut().for_each(|leaves| *leaves &= !(1 << leaf));
        if used < shape.records {
            let state = if used == 0 { LeafState::Empty } else { LeafState::Partial };
            self.leaves[state as usize] |= 1 << leaf;
        }
    }

    fn used_in(&mut self, shape: &Shape, leaf: usize) -> &mut [u64] {
        let all = NonNull::slice_from_raw_parts(self.used, shape.leaves * shape.words);
        // SAFETY: so many words were allocated behind this value, as zeros, and only it knows them.
        let all = unsafe { &mut *all.as_ptr() };
        &mut all[leaf * shape.words..][..shape.words]
    }
}
