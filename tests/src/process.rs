//! A child process: killed by its pid, never left behind.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::skip::is_installed;

/// A running program whose error output goes to a log. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program whose whole output goes to the log.
    pub fn spawn(name: &str, command: Command, log: &Path) -> Result<Self> {
        Self::start(name, command, log, false)
    }

    /// Starts a program that is spoken to through pipes; its error output goes to the log.
    pub fn spawn_piped(name: &str, command: Command, log: &Path) -> Result<Self> {
        Self::start(name, command, log, true)
    }

    fn start(name: &str, command: Command, log: &Path, piped: bool) -> Result<Self> {
        let mut command = dying_with_us(command);
        let file = File::options().create(true).append(true).open(log).with_context(|| format!("log {}", log.display()))?;
        if piped {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        } else {
            command.stdin(Stdio::null()).stdout(file.try_clone()?);
        }
        let child = command.stderr(file).spawn().with_context(|| format!("start {name} ({command:?})"))?;
        Ok(Process { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The log's path.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The pipes of a program started with [`Process::spawn_piped`]; once.
    pub fn take_pipes(&mut self) -> (ChildStdin, ChildStdout) {
        (self.child.stdin.take().expect("piped, and taken once"), self.child.stdout.take().expect("piped, and taken once"))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid() as i32).expect("a child's pid is not 0");
        kill_process(pid, signal).with_context(|| format!("signal to {}", self.name))
    }

    /// Ends the process at once (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("kill {}", self.name))?;
        self.child.wait().with_context(|| format!("wait for {}", self.name))?;
        Ok(())
    }

    /// The exit status, if the process has ended.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("look at {}", self.name))
    }

    /// Waits until the process has ended by itself.
    pub fn wait(&mut self, at_most: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + at_most;
        loop {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} has not ended within {at_most:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same command, killed by the kernel if the test process dies first. `setpriv` replaces itself by the program, so the pid is the
/// program's own. (Asking the kernel ourselves would take unsafe code between fork and exec.)
pub fn dying_with_us(command: Command) -> Command {
    if !is_installed("setpriv") {
        return command;
    }
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    }
    wrapped
}

/// Runs a program to its end and gives its standard output; what it printed is part of the error if it fails.
pub fn output(command: Command) -> Result<String> {
    let mut command = dying_with_us(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?}: {}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}
