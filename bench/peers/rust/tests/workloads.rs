//! Every program does every workload that it knows, at small sizes, and its checksum is held against a plain
//! implementation without pointers, or against what the workload's definition makes it by counting.
//!
//! The expected numbers of the cache, the index and the random graph were printed by spanheap's own program, too.

use std::collections::VecDeque;
use std::process::{Command, Output};

use serde_json::Value;

#[allow(dead_code)]
#[path = "../../../../crates/spanheap-cli/src/random.rs"]
mod random;
#[path = "../src/bench/zipf.rs"]
mod zipf;

use random::Random;
use zipf::Zipf;

const PROGRAMS: [(&str, &str); 8] = [
    ("box", env!("CARGO_BIN_EXE_box")),
    ("box-mimalloc", env!("CARGO_BIN_EXE_box-mimalloc")),
    ("rc", env!("CARGO_BIN_EXE_rc")),
    ("arc", env!("CARGO_BIN_EXE_arc")),
    ("gc-arena", env!("CARGO_BIN_EXE_gc-arena")),
    ("dumpster", env!("CARGO_BIN_EXE_dumpster")),
    ("dumpster-sync", env!("CARGO_BIN_EXE_dumpster-sync")),
    ("bumpalo", env!("CARGO_BIN_EXE_bumpalo")),
];

fn run(program: &str, arguments: &str) -> Output {
    let (_, path) = PROGRAMS.iter().find(|(name, _)| *name == program).expect("a program");
    Command::new(path).args(arguments.split(' ')).output().expect("it starts")
}

/// Runs a workload in some programs, and compares their checksums. Returns the last line.
fn check(programs: &[&str], arguments: &str, expected: u64) -> Value {
    let mut last = Value::Null;
    for program in programs {
        let output = run(program, arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments}: {error}");
        last = serde_json::from_slice(&output.stdout).expect("a line of JSON");
        assert_eq!(last["checksum"].as_u64(), Some(expected), "{program} {arguments}");
        for key in ["wall_s", "user_s", "sys_s", "peak_rss_bytes"] {
            assert!(last[key].is_number(), "{program} {arguments}: {key}");
        }
    }
    last
}

const OWNED: [&str; 4] = ["box", "box-mimalloc", "rc", "arc"];
const ALL: [&str; 7] =
    ["box", "box-mimalloc", "rc", "arc", "gc-arena", "dumpster", "dumpster-sync"];

fn nodes(depth: u64) -> u64 {
    (2 << depth) - 1
}

