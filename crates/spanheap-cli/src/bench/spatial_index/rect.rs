//! [`Rect`]: a rectangle with whole coordinates, so that areas and distances are exact, and the same in all languages.
//!
//! Coordinates are below 2^24: an area or a squared distance has 49 bits at most.

use std::sync::atomic::{AtomicU32, Ordering};

use spanheap::Trace;

/// A rectangle; its borders belong to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Rect {
    pub(super) min: [u32; 2],
    pub(super) max: [u32; 2],
}

impl Rect {
    /// That of one place.
    pub(super) fn at(x: u32, y: u32) -> Rect {
        Rect { min: [x, y], max: [x, y] }
    }

    /// The smallest that has both in it.
    pub(super) fn union(self, other: Rect) -> Rect {
        let of = |a: [u32; 2], b: [u32; 2], f: fn(u32, u32) -> u32| [f(a[0], b[0]), f(a[1], b[1])];
        Rect { min: of(self.min, other.min, u32::min), max: of(self.max, other.max, u32::max) }
    }

    /// How long it is along an axis.
    pub(super) fn side(self, axis: usize) -> u64 {
        u64::from(self.max[axis] - self.min[axis])
    }

    pub(super) fn area(self) -> u64 {
        self.side(0) * self.side(1)
    }

    /// Twice the middle of an axis.
    pub(super) fn middle(self, axis: usize) -> u64 {
        u64::from(self.min[axis]) + u64::from(self.max[axis])
    }

    pub(super) fn contains(self, x: u32, y: u32) -> bool {
        self.min[0] <= x && x <= self.max[0] && self.min[1] <= y && y <= self.max[1]
    }

    /// The square of the distance of a place, 0 inside.
    pub(super) fn distance(self, place: [u32; 2]) -> u64 {
        let square = |axis: usize| {
            // One of the two is 0.
            let below = self.min[axis].saturating_sub(place[axis]);
            let above = place[axis].saturating_sub(self.max[axis]);
            u64::from(below + above).pow(2)
        };
        square(0) + square(1)
    }
}

/// A rectangle in an object, which can be changed. One thread does that; loads and stores are plain ones.
#[derive(Default, Trace)]
pub(super) struct RectCell {
    sides: [AtomicU32; 4],
}

impl RectCell {
    pub(super) fn get(&self) -> Rect {
        let side = |index: usize| self.sides[index].load(Ordering::Relaxed);
        Rect { min: [side(0), side(1)], max: [side(2), side(3)] }
    }

    pub(super) fn set(&self, rect: Rect) {
        let sides = [rect.min[0], rect.min[1], rect.max[0], rect.max[1]];
        self.sides.iter().zip(sides).for_each(|(cell, side)| cell.store(side, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::{Rect, RectCell};

    #[test]
    fn rectangles_have_areas_and_distances() {
        let a = Rect::at(3, 10).union(Rect::at(7, 4));
        assert_eq!(a, Rect { min: [3, 4], max: [7, 10] });
        assert_eq!((a.area(), a.side(0), a.side(1), a.middle(0)), (24, 4, 6, 10));
        assert!(a.contains(3, 10) && !a.contains(2, 10) && !a.contains(3, 11));
        for (place, distance) in [([5, 5], 0), ([3, 4], 0), ([0, 5], 9), ([8, 12], 5), ([0, 0], 25)]
        {
            assert_eq!(a.distance(place), distance, "{place:?}");
        }
        let cell = RectCell::default();
        cell.set(a);
        assert_eq!(cell.get(), a);
        let far = Rect::at(0, 0).distance([(1 << 24) - 1; 2]);
        assert_eq!(far, 2 * ((1 << 24) - 1_u64).pow(2));
    }
}
