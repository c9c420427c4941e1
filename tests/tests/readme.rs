//! The program of the README, as it stands there, against a broker started as the README says.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use thalweg_tests::broker::{Broker, Options};
use thalweg_tests::clients::kafkajs;
use thalweg_tests::namespace::{Network, with_free_ports};
use thalweg_tests::paths::workspace;
use thalweg_tests::process::Process;
use thalweg_tests::scratch::Scratch;
use thalweg_tests::wire::Wire;

/// A bound for a hang: the program's own pauses and a group's first rebalance lie within.
const WITHIN: Duration = Duration::from_secs(90);

#[test]
fn the_program_of_the_readme_gets_its_message_and_its_group_goes_on_after_a_restart() {
    thalweg_tests::run("readme", |scratch| {
        let modules = kafkajs()?;
        let options = Options::bare();
        let test = "the_program_of_the_readme_gets_its_message_and_its_group_goes_on_after_a_restart";
        if with_free_ports(test, 9092..9092 + options.cores)? == Network::RunElsewhere {
            return Ok(());
        }
        gets_its_message(scratch, options, &modules)
    });
}

fn gets_its_message(scratch: &Scratch, options: Options, modules: &Path) -> Result<()> {
    let program = program()?;
    for name in ["orders", "user-42", "fulfillment"] {
        ensure!(program.contains(name), "the program of the README names {name}");
    }
    let dir = scratch.path().join("newcomer");
    std::fs::create_dir_all(&dir)?;
    std::os::unix::fs::symlink(modules.join("node_modules"), dir.join("node_modules"))?;
    let file = dir.join(if program.contains("require(") { "orders.cjs" } else { "orders.mjs" });
    std::fs::write(&file, program)?;

    let mut broker = Broker::start(scratch, options)?;
    let first = messages_of_a_run(scratch, &broker, &file, 1)?;
    broker.stop()?;
    broker.launch()?;
    let second = messages_of_a_run(scratch, &broker, &file, 2)?;
    ensure!(first.len() == 1, "the first run printed {first:?}");
    ensure!(second.len() == 1, "the group did not go on where it was: the second run printed {second:?}");
    Ok(())
}

/// The README's first JavaScript block that uses kafkajs.
fn program() -> Result<String> {
    let readme = std::fs::read_to_string(workspace().join("README.md")).context("README.md")?;
    let blocks = readme.split("```").skip(1).step_by(2);
    let mut programs = blocks.filter_map(|b| b.strip_prefix("js\n").or(b.strip_prefix("javascript\n")).or(b.strip_prefix("mjs\n")));
    programs.find(|b| b.contains("kafkajs")).map(str::to_owned).context("README.md has no JavaScript block that uses kafkajs")
}

/// Runs the program until its group has committed `committed` records and it has had time to print them (or has ended), and gives the
/// lines that show a message.
fn messages_of_a_run(scratch: &Scratch, broker: &Broker, file: &Path, committed: i64) -> Result<Vec<String>> {
    let mut node = Command::new("node");
    node.arg(file).current_dir(file.parent().context("a directory")?).env("KAFKAJS_NO_PARTITIONER_WARNING", "1");
    let mut process = Process::spawn_piped("node", node, &scratch.log("node"))?;
    let (_stdin, stdout) = process.take_pipes();
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let mut printed = Vec::new();
    let deadline = Instant::now() + WITHIN;
    loop {
        take_messages(&lines, &mut printed);
        let ended = process.exited()?;
        if let Some(status) = ended {
            ensure!(status.success(), "the program ended with {status} after {printed:?}");
        }
        // Auto-created topics have one partition by default. Asking fails until the group exists.
        let so_far = Wire::committed(&broker.bootstrap(), "fulfillment", "orders", 0, Duration::from_secs(5)).unwrap_or(-1);
        if so_far == committed && !printed.is_empty() {
            break;
        }
        if Instant::now() > deadline || (ended.is_some() && printed.is_empty()) {
            bail!("the program printed {printed:?}, and its group has committed {so_far} of {committed}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // It may go on until it is interrupted, as the README says of it.
    if process.exited()?.is_none() {
        process.signal(Signal::INT)?;
        process.wait(WITHIN)?;
    }
    take_messages(&lines, &mut printed);
    Ok(printed)
}

fn take_messages(lines: &Receiver<String>, printed: &mut Vec<String>) {
    printed.extend(lines.try_iter().filter(|line| line.contains("user-42")));
}
