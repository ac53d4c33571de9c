//! How much memory the machine has, and how much of it the control groups of the process allow: read from the
//! files in which Linux says so.
//!
//! | file | what |
//! |---|---|
//! | `/proc/meminfo` | the memory of the machine |
//! | `/proc/self/cgroup` | the group of the process in each hierarchy |
//! | `/proc/self/mountinfo` | where the hierarchies are mounted, and which part of them |
//! | `memory.max`, `memory.high` | the limits of a group, version 2: beyond the first it is killed, beyond the second it is slowed down |
//! | `memory.limit_in_bytes` | the limit of a group, version 1 |
//!
//! A group is limited by those above it, too, so the lowest limit on the way up to the mount point counts. In a
//! container the mount often shows only the part of the hierarchy that begins at its own group; what is above
//! cannot be seen, and is the machine's memory at most. Both versions may be there at once (*hybrid*): then the
//! memory controller belongs to one of them, and the other has no such files.
//!
//! Pure: the files are read by whoever calls.

use crate::addr::Bytes;
use std::path::{Path, PathBuf};

/// Where the process's groups are named.
const GROUPS: &str = "/proc/self/cgroup";
/// Where mounts are listed.
const MOUNTS: &str = "/proc/self/mountinfo";
/// Where the machine's memory is.
const MEMORY: &str = "/proc/meminfo";

/// What version 1 says without a limit is the largest count of pages, in bytes; nothing has as much as half of that.
const UNLIMITED: usize = 1 << 62;

/// Reads a file; `None` if it is not there.
pub(super) type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The memory of the machine.
pub(super) fn machine_memory(read: Read<'_>) -> Option<Bytes> {
    let text = read(MEMORY)?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1 << 10).map(Bytes::new)
}

/// The lowest limit of the groups that the process is in; `None` if there is none, or nobody says.
pub(super) fn limit(read: Read<'_>) -> Option<Bytes> {
    let (groups, mounts) = (read(GROUPS)?, read(MOUNTS)?);
    mounts
        .lines()
        .filter_map(Mount::parse)
        .filter_map(|mount| {
            let group = groups.lines().find_map(|line| mount.version.group(line))?;
            lowest(&mount, group, read)
        })
        .min()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    One,
    Two,
}

impl Version {
    /// The files with limits.
    fn files(self) -> &'static [&'static str] {
        match self {
            Version::One => &["memory.limit_in_bytes"],
            Version::Two => &["memory.max", "memory.high"],
        }
    }

    /// The group that a line of `/proc/self/cgroup` names, if it is for the hierarchy with this version's memory
    /// controller: `4:memory:/some/group`, or `0::/some/group`.
    fn group(self, line: &str) -> Option<&str> {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
        let is_it = match self {
            Version::One => controllers.split(',').any(|name| name == "memory"),
            Version::Two => id == "0" && controllers.is_empty(),
        };
        is_it.then_some(group)
    }
}

/// A mount of a hierarchy that may have the memory controller.
#[derive(PartialEq, Eq, Debug)]
struct Mount {
    version: Version,
    /// The group that is seen at the mount point.
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// A line of `/proc/self/mountinfo`: number, parent, device, root, mount point, options, any number of tags,
    /// a dash, the type, the source, the options of the file system.
    fn parse(line: &str) -> Option<Mount> {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let mut system = system.split(' ');
        let (kind, options) = (system.next()?, system.nth(1).unwrap_or(""));
        let version = match kind {
            "cgroup2" => Version::Two,
            "cgroup" if options.split(',').any(|option| option == "memory") => Version::One,
            _ => return None,
        };
        Some(Mount { version, root: unescape(root)?, point: unescape(point)? })
    }

    /// Where the directory of `group` is. A group that cannot be seen from here is shown at the mount point, as far
    /// as it is shown at all.
    fn directory(&self, group: &str) -> PathBuf {
        match Path::new(group).strip_prefix(&self.root) {
            Ok(below) if !group.split('/').any(|part| part == "..") => self.point.join(below),
            _ => self.point.clone(),
        }
    }
}

/// The lowest limit of `group` and those above it.
fn lowest(mount: &Mount, group: &str, read: Read<'_>) -> Option<Bytes> {
    let directory = mount.directory(group);
    let above = directory.ancestors().take_while(|directory| directory.starts_with(&mount.point));
    let files = above
        .flat_map(|directory| mount.version.files().iter().map(move |file| directory.join(file)));
    files.filter_map(|file| parse_limit(&read(file.to_str()?)?)).min()
}

/// A limit in bytes; `None` if it says that there is none.
fn parse_limit(text: &str) -> Option<Bytes> {
    let bytes: usize = text.trim().parse().ok()?;
    (bytes < UNLIMITED).then(|| Bytes::new(bytes))
}

