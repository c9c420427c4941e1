//! Where things are: the workspace, the directory of downloads, the broker under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests stand in the workspace").to_owned()
}

/// The sources of the client programs.
pub fn client_sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// `target/PROFILE` of the running test.
fn profile() -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows its own path");
    let dir = exe.parent().expect("an executable stands in a directory");
    if dir.ends_with("deps") { dir.parent().expect("deps stands in the profile").to_owned() } else { dir.to_owned() }
}

/// What tests download and write: `target/thalweg-tests`, which is on a real disk, since the broker wants O_DIRECT.
pub fn downloads() -> PathBuf {
    let dir = profile().parent().expect("a profile stands in target").join("thalweg-tests");
    std::fs::create_dir_all(&dir).expect("target is writable");
    dir
}

/// An executable of this workspace, in the profile of the running test. It is built first if it is missing or older than its sources:
/// cargo builds the programs of another package for a test of the whole workspace only. `THALWEG_BIN_DIR` names a directory of programs
/// that are taken as they are.
pub fn binary(package: &str, name: &str) -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("THALWEG_BIN_DIR") {
        return Ok(Path::new(&dir).join(name));
    }
    let path = profile().join(name);
    if is_stale(&path) {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(workspace()).args(["build", "--quiet", "--package", package, "--bin", name]);
        if profile().ends_with("release") {
            command.arg("--release");
        }
        let status = command.status().context("cargo build")?;
        ensure!(status.success(), "cargo could not build {name}: {status}");
    }
    Ok(path)
}

/// The broker under test.
pub fn thalweg() -> Result<PathBuf> {
    static PATH: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = PATH.get_or_init(|| binary("server", "thalweg").map_err(|e| format!("{e:#}")));
    found.clone().map_err(anyhow::Error::msg)
}

/// Whether the executable is missing or older than one of the sources that cargo's dependency file beside it names.
fn is_stale(path: &Path) -> bool {
    let modified = |p: &Path| std::fs::metadata(p).and_then(|m| m.modified());
    let (Ok(built), Ok(dependencies)) = (modified(path), std::fs::read_to_string(path.with_extension("d"))) else { return true };
    let sources = dependencies.split_once(": ").map_or("", |(_, sources)| sources);
    sources.split_whitespace().any(|source| modified(Path::new(source)).unwrap_or(SystemTime::now()) > built)
}
