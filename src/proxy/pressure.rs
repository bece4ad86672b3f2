//! How full the memory of our cgroup is, for shedding load before the kernel kills us.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

/// Percent of the limit from which idle connections are given up.
const HIGH: u64 = 85;
/// Percent of the limit from which new requests are refused.
const CRITICAL: u64 = 95;
const INTERVAL: Duration = Duration::from_millis(250);

/// Percent of the memory limit in use, renewed four times a second; 0 without a limit.
#[derive(Debug, Default)]
pub struct Pressure(AtomicU8);

impl Pressure {
    /// Starts the thread that looks, if there is a limit. It ends when nobody holds the value.
    pub fn watch() -> Arc<Self> {
        let pressure = Arc::new(Pressure::default());
        let Some(cgroup) = Cgroup::find() else { return pressure };
        let watched = Arc::downgrade(&pressure);
        let look = move || {
            while let Some(pressure) = watched.upgrade() {
                pressure.0.store(cgroup.percent().unwrap_or(0), Relaxed);
                drop(pressure);
                std::thread::sleep(INTERVAL);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("pressure".into()).spawn(look) {
            tracing::warn!(%error, "memory pressure is not watched");
        }
        pressure
    }

    pub fn is_high(&self) -> bool {
        u64::from(self.0.load(Relaxed)) >= HIGH
    }

    pub fn is_critical(&self) -> bool {
        u64::from(self.0.load(Relaxed)) >= CRITICAL
    }
}

/// The files of our memory cgroup, version 2 or 1.
#[derive(Debug)]
struct Cgroup {
    limit: u64,
    current: PathBuf,
    stat: PathBuf,
    /// The cache that the kernel can take back at once, by its name in `stat`.
    reclaimable: &'static str,
}

impl Cgroup {
    /// The cgroup of a container is mounted at the root; outside of one the path of
    /// `/proc/self/cgroup` leads there.
    fn find() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let below = |controller: &str| {
            let line = own.lines().find(|l| l.split(':').nth(1) == Some(controller))?;
            Some(line.splitn(3, ':').nth(2)?.trim_start_matches('/').to_owned())
        };
        let v2 = ("/sys/fs/cgroup", below(""), "memory.max", "memory.current", "inactive_file");
        let v1 = (
            "/sys/fs/cgroup/memory",
            below("memory"),
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        );
        [v2, v1].into_iter().find_map(|(root, below, max, current, reclaimable)| {
            let dirs = [Path::new(root).join(below.unwrap_or_default()), root.into()];
            dirs.into_iter().find_map(|dir| {
                let limit = number(&dir.join(max))?;
                let (current, stat) = (dir.join(current), dir.join("memory.stat"));
                Some(Cgroup { limit, current, stat, reclaimable })
            })
        })
    }

    fn percent(&self) -> Option<u8> {
        let stat = fs::read_to_string(&self.stat).ok()?;
        let cache = stat
            .lines()
            .find_map(|line| line.strip_prefix(self.reclaimable)?.trim().parse::<u64>().ok());
        let used = number(&self.current)?.saturating_sub(cache.unwrap_or(0));
        u8::try_from((used.saturating_mul(100) / self.limit.max(1)).min(100)).ok()
    }
}

/// The number in a file; none for `max` and for version 1's "no limit".
fn number(path: &Path) -> Option<u64> {
    const NO_LIMIT: u64 = 1 << 60;
    let number = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    (number < NO_LIMIT).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_the_kernel_can_take_back_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let cgroup = Cgroup {
            limit: 1000,
            current: file("memory.current", "950\n"),
            stat: file("memory.stat", "anon 1\ninactive_file 200\n"),
            reclaimable: "inactive_file",
        };
        assert_eq!(cgroup.percent(), Some(75));
        assert_eq!(number(&file("memory.max", "max\n")), None);
    }
}
