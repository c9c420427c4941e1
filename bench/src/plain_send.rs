//! `plain-send`: what loopback carries on this machine, from memory or by sendfile: the ruler for consumers.

use crate::{
    args::PlainSend,
    cold,
    load::Meter,
    process,
    report::{Cost, Report, Verified},
};
use anyhow::{Context, Result};
use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

/// Runs it. The report's own CPU is sender and receivers together.
///
/// # Errors
/// The network's.
pub fn run(args: &PlainSend) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let receivers: Vec<_> = (0..args.receivers.max(1))
        .map(|_| {
            let cpu = args.receiver_cpu;
            let mut stream = TcpStream::connect(address)?;
            Ok(std::thread::spawn(move || -> Result<u64> {
                process::pin(cpu)?;
                let (mut buffer, mut total) = (vec![0; 1 << 20], 0);
                loop {
                    match stream.read(&mut buffer)? {
                        0 => return Ok(total),
                        received => total += received as u64,
                    }
                }
            }))
        })
        .collect::<Result<_>>()?;
    let mut senders: Vec<TcpStream> =
        (0..receivers.len()).map(|_| listener.accept().map(|accepted| accepted.0)).collect::<Result<_, _>>()?;
    process::pin(args.cpu)?;
    if let Some(file) = args.file.as_ref().filter(|_| args.cold) {
        cold::evict(file)?;
    }
    let source = args.file.as_ref().map(File::open).transpose().context("opening the file to send")?;
    let file_bytes = source.as_ref().map(|file| file.metadata().map(|metadata| metadata.len())).transpose()?;
    let memory = vec![0x5a; args.send_bytes];
    let own_before = process::usage(None)?;
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(args.seconds);
    let mut positions = vec![0u64; senders.len()];
    let mut requests = 0;
    while Instant::now() < end && !(args.cold && positions.iter().all(|position| Some(*position) >= file_bytes)) {
        for (stream, position) in senders.iter_mut().zip(&mut positions) {
            match (&source, file_bytes) {
                (Some(file), Some(whole)) => {
                    anyhow::ensure!(whole > 0, "the file is empty");
                    if *position >= whole {
                        if args.cold {
                            continue;
                        }
                        *position = 0;
                    }
                    rustix::fs::sendfile(&*stream, file, Some(position), args.send_bytes)?;
                }
                _ => stream.write_all(&memory)?,
            }
            requests += 1;
        }
    }
    drop(senders);
    let mut bytes = 0;
    for receiver in receivers {
        bytes += receiver.join().map_err(|_| anyhow::anyhow!("a receiver failed"))??;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let cost = Cost { broker: None, own: (own_before, process::usage(None)?) };
    let mut meter = Meter::new()?;
    meter.count(true, requests, 0, bytes);
    Report::new("plain-send", seconds, &meter, &cost, Verified::default()).print(args.json)
}
