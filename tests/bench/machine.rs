//! What the operating system says: processor time, memory, the disk, and which core a process runs on.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde::Serialize;

/// The core that the server under test has to itself.
pub const SERVER_CORE: u32 = 0;
/// The core of everything else: the load generator, or what is measured within this process.
pub const OWN_CORE: u32 = 1;

/// Clock ticks of `/proc/PID/stat` a second; Linux fixes it for what it shows to programs.
const TICKS_PER_SECOND: f64 = 100.0;
/// A page, on the machines that this runs on.
const PAGE_BYTES: u64 = 4096;

/// Processor time of a process, all its threads, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// In the program.
    pub user_s: f64,
    /// In the kernel on its behalf.
    pub system_s: f64,
}

impl Cpu {
    /// What a process has used so far.
    pub fn of(process: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{process}/stat");
        let text = std::fs::read_to_string(&path).with_context(|| format!("{path}: did the process end?"))?;
        // The name of the command, in parentheses, may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let seconds = |index: usize| -> anyhow::Result<f64> {
            let ticks: f64 = fields.get(index).context("a short line")?.parse()?;
            Ok(ticks / TICKS_PER_SECOND)
        };
        Ok(Self { user_s: seconds(11)?, system_s: seconds(12)? })
    }

    /// What this process has used so far.
    pub fn own() -> anyhow::Result<Self> {
        Self::of(std::process::id())
    }

    /// What was used since an earlier look.
    pub fn since(self, earlier: Self) -> Self {
        Self { user_s: self.user_s - earlier.user_s, system_s: self.system_s - earlier.system_s }
    }

    /// Both together, in seconds.
    pub fn total_s(self) -> f64 {
        self.user_s + self.system_s
    }
}

/// Resident memory of a process, in bytes.
pub fn resident_bytes(process: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/statm"))?;
    let pages: u64 = text.split_whitespace().nth(1).context("a short line")?.parse()?;
    Ok(pages * PAGE_BYTES)
}

/// Keeps this process to its core, and lets it and its children open as many files as the system allows.
pub fn prepare() -> anyhow::Result<()> {
    ensure!(std::thread::available_parallelism()?.get() >= 2, "the server and the load generator need a core each");
    let own = std::process::id().to_string();
    run(Command::new("taskset").args(["-cp", &OWN_CORE.to_string(), &own]))?;
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let files = limits.lines().find(|line| line.starts_with("Max open files")).context("no limit of open files")?;
    let hard = files.split_whitespace().nth(4).context("no hard limit")?;
    run(Command::new("prlimit").args(["--pid", &own, &format!("--nofile={hard}:{hard}")]))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?} (of util-linux)"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// How long the disk takes to sync one block of a log that grows.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Disk {
    /// Half of the syncs are faster, in milliseconds.
    pub fdatasync_median_ms: f64,
    /// All but a hundredth are, in milliseconds.
    pub fdatasync_p99_ms: f64,
}

impl Disk {
    /// Measures in a folder.
    pub fn measure(folder: &Path, count: usize) -> anyhow::Result<Self> {
        let path = folder.join("fdatasync");
        let mut file = File::create(&path)?;
        // The size is there already, as that of a write-ahead log in use: a sync is of data only.
        file.write_all(&vec![0; 4096 * count])?;
        file.sync_all()?;
        file.seek(SeekFrom::Start(0))?;
        let mut times_ms = Vec::with_capacity(count);
        for _ in 0..count {
            let start = Instant::now();
            file.write_all(&[1; 4096])?;
            file.sync_data()?;
            times_ms.push(start.elapsed().as_secs_f64() * 1e3);
        }
        drop(file);
        std::fs::remove_file(path)?;
        times_ms.sort_by(f64::total_cmp);
        Ok(Self { fdatasync_median_ms: times_ms[count / 2], fdatasync_p99_ms: times_ms[count * 99 / 100] })
    }
}

/// One line: processor, cores, memory, kernel.
pub fn describe() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let cores = std::fs::read_to_string("/sys/devices/system/cpu/online").map_or_else(|_| "?".into(), |online| online.trim().to_owned());
    let memory_kib: u64 = field(&read("/proc/meminfo"), "MemTotal").split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{}, cores {cores}, {} GiB, Linux {}", field(&read("/proc/cpuinfo"), "model name"), memory_kib >> 20, kernel.trim())
}
