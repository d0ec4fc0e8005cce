//! The largest memory that this process has used, and how much is available.

/// Largest resident memory so far in bytes; None where the system does not report it (Linux does).
pub fn peak_bytes() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Bytes that this process can still get: what the system can free, swap included, within the limit of the process's
/// control group. None where the system does not report it.
pub fn available_bytes() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = free(&read("/proc/meminfo")?)?;
    let group = |limit: &str, used: &str, stat: &str| {
        let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
        // The page cache counts as used, but the system frees it when needed.
        let cached = field(&read(stat).unwrap_or_default(), "inactive_file ").unwrap_or(0);
        Some(number(limit)?.saturating_sub(number(used)?.saturating_sub(cached)))
    };
    const ROOT: &str = "/sys/fs/cgroup";
    let groups = [
        ["memory.max", "memory.current", "memory.stat"],
        ["memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"],
    ];
    let limits = groups.iter().filter_map(|names| {
        let [limit, used, stat] = names.map(|name| format!("{ROOT}/{name}"));
        group(&limit, &used, &stat)
    });
    limits.chain([machine]).min()
}

/// Available memory and free swap of `/proc/meminfo`, in bytes.
fn free(meminfo: &str) -> Option<u64> {
    let available = field(meminfo, "MemAvailable:")?;
    Some((available + field(meminfo, "SwapFree:").unwrap_or(0)) * 1024)
}

/// The number after a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_is_found() {
        assert_eq!(parse("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 3 kB\n"), Some(2 * 1024 * 1024));
        assert_eq!(parse("Name:\tx\n"), None);
    }

    #[test]
    fn free_memory_and_swap_are_added() {
        let text = "MemTotal:  900 kB\nMemAvailable:    300 kB\nSwapFree:  100 kB\n";
        assert_eq!(free(text), Some(400 * 1024));
        assert_eq!(free("MemAvailable: 3 kB\n"), Some(3 * 1024));
        assert_eq!(free("MemTotal: 3 kB\n"), None);
    }
}
