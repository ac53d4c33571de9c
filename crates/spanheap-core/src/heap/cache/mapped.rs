//! The direct-mapped table: the caches of classes that have no place of their own, by type.
//!
//! A class of objects with pointers is found by its layout, which is a walk down a hash chain. A type has one
//! description, at one address (or a few, one for each piece of the program that the compiler made apart), so the
//! address is as good a name, and a *line* of this table says which cache it stands for. Single values of a type are
//! all in one class; slices are in one for each size. So the key of a line is
//! ```text
//! bits 0..56    the address of the description; its low bit is set for slices
//! bits 56..64   the size class of a slice
//! ```
//! The caches are in blocks, by the number of their class: two types whose values are laid out alike share one.
//!
//! # Safety
//! - T1. A cache that a line names is in a block, which is persistent memory, and stays where it is until the heap
//!   is dropped. So does the mutator's table.
//! - T2. A line that has a key other than 0 has a cache.
#![allow(unsafe_code)]

use super::{Central, Class, ClassCache, ClassKey, OutOfMemory, SpanCache, Values};
use crate::addr::{Addr, Bytes};
use crate::os::{Category, OsError};
use crate::span::TypeInfo;
use crate::span::size_class::SizeClass;
use core::cell::Cell;
use core::ptr::NonNull;

/// Lines of the table.
pub(super) const LINES: usize = 256;

const _: () = assert!(align_of::<TypeInfo>() > 1, "a description's address has a bit to spare");

/// One line of the table. Zeroed memory is an empty one.
#[derive(Default)]
pub(super) struct Mapped {
    key: Cell<usize>,
    cache: Cell<Option<NonNull<ClassCache>>>,
}

impl Mapped {
    /// The line and the key of single values of `ty`.
    #[inline(always)]
    pub(super) fn of_one(ty: &'static TypeInfo) -> (usize, usize) {
        let address = Addr::of(ty).get();
        (address >> 4 & (LINES - 1), address)
    }

    /// The line and the key of slices of `ty` in slots of `size_class`.
    #[inline(always)]
    pub(super) fn of_slice(ty: &'static TypeInfo, size_class: SizeClass) -> (usize, usize) {
        let (address, class) = (Addr::of(ty).get(), size_class.index());
        ((address >> 4 ^ (class * 31)) & (LINES - 1), (address | 1) | class << 56)
    }

    /// The cache, if the line is that of `key`.
    #[inline(always)]
    pub(super) fn get(&self, key: usize) -> Option<&ClassCache> {
        if self.key.get() != key {
            return None;
        }
        // SAFETY: T2: no description lies at address 0, so the line has a key.
        let cache = unsafe { self.cache.get().unwrap_unchecked() };
        // SAFETY: T1.
        Some(unsafe { cache.as_ref() })
    }

    /// Makes the line that of `key`, which is not 0.
    fn set(&self, key: usize, cache: &ClassCache) {
        self.cache.set(Some(NonNull::from(cache)));
        self.key.set(key);
    }

    /// Empties the line.
    pub(super) fn forget(&self) {
        self.key.set(0);
        self.cache.set(None);
    }
}

/// A block of caches for classes that have no place of their own.
pub(super) struct Block {
    pub(super) caches: [ClassCache; Block::LEN],
    pub(super) next: Cell<Option<NonNull<Block>>>,
}

impl Block {
    const LEN: usize = 64;
}

impl SpanCache {
    /// The cache of the class `key`, which is that of `values` and small.
    pub(super) fn cache_of(
        &self,
        central: &Central,
        key: &ClassKey,
        values: Values,
        size_class: SizeClass,
    ) -> Result<&ClassCache, OutOfMemory> {
        let (index, name) = match values.is_slice {
            true => Mapped::of_slice(values.ty, size_class),
            false => Mapped::of_one(values.ty),
        };
        let line = &self.mapped[index];
        if let Some(cache) = line.get(name) {
            return Ok(cache);
        }
        let class = central.class(key, values.ty.name)?;
        let cache = self.block_cache(central, class)?;
        cache.class.set(Some(class));
        line.set(name, cache);
        Ok(cache)
    }

    /// The cache of a class in the chain of blocks; a block covers [`Block::LEN`] class numbers.
    fn block_cache(&self, central: &Central, class: &Class) -> Result<&ClassCache, OutOfMemory> {
        let mut link = &self.blocks;
        for _ in 0..class.index() as usize / Block::LEN {
            link = &self.block_at(link, central)?.next;
        }
        let block = self.block_at(link, central)?;
        Ok(&block.caches[class.index() as usize % Block::LEN])
    }

    fn block_at<'a>(
        &'a self,
        link: &'a Cell<Option<NonNull<Block>>>,
        central: &Central,
    ) -> Result<&'a Block, OutOfMemory> {
        if link.get().is_none() {
            let layout = core::alloc::Layout::new::<Block>();
            let memory = central.memory().alloc(central.os(), layout, Category::Metadata);
            let refused = |error: OsError| central.out_of_memory(Bytes::ZERO, error.into());
            link.set(Some(memory.map_err(refused)?.cast()));
        }
        // SAFETY: zeroed persistent memory, valid as a block, never freed before the heap.
        Ok(unsafe { link.get().expect("just set").as_ref() })
    }
}
