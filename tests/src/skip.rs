//! Running a claim: logs are printed when it fails, and what this machine can't do is skipped with its reason.

use std::fmt;
use std::path::Path;

use anyhow::Result;

use crate::scratch::Scratch;

/// Why a claim can't be tested on this machine. Where `CI=true` it is a failure, so that nothing goes untested unseen.
#[derive(Debug)]
pub struct Skip(String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// The error that ends a test without a verdict.
pub fn skip(reason: impl Into<String>) -> anyhow::Error {
    Skip(reason.into()).into()
}

/// Ends the test without a verdict if one of these programs isn't installed; `package` says what to install.
pub fn require(programs: &[&str], package: &str) -> Result<()> {
    match programs.iter().find(|p| !is_installed(p)) {
        Some(missing) => Err(skip(format!("`{missing}` is not installed ({package})"))),
        None => Ok(()),
    }
}

/// Whether a program stands in one of the directories of `PATH`, or where an administrator's programs stand.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let administration = ["/usr/sbin", "/sbin"].map(|p| Path::new(p).to_owned());
    std::env::split_paths(&path).chain(administration).any(|dir| dir.join(program).is_file())
}

/// Whether the test runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs one claim in a scratch directory of its own, and panics with everything one needs to see if it doesn't hold.
pub fn run(name: &str, claim: impl FnOnce(&Scratch) -> Result<()>) {
    let scratch = Scratch::new(name).expect("a scratch directory under target");
    let Err(error) = claim(&scratch) else { return };
    if let Some(reason) = error.downcast_ref::<Skip>() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{name} must not be skipped in CI: {reason}");
        eprintln!("skipped {name}: {reason}");
        return;
    }
    panic!("{name}: {error:#}");
}
