//! The program `gc-arena`.

use std::process::ExitCode;

fn main() -> ExitCode {
    spanheap_bench_peers::main(spanheap_bench_peers::GC_ARENA)
}
