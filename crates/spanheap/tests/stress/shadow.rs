//! Graphs with a shadow: what the heap holds is what an ordinary Rust program says it should.

use crate::{Random, canary, modes, on_threads, rounds};
use spanheap::{Collected, Gc, GcCell, GcMutex, Heap, Mutator, OutOfMemory, Root, Rootable, Trace};
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

/// An object with every kind of edge: immutable, in a cell, in a locked container, in an enum.
#[derive(Trace)]
struct Object<'gc> {
    id: u64,
    canary: u64,
    left: GcCell<'gc, Option<Gc<'gc, Object<'gc>>>>,
    right: GcCell<'gc, Option<Gc<'gc, Object<'gc>>>>,
    bag: GcMutex<'gc, Vec<Gc<'gc, Object<'gc>>>>,
    fixed: Fixed<'gc>,
    text: Gc<'gc, str>,
}

#[derive(Trace)]
enum Fixed<'gc> {
    Nothing,
    One(Gc<'gc, Object<'gc>>),
    Many(Gc<'gc, [Gc<'gc, Object<'gc>>]>),
}

type ObjectRoot = Root<Rootable![Object<'_>]>;

/// What the shadow knows of an object.
#[derive(Default, Clone)]
struct Shadow {
    left: Option<u64>,
    right: Option<u64>,
    bag: Vec<u64>,
    fixed: Vec<u64>,
    /// Whether `fixed` is a slice, an object of its own.
    slice: bool,
}

/// A graph, its shadow, and the random steps that change both. No more than one thread at a time plays it.
pub struct Program {
    random: Random,
    next_id: u64,
    shadow: HashMap<u64, Shadow>,
    roots: Vec<(ObjectRoot, u64)>,
}

impl Program {
    /// An empty graph. Equal numbers make equal steps.
    pub fn new(seed: u64, thread: u64) -> Program {
        let random = Random::new(seed + thread * 1000);
        Program { random, next_id: thread << 40, shadow: HashMap::new(), roots: Vec::new() }
    }

    /// Some object that the program can reach, in the heap and in the shadow.
    fn pick<'gc>(&mut self, mc: &Mutator<'gc>) -> Option<Gc<'gc, Object<'gc>>> {
        if self.roots.is_empty() {
            return None;
        }
        let (root, id) = &self.roots[self.random.below(self.roots.len())];
        let mut object = root.get(mc);
        assert_eq!(object.id, *id);
        for _ in 0..self.random.below(12) {
            self.check(mc, object);
            let bag = object.bag.lock(mc);
            let next = match self.random.below(4) {
                0 => object.left.get(),
                1 => object.right.get(),
                2 if !bag.is_empty() => Some(bag[self.random.below(bag.len())]),
                _ => match object.fixed {
                    Fixed::Nothing => None,
                    Fixed::One(next) => Some(next),
                    Fixed::Many(all) if all.is_empty() => None,
                    Fixed::Many(all) => Some(all[self.random.below(all.len())]),
                },
            };
            drop(bag);
            let Some(next) = next else { break };
            object = next;
        }
        self.check(mc, object);
        Some(object)
    }

    /// Compares one object with its shadow.
    fn check<'gc>(&self, mc: &Mutator<'gc>, object: Gc<'gc, Object<'gc>>) {
        let id = object.id;
        assert_eq!(object.canary, canary(id), "object {id:#x} was overwritten");
        let shadow = &self.shadow[&id];
        assert_eq!(object.left.get().map(|o| o.id), shadow.left, "left of {id:#x}");
        assert_eq!(object.right.get().map(|o| o.id), shadow.right, "right of {id:#x}");
        assert!(object.bag.lock(mc).iter().map(|o| o.id).eq(shadow.bag.iter().copied()));
        assert_eq!(&*object.text, text_of(id));
        let fixed: Vec<u64> = match object.fixed {
            Fixed::Nothing => Vec::new(),
            Fixed::One(one) => vec![one.id],
            Fixed::Many(all) => all.iter().map(|o| o.id).collect(),
        };
        assert_eq!(fixed, shadow.fixed, "fixed edges of {id:#x}");
    }

    fn make<'gc>(&mut self, mc: &Mutator<'gc>) -> Result<Gc<'gc, Object<'gc>>, OutOfMemory> {
        let mut shadow = Shadow::default();
        let fixed = match self.random.below(4) {
            0 | 1 => Fixed::Nothing,
            2 => match self.pick(mc) {
                Some(one) => {
                    shadow.fixed.push(one.id);
                    Fixed::One(one)
                }
                None => Fixed::Nothing,
            },
            _ => {
                let all: Vec<_> = (0..self.random.below(9)).filter_map(|_| self.pick(mc)).collect();
                shadow.fixed = all.iter().map(|o| o.id).collect();
                shadow.slice = true;
                Fixed::Many(mc.try_alloc_slice(all)?)
            }
        };
        let id = self.next_id;
        self.next_id += 1;
        let (left, right) = (self.pick(mc), self.pick(mc));
        shadow.left = left.map(|o| o.id);
        shadow.right = right.map(|o| o.id);
        let object = mc.try_alloc(Object {
            id,
            canary: canary(id),
            left: GcCell::new(left),
            right: GcCell::new(right),
            bag: GcMutex::new(Vec::new()),
            fixed,
            text: mc.try_alloc_str(&text_of(id))?,
        })?;
        self.shadow.insert(id, shadow);
        Ok(object)
    }

    /// One closure's worth of random work.
    fn step(&mut self, heap: &Heap) {
        heap.enter(|mc| {
            for _ in 0..=self.random.below(30) {
                self.act(mc);
            }
        });
        self.prune();
    }

    /// Drops roots when there are many.
    pub fn prune(&mut self) {
        if self.roots.len() > 24 {
            let keep = self.random.below(12);
            self.roots.truncate(keep);
        }
    }

    /// One random step. If there is no memory for it, nothing has changed.
    pub fn act<'gc>(&mut self, mc: &Mutator<'gc>) {
        match self.random.below(10) {
            0..=3 => {
                if let Ok(new) = self.make(mc) {
                    self.attach(mc, new);
                }
            }
            4 | 5 => {
                let (Some(object), target) = (self.pick(mc), self.pick(mc)) else { return };
                let target = target.filter(|_| !self.random.one_in(3));
                let shadow = self.shadow.get_mut(&object.id).unwrap();
                if self.random.one_in(2) {
                    object.left.set(mc, target);
                    shadow.left = target.map(|o| o.id);
                } else {
                    let old = object.right.swap(mc, target);
                    assert_eq!(old.map(|o| o.id), shadow.right);
                    shadow.right = target.map(|o| o.id);
                }
            }
            6 | 7 => {
                let (Some(object), Some(target)) = (self.pick(mc), self.pick(mc)) else { return };
                self.change_bag(mc, object, target);
            }
            8 if self.roots.len() > 1 => {
                let at = self.random.below(self.roots.len());
                self.roots.swap_remove(at);
            }
            _ => {
                let Some(object) = self.pick(mc) else { return };
                self.roots.push((mc.root(object), object.id));
            }
        }
    }

    fn change_bag<'gc>(
        &mut self,
        mc: &Mutator<'gc>,
        object: Gc<'gc, Object<'gc>>,
        target: Gc<'gc, Object<'gc>>,
    ) {
        let mut bag = object.bag.lock(mc);
        let shadow = &mut self.shadow.get_mut(&object.id).unwrap().bag;
        if bag.len() > 20 {
            bag.clear();
            shadow.clear();
        } else if self.random.one_in(3) && !bag.is_empty() {
            let at = self.random.below(bag.len());
            bag.swap_remove(at);
            shadow.swap_remove(at);
        } else {
            bag.push(target);
            shadow.push(target.id);
        }
    }

    /// Makes a new object reachable: by a root, or from another object.
    fn attach<'gc>(&mut self, mc: &Mutator<'gc>, new: Gc<'gc, Object<'gc>>) {
        match self.pick(mc) {
            Some(old) if !self.random.one_in(4) => {
                old.left.set(mc, Some(new));
                self.shadow.get_mut(&old.id).unwrap().left = Some(new.id);
            }
            _ => self.roots.push((mc.root(new), new.id)),
        }
    }

    /// The objects that the shadow can reach.
    fn reachable(&self) -> HashSet<u64> {
        let mut seen = HashSet::new();
        let mut todo: Vec<u64> = self.roots.iter().map(|(_, id)| *id).collect();
        while let Some(id) = todo.pop() {
            if seen.insert(id) {
                let shadow = &self.shadow[&id];
                todo.extend(shadow.left.iter().chain(&shadow.right));
                todo.extend(shadow.bag.iter().chain(&shadow.fixed));
            }
        }
        seen
    }

    /// Forgets the shadows of what is gone, and returns how many objects the heap must hold.
    pub fn survivors(&mut self) -> u64 {
        let reachable = self.reachable();
        self.shadow.retain(|id, _| reachable.contains(id));
        // An object, its text, and its slice if it has one.
        self.shadow.values().map(|shadow| 2 + u64::from(shadow.slice)).sum()
    }
}

