//! Which block of span records has a leaf in which state: a tree over the numbers of the blocks.
//!
//! ```text
//!            node  (per state: a bit for each child that has a leaf in it)
//!          /  |   \
//!      node  node  ...        64 children each, as many levels as there are blocks for
//!     /  |
//! block block ...             by number: the first block is number 0
//! ```
//!
//! So the lowest and the highest block with a leaf in some state, and the block of a number, are found in
//! as many steps as the tree has levels: one for 78,000 records, two for five million. Blocks are only added; a
//! full tree gets a new root, of which the old one is the first child.
//!
//! **Invariants.** (1) A node at height h > 1 has nodes of height h - 1 as children, one at height 1 has blocks;
//! a child that there is none of is null. (2) A bit of a node says whether the child has a leaf in that
//! state, at all times except within a change of the block.
//!
//! # Locking
//! None: whoever has `&mut` has the tree. Nodes lie in persistent memory, for as long as the heap lives.
//!
//! # Safety
//! This file is trusted to follow children only (1).
#![allow(unsafe_code)]

use super::block::{Block, LeafState, STATES};
use crate::addr::Addr;
use crate::offheap::Persistent;
use crate::os::{Category, Os, OsError};
use core::alloc::Layout;
use core::ptr::NonNull;

/// A node has as many children as a word has bits.
const DIGIT_BITS: u32 = 6;
const CHILDREN: usize = 1 << DIGIT_BITS;

/// No tree is higher: there are not so many addresses.
const MAX_HEIGHT: usize = 10;

/// Zeroed memory is a node without children.
struct Node {
    /// For each state, which children have a leaf in it.
    have: [u64; STATES],
    /// Nodes or blocks (1).
    children: [Addr; CHILDREN],
}

/// Which of several to take.
#[derive(Clone, Copy)]
pub(super) enum End {
    Lowest,
    Highest,
}

/// The blocks of a pool of span records.
pub(super) struct Index {
    root: Addr,
    /// Levels of nodes.
    height: u32,
    blocks: usize,
}

impl Index {
    /// No blocks.
    pub(super) const fn new() -> Index {
        Index { root: Addr::NULL, height: 0, blocks: 0 }
    }

    /// How many blocks there are; the number of the next one.
    pub(super) fn len(&self) -> usize {
        self.blocks
    }

    /// Makes room for one more block. What was made before a refusal stays for the next attempt.
    pub(super) fn make_room(&mut self, os: &Os, memory: &Persistent) -> Result<(), OsError> {
        if self.height == 0 || self.blocks >> (self.height * DIGIT_BITS) != 0 {
            let mut root = new_node(os, memory)?;
            if !self.root.is_null() {
                // SAFETY: the node is new, and ours.
                let node = unsafe { root.as_mut() };
                node.children[0] = self.root;
                // SAFETY: (1): the root is a node, and `&mut self`.
                let old = unsafe { &*self.root.as_ptr::<Node>() };
                node.have = old.have.map(|have| u64::from(have != 0));
            }
            self.root = Addr::of(root.as_ptr());
            self.height += 1;
        }
        let mut at = self.root;
        for height in (2..=self.height).rev() {
            // SAFETY: (1), and `&mut self`.
            let node = unsafe { &mut *at.as_ptr::<Node>() };
            let child = &mut node.children[digit(self.blocks, height)];
            if child.is_null() {
                *child = Addr::of(new_node(os, memory)?.as_ptr());
            }
            at = *child;
        }
        Ok(())
    }

    /// Enters a block under the next number, for which there is room.
    pub(super) fn push(&mut self, block: NonNull<Block>) {
        let number = self.blocks;
        self.blocks += 1;
        let at = self.path(number)[0];
        // SAFETY: (1): room was made, and `&mut self`.
        let node = unsafe { &mut *at.as_ptr::<Node>() };
        node.children[digit(number, 1)] = Addr::of(block.as_ptr());
        self.update(number);
    }

    /// The block with that number.
    pub(super) fn block(&self, number: usize) -> Option<NonNull<Block>> {
        if number >= self.blocks {
            return None;
        }
        // SAFETY: (1).
        let node = unsafe { &*self.path(number)[0].as_ptr::<Node>() };
        NonNull::new(node.children[digit(number, 1)].as_ptr())
    }

    /// The lowest or the highest block that has a leaf in `state`.
    pub(super) fn find(&self, state: LeafState, end: End) -> Option<NonNull<Block>> {
        let mut at = self.root;
        for _ in 0..self.height {
            // SAFETY: (1).
            let node = unsafe { &*at.as_ptr::<Node>() };
            let child = match (node.have[state as usize], end) {
                (0, _) => return None,
                (have, End::Lowest) => have.trailing_zeros(),
                (have, End::Highest) => have.ilog2(),
            };
            at = node.children[child as usize];
        }
        NonNull::new(at.as_ptr())
    }

    /// Takes notice of a change of the states in the block with that number (2).
    pub(super) fn update(&mut self, number: usize) {
        let path = self.path(number);
        let block = self.block(number).expect("a block of this pool");
        // SAFETY: blocks live as long as the tree.
        let mut has = unsafe { block.as_ref() }.has();
        for height in 1..=self.height {
            // SAFETY: (1), and `&mut self`.
            let node = unsafe { &mut *path[height as usize - 1].as_ptr::<Node>() };
            let bit = 1 << digit(number, height);
            for (have, has) in node.have.iter_mut().zip(&mut has) {
                *have = if *has { *have | bit } else { *have & !bit };
                *has = *have != 0;
            }
        }
    }

    /// The nodes on the way to the block with that number, the lowest first.
    fn path(&self, number: usize) -> [Addr; MAX_HEIGHT] {
        let mut path = [Addr::NULL; MAX_HEIGHT];
        let mut at = self.root;
        for height in (1..=self.height).rev() {
            path[height as usize - 1] = at;
            // SAFETY: (1).
            at = unsafe { &*at.as_ptr::<Node>() }.children[digit(number, height)];
        }
        path
    }
}

/// Which child of a node at `height` leads to the block with that number.
fn digit(number: usize, height: u32) -> usize {
    number >> ((height - 1) * DIGIT_BITS) & (CHILDREN - 1)
}

fn new_node(os: &Os, memory: &Persistent) -> Result<NonNull<Node>, OsError> {
    Ok(memory.alloc(os, Layout::new::<Node>(), Category::Metadata)?.cast())
}
