//! What the programs for `spatial-index` have in common: rectangles, the random walk, the sum. The tree is theirs.

use std::time::{Duration, Instant};

use super::{Failure, Figure, Outcome, Result, Times, in_threads, share};
use crate::options::Params;
use crate::random::Random;

/// Coordinates are below this.
const SIDE: usize = 1 << 24;
/// A move goes so far in each direction at most.
const STEP: u32 = 1 << 14;
/// The most entries of a node.
pub(super) const MAX: usize = 32;
/// The fewest entries of a node that is not the root.
pub(super) const MIN: usize = 12;
/// How many entries stay in a node that is split.
pub(super) const STAY: usize = 17;

/// A rectangle, with its edges.
#[derive(Clone, Copy, Default)]
pub(super) struct Rect {
    min_x: u32,
    min_y: u32,
    max_x: u32,
    max_y: u32,
}

impl Rect {
    /// A point.
    pub(super) fn at(x: u32, y: u32) -> Rect {
        Rect { min_x: x, min_y: y, max_x: x, max_y: y }
    }

    pub(super) fn union(self, other: Rect) -> Rect {
        Rect {
            min_x: self.min_x.min(other.min_x),
            min_y: self.min_y.min(other.min_y),
            max_x: self.max_x.max(other.max_x),
            max_y: self.max_y.max(other.max_y),
        }
    }

    /// The rectangle around some others, of which there must be one.
    pub(super) fn around(mut rects: impl Iterator<Item = Rect>) -> Rect {
        let first = rects.next().unwrap_or_default();
        rects.fold(first, Rect::union)
    }

    pub(super) fn contains(self, x: u32, y: u32) -> bool {
        (self.min_x..=self.max_x).contains(&x) && (self.min_y..=self.max_y).contains(&y)
    }

    fn area(self) -> u64 {
        u64::from(self.max_x - self.min_x) * u64::from(self.max_y - self.min_y)
    }

    /// By what an entry is put in order when a node is split whose entries lie in `all`.
    pub(super) fn centre(self, all: Rect) -> u32 {
        let along_x = all.max_x - all.min_x >= all.max_y - all.min_y;
        if along_x { self.min_x + self.max_x } else { self.min_y + self.max_y }
    }

    /// The square of the distance to a point; 0 inside.
    pub(super) fn distance(self, x: u32, y: u32) -> u64 {
        let dx = u64::from(self.min_x.saturating_sub(x).max(x.saturating_sub(self.max_x)));
        let dy = u64::from(self.min_y.saturating_sub(y).max(y.saturating_sub(self.max_y)));
        dx * dx + dy * dy
    }
}

/// The rectangle that grows least when `rect` is put in; the smaller one, and then the first, if several do.
pub(super) fn choose(rects: &[Rect], rect: Rect) -> usize {
    let cost =
        |(_, other): &(usize, &Rect)| (other.union(rect).area() - other.area(), other.area());
    rects.iter().enumerate().min_by_key(cost).map_or(0, |(index, _)| index)
}

/// A point; it never changes.
pub(super) struct Point {
    pub(super) id: u64,
    pub(super) version: u64,
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) tag: u64,
}

const _: () = assert!(size_of::<Point>() == 32);

impl Point {
    pub(super) fn new(id: u64, version: u64, x: u32, y: u32) -> Point {
        Point { id, version, x, y, tag: id ^ version }
    }

    /// The same point somewhere near.
    pub(super) fn moved(&self, dx: u32, dy: u32) -> Point {
        let near = |at: u32, step: u32| (at + step).saturating_sub(STEP).min(SIDE as u32 - 1);
        Point::new(self.id, self.version + 1, near(self.x, dx), near(self.y, dy))
    }

    /// What a hit adds to the checksum.
    pub(super) fn hit(&self, place: u64, distance: u64) -> u64 {
        ((place + 1) * (distance + self.id)).wrapping_add(self.version)
    }

