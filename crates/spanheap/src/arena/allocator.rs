//! An arena as an allocator for collections of other crates.
//!
//! What is given back stays where it is until the arena ends or is reset, with these exceptions: the block at the top, which
//! a collection that grows alone at the top therefore extends and shrinks where it is, as long as the chunk has room;
//! and a block with pages of its own, if it is among the youngest of them.
//!
//! # Safety
//! Blocks stay where they are as long as anybody has `&Arena` or a collection with one in it: `reset` and the end need the arena for
//! themselves (R2). A copy of the reference is the same allocator.
#![allow(unsafe_code)]

use super::Arena;
use core::alloc::Layout;
use core::ptr::NonNull;

impl Arena<'_> {
    /// Makes a block larger or smaller: where it is, or by a copy. `None` if there is no room.
    ///
    /// # Safety
    /// The block was allocated here with the layout `old`, or resized to it, and is the caller's. If there is an
    /// answer, it is the block that the caller has from then on.
    unsafe fn reallocate(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Option<NonNull<u8>> {
        // The cursor does not move below a block without bytes.
        let is_there = old.size() > 0 && new.size() > 0;
        let is_aligned = block.as_ptr().addr() & (new.align() - 1) == 0;
        // SAFETY: M2: the caller's promise.
        if is_there && is_aligned && unsafe { self.memory.resize(block, old.size(), new.size()) } {
            return Some(block);
        }
        let place = self.try_block(new).ok()?;
        // SAFETY: both are that long, and the new one is another one.
        unsafe { place.copy_from_nonoverlapping(block, old.size().min(new.size())) };
        // SAFETY: the caller's promise.
        unsafe { self.release(block, old) };
        Some(place)
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// As [`Arena::reallocate`], and nobody uses the block any more.
    unsafe fn release(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() > 0 {
            // SAFETY: M2: the caller's promise.
            unsafe { self.memory.give_back(block, layout.size()) };
        }
    }
}

/// The trait of one version of `allocator-api2`.
macro_rules! implement {
    ($feature:literal, $version:ident) => {
        #[cfg(feature = $feature)]
        // SAFETY: see the top of the file.
        unsafe impl $version::alloc::Allocator for &Arena<'_> {
            #[inline]
            fn allocate(
                &self,
                layout: Layout,
            ) -> Result<NonNull<[u8]>, $version::alloc::AllocError> {
                let block = self.try_block(layout).map_err(|_| $version::alloc::AllocError)?;
                Ok(NonNull::slice_from_raw_parts(block, layout.size()))
            }

            #[inline]
            unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
                // SAFETY: the same contract.
                unsafe { self.release(block, layout) };
            }

            #[inline]
            unsafe fn grow(
                &self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, $version::alloc::AllocError> {
                // SAFETY: the same contract.
                let block = unsafe { self.reallocate(block, old, new) };
                let block = block.ok_or($version::alloc::AllocError)?;
                Ok(NonNull::slice_from_raw_parts(block, new.size()))
            }

            #[inline]
            unsafe fn grow_zeroed(
                &self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, $version::alloc::AllocError> {
                // SAFETY: the same contract.
                let grown = unsafe { self.grow(block, old, new) }?;
                // SAFETY: the block is as long as the new layout says.
                let rest = unsafe { grown.cast::<u8>().add(old.size()) };
                // SAFETY: as above; nobody has written there yet.
                unsafe { rest.write_bytes(0, new.size() - old.size()) };
                Ok(grown)
            }

            #[inline]
            unsafe fn shrink(
                &self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, $version::alloc::AllocError> {
                // SAFETY: the same contract.
                unsafe { self.grow(block, old, new) }
            }
        }
    };
}

implement!("allocator-api2-02", allocator_api2_02);
implement!("allocator-api2-04", allocator_api2_04);