/// Replaces what stands for blanks, tabs, line ends and backslashes: three octal digits.
fn unescape(text: &str) -> Option<PathBuf> {
    let mut parts = text.split('\\');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(3)?;
        plain.push(char::from(u8::from_str_radix(digits, 8).ok()?));
        plain.push_str(rest);
    }
    Some(PathBuf::from(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// The answer of a machine with these files.
    fn limit_of(files: &[(&str, &str)]) -> Option<usize> {
        let read = |path: &str| {
            files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
        };
        limit(&read).map(Bytes::get)
    }

    const V2_MOUNT: &str =
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1_MOUNT: &str = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
         35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";

    #[test]
    fn version_2() {
        let mut files = vec![
            (GROUPS, "0::/system.slice/app.service\n"),
            (MOUNTS, V2_MOUNT),
            ("/sys/fs/cgroup/system.slice/app.service/memory.max", "536870912\n"),
            ("/sys/fs/cgroup/system.slice/memory.max", "max\n"),
        ];
        assert_eq!(limit_of(&files), Some(512 * MIB));
        // Beyond `high` the process is slowed down until it is of no use.
        files.push(("/sys/fs/cgroup/system.slice/app.service/memory.high", "402653184\n"));
        assert_eq!(limit_of(&files), Some(384 * MIB));
    }

    #[test]
    fn version_2_with_a_lower_limit_further_up() {
        let files = [
            (GROUPS, "0::/pods/burstable/pod1/c7\n"),
            (MOUNTS, V2_MOUNT),
            ("/sys/fs/cgroup/pods/burstable/pod1/c7/memory.max", "1073741824\n"),
            ("/sys/fs/cgroup/pods/burstable/pod1/memory.max", "268435456\n"),
            ("/sys/fs/cgroup/pods/memory.max", "8589934592\n"),
            // Not above the mount point.
            ("/sys/fs/memory.max", "1\n"),
        ];
        assert_eq!(limit_of(&files), Some(256 * MIB));
    }

    #[test]
    fn version_2_in_a_container_that_sees_its_own_group_as_the_root() {
        for group in ["/", "/../../elsewhere"] {
            let groups = format!("0::{group}\n");
            let files = [
                (GROUPS, groups.as_str()),
                (MOUNTS, V2_MOUNT),
                ("/sys/fs/cgroup/memory.max", "67108864\n"),
            ];
            assert_eq!(limit_of(&files), Some(64 * MIB), "{group}");
        }
    }

    #[test]
    fn version_2_without_a_limit() {
        let max = "/sys/fs/cgroup/a/memory.max";
        let files = [(GROUPS, "0::/a\n"), (MOUNTS, V2_MOUNT), (max, "max\n")];
        assert_eq!(limit_of(&files), None);
        assert_eq!(
            limit_of(&[(GROUPS, "0::/\n"), (MOUNTS, V2_MOUNT)]),
            None,
            "the root has no file"
        );
        assert_eq!(limit_of(&[(MOUNTS, V2_MOUNT)]), None);
        assert_eq!(limit_of(&[]), None);
    }

    #[test]
    fn version_1() {
        let groups = "5:devices:/x\n4:memory:/docker/ab12\n2:cpu,cpuacct:/\n1:name=systemd:/\n";
        let mut files = vec![
            (GROUPS, groups),
            (MOUNTS, V1_MOUNT),
            ("/sys/fs/cgroup/memory/docker/ab12/memory.limit_in_bytes", "134217728\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(limit_of(&files), Some(128 * MIB));
        files.remove(2);
        assert_eq!(limit_of(&files), None, "what says no limit is none");
    }

    #[test]
    fn version_1_in_a_container_whose_mount_begins_at_its_group() {
        let mounts =
            "55 50 0:32 /docker/ab12 /sys/fs/cgroup/memory ro master:9 - cgroup cgroup rw,memory\n";
        let limit = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        let inner = "/sys/fs/cgroup/memory/job/memory.limit_in_bytes";
        let files = [
            (GROUPS, "4:memory:/docker/ab12/job\n"),
            (MOUNTS, mounts),
            (limit, "268435456\n"),
            (inner, "33554432\n"),
        ];
        assert_eq!(limit_of(&files), Some(32 * MIB));
        let files = [(GROUPS, "4:memory:/docker/ab12\n"), (MOUNTS, mounts), (limit, "268435456\n")];
        assert_eq!(limit_of(&files), Some(256 * MIB));
    }

    #[test]
    fn both_versions_at_once() {
        let mounts = format!(
            "{V1_MOUNT}41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
        );
        let files = [
            (GROUPS, "4:memory:/job\n0::/job\n"),
            (MOUNTS, mounts.as_str()),
            ("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "134217728\n"),
        ];
        assert_eq!(limit_of(&files), Some(128 * MIB));
    }

    #[test]
    fn a_mount_point_with_a_blank() {
        let mounts = "30 23 0:26 / /my\\040groups rw - cgroup2 none rw\n";
        let files =
            [(GROUPS, "0::/a:b\n"), (MOUNTS, mounts), ("/my groups/a:b/memory.max", "1048576\n")];
        assert_eq!(limit_of(&files), Some(MIB));
    }

    #[test]
    fn lines_that_nobody_understands_are_passed_over() {
        for line in ["", "no dash", "1 2 3 - cgroup2", "1 2 3 /\\9 /x - cgroup2 a b", " - "] {
            assert_eq!(Mount::parse(line), None, "{line}");
        }
        for text in ["", "-1", "12 MiB", "99999999999999999999999", "nan"] {
            assert_eq!(parse_limit(text), None, "{text}");
        }
        assert_eq!(parse_limit("0\n"), Some(Bytes::ZERO));
    }

    #[test]
    fn the_memory_of_the_machine() {
        let of = |text: &'static str| machine_memory(&|_| Some(text.into())).map(Bytes::get);
        assert_eq!(of("MemTotal:       24684092 kB\nMemFree: 1 kB\n"), Some(24_684_092 << 10));
        assert_eq!(of("MemFree: 1 kB\n"), None);
        assert_eq!(of("MemTotal: many kB\n"), None);
        assert_eq!(machine_memory(&|_| None), None);
    }
}
