//! Users of services: when root runs Palisade, each service is a user of its own, so that services are apart for the kernel's oldest
//! checks too, whatever becomes of their namespaces.
//!
//! The ids are beyond those of people and of ordinary container tools (systemd, "Users, Groups, UIDs and GIDs": 0x70000000 to 0x7FFFFFFE
//! are nobody's). In a container that has fewer ids the ones from 61184 are taken, which systemd there keeps for short-lived users. When
//! Palisade is not root there is one user, and this says so.
//!
//! Guarantees: I1, I11 in part: no service may signal, trace or read another by being the same user.
//! Not here:   becoming that user (`sandbox`).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where ranges may begin, the best first.
const BASES: [u32; 2] = [0x7000_0000, 61_184];
/// Services of one system at most; a range holds as many.
const SERVICES_MAX: u32 = 4096;
/// What a profile says where it is without effect (`nobody`).
const UNUSED: u32 = 65_534;

/// Users and groups of this process's user namespace, as `/proc/self/uid_map` says them: first id and how many, of each extent.
fn extents(map: &str) -> Vec<(u32, u32)> {
    let extent = |line: &str| {
        let mut fields = line.split_whitespace();
        let first = fields.next()?.parse().ok()?;
        Some((first, fields.nth(1)?.parse().ok()?))
    };
    map.lines().filter_map(extent).collect()
}

/// Where a range of `SERVICES_MAX` ids begins that both maps hold.
fn base(uid_map: &str, gid_map: &str) -> Option<u32> {
    let holds = |map: &str, base: u32| {
        let end = base.saturating_add(SERVICES_MAX);
        extents(map).iter().any(|(first, count)| *first <= base && first.saturating_add(*count) >= end)
    };
    BASES.into_iter().find(|base| holds(uid_map, *base) && holds(gid_map, *base))
}

/// An id for each service, by its place among the names.
///
/// # Errors
/// When this process is root and its user namespace has no ids to give, or there are more services than ids.
pub fn of_services<'a>(names: impl Iterator<Item = &'a str>) -> io::Result<BTreeMap<String, u32>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(names.map(|name| (name.to_owned(), UNUSED)).collect());
    }
    let (uids, gids) = (fs::read_to_string("/proc/self/uid_map")?, fs::read_to_string("/proc/self/gid_map")?);
    let none = "root of this user namespace has no other users to give to services; run Palisade as an ordinary user, or map more ids";
    let base = base(&uids, &gids).ok_or_else(|| io::Error::other(none))?;
    let ids: BTreeMap<String, u32> = names.zip(base..base.saturating_add(SERVICES_MAX)).map(|(name, id)| (name.to_owned(), id)).collect();
    Ok(ids)
}

/// Gives a service's folder and all that is in it to `id`, if it is another's: an earlier version gave all to one user, and a service that
/// comes or goes moves the others. Only root can, and only while none of the system's services runs. Links are not followed.
///
/// # Errors
/// Those of the file system.
pub fn take_over(folder: &Path, id: u32) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() || fs::symlink_metadata(folder)?.uid() == id {
        return Ok(());
    }
    let mut folders = vec![folder.to_path_buf()];
    let mut next = 0;
    while let Some(at) = folders.get(next).cloned() {
        next = next.saturating_add(1);
        for entry in fs::read_dir(&at)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                std::os::unix::fs::lchown(entry.path(), Some(id), Some(id))?;
            }
        }
    }
    // The top last: as long as it is not given, all of this is done again.
    folders.iter().rev().try_for_each(|folder| std::os::unix::fs::lchown(folder, Some(id), Some(id)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn a_range_is_taken_only_where_every_id_of_it_exists() {
        let all = "         0          0 4294967295\n";
        let container = "0 100000 65536\n";
        assert_eq!(base(all, all), Some(0x7000_0000));
        assert_eq!((base(container, container), base(all, container), base(container, all)), (Some(61_184), Some(61_184), Some(61_184)));
        assert_eq!(base("0 1000 1\n", "0 1000 1\n"), None, "root of a namespace with one user");
        let last = 61_184 + SERVICES_MAX;
        let (enough, few) = (format!("0 5 {last}\n"), format!("0 5 {}\n", last - 1));
        assert_eq!((base(&enough, &enough), base(&enough, &few)), (Some(61_184), None));
    }

    #[test]
    fn each_service_is_a_user_of_its_own_when_root_runs_them() {
        let ids = of_services(["api", "web"].into_iter()).unwrap();
        let root = rustix::process::geteuid().is_root();
        assert_eq!(ids["api"] != ids["web"], root);
        assert!(ids.values().all(|id| *id != 0));
    }

    #[test]
    fn a_folder_is_given_whole_and_links_are_not_followed() {
        if !rustix::process::geteuid().is_root() {
            return; // Only root can give.
        }
        let at = tempfile::tempdir().unwrap();
        let (folder, outside) = (at.path().join("state"), at.path().join("outside"));
        fs::create_dir_all(folder.join("deep")).unwrap();
        fs::write(&outside, "").unwrap();
        fs::write(folder.join("deep/file"), "").unwrap();
        std::os::unix::fs::symlink(&outside, folder.join("link")).unwrap();
        take_over(&folder, 0x7000_0001).unwrap();
        for path in ["", "deep", "deep/file", "link"] {
            assert_eq!(fs::symlink_metadata(folder.join(path)).unwrap().uid(), 0x7000_0001, "{path}");
        }
        assert_eq!(fs::metadata(&outside).unwrap().uid(), 0);
    }
}
