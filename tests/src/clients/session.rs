//! A running client program.

use std::io::{BufRead, BufReader, Write};
use std::process::ChildStdin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Consume, Event, Family, Produce, Task};
use crate::process::Process;
use crate::records::Record;
use crate::scratch::Scratch;

/// How long a client may be silent when something is expected of it: a bound for a hang.
pub const SILENCE_MAX: Duration = Duration::from_secs(150);

/// A client process, and everything it has reported so far.
pub struct Session {
    name: String,
    process: Process,
    stdin: Option<ChildStdin>,
    events: Receiver<Event>,
    /// Every ack so far.
    pub acked: Vec<Record>,
    /// Every record read so far, in the order of reading.
    pub read: Vec<Record>,
    /// The partitions held now; `None` before the first assignment.
    pub assigned: Option<Vec<i32>>,
    /// Whether the program has said that it ended cleanly.
    pub done: bool,
}

impl Session {
    /// Starts a producer.
    pub fn produce(scratch: &Scratch, family: Family, task: Produce) -> Result<Self> {
        Self::start(scratch, family, &format!("{}-produce", family.name()), &Task::Produce(task))
    }

    /// Starts a consumer.
    pub fn consume(scratch: &Scratch, family: Family, task: Consume) -> Result<Self> {
        Self::start(scratch, family, &format!("{}-consume", family.name()), &Task::Consume(task))
    }

    fn start(scratch: &Scratch, family: Family, name: &str, task: &Task) -> Result<Self> {
        let mut command = family.command()?;
        command.arg(serde_json::to_string(task)?);
        let mut process = Process::spawn_piped(name, command, &scratch.log(name))?;
        let (stdin, stdout) = process.take_pipes();
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in BufReader::with_capacity(1 << 16, stdout).lines().map_while(Result::ok) {
                // A line that isn't ours (a library that prints) is reported rather than lost.
                let event = serde_json::from_str(&line).unwrap_or(Event::Note { m: line });
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let (acked, read) = (Vec::new(), Vec::new());
        Ok(Session { name: name.to_owned(), process, stdin: Some(stdin), events, acked, read, assigned: None, done: false })
    }

    /// Waits for the next event, for at most `at_most`, and takes it in; false if there was none.
    pub fn step(&mut self, at_most: Duration) -> Result<bool> {
        match self.events.recv_timeout(at_most) {
            Ok(event) => self.take(event).map(|()| true),
            Err(RecvTimeoutError::Timeout) => Ok(false),
            Err(RecvTimeoutError::Disconnected) if self.done => Ok(false),
            Err(RecvTimeoutError::Disconnected) => bail!("{} ended without a word (its log: {})", self.name, self.process.log().display()),
        }
    }

    /// Takes in everything that has been reported by now.
    pub fn drain(&mut self) -> Result<()> {
        while let Ok(event) = self.events.try_recv() {
            self.take(event)?;
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Ack(record) => self.acked.push(record),
            Event::Rec(record) => self.read.push(record),
            Event::Assigned { ps } => self.assigned = Some(ps),
            Event::Error { m } => bail!("{} reports: {m}", self.name),
            Event::Note { m } => eprintln!("{}: {m}", self.name),
            Event::Done => self.done = true,
            Event::Ready => {}
        }
        Ok(())
    }

    /// Takes in events until `enough`; an error if the client falls silent before.
    pub fn until(&mut self, what: &str, enough: impl Fn(&Session) -> bool) -> Result<()> {
        let mut heard = Instant::now();
        while !enough(self) {
            if self.step(Duration::from_millis(100))? {
                heard = Instant::now();
            }
            ensure!(
                heard.elapsed() < SILENCE_MAX,
                "{} was silent for {SILENCE_MAX:?} while it should: {what} ({} acked, {} read, holds {:?})",
                self.name,
                self.acked.len(),
                self.read.len(),
                self.assigned
            );
        }
        Ok(())
    }

    /// Asks the client to end cleanly, without waiting.
    pub fn ask_to_stop(&mut self) {
        // Closing the pipe is what the clients wait for; one that has ended already doesn't mind.
        if let Some(mut stdin) = self.stdin.take() {
            let _ = stdin.write_all(b"stop\n");
        }
    }

    /// Waits until the client has ended cleanly.
    pub fn finish(&mut self) -> Result<()> {
        self.until("end", |s| s.done)?;
        self.stdin = None;
        self.process.wait(SILENCE_MAX).context("end of a client")?;
        Ok(())
    }

    /// Ends the client cleanly.
    pub fn stop(&mut self) -> Result<()> {
        self.ask_to_stop();
        self.finish()
    }

    /// Ends the client with SIGKILL; what it had reported is taken in.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        // The reader thread sees the pipe's end at once, and everything before it.
        while let Ok(event) = self.events.recv() {
            self.take(event)?;
        }
        Ok(())
    }
}

/// Pumps several clients until `enough` says so of all of them together; `SILENCE_MAX` without any event is an error.
pub fn pump(sessions: &mut [&mut Session], what: &str, enough: impl Fn(&[&mut Session]) -> bool) -> Result<()> {
    let mut heard = Instant::now();
    while !enough(sessions) {
        let before = progress(sessions);
        for session in sessions.iter_mut() {
            session.drain()?;
        }
        if progress(sessions) != before {
            heard = Instant::now();
        } else {
            std::thread::sleep(Duration::from_millis(5));
            for session in sessions.iter_mut().filter(|s| !s.done) {
                if let Some(status) = session.process.exited()? {
                    session.drain()?;
                    ensure!(session.done, "{} ended: {status}", session.name);
                }
            }
        }
        if heard.elapsed() > SILENCE_MAX {
            let states: Vec<String> = sessions
                .iter()
                .map(|s| format!("{}: {} acked, {} read, holds {:?}", s.name, s.acked.len(), s.read.len(), s.assigned))
                .collect();
            bail!("all clients were silent for {SILENCE_MAX:?} while they should: {what}\n  {}", states.join("\n  "));
        }
    }
    Ok(())
}

fn progress(sessions: &[&mut Session]) -> (usize, Vec<Option<Vec<i32>>>, usize) {
    let counted = sessions.iter().map(|s| s.acked.len() + s.read.len()).sum();
    let assigned = sessions.iter().map(|s| s.assigned.clone()).collect();
    (counted, assigned, sessions.iter().filter(|s| s.done).count())
}