#[test]
fn binary_trees() {
    let expected =
        nodes(8) + (4..=8).step_by(2).map(|d| (1 << (8 - d + 4)) * nodes(d)).sum::<u64>();
    check(&ALL, "binary-trees depth=8", expected);
    check(&ALL, "binary-trees depth=8 threads=3", expected);
    check(&["bumpalo"], "binary-trees depth=8 arena=1", expected);
    let line = check(&["bumpalo"], "binary-trees depth=8 arena=1 threads=2", expected);
    assert_eq!(line["params"].to_string(), r#"{"arena":1,"depth":8,"threads":2}"#);
    assert_eq!((&line["workload"], &line["subject"]), (&"binary-trees".into(), &"bumpalo".into()));
}

#[test]
fn gcbench() {
    let trees = |depth: u64| (2 * nodes(8) / nodes(depth)).max(1);
    let sums = (4..=8).step_by(2).map(|depth| 2 * trees(depth) * (depth + 1)).sum::<u64>();
    let expected = sums + nodes(6) + 1000;
    for threads in [1, 2] {
        let arguments =
            format!("gcbench stretch=8 longlived=6 array=1000 min=4 max=8 threads={threads}");
        let line = check(&ALL, &arguments, expected);
        assert!(line["top_down_s"].is_number() && line["bottom_up_s"].is_number());
    }
}

/// The sum of one bus.
fn bus(window: u64, messages: u64, size: u64) -> u64 {
    let byte = |number: u64| number % 256;
    let pushed_out = messages.saturating_sub(window);
    let gone: u64 = (0..pushed_out).map(|number| number + byte(number)).sum();
    gone + (pushed_out..messages).map(|number| number + size * byte(number)).sum::<u64>()
}

#[test]
fn message_bus() {
    check(&ALL, "message-bus window=300 messages=2000 size=33", bus(300, 2000, 33));
    let two = bus(151, 1001, 33) + bus(150, 1000, 33);
    let line = check(&ALL, "message-bus window=301 messages=2001 size=33 threads=2", two);
    assert!(line["push_max_ns"].as_u64() >= line["push_p50_ns"].as_u64());
    check(&ALL, "message-bus window=3 messages=2 size=1 rate=100000", bus(3, 2, 1));
}

/// A shard of the cache: keys by age, the newest in front, with the salts of their values.
type Shard = VecDeque<(u64, u64)>;

fn operation(
    shard: &mut Shard,
    capacity: usize,
    rank: u64,
    replaces: bool,
    salt: u64,
) -> (u64, bool) {
    let found = shard.iter().position(|&(key, _)| key == rank);
    let old = found.and_then(|place| shard.remove(place)).map(|(_, salt)| salt);
    let now = match old {
        Some(old) if !replaces => old,
        _ => salt,
    };
    shard.push_front((rank, now));
    shard.truncate(capacity);
    (rank ^ old.unwrap_or(now), old.is_some())
}

/// The sum of one thread with all shards.
fn cache(entries: usize, keys: u64, operations: u64, shards: usize) -> u64 {
    let mut all = vec![Shard::new(); shards];
    let capacity = |shard: usize| entries / shards + usize::from(shard < entries % shards);
    let place = |rank: u64| {
        let z = (rank ^ (rank >> 30)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = z.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z ^ (z >> 27)) >> 40) as usize % shards
    };
    for rank in (0..entries as u64).rev() {
        let shard = place(rank);
        operation(&mut all[shard], capacity(shard), rank, false, 0);
    }
    let (zipf, mut random, mut sum) = (Zipf::new(keys), Random::new(0), 0_u64);
    for number in 0..operations {
        let rank = zipf.draw(&mut random);
        let replaces = random.below(10) == 0;
        let shard = place(rank);
        let (word, hit) = operation(&mut all[shard], capacity(shard), rank, replaces, number);
        sum = sum.wrapping_add(word).wrapping_add(u64::from(hit));
    }
    sum
}

#[test]
fn lru() {
    let arguments = "lru entries=200 keys=1000 operations=5000 shards=3";
    let line = check(&ALL, arguments, cache(200, 1000, 5000, 3));
    assert_eq!(line["entries_left"].as_u64(), Some(200));
    check(&ALL, "lru entries=20000 keys=40000 operations=100000", 3_431_070_773);
    let arguments = "lru entries=20000 keys=40000 operations=100000 threads=2";
    check(&["box", "box-mimalloc", "arc", "dumpster-sync"], arguments, LRU_OF_TWO);
}

/// Printed by spanheap's own program.
const LRU_OF_TWO: u64 = 1682537031;

/// The sum of one thread of the index, by looking at all points for each query.
fn index(thread: u64, points: usize, operations: u64, k: usize) -> u64 {
    let mut random = Random::new(100 + thread);
    let side = 1 << 24;
    let mut all: Vec<(u64, u64, u64)> =
        (0..points).map(|_| (0, random.below(side) as u64, random.below(side) as u64)).collect();
    let mut sum = 0_u64;
    for _ in 0..operations {
        if random.below(10) == 0 {
            let id = random.below(points);
            let mut near = |at: u64| {
                let to = at as i64 + random.below((1 << 15) + 1) as i64 - (1 << 14);
                to.clamp(0, side as i64 - 1) as u64
            };
            let (version, x, y) = all[id];
            all[id] = (version + 1, near(x), near(y));
        } else {
            let (x, y) = (random.below(side) as u64, random.below(side) as u64);
            let distance =
                |&(_, px, py): &(u64, u64, u64)| px.abs_diff(x).pow(2) + py.abs_diff(y).pow(2);
            let mut found: Vec<(u64, usize)> =
                all.iter().enumerate().map(|(id, point)| (distance(point), id)).collect();
            found.sort_unstable();
            for (place, &(distance, id)) in found.iter().take(k).enumerate() {
                let hit = (place as u64 + 1) * (distance + id as u64);
                sum = sum.wrapping_add(hit).wrapping_add(all[id].0);
            }
        }
    }
    let last =
        |(id, &(version, x, y)): (usize, &(u64, u64, u64))| (id as u64 + 1) * (version + 1) + x + y;
    sum.wrapping_add(all.iter().enumerate().map(last).sum())
}

