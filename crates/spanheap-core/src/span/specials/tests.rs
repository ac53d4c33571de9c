//! Lists of records against a sorted set, under random operations.
//!
//! # Safety
//! Records are boxes of the test, which takes each back when it is given out.
#![allow(unsafe_code)]

use super::*;
use crate::tests::{Random, steps};
use std::collections::BTreeSet;

const KINDS: [Kind; 4] = [Kind::Finalizer, Kind::Cleanup, Kind::Weak, Kind::Profile];

/// What tells two records apart, in the order of the list.
type Key = (Addr, Kind, u64);

fn key(special: &Special) -> Key {
    (special.object, special.kind, special.number)
}

/// Makes and takes back records, and knows how many are about.
#[derive(Default)]
struct Store {
    made: u64,
    about: usize,
}

impl Store {
    fn make(&mut self, object: Addr, kind: Kind) -> OwnedSpecial {
        self.made += 1;
        self.about += 1;
        let payload = [object.get(), self.made as usize];
        let memory = Box::into_raw(Box::new(Special::new(object, kind, self.made, payload)));
        OwnedSpecial { at: NonNull::new(memory).expect("a box is not null") }
    }

    fn take_back(&mut self, special: OwnedSpecial) -> Key {
        let at = special.into_memory();
        // SAFETY: the record is a box, and the right to it was given up.
        let special = unsafe { Box::from_raw(at.as_ptr()) };
        assert_eq!(special.payload, [special.object.get(), special.number as usize]);
        assert_eq!(special.next, None);
        self.about -= 1;
        key(&special)
    }

    fn take_all_back(&mut self, mut queue: SpecialQueue) -> Vec<Key> {
        let mut keys = Vec::new();
        while let Some(special) = queue.pop() {
            keys.push(self.take_back(special));
        }
        assert!(queue.is_empty());
        keys
    }
}

fn insert(list: &mut SpecialList, twin: &mut BTreeSet<Key>, store: &mut Store, new: (Addr, Kind)) {
    let exists = twin.iter().any(|&(object, kind, _)| (object, kind) == new);
    let special = store.make(new.0, new.1);
    let number = special.number;
    match list.insert(special) {
        Ok(()) => {
            assert!(!exists || new.1 == Kind::Cleanup, "{new:?} twice");
            twin.insert((new.0, new.1, number));
        }
        Err(special) => {
            assert!(exists && new.1 != Kind::Cleanup, "{new:?} is refused");
            store.take_back(special);
        }
    }
}

/// What a sweep gives out and leaves, the long way.
fn swept(twin: &mut BTreeSet<Key>, dead: &BTreeSet<Addr>) -> (Vec<Key>, BTreeSet<Addr>) {
    let (mut out, mut revived) = (Vec::new(), BTreeSet::new());
    for &object in dead {
        let of_object: Vec<Key> = twin.iter().copied().filter(|key| key.0 == object).collect();
        let finalizer = of_object.iter().any(|key| key.1 == Kind::Finalizer);
        let goes: &[Kind] = match finalizer {
            true => &[Kind::Weak, Kind::Finalizer],
            false => &[Kind::Weak, Kind::Cleanup, Kind::Profile],
        };
        for &kind in goes {
            out.extend(of_object.iter().copied().filter(|key| key.1 == kind));
        }
        if finalizer {
            revived.insert(object);
        }
    }
    twin.retain(|key| !out.contains(key));
    (out, revived)
}

#[test]
fn a_list_is_a_sorted_set_in_which_only_cleanups_repeat() {
    let mut random = Random::new(0x59ec1a1);
    let (mut list, mut twin, mut store) = (SpecialList::new(), BTreeSet::new(), Store::default());
    let (mut given_out, mut revivals) = (0, 0);
    for _ in 0..steps(30_000, 1_000_000) {
        let object = Addr::new(0x1000 + 48 * random.below(12));
        let kind = KINDS[random.below(4)];
        match random.below(12) {
            0..=6 => insert(&mut list, &mut twin, &mut store, (object, kind)),
            7 | 8 => {
                let all: Vec<Key> =
                    twin.iter().copied().filter(|k| (k.0, k.1) == (object, kind)).collect();
                // The first, a certain one, or one that is not there.
                let number = match random.below(4) {
                    0 | 1 => None,
                    2 => Some(u64::MAX),
                    _ => all.get(random.below(all.len().max(1))).map(|key| key.2),
                };
                let expected =
                    all.iter().copied().find(|key| number.is_none_or(|number| number == key.2));
                let removed = list.remove(object, kind, number);
                assert_eq!(removed.map(|special| store.take_back(special)), expected);
                expected.map(|key| twin.remove(&key));
            }
            9 => {
                let expected: Vec<Key> = twin.iter().copied().filter(|k| k.0 == object).collect();
                assert_eq!(store.take_all_back(list.take(object)), expected);
                twin.retain(|key| key.0 != object);
            }
            _ => {
                let objects: BTreeSet<Addr> = twin.iter().map(|key| key.0).collect();
                let dead: BTreeSet<Addr> =
                    objects.iter().copied().filter(|_| random.one_in(3)).collect();
                let (expected, revived) = swept(&mut twin, &dead);
                let (mut asked, mut told) = (Vec::new(), BTreeSet::new());
                let mut out = SpecialQueue::new();
                let is_dead = |object| {
                    asked.push(object);
                    dead.contains(&object)
                };
                list.sweep(is_dead, |object| assert!(told.insert(object)), &mut out);
                assert!(asked.into_iter().eq(objects), "each object is asked about once");
                assert_eq!(told, revived);
                given_out += expected.len();
                revivals += revived.len();
                assert_eq!(store.take_all_back(out), expected);
            }
        }
        assert!(list.iter().map(key).eq(twin.iter().copied()));
        assert_eq!((list.is_empty(), store.about), (twin.is_empty(), twin.len()));
    }
    assert!(given_out > 1000 && revivals > 100, "{given_out} given out, {revivals} revived");
    let left: BTreeSet<Addr> = twin.iter().map(|key| key.0).collect();
    for object in left {
        store.take_all_back(list.take(object));
    }
    assert_eq!((list.is_empty(), store.about), (true, 0));
}

#[test]
fn a_queue_gives_out_what_came_first() {
    let mut random = Random::new(0x9e0e);
    let (mut queue, mut store) = (SpecialQueue::new(), Store::default());
    let mut twin = std::collections::VecDeque::new();
    for _ in 0..5000 {
        if random.one_in(2) {
            let special = store.make(Addr::new(16 * random.below(9)), KINDS[random.below(4)]);
            twin.push_back(key(&special));
            queue.push(special);
        } else {
            assert_eq!(queue.pop().map(|special| store.take_back(special)), twin.pop_front());
        }
        assert_eq!((queue.is_empty(), store.about), (twin.is_empty(), twin.len()));
    }
    assert_eq!(store.take_all_back(queue), Vec::from(twin));
}