    /// What a point adds to the checksum at the end.
    pub(super) fn last(&self) -> u64 {
        assert!(self.tag == self.id ^ self.version, "a point was overwritten");
        (self.id + 1) * (self.version + 1) + u64::from(self.x) + u64::from(self.y)
    }
}

/// What a tree is in the end.
#[derive(Clone, Copy, Default)]
pub(super) struct Census {
    pub(super) sum: u64,
    pub(super) nodes: u64,
    pub(super) levels: u64,
}

/// A tree of points.
pub(super) trait Index {
    fn new(points: usize) -> Self;
    /// Puts a new point in, whose number is one more than that of the last.
    fn add(&mut self, x: u32, y: u32);
    /// Moves a point.
    fn shift(&mut self, id: usize, dx: u32, dy: u32);
    /// What the nearest points add to the checksum.
    fn query(&self, x: u32, y: u32, k: usize) -> u64;
    /// The tree is not torn down.
    fn finish(self) -> Census;
}

/// What a thread has found out.
#[derive(Default)]
struct Part {
    checksum: u64,
    census: Census,
    queries: Times,
    moves: Times,
    query_count: u64,
    move_count: u64,
    build: Duration,
    operate: Duration,
}

pub(super) fn run<I: Index>(params: &Params) -> Result<Outcome> {
    let [points, operations, k] = ["points", "operations", "k"].map(|key| params.get(key));
    let threads = params.threads;
    if threads as u64 > points {
        return Err(Failure::new(format!("{points} points are too few for {threads} threads")));
    }
    let parts = in_threads(threads, |index| {
        let points = share(points, threads, index) as usize;
        Ok(work::<I>(index, points, share(operations, threads, index), k as usize))
    })?;
    let mut all = Part::default();
    for part in &parts {
        all.checksum = all.checksum.wrapping_add(part.checksum);
        all.queries.merge(&part.queries);
        all.moves.merge(&part.moves);
        all.query_count += part.query_count;
        all.move_count += part.move_count;
        all.build = all.build.max(part.build);
        all.operate = all.operate.max(part.operate);
        all.census.nodes += part.census.nodes;
        all.census.levels = all.census.levels.max(part.census.levels);
    }
    let figures = vec![
        Figure::real("build_s", all.build.as_secs_f64()),
        Figure::real("ops_per_s", operations as f64 / all.operate.as_secs_f64()),
        Figure::count("queries", all.query_count),
        Figure::count("moves", all.move_count),
        Figure::count("move_p50_ns", all.moves.quantile(5_000)),
        Figure::count("move_p999_ns", all.moves.quantile(9_990)),
        Figure::count("move_max_ns", all.moves.quantile(10_000)),
        Figure::count("nodes", all.census.nodes),
        Figure::count("levels", all.census.levels),
    ];
    Ok(Outcome { checksum: all.checksum, latency: Some(("query", all.queries)), figures })
}

fn work<I: Index>(thread: usize, points: usize, operations: u64, k: usize) -> Part {
    let mut random = Random::new(100 + thread as u64);
    let mut part = Part::default();
    let started = Instant::now();
    let mut index = I::new(points);
    for _ in 0..points {
        let (x, y) = (random.below(SIDE), random.below(SIDE));
        index.add(x as u32, y as u32);
    }
    part.build = started.elapsed();
    let started = Instant::now();
    for _ in 0..operations {
        if random.below(10) == 0 {
            let id = random.below(points);
            let [dx, dy] = [(); 2].map(|()| random.below(2 * STEP as usize + 1) as u32);
            let begun = Instant::now();
            index.shift(id, dx, dy);
            part.moves.record(begun.elapsed());
            part.move_count += 1;
        } else {
            let [x, y] = [(); 2].map(|()| random.below(SIDE) as u32);
            let begun = Instant::now();
            let found = index.query(x, y, k);
            part.queries.record(begun.elapsed());
            part.query_count += 1;
            part.checksum = part.checksum.wrapping_add(found);
        }
    }
    part.operate = started.elapsed();
    part.census = index.finish();
    part.checksum = part.checksum.wrapping_add(part.census.sum);
    part
}
