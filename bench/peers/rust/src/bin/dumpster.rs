//! The program `dumpster`.

use std::process::ExitCode;

fn main() -> ExitCode {
    spanheap_bench_peers::main(spanheap_bench_peers::DUMPSTER)
}
