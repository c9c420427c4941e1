//! Programs that are started, waited for and ended by their pid; none outlives this one.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// How long a clean stop may take before the process is killed.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// A command on certain CPUs, killed by the kernel if we die first.
#[must_use]
pub fn pinned(cpus: &[usize], program: &Path) -> Command {
    let list = cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "taskset", "--cpu-list", &list]).arg(program);
    command
}

/// A program that runs. Dropping it kills it.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a program; what it prints goes to the end of the log.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(mut command: Command, log: &Path) -> Result<Running> {
        let file = File::options().create(true).append(true).open(log).with_context(|| format!("{}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("starting {command:?} (taskset and setpriv are in util-linux)"))?;
        Ok(Running { child, log: log.to_owned() })
    }

    /// Its pid: setpriv and taskset replace themselves by the program.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// The program ends, or time is up.
    pub fn wait_until(&mut self, within: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + within;
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("the broker ended at its start ({status}); its log ends so:\n{}", self.log_tail());
            }
            ensure!(Instant::now() < deadline, "the broker is not ready after {} s:\n{}", within.as_secs(), self.log_tail());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Asks it to end, and kills it if it does not.
    ///
    /// # Errors
    /// The kernel's.
    pub fn stop(mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            anyhow::bail!("the broker ended by itself ({status}):\n{}", self.log_tail());
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let deadline = Instant::now() + STOP_WITHIN;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(2_000)..]).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end and gives what it printed.
///
/// # Errors
/// It can't be started, or it fails: with what it printed.
pub fn output(mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("running {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command:?}: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

/// True if a program stands in one of the directories of `PATH`.
#[must_use]
pub fn is_installed(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|directory| directory.join(program).is_file())
}