/// A text that is too long to share a slot with others.
fn text_of(id: u64) -> String {
    format!("the text of {id:#018x}{}", "+".repeat((id % 50) as usize))
}

#[test]
fn the_heap_holds_what_the_shadow_can_reach() {
    for (mode, builder) in modes() {
        let seed = 20_261_120;
        println!("shadow: {mode}, seed {seed}");
        let heap = builder.build().unwrap();
        let mut programs: Vec<Program> = (1..=3).map(|t| Program::new(seed, t)).collect();
        for _ in 0..6 * rounds() {
            let slots: Vec<_> = programs.iter_mut().map(Mutex::new).collect();
            on_threads(slots.len() as u64, |number| {
                let mut program = slots[number as usize].lock().unwrap();
                (0..120).for_each(|_| program.step(&heap));
            });
            assert_eq!(heap.collect(), Collected::Complete);
            let expected: u64 = programs.iter_mut().map(Program::survivors).sum();
            assert_eq!(heap.stats().live_objects, expected, "{mode}: {:?}", heap.stats());
        }
        assert!(heap.stats().cycles > 6 && !heap.stats().retained_everything);
        programs.clear();
        assert_eq!(heap.collect(), Collected::Complete);
        assert_eq!(heap.stats().live_objects, 0);
    }
}
