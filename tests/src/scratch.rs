//! A directory for one test: its data is always removed, its logs are printed and kept when the test fails.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::paths;

/// How much of the end of each log a failure prints, in bytes. The whole of it is kept.
const LOG_TAIL_BYTES: usize = 12 * 1024;

/// A directory for one test, on a real disk under `target`.
pub struct Scratch {
    name: String,
    dir: Option<TempDir>,
}

impl Scratch {
    /// An empty directory whose name begins with `name`.
    pub fn new(name: &str) -> Result<Self> {
        let parent = paths::downloads().join("run");
        std::fs::create_dir_all(&parent).context("run directory")?;
        let dir = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(&parent).context("scratch directory")?;
        std::fs::create_dir(dir.path().join("logs"))?;
        Ok(Scratch { name: name.to_owned(), dir: Some(dir) })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.as_ref().expect("taken in drop only").path()
    }

    /// Where the logs of processes go.
    pub fn logs(&self) -> PathBuf {
        self.path().join("logs")
    }

    /// A log file's path that no one has used yet: `NAME.log`, `NAME.2.log`, and so on.
    pub fn log(&self, name: &str) -> PathBuf {
        let path = |n: usize| self.logs().join(if n == 1 { format!("{name}.log") } else { format!("{name}.{n}.log") });
        (1..).map(path).find(|p| !p.exists()).expect("an unused number")
    }

    fn print_logs(&self) {
        let Ok(entries) = std::fs::read_dir(self.logs()) else { return };
        let mut logs: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        logs.sort();
        for log in logs {
            let text = std::fs::read(&log).unwrap_or_default();
            let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned();
            if !tail.trim().is_empty() {
                eprintln!("---- {} ({} bytes) ----\n{tail}", log.file_name().unwrap_or_default().to_string_lossy(), text.len());
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(dir) = self.dir.take() else { return };
        if !std::thread::panicking() {
            return;
        }
        self.dir = Some(dir);
        self.print_logs();
        let kept = paths::downloads().join("failed").join(&self.name);
        let _ = std::fs::remove_dir_all(&kept);
        if std::fs::create_dir_all(&kept).is_ok() && std::fs::rename(self.logs(), kept.join("logs")).is_ok() {
            eprintln!("the logs are kept in {}", kept.display());
        }
    }
}