#[test]
fn spatial_index() {
    for (points, operations, k) in [(1, 20, 3), (40, 200, 40), (3000, 600, 10)] {
        let arguments = format!("spatial-index points={points} operations={operations} k={k}");
        check(&OWNED, &arguments, index(0, points, operations, k));
    }
    let two = index(0, 1001, 251, 7).wrapping_add(index(1, 1000, 250, 7));
    check(&OWNED, "spatial-index points=2001 operations=501 k=7 threads=2", two);
    // Many more moves than points: nodes that become too small, and roots that go.
    let arguments = "spatial-index points=200 operations=20000 k=1";
    let line = check(&OWNED, arguments, index(0, 200, 20_000, 1));
    assert!(line["moves"].as_u64() > Some(1500) && line["levels"].as_u64() > Some(1), "{line}");
}

/// Which objects of the random graph are reached: the sum of their numbers, each more one.
fn reached(objects: usize) -> u64 {
    let mut random = Random::new(1);
    let groups_of: Vec<usize> = (0..objects).map(|_| [0, 1, 1, 2][random.below(4)]).collect();
    let group =
        |wanted| -> Vec<usize> { (0..objects).filter(|&n| groups_of[n] == wanted).collect() };
    let groups = [group(0), group(1), group(2)];
    let mut random = Random::new(2);
    let mut pick = |group: &[usize]| (!group.is_empty()).then(|| group[random.below(group.len())]);
    let edges: Vec<[Option<usize>; 4]> =
        (0..objects).map(|_| [0, 1, 1, 2].map(|wanted| pick(&groups[wanted]))).collect();
    let mut seen = vec![false; objects];
    let mut stack: Vec<usize> = groups[1].first().copied().into_iter().collect();
    while let Some(number) = stack.pop() {
        if !std::mem::replace(&mut seen[number], true) {
            stack.extend(edges[number].iter().flatten());
        }
    }
    (0..objects).filter(|&number| seen[number]).map(|number| number as u64 + 1).sum()
}

#[test]
fn marking() {
    for objects in [1_u64, 5, 2000] {
        for shape in [0, 2, 3, 4, 5] {
            let arguments = format!("marking shape={shape} objects={objects} rounds=2");
            let line = check(&["gc-arena", "dumpster"], &arguments, objects * (objects + 1) / 2);
            assert_eq!(line["reached"].as_u64(), Some(objects));
        }
        let arguments = format!("marking shape=1 objects={objects} rounds=2");
        check(&["gc-arena", "dumpster"], &arguments, reached(objects as usize));
    }
    check(&["gc-arena"], "marking shape=1 objects=100000 rounds=1", 4_903_942_054);
}

#[test]
fn start_up() {
    let expected = (0..4_u64).map(|round| (0..50).map(|index| round + index).sum::<u64>()).sum();
    let line = check(&ALL, "start-up rounds=4 objects=50", expected);
    assert!(line["round_p50_ns"].is_number() && line["first_resident_bytes"].is_number());
    // Lists that are much longer than a stack is deep.
    check(&ALL, "start-up rounds=1 objects=300000", (0..300_000).sum());
}

#[test]
fn what_a_system_cannot_do_has_an_exit_code_of_its_own() {
    for (program, arguments, code) in [
        ("box", "marking", 3),
        ("bumpalo", "gcbench", 3),
        ("bumpalo", "binary-trees", 3),
        ("rc", "lru entries=100 threads=2", 3),
        ("gc-arena", "lru entries=100 threads=2", 3),
        ("arc", "binary-trees arena=1", 3),
        ("arc", "binary-trees gc_percent=50", 3),
        ("gc-arena", "binary-trees gc_percent=off", 3),
        ("gc-arena", "binary-trees limit=1GiB", 3),
        ("dumpster", "marking shape=2 objects=16000000", 3),
        ("box", "binary-forests", 1),
        ("box", "binary-trees depth=x", 1),
        ("box", "message-bus window=1 threads=2", 1),
    ] {
        let output = run(program, arguments);
        assert_eq!(output.status.code(), Some(code), "{program} {arguments}");
        assert!(output.stdout.is_empty(), "{program} {arguments}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_growth_that_is_given_is_kept_to() {
    let line = check(
        &["gc-arena"],
        "binary-trees depth=6 gc_percent=30",
        nodes(6) + 64 * nodes(4) + 16 * nodes(6),
    );
    assert_eq!(line["params"]["gc_percent"].as_u64(), Some(30));
}
