//! Programs that are started, waited for and ended by their pid; none outlives this one.

use super::interrupt;
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How often is looked whether a program has ended.
const TURN: Duration = Duration::from_millis(20);

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
            interrupt::check()?;
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
            std::thread::sleep(TURN);
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
    let what = format!("{command:?}");
    command.stderr(Stdio::piped());
    let output = finish(command)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{what}: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

/// Waits for a program and gathers what it prints; standard error only where the command pipes it. A signal to us ends it.
///
/// # Errors
/// It can't be started, or a signal came.
pub fn finish(mut command: Command) -> Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("running {command:?}"))?;
    let (out, err) = (gather(child.stdout.take()), gather(child.stderr.take()));
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if let Err(interrupted) = interrupt::check() {
            let _ = child.kill();
            let _ = child.wait();
            return Err(interrupted);
        }
        std::thread::sleep(TURN);
    };
    let gathered = |reader: JoinHandle<Vec<u8>>| reader.join().unwrap_or_default();
    Ok(Output { status, stdout: gathered(out), stderr: gathered(err) })
}

/// Reads all that a pipe brings, so that the program is never held up by a full one.
fn gather(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// True if a program stands in one of the directories of `PATH`.
#[must_use]
pub fn is_installed(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|directory| directory.join(program).is_file())
}
